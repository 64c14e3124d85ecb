"""The site's charts: names that stand apart, and bars whose scale is drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ddbench.reports.site.pictures.bars import bar_scale, interval_bar
from ddbench.reports.site.pictures.charts import Point, Series, line_chart, scatter_chart, spread_out
from ddbench.reports.statistics.crossed import Summary


def summary(mean: float, low: float | None = None, high: float | None = None) -> Summary:
    return Summary(mean=mean, n=3, std=1.0, low=low, high=high, student_std=None)


def places(svg: str, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, svg)]


def test_names_stand_apart_in_the_order_of_their_lines() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        wanted = generator.uniform(0, 300, generator.integers(1, 20)).tolist()
        found = spread_out(wanted, 14, 0, 300)
        order = np.argsort(wanted)
        assert np.diff(np.array(found)[order]).min(initial=14) >= 14 - 1e-9
        assert min(found) >= 0
        assert max(found) <= 300
    assert spread_out([10, 50, 200], 14, 0, 300) == [10, 50, 200], "where there is room they stand where they belong"


def test_many_lines_make_a_chart_higher() -> None:
    many = [Series(f"m{i}", [(1, 50, None, None), (10, 50 + i / 100, None, None)]) for i in range(40)]
    wide = str(line_chart(many, title="t", x_label="x", y_label="y", height=220)).partition("</svg>")[0]
    height = float(re.findall(r'viewBox="0 0 1000 (\d+)"', wide)[0])
    levels = [float(re.findall(rf'y="([\d.]+)">m{i}</text>', wide)[0]) for i in range(40)]
    assert np.diff(sorted(levels)).min() >= 13.8
    assert max(levels) < height


def test_long_names_are_a_legend_only_where_they_have_no_room() -> None:
    two = [Series(name, [(1, 50, None, None), (10, 60, None, None)]) for name in ("a", "dmgd[ot_scale=0.05,steps=5]")]
    drawn = str(line_chart(two, title="t", x_label="x", y_label="y"))
    assert re.findall(r'class="legend (\w+)"', drawn) == ["narrow"]


def test_no_name_of_a_dot_hides_another_dot() -> None:
    """On a phone the second's name would lie on the first, and the first then had none."""
    first, second = Point(2.6, 85, "dit", strong=True), Point(33, 85.2, "d3hr-small[covariance=full]", strong=True)
    points = [Point(0.5, 70, "random"), first, second, Point(48, 80, "other")]
    for drawn in str(scatter_chart(points, title="t", x_label="x", y_label="y", log_x=True)).split("</svg>")[:2]:
        dots = [(float(x), float(y)) for x, y in re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
        names = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(start|end)">(dit|d3hr[^<]+)<', drawn)
        assert len(names) == 2
        for x, line, anchor, name in names:
            left = float(x) - (6 * len(name) if anchor == "end" else 0)
            for at, level in dots:
                beside = at + 4 < left or at - 4 > left + 6 * len(name)
                assert beside or abs(float(line) - 4 - level) >= 10, name


@pytest.mark.parametrize(("low", "high", "anchor"), [(50, 70, "end"), (50, 55, "start"), (None, None, "start")])
def test_a_name_does_not_cross_an_interval_where_it_has_another_place(
    low: float | None, high: float | None, anchor: str
) -> None:
    ends = [Point(0, 40, "low"), Point(4, 80, "high")]
    points = [Point(2, 65, "name", named=True), Point(2.1, 52, "other", y_low=low, y_high=high), *ends]
    wide = str(scatter_chart(points, title="t", x_label="x", y_label="y")).partition("</svg>")[0]
    assert re.findall(r'text-anchor="(start|end)">name<', wide) == [anchor]


def test_bars_and_their_drawn_scale_agree() -> None:
    within = (40.0, 60.0)
    head = str(bar_scale(within))
    ticks = dict(zip(re.findall(r">([\d.]+)</text>", head), places(head, r'text x="([\d.]+)"'), strict=True))
    assert len(ticks) >= 2
    for tick, at in ticks.items():
        bar = str(interval_bar(summary(float(tick), 42, 58), within))
        (mean,) = places(bar, r'circle cx="([\d.]+)"')
        assert mean == at, "its number stands above it"
        assert mean in places(bar, r'line x1="([\d.]+)" x2="[\d.]+" y1="0"'), "and the row has the tick, too"


@pytest.mark.parametrize(
    ("one", "left", "right", "dot"),
    [
        (summary(50, 45, 55), 0, 0, 1),
        (summary(50, 30, 55), 1, 0, 1),
        (summary(50, 30, 70), 1, 1, 1),
        (summary(99), 0, 1, 0),
        (summary(10, 5, 20), 1, 0, 0),
    ],
)
def test_what_lies_beyond_the_scale_is_an_arrow(one: Summary, left: int, right: int, dot: int) -> None:
    bar = str(interval_bar(one, (40.0, 60.0)))
    assert (bar.count('"M0,'), bar.count('"M100,'), bar.count("<circle")) == (left, right, dot)
