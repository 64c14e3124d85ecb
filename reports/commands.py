"""`bench leaderboard`, `bench compare` and `bench status`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ddbench.benchmark.errors import UsageError
from ddbench.benchmark.run_spec import integers, split_outside_brackets
from ddbench.benchmark.store import write_atomically
from ddbench.reports import rows
from ddbench.reports.rows import Filters, Results

if TYPE_CHECKING:
    from ddbench.reports.tables import Leaderboard

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
    LATEX = "latex"
    LATEX_WIDE = "latex-wide"
    """Methods × IPC, as papers print."""
    PARQUET = "parquet"


SUFFIXES = {
    ".md": Format.MARKDOWN,
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".tex": Format.LATEX,
    ".parquet": Format.PARQUET,
}


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
    format: Annotated[
        Format | None, typer.Option("--format", help="How to write it; latex-wide is methods × IPC, as papers print.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help=f"Write to this file; its suffix says how: {', '.join(SUFFIXES)}.", dir_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Also the best look at the test set, as papers report.")] = False,
    mean_rank: Annotated[
        bool, typer.Option("--mean-rank", help="Mean ranks over all these tables instead, and wins, ties and losses.")
    ] = False,
) -> None:
    """Rank the methods of a results folder.

    One table per dataset, split, IPC, protocol and student; ties are shown as ties, unfinished rows below finished.
    """
    from ddbench.reports.leaderboard import build

    chosen = _format(Format.JSON if as_json else format, to)
    if mean_rank and chosen not in (Format.TERMINAL, Format.JSON):
        raise UsageError(f"--mean-rank is written as terminal or json, not as {chosen}")
    board = build(read_filtered(out, dataset, ipc, protocol, student))
    if mean_rank:
        _mean_rank(board, chosen, to)
    elif chosen == Format.TERMINAL:
        from ddbench.reports.formats import print_terminal

        print_terminal(board, console(), best=best)
    else:
        _write(_rendered(board, chosen, best=best), to)


def _format(asked: Format | None, to: Path | None) -> Format:
    """How to write: as asked, else by the file's suffix, else for the terminal."""
    if to is None:
        if asked == Format.PARQUET:
            raise UsageError("--format parquet is not text: name a file with --to FILE.parquet")
        return asked or Format.TERMINAL
    by_suffix = SUFFIXES.get(to.suffix.lower())
    if by_suffix is None:
        raise UsageError(f"--to {to}: expected a file name that ends with {', '.join(SUFFIXES)}")
    if asked is None or asked == by_suffix:
        return by_suffix
    if by_suffix == Format.LATEX and asked == Format.LATEX_WIDE:
        return asked
    raise UsageError(f"--to {to}: its suffix says {by_suffix}, but --format says {asked}; give one of them")


def _rendered(board: Leaderboard, chosen: Format, *, best: bool) -> str | bytes:
    from ddbench.reports import formats

    match chosen:
        case Format.MARKDOWN:
            return formats.markdown(board, best=best)
        case Format.CSV:
            return formats.as_csv(board)
        case Format.LATEX:
            from ddbench.reports import latex

            return latex.tables(board, best=best)
        case Format.LATEX_WIDE:
            from ddbench.reports import latex

            return latex.wide(board)
        case Format.PARQUET:
            from ddbench.reports.parquet import as_parquet

            return as_parquet(board)
        case _:
            return formats.as_json(board)


def _write(content: str | bytes, to: Path | None) -> None:
    if to is None:
        assert isinstance(content, str)
        sys.stdout.write(content)
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(to, content)


def _mean_rank(board: Leaderboard, chosen: Format, to: Path | None) -> None:
    from ddbench.reports import mean_rank, mean_rank_text

    found = mean_rank.mean_ranks(board.tables)
    if not found.methods:
        raise UsageError(
            "--mean-rank: no two methods have students of one seed in one table; `bench status` lists them"
        )
    if chosen == Format.JSON:
        _write(found.model_dump_json(indent=1) + "\n", to)
    else:
        mean_rank_text.print_terminal(found, console())


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

    found = compare_methods(read_filtered(out, dataset, ipc, protocol, student), methods, margin)
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=1) + "\n")
    else:
        compare_text.print_terminal(found, console())


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

    found = report.build(read_filtered(out, dataset, ipc, protocol, student))
    if as_json:
        sys.stdout.write(report.as_json(found))
    else:
        report.print_terminal(found, console())


def read_filtered(
    out: Path, dataset: str | None, ipc: str | None, protocol: str | None, student: str | None
) -> Results:
    return filters_of(dataset, ipc, protocol, student).apply(rows.read(out))


def filters_of(dataset: str | None, ipc: str | None, protocol: str | None, student: str | None) -> Filters:
    try:
        ipcs = tuple(integers(ipc)) if ipc else ()
    except ValueError as error:
        raise UsageError(f"--ipc: {error}") from error
    return Filters(datasets=_names(dataset), ipcs=ipcs, protocols=_names(protocol), students=_names(student))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(split_outside_brackets(text or ""))


def console() -> Console:
    """Standard output as it is now; wide where it is no terminal, so that files and pipes get whole tables."""
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if terminal else PIPE_WIDTH, highlight=False)
