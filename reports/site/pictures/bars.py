"""Intervals as bars in the cells of a table, all on one scale that the head of their column draws."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from ddbench.reports.site.pictures.charts import Axis, axis, numbers, px
from ddbench.reports.statistics.crossed import Summary


def interval_bar(summary: Summary | None, within: tuple[float, float]) -> Markup:
    """A 95 % interval and its mean as a bar of a table's cell, on the scale that the whole table has (`scale_of`), with
    an arrow where it goes on beyond the scale."""
    if summary is None:
        return Markup("")
    scale = _axis(within)
    bar, text = "", "no interval: one set"
    beyond = [summary.mean]
    if summary.low is not None and summary.high is not None:
        bar = f'<line class="bar" x1="{px(scale(summary.low))}" x2="{px(scale(summary.high))}" y1="7" y2="7"/>'
        text = f"95 % interval {summary.low:.2f} to {summary.high:.2f}"
        beyond += [summary.low, summary.high]
    if scale.low <= summary.mean <= scale.high:
        bar += f'<circle cx="{px(scale(summary.mean))}" cy="7" r="3"/>'
    # What ends with the scale would read as a value there.
    bar += '<path d="M0,7 l6,-4 l0,8 z"/>' if min(beyond) < scale.low else ""
    bar += '<path d="M100,7 l-6,-4 l0,8 z"/>' if max(beyond) > scale.high else ""
    ticks = "".join(f'<line x1="{px(scale(t))}" x2="{px(scale(t))}" y1="0" y2="14"/>' for t in scale.ticks)
    return Markup(f'<svg class="interval" viewBox="0 0 100 14" role="img" aria-label="{text}">{ticks}{bar}</svg>')


def bar_scale(within: tuple[float, float]) -> Markup:
    """The scale of a column of `interval_bar`, for its head."""
    scale = _axis(within)
    texts = "".join(
        f'<text x="{px(scale(tick))}" y="10" text-anchor="middle">{text}</text>'
        for tick, text in zip(scale.ticks, numbers(scale.ticks), strict=True)
    )
    return Markup(
        f'<svg class="interval" viewBox="0 0 100 14" role="img" '
        f'aria-label="Scale of the bars, {within[0]:.2f} to {within[1]:.2f}">{texts}</svg>'
    )


def _axis(within: tuple[float, float]) -> Axis:
    return axis(within, 10, 90, room=0, bins=3)


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
