"""The pages of ablations, students and reproduction: the numbers that they must say, and hostile names."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.spec import ProtocolSpec
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.reports.results import rows
from ddbench.reports.site import ablation_page, reproduction_page, students_page
from ddbench.reports.site.build import NAVIGATION
from ddbench.reports.site.model import Site
from ddbench.reports.site.render import render

DMGD = METHODS.load("dmgd").Params().model_dump(mode="json")
OTHER = ProtocolSpec(name="other", version=1, overrides={}, hash="22" * 32)
HOSTILE = "</table><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page's text, tables and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.ids, self.anchors = html, list[str](), set[str](), set[str]()
        self.handlers: list[str] = []
        self.parts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.ids |= {value for name, value in attrs if name == "id" and value}
        self.anchors |= {value[1:] for name, value in attrs if name == "href" and value and value.startswith("#")}

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.parts))


def shown(folder: Any, module: ModuleType) -> Page:
    (page,) = module.pages(Site(rows.read(folder.out), public=False, margin=1.0))
    found = Page(render(page, NAVIGATION, "made by a test"))
    assert found.anchors - {"main"} <= found.ids
    return found


@pytest.fixture
def folder(tmp_path: Path, builder: Any) -> Any:
    return builder(tmp_path / "runs")


@pytest.fixture
def woof(tmp_path: Path, builder: Any) -> Any:
    return builder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)


def corners(folder: Any, **how: Any) -> None:
    for label, semantic, distribution, accuracy in (
        ("dmgd[neither]", False, False, 34.0),
        ("dmgd[semantic]", True, False, 38.0),
        ("dmgd[distribution]", False, True, 41.0),
        ("dmgd", True, True, 42.0),
    ):
        params = DMGD | {"semantic_matching": semantic, "distribution_matching": distribution}
        folder.method(label, [[accuracy + s] for s in range(3)], params=params, **how)


def test_table_3_with_effects_and_the_papers_numbers(woof: Any) -> None:
    corners(woof, protocol=resolve_protocol("hard-dmgd-adamw")[1], student="resnet_ap10")
    page = shown(woof, ablation_page)
    for cell in ("35.00 ± 1.00", "39.00 ± 1.00", "42.00 ± 1.00", "43.00 ± 1.00", "34.7", "38.9", "41.6", "40.8"):
        assert cell in page.text
    # ((38 - 34) + (42 - 41)) / 2, ((41 - 34) + (42 - 38)) / 2, (42 - 41) - (38 - 34), and the paper's.
    for effect in ("+2.50", "+5.50", "-3.00", "+1.7", "+4.4", "-5.0"):
        assert effect in page.text
    assert "cannot be relied on to be seen" in page.text
    assert "paper (best look)" in page.text
    assert "parts that are on" in page.text


def test_an_incomplete_design_says_what_is_missing(folder: Any) -> None:
    for label, change in (("dmgd", {}), ("a", {"semantic_matching": False}), ("b", {"distribution_matching": False})):
        folder.method(f"dmgd[{label}]", [[70.0]], params=DMGD | change)
    page = shown(folder, ablation_page)
    assert "nothing here has run as" in page.text
    assert "dmgd[distribution_matching=false,semantic_matching=false]" in page.text


def test_a_sweep_marks_its_default_and_draws_the_papers_values(woof: Any) -> None:
    how: dict[str, Any] = {"protocol": resolve_protocol("hard-dmgd-adamw")[1], "student": "resnet_ap10"}
    for value in (0.06, 0.1):
        params = DMGD | {"label_noise_weight": value}
        woof.method(f"dmgd[label_noise_weight={value}]", [[40.0], [40.5]], params=params, **how)
    page = shown(woof, ablation_page)
    assert "0.06 default" in page.text
    assert "0.01 not run here" in page.text
    assert "42.7" in page.text
    assert "svg" in page.tags


def test_without_ablations_the_page_says_how_to_make_them(folder: Any) -> None:
    folder.method("random", [[70.0]])
    page = shown(folder, ablation_page)
    assert "No two runs here differ in one parameter alone" in page.text
    assert "34.7" in page.text  # the paper's own table is there all the same
    # DMGD's four designs have a corner that another optimiser made, CaO2's three have none.
    of_another = "neither: it is the row of DiT that was copied from Minimax, whose students were trained with SGD"
    assert page.text.count(of_another) == page.text.count("; the effects hold that too") == 4


def test_rankings_and_surviving_findings(folder: Any) -> None:
    for method, first, second in (("a", 60.0, 60.0), ("b", 64.0, 78.0), ("c", 70.0, 70.0), ("d", 80.0, 76.0)):
        images = {"images": lambda seed, method=method: f"{method}{seed}".encode().hex().ljust(64, "0")}
        folder.method(method, [[first + s] for s in range(3)], **images)
        folder.method(method, [[second + s] for s in range(3)], protocol=OTHER, **images)
    page = shown(folder, students_page)
    assert "+0.33" in page.text
    assert "drawn over 3 seeds and test images" in page.text
    assert re.search(r"reversed and separated \(-8\.00\)", page.text)
    assert "Protocols with convnet3" in page.text
    assert "Kendall's W" in page.text


def test_one_setup_has_nothing_to_compare(folder: Any) -> None:
    folder.method("a", [[60.0]])
    assert "one protocol and one student" in shown(folder, students_page).text


def test_a_reproduction_with_both_estimands_and_its_notes(woof: Any) -> None:
    protocol = resolve_protocol("hard-minimax-sgd")[1]
    woof.method("mgd3", [[37.0, 38.0], [36.0, 37.0]], protocol=protocol, student="resnet_ap10")
    page = shown(woof, reproduction_page)
    assert "40.4" in page.text
    assert "38.00 ± 0.50" in page.text  # best looks of the first set: 37.5 and 38.5, population std
    assert "37.00" in page.text
    assert "+0.50" in page.text  # the builder's best look is half a point above the last
    assert "MGD3's prior for ImageWoof is fine-tuned" in page.text
    assert {"note-mgd3-woof", "note-optimiser"} <= page.anchors


def test_digits_have_no_published_cells_and_the_page_says_so(folder: Any) -> None:
    folder.method("random", [[70.0], [71.0]])
    page = shown(folder, reproduction_page)
    assert "No published cell has been measured here" in page.text
    assert "no paper that is known here has numbers for digits" in page.text
    assert "What looking at the test set adds" in page.text
    assert "Two optimisers in one table" in page.text
    assert "svg" not in page.tags


@pytest.mark.parametrize("module", [ablation_page, students_page, reproduction_page])
def test_nothing_from_results_becomes_markup(tmp_path: Path, builder: Any, module: ModuleType) -> None:
    folder = builder(tmp_path / "runs", split=HOSTILE)
    for accuracy, value in ((50.0, HOSTILE), (60.0, "plain"), (70.0, "other")):
        for protocol in ({}, {"protocol": ProtocolSpec(name=HOSTILE, version=1, overrides={}, hash="33" * 32)}):
            sets = [[accuracy + s] for s in range(3)]
            # The builder takes the method's name from its label.
            folder.method(f"{HOSTILE}[{value}]", sets, params={HOSTILE: value}, student="s" + HOSTILE, **protocol)
    page = shown(folder, module)
    assert page.tags.count("script") == 1  # the site's own
    assert "img" not in page.tags
    assert not page.handlers
    assert "{{ 7 * 7 }}" in page.text  # a name is no template either


def test_a_mark_of_the_default_is_left_out_where_the_axis_cannot_have_it(folder: Any) -> None:
    for value in (0.1, 10.0):
        folder.method(f"dmgd[label_noise_weight={value}]", [[70.0]], params=DMGD | {"label_noise_weight": value})
    assert "label_noise_weight (log)" in shown(folder, ablation_page).text
