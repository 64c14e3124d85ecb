"""The site's charts: inline SVG whose colours are the page's, light or dark, and which print as they are.

Matplotlib draws the figures for papers (`bench figures`); a site has hundreds of small charts that must follow the
reader's theme and cost a kilobyte each, so these are drawn here. Ticks are matplotlib's.

A chart is drawn twice, for a screen and for a phone, and the style sheet shows the one that has room: texts keep their
size, and nothing is cut. Lines are named at their ends, where the names have room, else in a legend.

Every chart names itself (`role="img"`, a title) and is accompanied on its page by the table it draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from markupsafe import Markup, escape

from ddbench.reports.statistics.crossed import Summary

WIDTHS = {"wide": 1000, "narrow": 380}
"""Class of the style sheet -> width of the drawing; texts have 12 px in it."""
HEIGHT = 320
NAMES_SHARE = 0.3
"""The most of a chart's width that its lines' names take."""
LETTER = 6.8
"""Mean width of a letter, pixels."""
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
    named: bool = False
    """Labelled although it is not strong."""
    kind: str = ""
    """A further class of the style sheet."""


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    bins: int = 6
    """The most steps between ticks."""

    def __call__(self, value: float) -> float:
        low, width = self._scale
        share = ((math.log10(value) if self.log else value) - low) / width
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """The lower end and how far the upper one lies from it, as the axis counts."""
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        return low, high - low

    @property
    def ticks(self) -> tuple[float, ...]:
        return _ticks(self.low, self.high, self.bins, log=self.log)


@lru_cache(maxsize=1024)
def _ticks(low: float, high: float, bins: int, *, log: bool) -> tuple[float, ...]:
    """Both drawings of a chart have one vertical axis, and the charts of many runs one horizontal axis."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if log:
        found = LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,)).tick_values(low, high)
    else:
        found = MaxNLocator(nbins=bins).tick_values(low, high)
    edge = 1e-9 * max(abs(low), abs(high))
    return tuple(float(tick) for tick in found if low - edge <= tick <= high + edge)


