"""`bench figures`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.core.errors import UsageError

figures_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Width(StrEnum):
    COLUMN = "column"
    PAGE = "page"


@figures_app.command(cls=reading.ReadingCommand)
def figures(
    runs: reading.Runs = Path("runs"),
    to: Annotated[Path, typer.Option("--to", help="Folder for the figures.", file_okay=False)] = Path("figures"),
    width: Annotated[
        Width, typer.Option("--width", help="3.25 inches, a column of a paper, or 6.75, its page.")
    ] = Width.COLUMN,
    dataset: reading.Datasets = None,
    ipc: reading.Ipcs = None,
    protocol: reading.Protocols = None,
    student: reading.Students = None,
) -> None:
    """Draw figures for a paper, as SVG and PDF.

    Accuracy by method, against the time to distill and against IPC, and published numbers against ours.
    """
    if to.exists() and not to.is_dir():
        raise UsageError(f"--to {to}: expected a folder, and it is a file")
    from ddbench.reports.output.figures.draw import draw_all
    from ddbench.reports.tables.leaderboard import build

    files, missing = draw_all(build(reading.read_filtered(runs, dataset, ipc, protocol, student)), to, width)
    if not files:
        raise UsageError(f"nothing to draw: {runs} has no finished students (`bench status`)")
    for file in files:
        typer.echo(file)
    for reason in missing:
        typer.echo(f"not drawn · {reason}", err=True)
