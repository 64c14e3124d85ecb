"""Leaderboards as text: terminal, Markdown, JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from ddbench.reports.output.columns import Column, columns, legend, method_name
from ddbench.reports.output.number_text import NOTHING
from ddbench.reports.output.terminal import BETWEEN, hanging, left_out, print_table, ruled
from ddbench.reports.results.rows import Problem
from ddbench.reports.tables.views import Leaderboard, TableView

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
    shown = columns(table, best=best)
    dropped: list[str] = []
    while (room := console.width - _width(table, shown)) < _least_room(table) and any(c.keep for c in shown):
        first_to_go = max(shown, key=lambda column: column.keep)
        shown.remove(first_to_go)
        dropped.insert(0, first_to_go.header)
    notes = list(table.notes)
    if dropped:
        notes.append(f"Too narrow for: {', '.join(dropped)}. A wider terminal or --format csv shows them.")
    settings = list(table.settings)
    if table.n_test is not None:
        settings.append(f"{table.n_test:,} test images")
    above = [Text(table.title, style="bold"), *([Text(" · ".join(settings), style="dim")] if settings else [])]
    console.print(Group(*above))
    print_table(_draw(table, shown, max(room, _least_room(table))), console)
    console.print(Group(Text(legend(table), style="dim"), *(hanging(note, style="dim") for note in notes), Text()))


METHOD_WIDTH = 20
"""Characters of a method's name; longer ones are folded where there is no room for them."""


def _least_room(table: TableView) -> int:
    return min(METHOD_WIDTH, max(len(method_name(row)) for row in table.rows))


def _width(table: TableView, shown: Sequence[Column]) -> int:
    """Width of the table without the names of its methods: as rich would measure it, cell by cell."""
    texts = ([column.header, *(column.cell(row) for row in table.rows)] for column in shown if not column.folds)
    return sum(max(map(cell_len, column)) for column in texts) + len(BETWEEN) * (len(shown) - 1)


def _draw(table: TableView, shown: Sequence[Column], room: int) -> RichTable:
    drawn = ruled()
    for column in shown:
        drawn.add_column(column.header, justify="left" if column.left else "right", no_wrap=True)
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
            pipes([column.header for column in shown]),
            pipes([":--" if column.left else "--:" for column in shown]),
            *(pipes([escaped(column.cell(row)) for column in shown]) for row in table.rows),
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


def left_out_markdown(problems: Sequence[Problem]) -> str:
    listed = [f"- {escaped(f'{problem.path}: {problem.reason}')}" for problem in problems]
    return "\n".join([f"Left out ({len(listed)}):", "", *listed])


def pipes(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands: names in results may hold anything."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~&$" else c for c in " ".join(text.split()))
