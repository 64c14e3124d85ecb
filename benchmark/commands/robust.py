"""`bench robust`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import AsJson

robust_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class By(StrEnum):
    CORRUPTION = "corruption"
    SEVERITY = "severity"


class Format(StrEnum):
    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


@robust_app.command(cls=reading.ReadingCommand)
def robust(
    runs: reading.Runs = Path("runs"),
    dataset: reading.Datasets = None,
    ipc: reading.Ipcs = None,
    protocol: reading.Protocols = None,
    student: reading.Students = None,
    by: Annotated[
        By | None, typer.Option("--by", help="Instead of the drop, accuracy under each corruption or severity.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TERMINAL,
    as_json: AsJson = False,
) -> None:
    """Show how far accuracy falls from the dataset's own test images to shifted ones, beside `random` at equal IPC.

    One table per shifted test set and leaderboard; students are looked at on them by `bench run --test-on` and
    `bench eval --test-on`. What each set is and does not say: docs/robustness.md.
    """
    from ddbench.reports.output import files
    from ddbench.reports.robustness import text
    from ddbench.reports.robustness.table import build

    report = build(reading.read_filtered(runs, dataset, ipc, protocol, student))
    part: text.By | None = None if by is None else ("corruption" if by == By.CORRUPTION else "severity")
    match Format.JSON if as_json else format:
        case Format.TERMINAL:
            text.print_terminal(report, reading.console(), part)
        case Format.MARKDOWN:
            sys.stdout.write(text.markdown(report, part))
        case Format.CSV:
            from ddbench.reports.robustness.frames import robustness_frame

            sys.stdout.write(files.as_csv(robustness_frame(report)))
        case Format.JSON:
            sys.stdout.write(files.as_json(report))
