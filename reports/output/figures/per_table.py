"""Figures of one leaderboard: accuracy by method, and against the time that a set takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ddbench.reports.output.captions import setting, slug
from ddbench.reports.output.columns import rank
from ddbench.reports.output.figures.labels import label_points
from ddbench.reports.output.figures.parts import (
    ACCURACY,
    DASHED,
    MOST_NAMED,
    NAME_LENGTH,
    Drawing,
    fit,
    interval_line,
    interval_said,
)
from ddbench.reports.output.figures.style import GREY, MAIN, PALE, SMALL_POINTS, blank, plain_seconds, shown
from ddbench.reports.output.formats import folded
from ddbench.reports.tables.cost_board import CostAxis, cost_table
from ddbench.reports.tables.methods_as_run import methods_as_run
from ddbench.reports.tables.views import RowView, TableView

LINE_INCHES = 0.155
COST, COST_WITH_LABELS = "time to distill a set, cold, seconds", "time to distill a set, cold, and to label, seconds"

# Accuracy by method ---------------------------------------------------------------------------------------------------


def accuracy(table: TableView, inches: float) -> Drawing:
    """Mean accuracy with its 95 % interval, the methods in the order of the leaderboard."""
    names = {one.rows[0]: one.name for one in methods_as_run([table])}
    rows = [(row, names[index]) for index, row in enumerate(table.rows) if row.acc_last is not None]
    done = [f" ({row.done}/{row.expected})" if row.done < row.expected else "" for row, _ in rows]
    labels = [folded(shown(name + so_far), NAME_LENGTH) for (_, name), so_far in zip(rows, done, strict=True)]
    heights = [1 + 0.8 * label.count("\n") for label in labels]
    figure = blank(inches, LINE_INCHES * sum(heights) + 0.5)
    axes = figure.subplots()
    levels = [-(sum(heights[:place]) + heights[place] / 2) for place in range(len(rows))]
    for (row, _), level in zip(rows, levels, strict=True):
        assert row.acc_last is not None
        colour = GREY if row.reference or row.done < row.expected else MAIN
        interval_line(axes, level, row.acc_last, colour, horizontal=True)
        axes.plot(row.acc_last.mean, level, "D" if row.reference else "o", **_mark(row, colour))
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "size": SMALL_POINTS}
        axes.text(1.03, level, rank(row), **beside)
        if row.whole_set:
            axes.axvline(row.acc_last.mean, **DASHED)
    axes.set_yticks(levels, labels)
    axes.set_ylim(-sum(heights), 0)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(ACCURACY)
    caption = (
        f"{setting([table])} Mean accuracy after the last epoch and its 95 % interval "
        f"({interval_said([table])}), by mean; beside it the ranks that a two-sided 5 % test leaves. "
        f"{_marks_said([row for row, _ in rows])}"
    )
    return Drawing(slug(table, ipc=True, kind="accuracy"), figure, caption.rstrip())


def _mark(row: RowView, colour: str) -> dict[str, Any]:
    """Hollow where one set says nothing of another."""
    hollow = row.acc_last is not None and row.acc_last.n == 1
    return {"color": colour, "markerfacecolor": "white" if hollow else colour, "markeredgewidth": 0.9, "zorder": 3}


def _marks_said(rows: Sequence[RowView]) -> str:
    said = ["Hollow: one distilled set."] if any(row.acc_last and row.acc_last.n == 1 for row in rows) else []
    said += ["Grey: not complete."] if any(row.done < row.expected for row in rows) else []
    said += ["Dashed: trained on the whole training set."] if any(row.whole_set for row in rows) else []
    return " ".join(said)


# Accuracy against cost ------------------------------------------------------------------------------------------------


def against_cost(table: TableView, inches: float) -> Drawing | str:
    """Mean accuracy against what distilling a set and labelling cost, with the Pareto front; of the hardware with the
    most rows, since times of others do not belong on its axis. A text if there is none."""
    names = {table.rows[one.rows[0]].id: one.name for one in methods_as_run([table])}
    axes_found = cost_table(table, "cost").axes
    found = [
        (row.amount, row.acc_last, names[row.id], row.on_front)
        for row in (axes_found[0].rows if axes_found else ())
        if row.acc_last is not None and row.amount and not row.reference
    ]
    if len(found) < 2:
        return f"{table.title}: no accuracy against cost, which needs two methods with measured time"
    points = [(seconds, summary.mean) for seconds, summary, _, _ in found]
    front = [index for index, (_, _, _, on_front) in enumerate(found) if on_front]
    numbered = len(found) > MOST_NAMED
    per_line = max(1, round(inches / 1.4))
    lines = math.ceil(len(found) / per_line) if numbered else 0
    figure = blank(inches, 2.3 + 0.13 * lines)
    axes, key = figure.subplots(2, 1, height_ratios=[2.3, 0.13 * lines]) if numbered else (figure.subplots(), None)
    axes.set_xscale("log")
    for seconds, summary, _, strong in found:
        interval_line(axes, seconds, summary, MAIN if strong else PALE)
        axes.plot(
            seconds,
            summary.mean,
            "o",
            color=MAIN if strong else GREY,
            markerfacecolor=MAIN if strong else "white",
            zorder=3,
        )
    stairs = sorted(points[index] for index in front)
    if stairs:
        axes.plot(*zip(*stairs, strict=True), color=MAIN, drawstyle="steps-post", linestyle=":", zorder=1)
    times = [seconds for seconds, _ in points]
    if max(times) < 100 * min(times):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(plain_seconds))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(COST if table.teacher is None else COST_WITH_LABELS)
    axes.set_ylabel(ACCURACY)
    axes.margins(x=0.12)
    fit(axes, [mean for _, mean in points])
    order = sorted(range(len(found)), key=lambda i: (i not in front, -points[i][1]))
    texts = {
        i: str(place + 1) if numbered else folded(shown(found[i][2]), NAME_LENGTH) for place, i in enumerate(order)
    }
    if key is not None:
        _key(key, [f"{texts[i]}  {found[i][2]}" for i in order], per_line, round((inches - 0.6) / per_line / 0.07))
    bars = [((x, s.low), (x, s.high)) for x, s, _, _ in found if s.low is not None and s.high is not None]
    steps = [((x, y), (next_x, y)) for (x, y), (next_x, _) in pairwise(stairs)]
    label_points(axes, [points[i] for i in order], [texts[i] for i in order], [*bars, *steps], size=SMALL_POINTS)
    caption = (
        f"{setting([table])} Mean accuracy against the wall-clock on {axes_found[0].hardware} of making one distilled "
        f"set (what came from a cache at its original cost){_labelling(table)}. Filled and joined: the Pareto front by "
        f"the means. Lines: 95 % intervals over distilled sets; they may run beyond the axes."
        f"{_elsewhere(axes_found[1:])}"
    )
    return Drawing(slug(table, ipc=True, kind="cost"), figure, caption)


def _labelling(table: TableView) -> str:
    return "" if table.teacher is None else " and of one student's training, within which its teacher labels"


def _elsewhere(axes: Sequence[CostAxis]) -> str:
    """Rows whose times are of other hardware."""
    names = [row.name for axis in axes for row in axis.rows]
    return f" Measured on other hardware and not shown: {', '.join(names)}." if names else ""


def _key(axes: Axes, entries: Sequence[str], per_line: int, longest: int) -> None:
    """Names by number, in columns; of names with more characters than there is room for, the beginning."""
    axes.axis("off")
    lines = math.ceil(len(entries) / per_line)
    for index, entry in enumerate(entries):
        column, line = divmod(index, lines)
        axes.text(
            column / per_line,
            1 - (line + 0.5) / lines,
            shown(entry if len(entry) <= longest else entry[: longest - 1] + "…"),
            size=SMALL_POINTS,
            va="center",
            transform=axes.transAxes,
        )
