"""How accuracy falls on shifted test sets, for people: terminal, Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ddbench.reports.output.formats import escaped, left_out_markdown, pipes
from ddbench.reports.output.number_text import number, signed
from ddbench.reports.output.terminal import BETWEEN, hanging, left_out, print_table, ruled
from ddbench.reports.results.words import counted
from ddbench.reports.robustness.table import Drop, RobustReport, RobustRow, RobustTable
from ddbench.reports.statistics.crossed import Summary

By = Literal["corruption", "severity"]
Column = tuple[str, list[str]]
"""Header and cells."""
NOTHING = "No student was looked at on a shifted test set: `bench run --test-on imagenet-c-made …`, docs/robustness.md."
LEGEND = (
    "clean, shifted: percent of the same students; drop: clean − shifted, points; kept: shifted in percent of clean. "
    "± sample std over distilled sets."
)
BY_LEGEND = (
    "Accuracies of the same students, percent; clean: on the images as they were. ± sample std over distilled sets."
)


def print_terminal(report: RobustReport, console: Console, by: By | None = None) -> None:
    """Print every table.

    Args:
        by: accuracy on each corruption or severity instead of the drop.
    """
    for table in report.tables:
        console.print(Text(f"{table.title} · on {table.test_on}", style="bold"))
        console.print(Text(setting(table), style="dim"))
        for part in _parts(list(columns(table, by)), console.width):
            drawn = ruled()
            for place, (header, _) in enumerate(part):
                drawn.add_column(Text(header), justify="left" if place == 0 else "right", no_wrap=place > 0)
            for cells in zip(*(column for _, column in part), strict=True):
                drawn.add_row(*map(Text, cells))
            print_table(drawn, console)
        console.print(Text(BY_LEGEND if by else LEGEND, style="dim"))
        for note in table.notes:
            console.print(hanging(note, style="dim"))
        console.print()
    if not report.tables:
        console.print(NOTHING)
    if report.problems:
        console.print(left_out(report.problems))


def markdown(report: RobustReport, by: By | None = None) -> str:
    blocks = []
    for table in report.tables:
        headers, shown = zip(*columns(table, by), strict=True)
        lines = [f"### {escaped(f'{table.title} · on {table.test_on}')}", "", escaped(setting(table)), ""]
        lines += [pipes([escaped(header) for header in headers]), pipes([":--", *["--:"] * (len(headers) - 1)])]
        lines += [pipes([escaped(cell) for cell in cells]) for cells in zip(*shown, strict=True)]
        lines += ["", escaped(BY_LEGEND if by else LEGEND), "", *(f"- {escaped(note)}" for note in table.notes)]
        blocks.append("\n".join(lines).rstrip())
    if not report.tables:
        blocks.append(NOTHING)
    if report.problems:
        blocks.append(left_out_markdown(report.problems))
    return "\n\n".join(blocks) + "\n"


def _parts(of: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """The columns in as many tables as the width asks for, each with the methods' names."""
    names, *others = of
    taken = [names]
    for column in others:
        if sum(map(_width, [*taken, column])) > width and len(taken) > 1:
            yield taken
            taken = [names]
        taken.append(column)
    yield taken


def _width(column: Column) -> int:
    header, cells = column
    return max(map(cell_len, [header, *cells])) + len(BETWEEN)


def setting(table: RobustTable) -> str:
    """What all rows of a table share, and what was looked at."""
    said = list(table.settings)
    if table.n_images is not None:
        of = f" under each of {table.n_conditions} conditions" if table.n_conditions > 1 else ""
        said.append(f"{counted(table.n_images, 'image')} of {table.n_classes} classes{of}")
    if table.content_sha256 is not None:
        said.append(f"pixels {table.content_sha256[:8]}")
    return " · ".join(said)


def columns(table: RobustTable, by: By | None) -> Iterator[Column]:
    """The table's columns as people see them, its rows' names first.

    Args:
        by: accuracy on each corruption or severity instead of the drop; no such column of a set of photographs.
    """
    rows = table.rows
    yield "method", [" · ".join([row.method, *row.qualifiers]) for row in rows]
    yield "sets", [_sets(row) for row in rows]
    if by is not None:
        values = [row.by_corruption if by == "corruption" else row.by_severity for row in rows]
        yield "clean %", [_spread(row.clean) for row in rows]
        for name in dict.fromkeys(name for one in values for name in one):
            yield name, [number(one.get(name), 1) for one in values]
        return
    yield "clean %", [_spread(row.clean) for row in rows]
    yield "shifted %", [_spread(row.shifted) for row in rows]
    yield "drop", [_spread(row.drop) for row in rows]
    yield "beside random's", [signed(row.drop_beside_random) for row in rows]
    yield "kept %", [number(row.kept_percent, 1) for row in rows]


def _sets(row: RobustRow) -> str:
    """Distilled sets; students that are done of those asked for, where some are missing."""
    return str(row.n_sets) if row.done == row.expected else f"{row.n_sets} ({row.done}/{row.expected} students)"


def _spread(of: Summary | Drop | None) -> str:
    if of is None:
        return number(None)
    return number(of.mean) + ("" if of.std is None else f" ± {of.std:.2f}")