def axis(
    values: Iterable[float], start: float, end: float, *, log: bool = False, room: float = 0.05, bins: int = 6
) -> Axis:
    """An axis that holds all values with some room; never of width zero."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    # Means of the same numbers in another order differ in their last bits; such an axis would have no width.
    wide = not math.isclose(low, high, rel_tol=1e-9)
    if log:
        pad = (high / low) ** room if wide else 1.5
        return Axis(low / pad, high * pad, start, end, log=True, bins=bins)
    pad = (high - low) * room if wide else max(abs(high) * 0.05, 0.5)
    return Axis(low - pad, high + pad, start, end, bins=bins)


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
    """Lines with 95 % intervals as whiskers, named.

    Args:
        x_names: names of x = 0, 1, …, for values that are no numbers; their points are not joined.
        y_range: where the vertical axis ends; whiskers are cut there.
    """
    series = [replace(one, points=[p for p in one.points if math.isfinite(p[1])]) for one in series]
    points = [point for one in series for point in one.points]
    if not points:
        return Markup("")
    height = max(height, TOP + BOTTOM + LINE_HEIGHT * len(series))
    drawings = []
    for kind, width in WIDTHS.items():
        names_width = LETTER * max(len(one.name) for one in series) + 3 * RIGHT if len(series) > 1 else RIGHT
        named = names_width <= NAMES_SHARE * width
        right = width - (names_width if named else RIGHT)
        if x_names:
            x = Axis(-0.5, len(x_names) - 0.5, LEFT, right)
        else:
            x = axis([p[0] for p in points] + [m.x for m in marks], LEFT, right, log=log_x, bins=int(width / 100))
        y = axis(y_range or [v for p in points for v in p[1:] if v is not None], height - BOTTOM, TOP)
        drawn = [_frame(x, y, x_label, y_label, x_names), *(_mark(mark, x, y) for mark in marks)]
        drawn += _lines(series, x, y, joined=not x_names, named=named and len(series) > 1)
        drawings.append(_svg(drawn, title, kind, height))
        if not named:
            drawings.append(_legend(series, kind))
    return Markup("").join(drawings)


def scatter_chart(
    points: Sequence[Point],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    diagonal: bool = False,
    front: Sequence[Point] = (),
    x_also: Sequence[float] = (),
    y_range: tuple[float, float] | None = None,
    height: int = HEIGHT,
) -> Markup:
    """Named dots with intervals.

    Args:
        x_also: values for which the horizontal axis has room too.
        y_range: where the vertical axis ends; intervals are cut there.
        diagonal: draw y = x, with one scale for both axes.
        front: points to join by steps, from the lowest x (a Pareto front).
    """
    if not points:
        return Markup("")
    xs = [*(p.x for p in points), *x_also]
    ys = [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None]
    drawings = []
    for kind, width in WIDTHS.items():
        x = axis(xs + (ys if diagonal else []), LEFT, width - RIGHT, log=log_x, bins=int(width / 100))
        y = axis(y_range or ys + (xs if diagonal else []), height - BOTTOM, TOP)
        drawn = [_frame(x, y, x_label, y_label)]
        if diagonal:
            low, high = max(x.low, y.low), min(x.high, y.high)
            ends = f'x1="{px(x(low))}" y1="{px(y(low))}" x2="{px(x(high))}" y2="{px(y(high))}"'
            drawn.append(f'<line class="mark" {ends}/>')
        if front:
            steps, (first, *rest) = [], sorted(front, key=lambda p: p.x)
            steps.append(f"{px(x(first.x))},{px(y(first.y))}")
            for point in rest:
                steps += [f"{px(x(point.x))},{steps[-1].partition(',')[2]}", f"{px(x(point.x))},{px(y(point.y))}"]
            drawn.append(f'<polyline class="front" points="{" ".join(steps)}"/>')
        whiskers = [(x(p.x), y(p.y_high), y(p.y_low)) for p in points if p.y_low is not None and p.y_high is not None]
        labels = _Labels(x.end, [(x(p.x), y(p.y)) for p in points], whiskers)
        drawn += [_dot(point, x, y, labels) for point in sorted(points, key=lambda p: not p.strong)]
        drawings.append(_svg(drawn, title, kind, height))
    return Markup("").join(drawings)


# Parts ----------------------------------------------------------------------------------------------------------------


def _mark(mark: Mark, x: Axis, y: Axis) -> str:
    place = px(x(mark.x))
    return (
        f'<line class="mark" x1="{place}" x2="{place}" y1="{px(y.end)}" y2="{px(y.start)}"/>'
        f'<text class="note" x="{px(x(mark.x) + 4)}" y="{px(y.end + 10)}">{escape(mark.label)}</text>'
    )


def _lines(series: Sequence[Series], x: Axis, y: Axis, *, joined: bool, named: bool) -> list[str]:
    drawn = []
    ends = [y(max(one.points, key=lambda p: p[0])[1]) if one.points else y.start for one in series]
    levels = spread_out(ends, LINE_HEIGHT, y.end, y.start)
    for index, one in enumerate(series):
        ordered = sorted(one.points, key=lambda p: p[0])
        # Whiskers of methods measured at the same x stand side by side.
        shift = (index - (len(series) - 1) / 2) * min(4.0, 40 / len(series)) if len(ordered) < 30 else 0.0
        dots = [(px(x(p[0]) + shift), px(y(p[1]))) for p in ordered]
        path = " ".join(map(",".join, dots))
        parts = [f'<polyline points="{path}"/>'] if joined else []
        for (at, _, low, high), (across, up) in zip(ordered, dots, strict=True) if len(ordered) < 30 else ():
            if low is not None and high is not None:
                parts.append(_whisker(x(at) + shift, y(low), y(high)))
            parts.append(f'<circle cx="{across}" cy="{up}" r="3"/>')
        if named and ordered:
            last = f"{px(x(ordered[-1][0]) + shift + 5)},{px(ends[index])}"
            parts.append(f'<polyline class="leader" points="{last} {px(x.end)},{px(ends[index])} ')
            parts.append(f'{px(x.end + RIGHT)},{px(levels[index])}"/><text x="{px(x.end + RIGHT + 3)}" ')
            parts.append(f'y="{px(levels[index] + 4)}">{escape(one.name)}</text>')
        drawn.append(f'<g class="{_style(index)}"{_row(one.row)}><title>{escape(one.name)}</title>{"".join(parts)}</g>')
    return drawn


def spread_out(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Places in [low, high] that are `apart` or more from each other, near those wanted and in their order."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places, above, below = [0.0] * len(wanted), low, high
    for index in order:
        places[index] = max(wanted[index], above)
        above = places[index] + apart
    for index in reversed(order):
        places[index] = min(places[index], below)
        below = places[index] - apart
    return places


class _Labels:
    """Where names of dots stand: none on top of another or of a dot, none outside, and across an interval only where
    there is no other place."""

    def __init__(
        self, right: float, dots: Iterable[tuple[float, float]], whiskers: Sequence[tuple[float, float, float]] = ()
    ) -> None:
        """Args: whiskers: (x, upper end, lower end) of each interval, pixels."""
        self.right, self.taken = right, [(at - 5, at + 5, level + 4) for at, level in dots]
        self.whiskers = whiskers

    def place(self, at: float, level: float, text: str) -> tuple[float, float, str] | None:
        """(x, y, anchor) of a free place beside a dot; None if there is none."""
        length = LETTER * len(text)
        found = []
        for below in (4 + lines * LINE_HEIGHT for lines in (0, -1, 1, -2, 2)):
            for anchor, start in (("start", at + 7), ("end", at - 7 - length)):
                end, line = start + length, level + below
                free = all(abs(line - y) >= LINE_HEIGHT or end < a or start > b for a, b, y in self.taken)
                if free and start >= LEFT and end <= self.right and line > TOP + 4:
                    found.append((start, end, line, anchor))
        if not found:
            return None
        start, end, line, anchor = next((one for one in found if not self._crossed(*one[:3])), found[0])
        self.taken.append((start, end, line))
        return (at + 7 if anchor == "start" else at - 7), line, anchor

    def _crossed(self, start: float, end: float, line: float) -> bool:
        return any(start < x < end and top < line and low > line - LINE_HEIGHT for x, top, low in self.whiskers)


def _dot(point: Point, x: Axis, y: Axis, labels: _Labels) -> str:
    at, level = x(point.x), y(point.y)
    parts = [f"<title>{escape(point.label)}</title>"]
    if point.y_low is not None and point.y_high is not None:
        parts.append(_whisker(at, y(point.y_low), y(point.y_high)))
    parts.append(f'<circle cx="{px(at)}" cy="{px(level)}" r="4"/>')
    name = point.label.partition("\n")[0]
    if (point.strong or point.named) and (place := labels.place(at, level, name)) is not None:
        left, line, anchor = place
        parts.append(f'<text x="{px(left)}" y="{px(line)}" text-anchor="{anchor}">{escape(name)}</text>')
    kind = " ".join(filter(None, ("dot", "strong" if point.strong else "", point.kind)))
    group = f'<g class="{kind}"{_row(point.row)}>{"".join(parts)}</g>'
    return f'<a href="{escape(point.href)}">{group}</a>' if point.href else group


def _frame(x: Axis, y: Axis, x_label: str, y_label: str, x_names: Sequence[str] = ()) -> str:
    """Grid, ticks and labels: the lines of the grid are one path, since a site has tens of thousands of them."""
    floor = y.start
    ticks = list(enumerate(x_names)) if x_names else list(zip(x.ticks, numbers(x.ticks), strict=True))
    longest = int((x.end - x.start) / max(1, len(ticks)) / LETTER)
    grid, below, beside = [], [], []
    for tick, text in ticks:
        at, shown = px(x(tick)), text if not x_names or len(text) <= longest else f"{text[: max(1, longest - 1)]}…"
        grid.append(f"M{at} {px(y.end)}V{px(floor)}")
        below.append(f'<text x="{at}" y="{px(floor + 15)}">{escape(shown)}</text>')
    for tick, text in zip(y.ticks, numbers(y.ticks), strict=True):
        grid.append(f"M{px(x.start)} {px(y(tick))}H{px(x.end)}")
        beside.append(f'<text x="{px(x.start - 6)}" y="{px(y(tick) + 4)}">{text}</text>')
    across, middle = px((x.start + x.end) / 2), px((y.end + floor) / 2)
    below.append(f'<text x="{across}" y="{px(floor + BOTTOM - 8)}">{escape(x_label)}</text>')
    below.append(f'<text transform="translate(12,{middle}) rotate(-90)">{escape(y_label)}</text>')
    centred, right = (f'<g text-anchor="{at}">{"".join(t)}</g>' for at, t in (("middle", below), ("end", beside)))
    return f'<g class="axes"><path d="{"".join(grid)}"/>{centred}{right}</g>'


def numbers(ticks: Sequence[float]) -> list[str]:
    return [f"{tick:,.10g}" for tick in ticks]


def _whisker(at: float, low: float, high: float) -> str:
    return f'<line x1="{px(at)}" x2="{px(at)}" y1="{px(low)}" y2="{px(high)}"/>'


def _style(index: int) -> str:
    return f"c{index % COLOURS}" + (" dashed" if index >= COLOURS else "")


def _row(row: str | None) -> str:
    return "" if row is None else f' data-row="{escape(row)}"'


def _legend(series: Sequence[Series], kind: str) -> Markup:
    line = '<svg viewBox="0 0 20 10" aria-hidden="true"><line x1="0" x2="20" y1="5" y2="5"/></svg>'
    items = (f'<li class="{_style(i)}"{_row(one.row)}>{line}{escape(one.name)}</li>' for i, one in enumerate(series))
    return Markup(f'<ul class="legend {kind}">{"".join(items)}</ul>')


def _svg(parts: Iterable[str], title: str, kind: str, height: int) -> Markup:
    box = f'viewBox="0 0 {WIDTHS[kind]} {height}"'
    return Markup(f'<svg class="chart {kind}" {box} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>')


def px(value: float) -> str:
    """A length in pixels, as short as a tenth of one allows: a page has thousands."""
    return f"{value:.1f}".removesuffix(".0")
