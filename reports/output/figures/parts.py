"""What the figures share: a drawing with its caption, intervals, and room around numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddbench.reports.output.figures.style import PALE
from ddbench.reports.statistics.crossed import Summary
from ddbench.reports.tables.views import TableView

ACCURACY = "accuracy, %"
NAME_LENGTH = 28
"""Longest name of a method in a line, characters; others are broken."""
MOST_NAMED = 12
"""The most points with their names beside them; more are numbered, with the names below."""
DASHED: dict[str, Any] = {"color": PALE, "linestyle": (0, (4, 3)), "linewidth": 0.7, "zorder": 0}
"""How lines of reference look."""


def interval_said(tables: Sequence[TableView]) -> str:
    """What the tables' intervals rest on."""
    pooled = any(table.pooled_methods for table in tables)
    return "Student-t over distilled sets" + (", their variance pooled over a table's methods" if pooled else "")


@dataclass(frozen=True)
class Drawing:
    """A figure and what its caption says."""

    name: str
    """Name of its files, without suffix."""
    figure: Figure
    caption: str


def interval_line(axes: Axes, at: float, summary: Summary, colour: str, *, horizontal: bool = False) -> None:
    if summary.low is None or summary.high is None:
        return
    draw = axes.hlines if horizontal else axes.vlines
    draw(at, summary.low, summary.high, color=colour, linewidth=1.0, alpha=0.65, zorder=2)


def fit(axes: Axes, means: Sequence[float]) -> None:
    """Room for all means and a little more: intervals of two sets would leave none for the differences."""
    room = max(2.0, 0.2 * (max(means) - min(means)))
    axes.set_ylim(max(-1.0, min(means) - room), min(101.0, max(means) + room))
