"""Figures over several leaderboards: accuracy against IPC, and ours against the papers'."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ddbench.reports.output.captions import setting, slug
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
from ddbench.reports.output.figures.style import COLOURS, MAIN, MARKS, POINTS, SMALL_POINTS, blank, shown
from ddbench.reports.output.formats import folded
from ddbench.reports.statistics.crossed import Summary
from ddbench.reports.tables.methods_as_run import methods_as_run
from ddbench.reports.tables.views import TableView

MOST_SERIES = len(COLOURS)
"""The most lines in a panel; more are drawn one to a panel."""


def against_ipc(tables: Sequence[TableView], inches: float) -> Drawing | str:
    """Mean accuracy with intervals against IPC, a line per method that has two or more. A text if there is none."""
    some = [table for table in tables if table.ipc is not None]
    lines = []
    for one in methods_as_run(some):
        at = [
            (float(some[place].ipc or 0), some[place].rows[index].acc_last) for place, index in sorted(one.rows.items())
        ]
        known = [(ipc, summary) for ipc, summary in at if summary is not None]
        leaked = any(some[place].rows[index].with_test_images for place, index in one.rows.items())
        lines += [(one.name, one.reference, known)] if len(known) > 1 and not leaked else []
    methods = [(name, at) for name, reference, at in lines if not reference]
    if not methods:
        return f"{tables[0].dataset}, {tables[0].protocol}, {tables[0].student}: one IPC, so no accuracy against IPC"
    references = [at[0][1].mean for _, reference, at in lines if reference]
    methods.sort(key=lambda one: -sum(summary.mean for _, summary in one[1]) / len(one[1]))
    alone = len(methods) <= MOST_SERIES
    figure = _together(methods, inches) if alone else _one_by_one(methods, inches)
    ticks = sorted({ipc for _, at in methods for ipc, _ in at})
    for axes in [axes for axes in figure.axes if axes.axison]:
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.12)
        fit(axes, [summary.mean for _, at in methods for _, summary in at])
        for mean in references:
            axes.axhline(mean, **DASHED)
    if alone:
        figure.axes[0].set(xlabel="images per class", ylabel=ACCURACY)
    else:
        figure.supxlabel("images per class", size=POINTS)
        figure.supylabel(ACCURACY, size=POINTS)
    whole = " and ".join(f"{mean:.2f}" for mean in references)
    caption = (
        f"{setting(some)} Mean accuracy after the last epoch against images per class, with 95 % intervals "
        f"({interval_said(some)}), which may run beyond the axes{'' if alone else '; a panel for each method'}."
        + (f" Dashed, or above: trained on the whole training set ({whole})." if references else "")
    )
    return Drawing(slug(tables[0], ipc=False, kind="ipc"), figure, caption)


Line = tuple[str, list[tuple[float, Summary]]]


def _together(methods: Sequence[Line], inches: float) -> Figure:
    columns = max(1, round(inches / 1.6))
    figure = blank(inches, 2.3 + 0.15 * math.ceil(len(methods) / columns))
    axes = figure.subplots()
    for index, (name, at) in enumerate(methods):
        # Side by side, so that no interval hides another.
        shift = 1.04 ** (index - (len(methods) - 1) / 2)
        xs = [ipc * shift for ipc, _ in at]
        colour = COLOURS[index]
        label = folded(shown(name), NAME_LENGTH)
        axes.plot(xs, [summary.mean for _, summary in at], marker=MARKS[index], color=colour, label=label, zorder=3)
        for x, (_, summary) in zip(xs, at, strict=True):
            interval_line(axes, x, summary, colour)
    figure.legend(loc="outside lower center", ncols=columns)
    return figure


def _one_by_one(methods: Sequence[Line], inches: float) -> Figure:
    columns = max(2, round(inches / 1.1))
    rows = math.ceil(len(methods) / columns)
    figure = blank(inches, 0.95 * rows + 0.3)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for panel, (name, at) in zip(panels, methods, strict=False):
        for other, others in methods:
            if other != name:
                means = [summary.mean for _, summary in others]
                panel.plot([ipc for ipc, _ in others], means, color="#D9D9D9", linewidth=0.5, zorder=1)
        panel.plot(
            [ipc for ipc, _ in at], [summary.mean for _, summary in at], "o-", color=MAIN, markersize=3, zorder=3
        )
        for ipc, summary in at:
            interval_line(panel, ipc, summary, MAIN)
        panel.set_title(folded(shown(name), 16), pad=2)
    for panel in list(panels)[len(methods) :]:
        panel.axis("off")
    return figure


# Against papers -------------------------------------------------------------------------------------------------------


def against_papers(tables: Sequence[TableView], inches: float) -> Drawing | str:
    """Our best look at the test set against the most trustworthy published number. A text if there is none."""
    found = [
        (
            f"{table.dataset}, {table.protocol}, {table.student}",
            row.method if row.whole_set else f"{row.method} {table.ipc}",
            row.papers[0],
            row.acc_best,
        )
        for table in tables
        for row in table.rows
        if row.papers and row.acc_best is not None
    ]
    # The whole training set stands in every IPC's table.
    found = [one for place, one in enumerate(found) if one not in found[:place]]
    if not found:
        return "no figure against papers: no published numbers for these results"
    side = min(inches, 3.4)
    groups = sorted({group for group, *_ in found})
    figure = blank(side, side + 0.15 * len(groups))
    axes, bars = figure.subplots(), list[tuple[tuple[float, float], tuple[float, float]]]()
    for index, group in enumerate(groups):
        mine = [(paper, ours) for one, _, paper, ours in found if one == group]
        colour = COLOURS[index % MOST_SERIES]
        for paper, ours in mine:
            interval_line(axes, paper.value, ours, colour)
            if ours.low is not None and ours.high is not None:
                bars.append(((paper.value, ours.low), (paper.value, ours.high)))
            if paper.std is not None:
                ends = (paper.value - paper.std, ours.mean), (paper.value + paper.std, ours.mean)
                axes.plot(*zip(*ends, strict=True), color=colour, linewidth=0.6, alpha=0.65)
                bars.append(ends)
        xs, ys = [paper.value for paper, _ in mine], [ours.mean for _, ours in mine]
        mark = MARKS[(index + index // MOST_SERIES) % len(MARKS)]
        axes.plot(xs, ys, mark, color=colour, label=folded(shown(group), 44), zorder=3)
    values = [value for _, _, paper, ours in found for value in (paper.value, ours.mean)]
    room = max(3.0, 0.1 * (max(values) - min(values)))
    low, high = max(0.0, min(values) - room), min(100.0, max(values) + room)
    axes.plot([low, high], [low, high], **DASHED)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_xlabel("paper, %")
    axes.set_ylabel("ours (best look at the test set), %")
    figure.legend(loc="outside lower center", ncols=1)
    if len(found) <= MOST_NAMED:
        points = [(paper.value, ours.mean) for _, _, paper, ours in found]
        label_points(axes, points, [shown(name) for _, name, *_ in found], bars, size=SMALL_POINTS)
    caption = (
        "Published accuracy against ours, both the best look at the test set, as papers report; dashed: equality. "
        "Vertical lines: 95 % intervals over our distilled sets, which may run beyond the axes; horizontal: the "
        "paper's standard deviation over students of one set."
    )
    return Drawing("papers", figure, caption)
