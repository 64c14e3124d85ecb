"""`bench leaderboard`, `bench compare` and `bench status`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ddbench.benchmark.errors import UsageError
from ddbench.benchmark.run_spec import integers, split_outside_brackets
from ddbench.reports import rows
from ddbench.reports.rows import Filters, Results

leaderboard_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
compare_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
status_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

PIPE_WIDTH = 160
"""Columns of output that is no terminal and says nothing of its width."""


class Format(StrEnum):
    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


Out = Annotated[Path, typer.Option("--out", help="Results folder.")]
Datasets = Annotated[str | None, typer.Option("--dataset", "-d", help="Only these datasets, separated by commas.")]
Ipcs = Annotated[str | None, typer.Option("--ipc", help="Only these images per class: 1,10 or 1-3.")]
Protocols = Annotated[str | None, typer.Option("--protocol", help="Only these protocols: quick, or name@version.")]
Students = Annotated[str | None, typer.Option("--student", help="Only these student networks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable.")]


@leaderboard_app.command()
def leaderboard(
    out: Out = Path("runs"),
    dataset: Datasets = None,
    ipc: Ipcs = None,
    protocol: Protocols = None,
    student: Students = None,
    format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TERMINAL,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Also the best look at the test set, as papers report.")] = False,
) -> None:
    """Rank the methods of a results folder.

    One table per dataset, split, IPC, protocol and student; ties are shown as ties, unfinished rows below finished.
    """
    from ddbench.reports import formats
    from ddbench.reports.leaderboard import build

    board = build(_read(out, dataset, ipc, protocol, student))
    match Format.JSON if as_json else format:
        case Format.TERMINAL:
            formats.print_terminal(board, _console(), best=best)
        case Format.MARKDOWN:
            sys.stdout.write(formats.markdown(board, best=best))
        case Format.CSV:
            sys.stdout.write(formats.as_csv(board))
        case Format.JSON:
            sys.stdout.write(formats.as_json(board))


@compare_app.command()
def compare(
    methods: Annotated[
        list[str], typer.Argument(metavar="A B…", help="Two or more methods, as leaderboards call them.")
    ],
    out: Out = Path("runs"),
    dataset: Datasets = None,
    ipc: Ipcs = None,
    protocol: Protocols = None,
    student: Students = None,
    margin: Annotated[float, typer.Option("--margin", help="Points within which two methods count as equal.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Compare the first method with each of the others: difference, interval, equivalence, and what could be seen."""
    from ddbench.reports import compare_text
    from ddbench.reports.compare import compare_methods

    found = compare_methods(_read(out, dataset, ipc, protocol, student), methods, margin)
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=1) + "\n")
    else:
        compare_text.print_terminal(found, _console())


@status_app.command()
def status(
    out: Out = Path("runs"),
    dataset: Datasets = None,
    ipc: Ipcs = None,
    protocol: Protocols = None,
    student: Students = None,
    as_json: AsJson = False,
) -> None:
    """What was asked for and where each cell stands: progress, attempts, failures and their reasons."""
    from ddbench.reports import status as report

    found = report.build(_read(out, dataset, ipc, protocol, student))
    if as_json:
        sys.stdout.write(report.as_json(found))
    else:
        report.print_terminal(found, _console())


def _read(out: Path, dataset: str | None, ipc: str | None, protocol: str | None, student: str | None) -> Results:
    try:
        ipcs = tuple(integers(ipc)) if ipc else ()
    except ValueError as error:
        raise UsageError(f"--ipc: {error}") from error
    filters = Filters(datasets=_names(dataset), ipcs=ipcs, protocols=_names(protocol), students=_names(student))
    return filters.apply(rows.read(out))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(split_outside_brackets(text or ""))


def _console() -> Console:
    """Standard output as it is now; wide where it is no terminal, so that files and pipes get whole tables."""
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if terminal else PIPE_WIDTH, highlight=False)
