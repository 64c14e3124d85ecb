"""Figures for papers from leaderboards: accuracy by method, against IPC, against cost, and against papers' numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ddbench.benchmark.core.files import write_atomically
from ddbench.reports.output.figure_labels import label_points
from ddbench.reports.output.figure_style import (
    COLOURS,
    GREY,
    MAIN,
    MARKS,
    PALE,
    POINTS,
    SMALL_POINTS,
    WIDTHS,
    blank,
    plain_seconds,
    save,
    shown,
    style,
)
from ddbench.reports.output.formats import escaped, folded
from ddbench.reports.tables.contestants import contestants
from ddbench.reports.tables.pareto import pareto_front
from ddbench.reports.tables.statistics import Summary
from ddbench.reports.tables.views import Leaderboard, LeaderboardRow, Table

NAME_LENGTH = 28
"""Characters; longer names of methods are broken."""
LINE_INCHES = 0.155
MOST_SERIES = len(COLOURS)
"""More lines than that are drawn one to a panel."""
MOST_NAMED = 12
"""More points than that are numbered, with the names below."""
ACCURACY = "accuracy, %"


@dataclass(frozen=True)
class Drawing:
    name: str
    """Of its files, without suffix."""
    figure: Figure
    caption: str


def draw_all(board: Leaderboard, folder: Path, width: str) -> tuple[list[Path], list[str]]:
    """Write every figure that these leaderboards give, as SVG and PDF, and `captions.md`.

    Args:
        width: `column` or `page` (`figure_style.WIDTHS`).

    Returns:
        (files, why there are not more).
    """
    folder.mkdir(parents=True, exist_ok=True)
    inches, files, said, missing = WIDTHS[width], list[Path](), list[str](), list[str]()
    taken: Counter[str] = Counter()
    with style():
        tables = [table for table in board.tables if any(row.acc_last for row in table.rows)]
        families: dict[tuple[object, ...], list[Table]] = {}
        for table in tables:
            families.setdefault(family(table), []).append(table)
        drawings = [
            *(accuracy(table, inches) for table in tables),
            *(against_cost(table, inches) for table in tables),
            *(against_ipc(some, inches) for some in families.values()),
            against_papers(tables, inches),
        ]
        for drawing in drawings:
            if isinstance(drawing, str):
                missing.append(drawing)
                continue
            taken[drawing.name] += 1
            name = drawing.name + (f"-{taken[drawing.name]}" if taken[drawing.name] > 1 else "")
            files += save(drawing.figure, folder, name)
            said.append(f"**{escaped(name)}.** {escaped(drawing.caption)}")
    if said:
        write_atomically(folder / "captions.md", "\n\n".join(said) + "\n")
        files.append(folder / "captions.md")
    return files, missing


def family(table: Table) -> tuple[object, ...]:
    """What tables have in common that differ in IPC only."""
    teacher = None if table.teacher is None else table.teacher.sha256
    where = (table.dataset, table.split, table.split_hash, table.content_hash, table.resolution)
    return (*where, table.protocol, table.protocol_hash, table.student, teacher)


# Accuracy by method ---------------------------------------------------------------------------------------------------


def accuracy(table: Table, inches: float) -> Drawing:
    """Mean accuracy with its 95 % interval, the methods in the order of the leaderboard."""
    names = _names(table)
    rows = [(row, names[index]) for index, row in enumerate(table.rows) if row.acc_last is not None]
    labels = [folded(shown(name + _unfinished(row)), NAME_LENGTH) for row, name in rows]
    heights = [1 + 0.8 * label.count("\n") for label in labels]
    figure = blank(inches, LINE_INCHES * sum(heights) + 0.5)
    axes = figure.subplots()
    levels = [-(sum(heights[:place]) + heights[place] / 2) for place in range(len(rows))]
    for (row, _), level in zip(rows, levels, strict=True):
        assert row.acc_last is not None
        colour = GREY if row.reference or row.done < row.expected else MAIN
        _interval(axes, level, row.acc_last, colour, horizontal=True)
        axes.plot(row.acc_last.mean, level, "D" if row.reference else "o", **_mark(row, colour))
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "size": SMALL_POINTS}
        axes.text(1.03, level, _rank(row), **beside)
        if row.reference:
            axes.axvline(row.acc_last.mean, color=PALE, linestyle=(0, (4, 3)), linewidth=0.7, zorder=0)
    axes.set_yticks(levels, labels)
    axes.set_ylim(-sum(heights), 0)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(ACCURACY)
    caption = (
        f"{_setting([table])}. Mean accuracy after the last epoch and its 95 % interval (Student-t over distilled "
        f"sets), by rank; = marks ties of a two-sided 5 % test. {_marks_said([row for row, _ in rows])}"
    )
    return Drawing(_slug(table, "accuracy"), figure, caption.rstrip())


def _rank(row: LeaderboardRow) -> str:
    return "ref" if row.reference else f"{row.rank}{'=' if row.tied else ''}"


def _unfinished(row: LeaderboardRow) -> str:
    return f" ({row.done}/{row.expected})" if row.done < row.expected else ""


def _mark(row: LeaderboardRow, colour: str) -> dict[str, Any]:
    """Hollow where one set says nothing of another."""
    hollow = row.acc_last is not None and row.acc_last.n == 1
    return {"color": colour, "markerfacecolor": "white" if hollow else colour, "markeredgewidth": 0.9, "zorder": 3}


def _interval(axes: Axes, at: float, summary: Summary, colour: str, *, horizontal: bool = False) -> None:
    if summary.low is None or summary.high is None:
        return
    draw = axes.hlines if horizontal else axes.vlines
    draw(at, summary.low, summary.high, color=colour, linewidth=1.0, alpha=0.65, zorder=2)


def _marks_said(rows: Sequence[LeaderboardRow]) -> str:
    said = ["Hollow: one distilled set."] if any(row.acc_last and row.acc_last.n == 1 for row in rows) else []
    said += ["Grey: not complete."] if any(row.done < row.expected for row in rows) else []
    said += ["Dashed: trained on the whole training set."] if any(row.reference for row in rows) else []
    return " ".join(said)


# Accuracy against cost ------------------------------------------------------------------------------------------------


def against_cost(table: Table, inches: float) -> Drawing | str:
    """Mean accuracy against the cold wall-clock of making a set, with the Pareto front. A text if there is none."""
    names = _names(table)
    found = [
        (row.cost.distill_cold_seconds, row.acc_last, names[index])
        for index, row in enumerate(table.rows)
        if row.acc_last is not None and row.cost.distill_cold_seconds and not row.reference
    ]
    if len(found) < 2:
        return f"{table.title}: no accuracy against cost, which needs two methods with measured time"
    points = [(seconds, summary.mean) for seconds, summary, _ in found]
    front = pareto_front(points)
    numbered = len(found) > MOST_NAMED
    per_line = max(1, round(inches / 1.4))
    lines = math.ceil(len(found) / per_line) if numbered else 0
    figure = blank(inches, 2.3 + 0.13 * lines)
    axes, key = figure.subplots(2, 1, height_ratios=[2.3, 0.13 * lines]) if numbered else (figure.subplots(), None)
    axes.set_xscale("log")
    for index, (seconds, summary, _) in enumerate(found):
        strong = index in front
        _interval(axes, seconds, summary, MAIN if strong else PALE)
        axes.plot(
            seconds,
            summary.mean,
            "o",
            color=MAIN if strong else GREY,
            markerfacecolor=MAIN if strong else "white",
            zorder=3,
        )
    stairs = sorted(points[index] for index in front)
    axes.plot(*zip(*stairs, strict=True), color=MAIN, drawstyle="steps-post", linestyle=":", zorder=1)
    times = [seconds for seconds, _ in points]
    if max(times) < 100 * min(times):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(plain_seconds))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("time to distill a set, cold, seconds")
    axes.set_ylabel(ACCURACY)
    axes.margins(x=0.12)
    _fit(axes, [mean for _, mean in points])
    order = sorted(range(len(found)), key=lambda i: (i not in front, -points[i][1]))
    texts = {
        i: str(place + 1) if numbered else folded(shown(found[i][2]), NAME_LENGTH) for place, i in enumerate(order)
    }
    if key is not None:
        _key(key, [f"{texts[i]}  {found[i][2]}" for i in order], per_line, round((inches - 0.6) / per_line / 0.07))
    bars = [((x, s.low), (x, s.high)) for x, s, _ in found if s.low is not None and s.high is not None]
    steps = [((x, y), (next_x, y)) for (x, y), (next_x, _) in pairwise(stairs)]
    label_points(axes, [points[i] for i in order], [texts[i] for i in order], [*bars, *steps], size=SMALL_POINTS)
    hardware = sorted({model for row in table.rows for model in row.cost.distill_hardware})
    where = f", on {'; '.join(hardware)}" if hardware else ""
    caption = (
        f"{_setting([table])}. Mean accuracy against the wall-clock of making one distilled set (what came "
        f"from a cache at its original cost{where}). Filled and joined: the Pareto front. Lines: 95 % "
        "intervals over distilled sets; they may run beyond the axes."
    )
    return Drawing(_slug(table, "cost"), figure, caption)


def _fit(axes: Axes, means: Sequence[float]) -> None:
    """Room for all means and a little more: intervals of two sets would leave none for the differences."""
    room = max(2.0, 0.2 * (max(means) - min(means)))
    axes.set_ylim(max(-1.0, min(means) - room), min(101.0, max(means) + room))


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


# Accuracy against IPC -------------------------------------------------------------------------------------------------


def against_ipc(tables: Sequence[Table], inches: float) -> Drawing | str:
    """Mean accuracy with intervals against IPC, a line per method that has two or more. A text if there is none."""
    some = [table for table in tables if table.ipc is not None]
    lines = []
    for one in contestants(some):
        at = [
            (float(some[place].ipc or 0), some[place].rows[index].acc_last) for place, index in sorted(one.rows.items())
        ]
        known = [(ipc, summary) for ipc, summary in at if summary is not None]
        lines += [(one.name, one.reference, known)] if len(known) > 1 else []
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
        _fit(axes, [summary.mean for _, at in methods for _, summary in at])
        for mean in references:
            axes.axhline(mean, color=PALE, linestyle=(0, (4, 3)), linewidth=0.7, zorder=0)
    if alone:
        figure.axes[0].set(xlabel="images per class", ylabel=ACCURACY)
    else:
        figure.supxlabel("images per class", size=POINTS)
        figure.supylabel(ACCURACY, size=POINTS)
    whole = " and ".join(f"{mean:.2f}" for mean in references)
    caption = (
        f"{_setting(some)}. Mean accuracy after the last epoch against images per class, with 95 % intervals over "
        f"distilled sets (Student-t), which may run beyond the axes{'' if alone else '; a panel for each method'}."
        + (f" Dashed, or above: trained on the whole training set ({whole})." if references else "")
    )
    return Drawing(_slug(tables[0], "ipc", ipc=False), figure, caption)


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
            _interval(axes, x, summary, colour)
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
            _interval(panel, ipc, summary, MAIN)
        panel.set_title(folded(shown(name), 16), pad=2)
    for panel in list(panels)[len(methods) :]:
        panel.axis("off")
    return figure


# Against papers -------------------------------------------------------------------------------------------------------


def against_papers(tables: Sequence[Table], inches: float) -> Drawing | str:
    """Our best look at the test set against the most trustworthy published number. A text if there is none."""
    found = [
        (
            f"{table.dataset}, {table.protocol}, {table.student}",
            row.method if row.reference else f"{row.method} {table.ipc}",
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
            _interval(axes, paper.value, ours, colour)
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
    axes.plot([low, high], [low, high], color=PALE, linestyle=(0, (4, 3)), linewidth=0.7, zorder=0)
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


# Words ----------------------------------------------------------------------------------------------------------------


def _names(table: Table) -> dict[int, str]:
    """Name of each row, unique in the table."""
    return {one.rows[0]: one.name for one in contestants([table])}


def _setting(tables: Sequence[Table]) -> str:
    first = tables[0]
    ipcs = [str(table.ipc) for table in tables if table.ipc is not None]
    ipc = f"{', '.join(ipcs)} image{'' if ipcs == ['1'] else 's'} per class" if ipcs else "the whole training set"
    rows = [row for table in tables for row in table.rows if row.acc_last is not None and not row.reference]
    sets = sorted({row.acc_last.n for row in rows if row.acc_last is not None}) or [0]
    students = sorted({count for row in rows for count in row.students_per_set}) or [0]
    replication = " × ".join(
        f"{'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} {what}{'' if counts == [1] else 's'}"
        for counts, what in ((sets, "set"), (students, "student"))
    )
    test = "" if first.n_test is None else f", {first.n_test:,} test images"
    where = f"{first.dataset} ({first.split} split), {ipc}, {first.protocol}, {first.student}, {first.resolution} px"
    return f"{where}{test}, {replication}"


def _slug(table: Table, kind: str, *, ipc: bool = True) -> str:
    words = [table.dataset, *([f"ipc{table.ipc or 'all'}"] if ipc else []), table.protocol, table.student, kind]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")[-120:]
