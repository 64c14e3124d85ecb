"""Accuracy against cost on the pages: every row stands there, and charts mark what the table says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ddbench.reports.results import rows
from ddbench.reports.site.build import build_site
from ddbench.reports.site.cost_section import cost_caption, cost_chart, drawn
from ddbench.reports.tables.cost_board import By, CostAxis, CostTable, cost_table
from ddbench.reports.tables.leaderboard import build


@pytest.fixture
def priced(folder: Any) -> Any:
    """Costs from 1 to 1,000 seconds, bytes from 1,000 to 3,000; a reference of 500,000 bytes."""
    for index, (name, accuracy) in enumerate({"random": 60, "dmgd": 85, "dit": 84.9, "dm": 50}.items()):
        made = {"cost": folder.cost(10.0**index), "image_bytes": 1000 * (1 + index)}
        folder.method(name, [[accuracy - 1.0], [accuracy + 1.0]], distill=made)
    folder.method("full", [[99.0]], ipc=None, distill={"cost": folder.cost(5.0), "image_bytes": 500_000})
    return folder


def table_of(folder: Any, by: By) -> CostTable:
    (table,) = (table for table in build(rows.read(folder.out)).tables if table.ipc is not None)
    return cost_table(table, by)


def axis_of(folder: Any, by: By) -> CostAxis:
    (axis,) = table_of(folder, by).axes
    return axis


def dots(chart: str) -> dict[str, str]:
    """Name -> class, of the wide drawing."""
    wide = chart.partition("</svg>")[0]
    return {name: kind for kind, name in re.findall(r'<g class="(dot[^"]*)"[^>]*><title>(.*?)\n', wide)}


def test_marks_are_those_of_the_standings(priced: Any) -> None:
    axis = axis_of(priced, "cost")
    assert [(row.method, row.standing) for row in axis.rows] == [
        ("random", "front"), ("full", "no part"), ("dmgd", "front"), ("dit", "not separated"), ("dm", "behind"),
    ]  # fmt: skip
    chart = str(cost_chart(axis, axis.names))
    assert dots(chart) == {
        "random": "dot strong", "full": "dot aside", "dmgd": "dot strong", "dit": "dot", "dm": "dot behind",
    }  # fmt: skip
    assert "CPU h (log)" in chart
    for drawing in chart.split("</svg>")[:2]:
        assert {name for name in axis.names.values() if f">{name}</text>" in drawing} >= {"random", "dmgd", "dm"}
    assert cost_caption(axis).startswith("Filled: front; hollow: not separated; grey: behind; dashed: takes no part.")


def test_a_reference_far_off_is_said_and_not_drawn(priced: Any) -> None:
    axis = axis_of(priced, "bytes")
    assert [row.method for row in axis.rows if row not in drawn(axis)] == ["full"]
    chart = str(cost_chart(axis, axis.names))
    assert "full" not in dots(chart)
    assert "(log)" not in chart, "a factor of four needs none"
    assert cost_caption(axis).endswith("Too far off to be drawn: full.")


def test_nothing_is_drawn_of_one_row(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [82.0]])
    axis = axis_of(folder, "cost")
    assert cost_chart(axis, axis.names) == ""


def test_costs_that_are_nearly_the_same_stand_together(folder: Any) -> None:
    for name, count in (("a", 100_000), ("b", 100_100)):
        folder.method(name, [[50.0], [60.0]], distill={"image_bytes": count})
    axis = axis_of(folder, "bytes")
    wide = str(cost_chart(axis, axis.names)).partition("</svg>")[0]
    (first, second) = map(float, re.findall(r'circle cx="([\d.]+)"', wide))
    assert abs(first - second) < 10, "pixels of 1,000"


def test_costs_of_nothing_are_drawn(folder: Any) -> None:
    for name, seconds in (("a", 0.0), ("b", 0.0), ("c", 7.0)):
        folder.method(name, [[50.0], [60.0]], distill={"cost": folder.cost(seconds)})
    axis = axis_of(folder, "cost")
    assert set(dots(str(cost_chart(axis, axis.names)))) == {"a", "b", "c"}


@pytest.mark.parametrize("public", [False, True])
def test_the_page_has_both_views_and_what_is_on_no_axis(priced: Any, tmp_path: Path, public: bool) -> None:
    priced.student(priced.evaluate_spec("ef" * 32), "mine", 70.0, images="ef" * 32)
    build_site(priced.out, tmp_path / "site", public=public)
    (path,) = (tmp_path / "site" / "tables").glob("*ipc10*.html")
    page = path.read_text()
    cost, _, more = page.partition('<h2 id="cost">')[2].partition('<h2 id="bytes">')
    for section, why in (
        (cost, "what distilling it cost is not recorded"),
        (more, "what its images take is not recorded"),
    ):
        assert len(re.findall(r"<tr[ >]", section.partition("<h2>")[0])) == 1 + 5
        assert "On no axis:" in section
        assert why in section
        assert section.count('<svg class="chart wide"') == 1
    assert "CPU hours on Testing CPU, 1 thread" in cost
    (compare,) = (p for p in (tmp_path / "site" / "compare").glob("*.html") if p.stem != "index")
    assert f"../{path.relative_to(tmp_path / 'site')}#cost" in compare.read_text()


def test_no_time_is_on_an_axis_of_other_hardware(priced: Any, tmp_path: Path) -> None:
    priced.environment = {"hardware": {"cpu": "Another CPU", "gpus": []}, "device": "cpu"}
    for name in ("herding", "k-center"):
        priced.method(name, [[70.0], [71.0]])
    build_site(priced.out, tmp_path / "site")
    for pattern in ("tables/*ipc10*.html", "compare/digits*.html"):
        (page,) = (path.read_text() for path in (tmp_path / "site").glob(pattern))
        there = [
            set(dots(chart))
            for chart in re.findall(r'<svg class="chart wide".*?Accuracy against CPU.*?</svg>', page, re.S)
        ]
        assert there == [{"random", "full", "dmgd", "dit", "dm"}, {"herding", "k-center"}], pattern
