"""Accuracy against cost on a leaderboard's page: a chart and a table for seconds and for bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from ddbench.reports.output import cost_text, number_text
from ddbench.reports.output.cost_text import Part, Unit
from ddbench.reports.site.model import Site
from ddbench.reports.site.pictures.bars import scale_of
from ddbench.reports.site.pictures.charts import Point, scatter_chart
from ddbench.reports.tables.cost_board import By, CostAxis, CostRow, CostTable, Standing, cost_table
from ddbench.reports.tables.views import TableView

TITLES: dict[By, str] = {"cost": "Accuracy against cost", "bytes": "Accuracy against bytes"}
LOG_FROM = 10
"""The dearest by the cheapest from which the axis is logarithmic."""
ALIKE = 1.1
"""The dearest by the cheapest below which costs are nearly the same, and are drawn so: an axis of their differences
alone would show a chasm."""
REFERENCE_WITHIN = 3
"""A reference that is dearer than all rows, or cheaper, by a larger factor is not drawn: the axis would have room for
nothing else."""
MOST_NAMED = 16
"""Points of a chart that are all named; of more, those on the front."""
KINDS: dict[Standing, str] = {"front on means": "open", "behind": "behind", "no part": "aside"}
"""Class of the style sheet."""
MARKS: dict[Standing, str] = {
    "front": "filled: front",
    "front on means": "pale: front on means",
    "not separated": "hollow: not separated",
    "behind": "grey: behind",
    "no part": "dashed: takes no part",
}


@dataclass(frozen=True)
class ShownAxis:
    """One axis with its chart and its table's columns."""

    axis: CostAxis
    heading: str
    unit: Unit
    chart: Markup
    caption: str
    parts: Sequence[Part]
    has_better: bool


@dataclass(frozen=True)
class CostSection:
    """A table by one kind of cost."""

    title: str
    table: CostTable
    axes: Sequence[ShownAxis]
    not_placed: Sequence[str]
    legend: Sequence[str]


def cost_sections(site: Site, table: TableView) -> list[CostSection]:
    """By seconds and by bytes, where anything has finished."""
    if not any(row.acc_last for row in table.rows):
        return []
    return [_section(site, cost_table(table, by), title) for by, title in TITLES.items()]


def _section(site: Site, table: CostTable, title: str) -> CostSection:
    axes = [_shown(site, table, axis) for axis in table.axes]
    return CostSection(title, table, axes, cost_text.not_placed(table), cost_text.reading(table))


def _shown(site: Site, table: CostTable, axis: CostAxis) -> ShownAxis:
    return ShownAxis(
        axis=axis,
        heading=cost_text.heading(axis),
        unit=cost_text.unit_of(axis),
        chart=cost_chart(axis, {id: site.shown(name) for id, name in axis.names.items()}),
        caption=cost_caption(axis),
        parts=cost_text.parts(table, axis),
        has_better=any(row.better for row in axis.rows),
    )


def cost_chart(axis: CostAxis, names: Mapping[str, str], *, by_row: bool = False) -> Markup:
    """The rows of an axis with the front; nothing for one row.

    Args:
        names: id of a row -> what it is called.
        by_row: the page's script shows and hides the rows that are not on the front.
    """
    rows, unit = drawn(axis), cost_text.unit_of(axis)
    if len(rows) < 2:
        return Markup("")
    amounts = [row.amount or 0.0 for row in rows]
    low, high = min(amounts), max(amounts)
    log = low > 0 and high >= LOG_FROM * low
    points = [_point(row, names[row.id], unit, by_row=by_row) for row in rows]
    if len(points) <= MOST_NAMED and not by_row:
        points = [replace(point, named=True) for point in points]
    taking_part = [row.acc_last for row in rows if row.standing != "no part"]
    aside = [row.acc_last.mean for row in rows if row.standing == "no part" and row.acc_last]
    return scatter_chart(
        points,
        title=f"Accuracy against {cost_text.heading(axis)}",
        x_label=unit.name + (" (log)" if log else ""),
        y_label="acc_last %",
        log_x=log,
        x_also=[edge / unit.size for edge in (low / ALIKE, high * ALIKE)] if high < ALIKE * low else (),
        front=[point for point, row in zip(points, rows, strict=True) if row.on_front],
        y_range=scale_of(taking_part or [row.acc_last for row in rows], aside),
    )


def drawn(axis: CostAxis) -> list[CostRow]:
    """The rows that the chart shows: all but references far off."""
    amounts = [row.amount or 0.0 for row in axis.rows if row.standing != "no part"]
    if not amounts:
        return axis.rows
    low, high = min(amounts) / REFERENCE_WITHIN, max(amounts) * REFERENCE_WITHIN
    return [row for row in axis.rows if row.standing != "no part" or low <= (row.amount or 0.0) <= high]


def _point(row: CostRow, name: str, unit: Unit, *, by_row: bool) -> Point:
    assert row.amount is not None
    assert row.acc_last is not None
    return Point(
        row.amount / unit.size,
        row.acc_last.mean,
        f"{name}\n{number_text.number(row.acc_last.mean)} % for {unit.text(row.amount)} {unit.name}",
        y_low=row.acc_last.low,
        y_high=row.acc_last.high,
        row=row.id if by_row and not row.on_front else None,
        strong=row.on_front,
        kind=KINDS.get(row.standing, ""),
    )


def cost_caption(axis: CostAxis) -> str:
    """What the marks of the chart mean, and what it leaves out."""
    rows = drawn(axis)
    shown = {row.standing for row in rows}
    marks = "; ".join(text for standing, text in MARKS.items() if standing in shown)
    joined = " Joined: the front by the means." if sum(row.on_front for row in rows) > 1 else ""
    lines = " Lines: 95 % intervals, which may run beyond the chart." if any(map(_has_interval, rows)) else ""
    far = [axis.names[row.id] for row in axis.rows if row not in rows]
    off = f" Too far off to be drawn: {', '.join(far)}." if far else ""
    return f"{marks[0].upper()}{marks[1:]}.{joined}{lines}{off}"


def _has_interval(row: CostRow) -> bool:
    return row.acc_last is not None and row.acc_last.low is not None
