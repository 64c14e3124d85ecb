"""Leaderboards as text: terminal, Markdown, JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from ddbench.reports.output.columns import Column, Shown, columns, legend, method_name
from ddbench.reports.output.number_text import NOTHING
from ddbench.reports.output.terminal import BETWEEN, hanging, left_out, print_table, ruled
from ddbench.reports.results.rows import Problem
from ddbench.reports.tables.views import Leaderboard, RowView, TableView

# Terminal -------------------------------------------------------------------------------------------------------------


def print_terminal(board: Leaderboard, console: Console, *, best: bool = False) -> None:
    """Print all tables, each as wide as it needs and no wider than the console."""
    for table in board.tables:
        _print_table(table, console, best=best)
    if not board.tables:
        console.print(NOTHING)
    if board.problems:
        console.print(left_out(board.problems))


def _print_table(table: TableView, console: Console, *, best: bool) -> None:
    fitted = Fitted.to(console.width, columns(table, best=best), table.rows, [method_name(row) for row in table.rows])
    settings = list(table.settings)
    if table.n_test is not None:
        settings.append(f"{table.n_test:,} test images")
    above = [Text(table.title, style="bold"), *([Text(" · ".join(settings), style="dim")] if settings else [])]
    console.print(Group(*above))
    print_table(fitted.drawn(table.rows, _style), console)
    notes = [*table.notes, *too_narrow(fitted.dropped)]
    console.print(Group(Text(legend(table), style="dim"), *(hanging(note, style="dim") for note in notes), Text()))


def _style(row: RowView) -> str:
    return "italic" if row.reference else "dim" if row.done < row.expected else "bold" if row.rank == 1 else ""


METHOD_WIDTH = 20
"""Characters of a method's name; longer ones are folded where there is no room for them."""
LEAST_WIDTH = 10
"""The same where no further column can go."""


@dataclass(frozen=True)
class Fitted(Generic[Shown]):
    """The columns of a table that a terminal has room for."""

    shown: Sequence[Column[Shown]]
    dropped: Sequence[str]
    """Headers of those that it has no room for."""
    room: int
    """Characters of a method's name."""

    @classmethod
    def to(
        cls, width: int, columns: Sequence[Column[Shown]], rows: Sequence[Shown], names: Sequence[str]
    ) -> Fitted[Shown]:
        """Without the columns that go first, until names of methods have the least room that they need."""
        shown, dropped = list(columns), list[str]()
        least = min(METHOD_WIDTH, max(map(len, names), default=0))
        while (room := width - _width(rows, shown)) < least and any(c.keep for c in shown):
            first_to_go = max(shown, key=lambda column: column.keep)
            shown.remove(first_to_go)
            dropped.insert(0, first_to_go.header)
        return cls(shown, dropped, max(room, min(least, LEAST_WIDTH)))

    def drawn(self, rows: Sequence[Shown], style: Callable[[Shown], str]) -> RichTable:
        table = ruled()
        for column in self.shown:
            table.add_column(column.header, justify="left" if column.left else "right", no_wrap=True)
        for row in rows:
            texts = (folded(column.cell(row), self.room) if column.folds else column.cell(row) for column in self.shown)
            table.add_row(*map(Text, texts), style=style(row))
        return table


def too_narrow(dropped: Sequence[str], instead: str = "--format csv") -> list[str]:
    """The note on columns that a terminal has no room for."""
    if not dropped:
        return []
    return [f"Too narrow for: {', '.join(dropped)}. A wider terminal or {instead} shows them."]


def _width(rows: Sequence[Shown], shown: Sequence[Column[Shown]]) -> int:
    """Width of the table without the names of its methods: as rich would measure it, cell by cell."""
    texts = ([column.header, *(column.cell(row) for row in rows)] for column in shown if not column.folds)
    widths = (max(cell_len(line) for text in column for line in text.split("\n")) for column in texts)
    return sum(widths) + len(BETWEEN) * (len(shown) - 1)


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
            *markdown_table(shown, table.rows),
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


def markdown_table(shown: Sequence[Column[Shown]], rows: Sequence[Shown]) -> list[str]:
    """The lines of a table."""
    return [
        pipes([column.header for column in shown]),
        pipes([":--" if column.left else "--:" for column in shown]),
        *(pipes([escaped(column.cell(row)) for column in shown]) for row in rows),
    ]


def left_out_markdown(problems: Sequence[Problem]) -> str:
    listed = [f"- {escaped(f'{problem.path}: {problem.reason}')}" for problem in problems]
    return "\n".join([f"Left out ({len(listed)}):", "", *listed])


def pipes(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands: names in results may hold anything."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~&$" else c for c in " ".join(text.split()))
