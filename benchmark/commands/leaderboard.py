"""`bench leaderboard`."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import write_atomically

if TYPE_CHECKING:
    from ddbench.reports.results.rows import Results
    from ddbench.reports.tables.views import Leaderboard

leaderboard_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class By(StrEnum):
    COST = "cost"
    BYTES = "bytes"


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


@leaderboard_app.command(cls=reading.ReadingCommand)
def leaderboard(
    runs: reading.Runs = Path("runs"),
    dataset: reading.Datasets = None,
    ipc: reading.Ipcs = None,
    protocol: reading.Protocols = None,
    student: reading.Students = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="How to write it; latex-wide is methods × IPC, as papers print.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help=f"Write to this file; its suffix says how: {', '.join(SUFFIXES)}.", dir_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Also the best look at the test set, as papers report.")] = False,
    by: Annotated[
        By | None,
        typer.Option(
            "--by",
            help="Instead, accuracy against what it cost with the Pareto front: GPU or CPU hours of distilling and "
            "labelling, or bytes of images and labels.",
        ),
    ] = None,
    mean_rank: Annotated[
        bool, typer.Option("--mean-rank", help="Mean ranks over all these tables instead, and wins, ties and losses.")
    ] = False,
    how_many: Annotated[
        float | None,
        typer.Option(
            "--how-many",
            metavar="POINTS",
            help="Instead, how many sets and students show a difference of so many points, from what these methods "
            "vary by.",
        ),
    ] = None,
) -> None:
    """Rank the methods of a results folder.

    One table per dataset, split, IPC, protocol and student; rows by their means with the ranks that a test leaves
    them, unfinished rows below finished.
    """
    from ddbench.reports.tables.leaderboard import build

    chosen = _format(Format.JSON if as_json else format, to)
    if (by is not None) + mean_rank + (how_many is not None) > 1:
        raise UsageError("--by, --mean-rank and --how-many each show something else: give one of them")
    if by is not None and (best or chosen in (Format.LATEX, Format.LATEX_WIDE)):
        what = "does not go with --best" if best else f"is not written as {chosen}"
        raise UsageError(f"--by {what}: it shows the last epoch as terminal, markdown, csv, parquet or json")
    if (mean_rank or how_many is not None) and chosen not in (Format.TERMINAL, Format.JSON):
        raise UsageError(f"--mean-rank and --how-many are written as terminal or json, not as {chosen}")
    results = reading.read_filtered(runs, dataset, ipc, protocol, student)
    if how_many is not None:
        _how_many(results, how_many, chosen, to)
        return
    board = build(results)
    if by is not None:
        _by_cost(board, by, chosen, to)
    elif mean_rank:
        _mean_rank(board, chosen, to)
    elif chosen == Format.TERMINAL:
        from ddbench.reports.output.formats import print_terminal

        print_terminal(board, reading.console(), best=best)
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
    from ddbench.reports.output import files

    match chosen:
        case Format.MARKDOWN:
            from ddbench.reports.output.formats import markdown

            return markdown(board, best=best)
        case Format.CSV | Format.PARQUET:
            from ddbench.reports.tables.frames import leaderboard_frame

            frame = leaderboard_frame(board)
            return files.as_csv(frame) if chosen == Format.CSV else files.as_parquet(frame)
        case Format.LATEX:
            from ddbench.reports.output import latex

            return latex.tables(board, best=best)
        case Format.LATEX_WIDE:
            from ddbench.reports.output.latex_wide import wide

            return wide(board)
        case _:
            return files.as_json(board)


def _by_cost(board: Leaderboard, by: By, chosen: Format, to: Path | None) -> None:
    from ddbench.reports.output import cost_text, files
    from ddbench.reports.tables.cost_board import cost_board

    found = cost_board(board, "cost" if by == By.COST else "bytes")
    match chosen:
        case Format.TERMINAL:
            cost_text.print_terminal(found, reading.console())
        case Format.MARKDOWN:
            _write(cost_text.markdown(found), to)
        case Format.CSV | Format.PARQUET:
            from ddbench.reports.tables.frames import cost_frame

            frame = cost_frame(found)
            _write(files.as_csv(frame) if chosen == Format.CSV else files.as_parquet(frame), to)
        case _:
            _write(files.as_json(found), to)


def _write(content: str | bytes, to: Path | None) -> None:
    if to is None:
        assert isinstance(content, str)
        sys.stdout.write(content)
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(to, content)


def _how_many(results: Results, points: float, chosen: Format, to: Path | None) -> None:
    from ddbench.reports.output import how_many_text
    from ddbench.reports.output.files import as_json
    from ddbench.reports.results.groups import group
    from ddbench.reports.tables import how_many

    if not 0 < points < math.inf:
        raise UsageError(f"--how-many {points:g}: expected points above 0")
    found = [one for table in group(results) if (one := how_many.how_many(results.store, table, points)) is not None]
    if not found:
        raise UsageError("--how-many: no table has two methods with two sets each; `bench status` lists what there is")
    if chosen == Format.JSON:
        _write(as_json(how_many.Designs(tables=found)), to)
    else:
        how_many_text.print_terminal(found, reading.console())


def _mean_rank(board: Leaderboard, chosen: Format, to: Path | None) -> None:
    from ddbench.reports.output import mean_rank_text
    from ddbench.reports.output.files import as_json
    from ddbench.reports.tables import mean_rank

    found = mean_rank.mean_ranks(board.tables)
    if not found.methods:
        raise UsageError(
            "--mean-rank: no two methods have students of one seed in one table; `bench status` lists them"
        )
    if chosen == Format.JSON:
        _write(as_json(found), to)
    else:
        mean_rank_text.print_terminal(found, reading.console())
