"""Leaderboards for people and programs: terminal, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from ddbench.reports.output.number_text import NONE, interval, number, seconds
from ddbench.reports.tables.notes import marks
from ddbench.reports.tables.statistics import Summary
from ddbench.reports.tables.views import Leaderboard, LeaderboardRow, ProblemRecord, Table

NOTHING = "No evaluations yet: `bench run` makes them, `bench status` shows what there is."


@dataclass(frozen=True)
class Column:
    """One column of a table that people read."""

    header: str
    cell: Callable[[LeaderboardRow], str]
    keep: int = 0
    """Where the terminal is too narrow, the columns with the highest numbers go first; 0 stays."""
    left: bool = False
    folds: bool = False
    """It takes the room that the others leave."""


def columns(table: Table, *, best: bool) -> list[Column]:
    """The columns that this table needs."""
    incomplete = any(row.done < row.expected for row in table.rows)
    gpu = any(row.cost.distill_gpu_peak_allocated_mib is not None for row in table.rows)
    return [
        Column("#", _rank, left=True),
        Column("method", method_name, left=True, folds=True),
        Column("acc %", lambda row: _spread(row.acc_last)),
        Column("95 % interval", lambda row: _interval(row.acc_last), keep=1),
        *([Column("best acc %", lambda row: _spread(row.acc_best))] if best else []),
        *([Column("paper", _paper, keep=2)] if any(row.papers for row in table.rows) else []),
        Column("sets×st.", _replication, keep=2),
        Column("gap %", lambda row: number(row.gap_closed_percent, 1)),
        Column("distill s", _distill_seconds, keep=3),
        Column("eval s", lambda row: seconds(row.cost.evaluate_seconds_per_student), keep=4),
        Column("peak MiB" if gpu else "host MiB", lambda row: _memory(row, gpu=gpu), keep=5),
        *([Column("done", lambda row: f"{row.done}/{row.expected}")] if incomplete else []),
    ]


def _rank(row: LeaderboardRow) -> str:
    if row.reference:
        return "ref"
    return NONE if row.rank is None else f"{row.rank}{'=' if row.tied else ''}"


def method_name(row: LeaderboardRow) -> str:
    return " ".join(filter(None, [row.name, marks(row)]))


def _spread(summary: Summary | None) -> str:
    if summary is None:
        return NONE
    return f"{summary.mean:.2f}" + ("" if summary.spread is None else f" ± {summary.spread:.2f}")


def _interval(summary: Summary | None) -> str:
    return NONE if summary is None else interval(summary.low, summary.high)


def _paper(row: LeaderboardRow) -> str:
    """The most trustworthy published number, our best look minus it, and how many further ones there are."""
    if not row.papers:
        return NONE
    first, *others = row.papers
    text = f"{first.value:.1f}" + ("" if first.std is None else f" ± {first.std:.1f}")
    delta = "" if row.acc_best is None else f" ({row.acc_best.mean - first.value:+.1f})"
    return text + delta + (f" {first.marks}" if first.marks else "") + (f" +{len(others)}" if others else "")


def _replication(row: LeaderboardRow) -> str:
    if row.acc_last is None:
        return NONE
    return f"{row.acc_last.n}×{NONE.join(map(str, dict.fromkeys((row.students_per_set[0], row.students_per_set[-1]))))}"


def _distill_seconds(row: LeaderboardRow) -> str:
    cold, spent = seconds(row.cost.distill_cold_seconds), seconds(row.cost.distill_spent_seconds)
    return cold if cold == spent else f"{cold} ({spent})"


def _memory(row: LeaderboardRow, *, gpu: bool) -> str:
    if row.cost.distill_gpu_peak_allocated_mib is not None:
        return f"{row.cost.distill_gpu_peak_allocated_mib:,.0f}"
    host = row.cost.distill_host_peak_mib
    return NONE if host is None else f"{'host ' if gpu else ''}{host:,.0f}"


def legend(table: Table) -> str:
    return " ".join(legend_items(table))


def legend_items(table: Table) -> list[str]:
    """How to read the table, and what the brackets of its distillation times are."""
    cached = any("(" in _distill_seconds(row) for row in table.rows)
    return [*table.legend, *(["distill s in brackets: spent here, with what was cached."] if cached else [])]


# Terminal -------------------------------------------------------------------------------------------------------------


def print_terminal(board: Leaderboard, console: Console, *, best: bool = False) -> None:
    """Print all tables, each as wide as it needs and no wider than the console."""
    for table in board.tables:
        console.print(_terminal_table(table, console, best=best))
    if not board.tables:
        console.print(NOTHING)
    if board.problems:
        console.print(left_out(board.problems))


def left_out(problems: Sequence[ProblemRecord]) -> RenderableType:
    lines = [hanging(f"{problem.path}: {problem.reason}") for problem in problems]
    return Group(Text(f"Left out ({len(problems)}):", style="yellow"), *lines)


def hanging(text: str, style: str = "") -> RenderableType:
    """A list item whose further lines are indented under its first."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text("-", style=style), Text(text, style=style))
    return grid


