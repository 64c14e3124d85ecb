"""The site's charts: inline SVG whose colours are the page's, light or dark, and which print as they are.

Matplotlib draws the figures for papers (`bench figures`); a site has hundreds of small charts that must follow the
reader's theme and cost a kilobyte each, so these are drawn here. Ticks are matplotlib's.

Every chart names itself (`role="img"`, a title) and is accompanied on its page by the table it draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from ddbench.reports.statistics.crossed import Summary

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 10, 42
COLOURS = 8
"""Classes c0 … c7 of the style sheet; more series than that share them and differ in their dashes."""
LINE_HEIGHT = 14


@dataclass(frozen=True)
class Series:
    """One named line."""

    name: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    """(x, y, low, high): an interval where both are known."""
    row: str | None = None
    """Id of the row, by which the page's script shows and hides it."""


def at(x: float, summary: Summary) -> tuple[float, float, float | None, float | None]:
    """A point of a line: a mean over sets with its interval."""
    return x, summary.mean, summary.low, summary.high


@dataclass(frozen=True)
class Mark:
    """A vertical line at a value of x, with its name."""

    x: float
    label: str


@dataclass(frozen=True)
class Point:
    """One named dot of a scatter chart."""

    x: float
    y: float
    label: str
    href: str | None = None
    y_low: float | None = None
    y_high: float | None = None
    row: str | None = None
    """Id of the row, by which the page's script shows and hides it."""
    strong: bool = False
    """Drawn filled and labelled (on the Pareto front, say); the others' names are in their tooltips."""


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    @property
    def ticks(self) -> list[float]:
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.log:
            found = LogLocator(subs=(1, 2, 5) if self.high / self.low < 30 else (1,)).tick_values(self.low, self.high)
        else:
            found = MaxNLocator(nbins=6).tick_values(self.low, self.high)
        edge = 1e-9 * max(abs(self.low), abs(self.high))
        return [float(tick) for tick in found if self.low - edge <= tick <= self.high + edge]


