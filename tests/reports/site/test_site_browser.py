"""The site in a browser: sorting, filtering, comparing, both themes, a phone. Skips where there is no Chromium."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shifted_looks import foggy, look

from ddbench.reports.site.build import build_site
from ddbench.reports.statistics.equivalence import holm

CHROMIUM = os.environ.get("DDBENCH_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH and none named by $DDBENCH_CHROMIUM")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, builder: Any) -> Path:
    """Three methods at two IPCs, three sets each, with pictures; two of them looked at on a shifted test set."""
    folder = builder(tmp_path_factory.mktemp("site") / "runs")
    generator = np.random.default_rng(1)

    def sets(accuracy: float) -> list[list[np.ndarray]]:
        return [[generator.random(len(folder.labels)) < accuracy] for _ in range(3)]

    for ipc in (1, 10):
        folder.method("dmgd", sets(0.8 + 0.005 * ipc), ipc=ipc, prior="ab" * 32)
        folder.method("dit", sets(0.6), ipc=ipc, prior="ab" * 32)
        folder.method("random", sets(0.58), ipc=ipc)
    folder.method("full", [[99.0, 98.0]], ipc=None)
    look(folder, "dmgd", 0, 90, foggy(90, (50, 30), (40, 20)), prior="ab" * 32)
    look(folder, "random", 0, 60, foggy(60, (40, 30), (40, 20)))
    folder.pictures()
    to = folder.out.parent / "site"
    build_site(folder.out, to)
    return to


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Tests may run as root in a container, where Chromium's sandbox cannot start; the pages are our own.
        arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield opened
    context.close()
    assert not errors


def address(site: Path, pattern: str) -> str:
    (found,) = [path for path in site.glob(pattern) if path.stem != "index"]
    return found.as_uri()


def methods(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        "#board tbody tr:not([hidden]) th", "cells => cells.map(c => c.firstChild.textContent.trim())"
    )
    return found


def test_a_leaderboard_sorts_both_ways_by_any_column_and_by_keyboard(page: Any, site: Path) -> None:
    page.goto(address(site, "tables/*ipc10*.html"))
    assert methods(page)[0] == "dmgd"
    page.locator("#board").get_by_role("button", name="acc_last %").click()
    assert methods(page)[0].startswith("full")
    page.locator("#board").get_by_role("button", name="acc_last %").press("Enter")
    assert methods(page)[-1].startswith("full")
    page.locator("#board").get_by_role("button", name="method").click()
    assert [name.split()[0] for name in methods(page)] == ["dit", "dmgd", "full", "random"]
    assert page.locator('th[aria-sort="ascending"]').inner_text().startswith("method")


def test_a_leaderboard_filters_by_text_and_cost_class(page: Any, site: Path) -> None:
    page.goto(address(site, "tables/*ipc10*.html"))
    page.get_by_label("Show rows with this text").fill("dm")
    assert methods(page) == ["dmgd"]
    assert page.locator("#shown").inner_text() == "1 of 4 rows"
    page.get_by_label("Show rows with this text").fill("")
    page.get_by_label("Cost class").select_option("selection")
    assert {name.split()[0] for name in methods(page)} == {"random", "full"}


def test_ticked_methods_are_compared(page: Any, site: Path) -> None:
    page.goto(address(site, "tables/*ipc10*.html"))
    assert page.locator("#compare").is_disabled()
    page.get_by_label("Compare dmgd").check()
    page.get_by_label("Compare random").check()
    page.locator("#compare").click()
    page.wait_for_url("**/compare/**")
    assert page.locator("#pairs h2").inner_text() == "dmgd minus each of the others"
    cells = [row.split("\t") for row in page.locator("#differences tbody").inner_text().splitlines()]
    assert [(row[0], row[1]) for row in cells] == [("random", "1"), ("random", "10")]
    assert all(row[8] == "dmgd better" for row in cells)
    assert "2 won, 0 not told apart, 0 lost" in page.locator("#score").inner_text()


def test_the_other_way_round_the_signs_turn(page: Any, site: Path) -> None:
    page.goto(address(site, "compare/digits*.html"))
    page.locator("#none").click()
    page.locator("#baseline").select_option(label="random")
    page.get_by_role("checkbox", name="dmgd").check()
    rows_shown = [row.split("\t") for row in page.locator("#differences tbody").inner_text().splitlines()]
    assert all(row[4].startswith("−") and row[8] == "dmgd better" for row in rows_shown)
    low, high = rows_shown[0][5].replace("−", "-").split(" … ")
    assert float(low) < float(rows_shown[0][4].replace("−", "-")) < float(high)


def test_the_script_corrects_as_the_program_does(page: Any, site: Path) -> None:
    page.goto(address(site, "compare/digits*.html"))
    found = page.evaluate(
        "ps => { const lines = ps.map(raw => ({ raw })); holm(lines); return lines.map(line => line.holm); }",
        values := [0.01, 0.04, 0.03, 0.5, 0.005],
    )
    assert found == pytest.approx(holm(values))


def test_what_is_not_chosen_is_not_shown(page: Any, site: Path) -> None:
    page.goto(address(site, "compare/digits*.html"))
    page.locator("#none").click()
    shown = page.eval_on_selector_all(
        ".byrow [data-row]",
        "parts => [...new Set(parts.filter(p => !p.hidden && p.style.display !== 'none').map(p => p.dataset.row))]",
    )
    assert shown == [page.locator("#baseline").input_value()]
    page.locator("#all").click()
    assert page.locator("figure.byrow polyline:visible").count() >= 3


def test_pictures_follow_class_and_ipc(page: Any, site: Path) -> None:
    page.goto(address(site, "compare/digits*.html"))
    assert page.locator("#gridipc").input_value() == "10"
    assert page.locator(".grid:visible").count() == 3
    page.locator("#class").select_option(index=3)
    page.set_viewport_size({"width": 1280, "height": 4000})
    tiles = page.locator(".grid:visible .tile")
    for index in range(2):
        with Image.open(io.BytesIO(tiles.nth(index).screenshot())) as shown:
            inside = np.asarray(shown.convert("L"))[4:-4, 4:-4]
        assert np.unique(inside).tolist() == [20 * 3 + index], "the class's own images, and nothing beside them"
    assert "three" in page.locator(".grid:visible .tiles[role=img]").first.get_attribute("aria-label")


def test_a_leaderboard_shows_the_first_image_of_each_class(page: Any, site: Path) -> None:
    page.goto(address(site, "tables/*ipc10*.html"))
    strips = page.locator("#board .thumbnails [role=img]")
    assert strips.count() == 3, "of all but the whole training set"
    tiles = strips.first.locator(".tile")
    assert tiles.count() == 10
    for index in range(10):
        with Image.open(io.BytesIO(tiles.nth(index).screenshot())) as shown:
            pixels = np.asarray(shown.convert("L"))[2:-2, 2:-2]
        assert tiles.nth(index).bounding_box()["width"] == 32
        assert np.unique(pixels).tolist() == [20 * index], "its own image, whole"


def test_the_index_has_a_line_of_images_for_each_table(page: Any, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    strips = page.locator("td.thumbnails [role=img]")
    assert strips.count() == page.locator("td.thumbnails").count() >= 2
    assert strips.first.locator(".tile").count() == 10
    assert strips.first.locator(".tile").first.bounding_box()["width"] == 32


def test_the_field_is_filtered(page: Any, site: Path) -> None:
    page.goto((site / "field.html").as_uri())
    rows = page.locator("#numbers tbody tr:visible")
    everything = rows.count()
    page.locator("[data-filter=dataset]").select_option("woof")
    page.locator("[data-filter=protocol]").select_option("hard-dmgd-adamw")
    assert 0 < rows.count() < everything
    assert {rows.nth(i).locator("td").first.inner_text() for i in range(rows.count())} == {"woof"}
    page.locator("[data-filter=standing]").select_option("can be run")
    assert rows.first.locator("code").inner_text().startswith("bench run -m ")
    assert page.locator("#shown").inner_text() == f"{rows.count()} of {everything} rows"


def test_robustness_is_sorted_by_what_falls_least_and_opens_to_each_corruption(page: Any, site: Path) -> None:
    page.goto(address(site, "robustness.html"))
    drops, by_corruption, _ = page.locator("main table").all()
    assert drops.locator("tbody th").all_inner_texts() == ["dmgd", "random"]
    drops.get_by_role("button", name="drop").click()
    assert drops.locator("tbody th").all_inner_texts() == ["random", "dmgd"]
    assert drops.locator("tbody tr").first.inner_text().split("\t")[2:] == ["60.00", "32.50", "27.50", "+0.00", "54.2"]
    assert not by_corruption.is_visible()
    page.get_by_text("By corruption").click()
    assert by_corruption.is_visible()
    by_corruption.get_by_role("button", name="frost").click()
    assert by_corruption.locator("tbody tr").first.inner_text().split("\t")[3:] == ["40.0", "30.0"]


def test_the_theme_follows_the_system_until_the_reader_chooses(browser: Any, site: Path) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate(ground) != dark
    page.reload()
    assert page.evaluate(ground) != dark, "the choice is kept"
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_its_window(browser: Any, site: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    for path in sorted(site.glob("*.html")) + sorted(site.glob("*/*.html"))[::5]:
        page.goto(path.as_uri())
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{path.name} is {over} px too wide at {width}"
    context.close()


def test_without_javascript_all_numbers_are_there(browser: Any, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(site, "tables/*ipc10*.html"))
    assert page.locator("#board tbody tr").count() == 4
    page.goto(address(site, "compare/digits*.html"))
    assert page.locator("noscript").count() == 1
    assert page.locator("figure polyline:visible").count() >= 3
    context.close()


def test_every_table_has_headers_every_picture_a_text_and_every_field_a_label(page: Any, site: Path) -> None:
    for path in sorted(site.glob("*.html")) + sorted(site.glob("*/*.html"))[::4]:
        page.goto(path.as_uri())
        faults = page.evaluate(
            """() => [
                ...[...document.querySelectorAll("table")].filter(t => t.rows.length && !t.querySelector("th[scope]"))
                    .map(() => "a table without scoped headers"),
                ...[...document.querySelectorAll("img")].filter(i => !i.alt).map(() => "a picture without a text"),
                ...[...document.querySelectorAll("svg[role=img]")].filter(s => !s.getAttribute("aria-label"))
                    .map(() => "a chart without a name"),
                ...[...document.querySelectorAll("input, select")]
                    .filter(f => !f.labels.length && !f.getAttribute("aria-label"))
                    .map(() => "a field without a label"),
                ...(document.querySelectorAll("h1").length === 1 ? [] : ["not one h1"]),
                ...(document.documentElement.lang ? [] : ["no language"]),
            ]"""
        )
        assert not faults, f"{path.name}: {faults}"


def test_what_has_no_number_comes_last_whichever_way_a_table_is_sorted(page: Any, site: Path) -> None:
    page.goto(address(site, "tables/*ipc10*.html"))
    for sign in (1, -1):
        order = f"[3, NaN, 1, NaN, 2].sort((a, b) => before(a, b, 'number', {sign})).map(String)"
        assert page.evaluate(order) == [*["1", "2", "3"][::sign], "NaN", "NaN"]


def test_what_could_not_be_tested_is_no_tie(page: Any, site: Path) -> None:
    page.goto(address(site, "compare/digits*.html"))
    page.evaluate("data.tables.forEach((one) => { one.pairs = one.pairs.map((pair) => pair.slice(0, 3)); }); update();")
    lines = page.locator("#differences tbody tr").count()
    assert f"0 won, 0 not told apart, 0 lost, {lines} not tested" in page.locator("#score").inner_text()


@pytest.mark.parametrize("pattern", ["tables/*ipc10*.html", "compare/digits*.html", "index.html", "students.html"])
def test_a_page_of_paper_holds_the_tables(page: Any, site: Path, pattern: str) -> None:
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 between Chromium's margins, 96 dots an inch
    page.emulate_media(media="print")
    page.goto((site / pattern).as_uri() if "*" not in pattern else address(site, pattern))
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert not page.locator(".pick >> visible=true").count()


@pytest.mark.parametrize("width", [390, 800, 801, 1280])
def test_charts_use_their_page_and_can_be_read(page: Any, site: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(address(site, "compare/digits*.html"))
    charts = page.locator("svg.chart:visible")
    assert charts.count() == 3, "accuracy against IPC, and against cost at two IPC: each once"
    for place in range(3):
        left, right, size = charts.nth(place).evaluate(
            """svg => {
                 const box = svg.getBoundingClientRect(), size = getComputedStyle(svg.querySelector("text")).fontSize;
                 return [box.left, box.right, parseFloat(size) * box.width / svg.viewBox.baseVal.width];
               }"""
        )
        assert left >= 0
        assert right <= width
        assert right - left >= min(0.9 * width, 560 if width <= 800 else 0.9 * width)
        assert 9 <= size <= 18
        cut = "svg => [...svg.querySelectorAll('text')].some(t => t.getBoundingClientRect().right > innerWidth)"
        assert not charts.nth(place).evaluate(cut)
    assert page.locator("figcaption").first.evaluate("one => one.getBoundingClientRect().right") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_are_named_at_their_ends_in_their_colour(page: Any, site: Path, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(address(site, "compare/digits*.html"))
    names = page.locator("svg.chart:visible").first.evaluate(
        """svg => [...svg.querySelectorAll("g[data-row]")].map(g => {
             const line = g.querySelector("polyline"), text = g.querySelector("text");
             const end = [...line.points].at(-1), at = text.getBBox();
             return [text.textContent, getComputedStyle(line).stroke === getComputedStyle(text).fill,
                     at.x - end.x, Math.abs(at.y + at.height / 2 - end.y)]; })"""
    )
    assert sorted(name for name, *_ in names) == ["dit", "dmgd", "random"]
    assert all(coloured and 0 < right < 70 and off <= 14 for _, coloured, right, off in names), names
    assert not page.locator(".legend:visible").count()