def _terminal_table(table: Table, console: Console, *, best: bool) -> RenderableType:
    shown = columns(table, best=best)
    dropped: list[str] = []
    while (room := console.width - _width(table, shown, console)) < _least_room(table) and any(c.keep for c in shown):
        first_to_go = max(shown, key=lambda column: column.keep)
        shown.remove(first_to_go)
        dropped.insert(0, first_to_go.header)
    notes = list(table.notes)
    if dropped:
        notes.append(f"Too narrow for: {', '.join(dropped)}. A wider terminal or --format csv shows them.")
    settings = list(table.settings)
    if table.n_test is not None:
        settings.append(f"{table.n_test:,} test images")
    return Group(
        Text(table.title, style="bold"),
        *([Text(" · ".join(settings), style="dim")] if settings else []),
        _draw(table, shown, max(room, _least_room(table))),
        Text(legend(table), style="dim"),
        *(hanging(note, style="dim") for note in notes),
        Text(),
    )


METHOD_WIDTH = 20
"""Longer method names are folded where there is no room for them."""


def _least_room(table: Table) -> int:
    return min(METHOD_WIDTH, max(len(method_name(row)) for row in table.rows))


def _width(table: Table, shown: Sequence[Column], console: Console) -> int:
    """Width of the table without the names of its methods."""
    drawn = _draw(table, shown, room=0)
    return Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum


def _draw(table: Table, shown: Sequence[Column], room: int) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in shown:
        header = "" if column.folds and not room else column.header
        drawn.add_column(header, justify="left" if column.left else "right", no_wrap=True)
    for row in table.rows:
        style = "italic" if row.reference else "dim" if row.done < row.expected else "bold" if row.rank == 1 else ""
        cells = (folded(column.cell(row), room) if column.folds else column.cell(row) for column in shown)
        drawn.add_row(*map(Text, cells), style=style)
    return drawn


def folded(name: str, room: int) -> str:
    """A name in lines of at most `room` characters, broken after commas and spaces where it has any; none for 0."""
    lines = [""]
    for part in re.split(r"(?<=[, ])", name) if room else []:
        if len(lines[-1] + part.rstrip()) > room and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > room:
            lines[-1:] = [lines[-1][:room], lines[-1][room:]]
    return "\n".join(line.rstrip() for line in lines)


# Markdown -------------------------------------------------------------------------------------------------------------


def markdown(board: Leaderboard, *, best: bool = False) -> str:
    blocks = []
    for table in board.tables:
        shown = columns(table, best=best)
        lines = [f"### {escaped(table.title)}", ""]
        if table.settings:
            lines += [escaped(" · ".join(table.settings)), ""]
        lines += [
            _pipes([column.header for column in shown]),
            _pipes([":--" if column.left else "--:" for column in shown]),
            *(_pipes([escaped(column.cell(row)) for column in shown]) for row in table.rows),
            "",
            escaped(legend(table)),
            "",
            *(f"- {escaped(note)}" for note in table.notes),
        ]
        blocks.append("\n".join(lines).rstrip())
    if not board.tables:
        blocks.append(NOTHING)
    if board.problems:
        blocks.append(left_out_markdown(board.problems))
    return "\n\n".join(blocks) + "\n"


def left_out_markdown(problems: Sequence[ProblemRecord]) -> str:
    listed = [f"- {escaped(f'{problem.path}: {problem.reason}')}" for problem in problems]
    return "\n".join([f"Left out ({len(listed)}):", "", *listed])


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands: names in results may hold anything."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in " ".join(text.split()))


# CSV and JSON ---------------------------------------------------------------------------------------------------------


def as_csv(board: Leaderboard) -> str:
    """One line per row, all numbers unrounded, missing ones empty."""
    lines = [flat(table, row) for table in board.tables for row in table.rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]) if lines else ["dataset"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def flat(table: Table, row: LeaderboardRow) -> dict[str, Any]:
    """One line of the CSV; lists are joined to a text."""
    key = table.model_dump(
        include={
            "dataset",
            "split",
            "split_hash",
            "content_hash",
            "resolution",
            "ipc",
            "protocol",
            "protocol_hash",
            "modified_protocol",
            "student",
            "n_train",
            "n_test",
        }
    )
    accuracies = {
        f"{name}_{field}": getattr(summary, field, None)
        for name, summary in (("acc_last", row.acc_last), ("acc_best", row.acc_best), ("top5_last", row.top5_last))
        for field in ("mean", "std", "low", "high", "student_std")
    }
    cost = {name: _joined(value) for name, value in row.cost.model_dump().items()}
    return {
        **key,
        "rank": row.rank,
        "tied": row.tied,
        "reference": row.reference,
        "method": row.method,
        "qualifiers": _joined(row.qualifiers),
        "method_version": row.spec.version if row.spec else None,
        "cost_class": row.cost_class,
        "prior": row.prior.name if row.prior else None,
        "prior_sha256": row.prior_sha256,
        "prior_trained_on": row.prior.trained_on if row.prior else None,
        "precision": row.precision,
        "distill_device": row.distill_device,
        "evaluate_device": row.evaluate_device,
        "done": row.done,
        "expected": row.expected,
        "states": _joined([f"{count} {state}" for state, count in row.states.items()]),
        "n_sets": len(row.sets),
        "students_per_set": _joined(row.students_per_set),
        **accuracies,
        "gap_closed_percent": row.gap_closed_percent,
        "paper_acc_best": row.papers[0].value if row.papers else None,
        "paper_std": row.papers[0].std if row.papers else None,
        "paper_source": row.papers[0].source if row.papers else None,
        "paper_marks": row.papers[0].marks if row.papers else None,
        **cost,
        "has_predictions": row.has_predictions,
    }


def _joined(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def as_json(board: Leaderboard) -> str:
    return board.model_dump_json(indent=1) + "\n"