def axis(values: Iterable[float], start: float, end: float, *, log: bool = False, room: float = 0.05) -> Axis:
    """An axis that holds all values with some room; never of width zero."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    # Means of the same numbers in another order differ in their last bits; such an axis would have no width.
    wide = not math.isclose(low, high, rel_tol=1e-9)
    if log:
        pad = (high / low) ** room if wide else 1.5
        return Axis(low / pad, high * pad, start, end, log=True)
    pad = (high - low) * room if wide else max(abs(high) * 0.05, 0.5)
    return Axis(low - pad, high + pad, start, end)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    marks: Sequence[Mark] = (),
    x_names: Sequence[str] = (),
    y_range: tuple[float, float] | None = None,
    height: int = HEIGHT,
) -> Markup:
    """Lines with 95 % intervals as whiskers, and a legend under the chart.

    Args:
        x_names: names of x = 0, 1, …, for values that are no numbers; their points are not joined.
        y_range: where the vertical axis ends; whiskers are cut there.
    """
    series = [replace(one, points=[p for p in one.points if math.isfinite(p[1])]) for one in series]
    points = [point for one in series for point in one.points]
    if not points:
        return Markup("")
    if x_names:
        x = Axis(-0.5, len(x_names) - 0.5, LEFT, WIDTH - RIGHT)
    else:
        x = axis([p[0] for p in points] + [m.x for m in marks], LEFT, WIDTH - RIGHT, log=log_x)
    y = axis(y_range or [v for p in points for v in p[1:] if v is not None], height - BOTTOM, TOP)
    drawn = [_frame(x, y, x_label, y_label, height, x_names)]
    for mark in marks:
        place = _px(x(mark.x))
        drawn.append(f'<line class="mark" x1="{place}" x2="{place}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        drawn.append(f'<text class="note" x="{_px(x(mark.x) + 4)}" y="{TOP + 10}">{escape(mark.label)}</text>')
    for index, one in enumerate(series):
        ordered = sorted(one.points, key=lambda p: p[0])
        # Whiskers of methods measured at the same x stand side by side.
        shift = (index - (len(series) - 1) / 2) * min(4.0, 40 / len(series)) if len(ordered) < 30 else 0.0
        path = " ".join(f"{_px(x(p[0]) + shift)},{_px(y(p[1]))}" for p in ordered)
        parts = [] if x_names else [f'<polyline points="{path}"/>']
        for at, value, low, high in ordered if len(ordered) < 30 else ():
            if low is not None and high is not None:
                parts.append(_whisker(x(at) + shift, y(low), y(high)))
            parts.append(f'<circle cx="{_px(x(at) + shift)}" cy="{_px(y(value))}" r="3"/>')
        drawn.append(f'<g class="{_style(index)}"{_row(one.row)}><title>{escape(one.name)}</title>{"".join(parts)}</g>')
    return _svg(drawn, title, height) + (_legend(series) if len(series) > 1 else Markup(""))


def scatter_chart(
    points: Sequence[Point],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    diagonal: bool = False,
    front: Sequence[Point] = (),
    height: int = HEIGHT,
) -> Markup:
    """Named dots with intervals.

    Args:
        diagonal: draw y = x, with one scale for both axes.
        front: points to join by steps, from the lowest x (a Pareto front).
    """
    if not points:
        return Markup("")
    xs = [p.x for p in points]
    ys = [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None]
    x = axis(xs + (ys if diagonal else []), LEFT, WIDTH - RIGHT, log=log_x)
    y = axis(ys + (xs if diagonal else []), height - BOTTOM, TOP)
    drawn = [_frame(x, y, x_label, y_label, height)]
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        drawn.append(
            f'<line class="mark" x1="{_px(x(low))}" y1="{_px(y(low))}" x2="{_px(x(high))}" y2="{_px(y(high))}"/>'
        )
    if front:
        steps, (first, *rest) = [], sorted(front, key=lambda p: p.x)
        steps.append(f"{_px(x(first.x))},{_px(y(first.y))}")
        for point in rest:
            steps += [f"{_px(x(point.x))},{steps[-1].partition(',')[2]}", f"{_px(x(point.x))},{_px(y(point.y))}"]
        drawn.append(f'<polyline class="front" points="{" ".join(steps)}"/>')
    labels = _Labels(WIDTH - RIGHT)
    for point in sorted(points, key=lambda p: not p.strong):
        drawn.append(_dot(point, x, y, labels))
    return _svg(drawn, title, height)


def interval_bar(summary: Summary | None, within: tuple[float, float]) -> Markup:
    """A 95 % interval and its mean as a bar of a table's cell, on the scale that the whole table has (`scale_of`)."""
    if summary is None:
        return Markup("")
    scale = axis(within, 2, 98, room=0)
    bar, text = "", "no interval: one set"
    if summary.low is not None and summary.high is not None:
        bar = f'<line class="bar" x1="{_px(scale(summary.low))}" x2="{_px(scale(summary.high))}" y1="7" y2="7"/>'
        text = f"95 % interval {summary.low:.2f} to {summary.high:.2f}"
    return Markup(
        f'<svg class="interval" viewBox="0 0 100 14" role="img" aria-label="{text}">'
        f'{bar}<circle cx="{_px(scale(summary.mean))}" cy="7" r="3"/></svg>'
    )


def scale_of(summaries: Iterable[Summary | None], others: Iterable[float] = ()) -> tuple[float, float]:
    """From the lowest to the highest end of an interval, as far as that leaves the means apart: an interval over two
    sets can span everything, and must not press all others into a point.

    Args:
        others: numbers without an interval that must have room too.
    """
    known = [summary for summary in summaries if summary is not None]
    means = [summary.mean for summary in known] + list(others) or [0.0, 100.0]
    room = max(2.0, 1.5 * (max(means) - min(means)))
    low = min([summary.low for summary in known if summary.low is not None] + means)
    high = max([summary.high for summary in known if summary.high is not None] + means)
    return max(low, min(means) - room), min(high, max(means) + room)


# Parts ----------------------------------------------------------------------------------------------------------------


class _Labels:
    """Where names of dots stand: none on top of another, none outside."""

    def __init__(self, right: float) -> None:
        self.right, self.taken = right, list[tuple[float, float, float]]()

    def place(self, at: float, level: float, text: str) -> tuple[float, float, str] | None:
        """(x, y, anchor) of a free place beside a dot; None if there is none."""
        length = 6.2 * len(text)
        for below in (4, -8, 16):
            for anchor, start in (("start", at + 7), ("end", at - 7 - length)):
                end, line = start + length, level + below
                free = all(abs(line - y) >= LINE_HEIGHT or end < a or start > b for a, b, y in self.taken)
                if free and start >= LEFT and end <= self.right and line > TOP + 4:
                    self.taken.append((start, end, line))
                    return (at + 7 if anchor == "start" else at - 7), line, anchor
        return None


def _dot(point: Point, x: Axis, y: Axis, labels: _Labels) -> str:
    at, level = x(point.x), y(point.y)
    parts = [f"<title>{escape(point.label)}</title>"]
    if point.y_low is not None and point.y_high is not None:
        parts.append(_whisker(at, y(point.y_low), y(point.y_high)))
    parts.append(f'<circle cx="{_px(at)}" cy="{_px(level)}" r="4"/>')
    name = point.label.partition("\n")[0]
    if point.strong and (place := labels.place(at, level, name)) is not None:
        left, line, anchor = place
        parts.append(f'<text x="{_px(left)}" y="{_px(line)}" text-anchor="{anchor}">{escape(name)}</text>')
    kind = "dot strong" if point.strong else "dot"
    group = f'<g class="{kind}"{_row(point.row)}>{"".join(parts)}</g>'
    return f'<a href="{escape(point.href)}">{group}</a>' if point.href else group


def _frame(x: Axis, y: Axis, x_label: str, y_label: str, height: int, x_names: Sequence[str] = ()) -> str:
    floor, parts = height - BOTTOM, []
    ticks = list(enumerate(x_names)) if x_names else list(zip(x.ticks, _numbers(x.ticks), strict=True))
    longest = int((x.end - x.start) / max(1, len(ticks)) / 6.2)
    for tick, text in ticks:
        at, shown = _px(x(tick)), text if not x_names or len(text) <= longest else f"{text[: max(1, longest - 1)]}…"
        parts.append(f'<line x1="{at}" x2="{at}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text x="{at}" y="{floor + 15}" text-anchor="middle">{escape(shown)}</text>')
    for tick, text in zip(y.ticks, _numbers(y.ticks), strict=True):
        at = _px(y(tick))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{_px(y(tick) + 4)}" text-anchor="end">{text}</text>')
    middle = (TOP + floor) / 2
    parts.append(f'<text x="{_px((LEFT + WIDTH - RIGHT) / 2)}" y="{height - 8}" text-anchor="middle">{escape(x_label)}')
    parts.append(f'</text><text transform="translate(12,{_px(middle)}) rotate(-90)" text-anchor="middle">')
    return f'<g class="axes">{"".join(parts)}{escape(y_label)}</text></g>'


def _numbers(ticks: Sequence[float]) -> list[str]:
    return [f"{tick:,.10g}" for tick in ticks]


def _whisker(at: float, low: float, high: float) -> str:
    return f'<line x1="{_px(at)}" x2="{_px(at)}" y1="{_px(low)}" y2="{_px(high)}"/>'


def _style(index: int) -> str:
    return f"c{index % COLOURS}" + (" dashed" if index >= COLOURS else "")


def _row(row: str | None) -> str:
    return "" if row is None else f' data-row="{escape(row)}"'


def _legend(series: Sequence[Series]) -> Markup:
    line = '<svg viewBox="0 0 20 10" aria-hidden="true"><line x1="0" x2="20" y1="5" y2="5"/></svg>'
    items = (f'<li class="{_style(i)}"{_row(one.row)}>{line}{escape(one.name)}</li>' for i, one in enumerate(series))
    return Markup(f'<ul class="legend">{"".join(items)}</ul>')


def _svg(parts: Iterable[str], title: str, height: int) -> Markup:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _px(value: float) -> str:
    """A length in pixels, as short as a tenth of one allows: a page has thousands."""
    return f"{value:.1f}".removesuffix(".0")
