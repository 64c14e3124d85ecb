"""The static site: what is on its pages, what must not be, and that it is safe to build and to open."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.reports.results import rows
from ddbench.reports.site.build import MANIFEST, build_site

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Links(HTMLParser):
    """All that a page refers to, its scripts, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.handlers: list[str] = []
        self.scripts = 0
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "data-src", "data-nearest", "data-href"):
                self.targets.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")
        self.scripts += tag == "script"


def build(folder: Any, to: Path, **options: Any) -> Path:
    build_site(folder.out, to, **options)
    return to


def text_of(site: Path, path: str) -> str:
    return (site / path).read_text(encoding="utf-8")


def only(site: Path, pattern: str) -> Path:
    (found,) = [path for path in site.glob(pattern) if path.stem not in ("index", "environments")]
    return found


@pytest.fixture
def filled(folder: Any) -> Any:
    folder.method(
        "dmgd", [[80, 81], [84, 82], [83, 82]], prior="ab" * 32, distill={"guidance": {"transport": [0.3, 0.1]}}
    )
    folder.method("random", [[70, 71], [72, 70], [69, 70]])
    folder.method("full", [[99, 98]], ipc=None)
    return folder


def test_every_link_leads_to_a_file_of_the_site(filled: Any, tmp_path: Path) -> None:
    filled.pictures()
    site = build(filled, tmp_path / "site")
    read = {page.resolve(): Links(page.read_text()) for page in site.rglob("*.html")}
    assert len(read) > 10
    for page, links in read.items():
        for target in links.targets:
            name, _, anchor = target.partition("#")
            if target == "data:,":
                continue
            assert not re.match(r"[a-z]+:|//|/", name), f"{page.name} refers to {target}"
            linked = (page.parent / name).resolve() if name else page
            assert linked.is_file(), f"{page.name} → {target}"
            if anchor and linked.suffix == ".html":
                assert anchor in read[linked].ids, f"{page.name} → {target}"


def test_a_leaderboard_shows_what_the_table_holds(filled: Any, tmp_path: Path) -> None:
    site = build(filled, tmp_path / "site")
    page = only(site, "tables/*ipc10*.html").read_text()
    for text in ("dmgd", "82.00 ± 1.32", "3×2", "random", "95 % interval", "gap closed", "0.200", "2/2"):
        assert text in page
    assert ">ref<" in page
    assert page.count('data-id="') == 3


def test_the_comparison_has_the_numbers_of_bench_compare(filled: Any, tmp_path: Path) -> None:
    from ddbench.reports.tables.compare import compare_methods

    site = build(filled, tmp_path / "site", margin=2.0)
    page = only(site, "compare/digits*.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    (line,) = compare_methods(rows.read(filled.out), ["dmgd", "random"], 2.0).lines
    table = next(one for one in data["tables"] if one["ipc"] == 10)
    names = [data["names"][row["id"]] for row in table["rows"]]
    a, b, difference, low, high, p, equivalent, visible, within = next(
        pair for pair in table["pairs"] if {names[pair[0]], names[pair[1]]} == {"dmgd", "random"}
    )
    sign = 1 if names[a] == "dmgd" else -1
    assert sign * difference == pytest.approx(line.comparison.difference, abs=0.005)
    assert sorted([sign * low, sign * high]) == pytest.approx([line.comparison.low, line.comparison.high], abs=0.005)
    assert p == pytest.approx(line.comparison.p_value, rel=0.06)
    assert equivalent == pytest.approx(line.p_equivalent, rel=0.06)
    assert visible == pytest.approx(line.visible, abs=0.005)
    assert within > abs(difference)
    assert b != a


def test_each_pair_of_methods_is_reckoned_once(folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaderboard, compare page and the page of students show the same differences: one answer, from one place."""
    from ddbench.reports.analyses import agreement
    from ddbench.reports.results.groups import group
    from ddbench.reports.statistics import crossed

    for student in ("convnet3", "convnet6"):
        for seed in range(3):
            for place, name in enumerate("abcd"):
                spec = folder.distill_spec(name, seed=seed)
                images = folder.distill(spec, name)
                right = (np.arange(len(folder.labels)) * 7 + seed) % 10 < 4 + place
                evaluate = folder.evaluate_spec(spec, seed=1000 * seed, student=student)
                folder.student(evaluate, name, right, images=images, made_by=spec)
    made, difference_of = [], crossed.difference_of
    monkeypatch.setattr(crossed, "difference_of", lambda a, b, *args: made.append(1) or difference_of(a, b, *args))
    monkeypatch.setattr(
        crossed, "compare", lambda a, b, *args: crossed.comparison_of(crossed.difference_of(a, b, *args))
    )
    site = build(folder, tmp_path / "site")
    in_site = len(made)
    data = [
        re.search(r'id="data">(.*?)</script>', page.read_text(), re.S) for page in site.glob("compare/digits*.html")
    ]
    assert [len(json.loads(found[1])["tables"][0]["pairs"]) for found in data if found is not None] == [6, 6]
    results = rows.read(folder.out)
    arenas = agreement.build(results.store, group(results))
    # Whether the other students find a difference again is a question of its own, asked of what two tables share.
    checks = sum(len(finding.checks) for arena in arenas for finding in arena.findings)
    assert checks > 0
    assert in_site == 12 + checks


def test_equal_within_is_where_the_equivalence_test_turns(filled: Any, tmp_path: Path) -> None:
    """The margin printed as "equal within" has p = 0.05 in the two one-sided tests."""
    from ddbench.reports.tables.compare import compare_methods

    page = only(build(filled, tmp_path / "site"), "compare/digits*.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    table = next(one for one in data["tables"] if one["ipc"] == 10)
    names = [data["names"][row["id"]] for row in table["rows"]]
    within = next(pair[8] for pair in table["pairs"] if {names[pair[0]], names[pair[1]]} == {"dmgd", "random"})
    for margin, equivalent in ((within - 0.05, False), (within + 0.05, True)):
        (line,) = compare_methods(rows.read(filled.out), ["dmgd", "random"], margin).lines
        assert (line.p_equivalent is not None and line.p_equivalent < 0.05) is equivalent


def test_a_run_page_says_how_to_run_it_again(filled: Any, tmp_path: Path) -> None:
    site = build(filled, tmp_path / "site")
    spec = filled.distill_spec("dmgd", seed=1, prior="ab" * 32)
    from ddbench.benchmark.core.spec import cell_id

    page = text_of(site, f"runs/{cell_id(spec)}.html")
    assert "bench run --method dmgd --dataset digits --ipc 10 --seeds 1" in page
    assert "--protocol quick --student convnet3 --repeats 2" in page
    assert "Testing CPU" in text_of(site, "runs/environments.html")


def test_students_stand_in_the_order_of_their_seeds(folder: Any, tmp_path: Path) -> None:
    """They stood in the order of their hashes."""
    folder.method("random", [[70.0 + number for number in range(9)]])
    site = build(folder, tmp_path / "site")
    page = only(site, "runs/*.html").read_text(encoding="utf-8")
    assert re.findall(r">seed (\d+)<", page) == [str(number) for number in range(9)]


def test_a_table_says_who_printed_a_number(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)
    protocol = resolve_protocol("hard-igd-adamw")[1]
    for method, ipc in (("igd", 10), ("igd-minimax", 10)):
        folder.method(method, [[40.0], [41.0]], protocol=protocol, student="resnet_ap10", ipc=ipc)
    page = only(build(folder, tmp_path / "site"), "tables/*.html").read_text(encoding="utf-8")
    assert "41.0 ± 0.8</span> o<br>" in page, "IGD's, from DAP's table"
    assert "primary, in another paper than the method's own</td>" in page
    assert "43.3 ± 0.3" in page
    assert not re.search(r"arXiv [^\d]", page), "of a paper without an arXiv number"


def test_names_and_reasons_are_text_and_nothing_else(folder: Any, tmp_path: Path) -> None:
    folder.method(HOSTILE, [[50, 51], [52, 53]], prior="ab" * 32)
    folder.method("random", [[40, 41], [42, 43]])
    failed = folder.distill_spec("broken", seed=5)
    folder.distill(failed, HOSTILE, status="failed", reason=HOSTILE)
    folder.student(folder.evaluate_spec("ef" * 32, seed=9), HOSTILE, 60.0, images="ef" * 32)
    site = build(folder, tmp_path / "site")
    plain = build(filled_plainly(folder, tmp_path), tmp_path / "plain")
    for page in site.rglob("*.html"):
        found = Links(page.read_text())
        assert not found.handlers, page.name
        assert "alert(1)</script>" not in page.read_text(), page.name
        twin = plain / page.relative_to(site)
        if twin.exists():
            assert found.scripts == Links(twin.read_text()).scripts, page.name
    for path in site.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", path.name), path


def filled_plainly(folder: Any, tmp_path: Path) -> Any:
    other = type(folder)(tmp_path / "plain-runs")
    other.method("mine", [[50, 51], [52, 53]], prior="ab" * 32)
    other.method("random", [[40, 41], [42, 43]])
    return other


def test_public_leaves_out_real_images_and_paths(folder: Any, tmp_path: Path) -> None:
    from ddbench.methods.dmgd.method import DMGD

    params = DMGD.Params().model_dump(mode="json")
    folder.method("dmgd", [[80], [81]], prior="ab" * 32, params=params)
    folder.method("random", [[70], [71]])
    folder.method("nobody-knows", [[60], [61]])
    folder.pictures()
    private = build(folder, tmp_path / "private")
    assert len(list((private / "images").iterdir())) == 6
    site = tmp_path / "public"
    build(folder, site)
    build(folder, site, public=True)
    assert len(list((site / "images").iterdir())) == 2, "pictures of the earlier, private build must go"
    pages = "".join(page.read_text() for page in site.rglob("*.html"))
    assert "not ours to publish" in pages
    assert str(folder.out) not in pages


def test_the_site_is_written_over_itself_and_over_nothing_else(filled: Any, tmp_path: Path) -> None:
    site = build(filled, tmp_path / "site")
    before = {path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    build(filled, site)
    assert {path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()} == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="new or empty folder"):
        build(filled, mine)
    manifest = json.loads((site / MANIFEST).read_text())
    victim = tmp_path / "victim.txt"
    victim.write_text("stays")
    (site / MANIFEST).write_text(json.dumps({**manifest, "files": [*manifest["files"], "../victim.txt"]}))
    build(filled, site)
    assert victim.read_text() == "stays"


def test_broken_results_are_listed_and_nothing_fails(filled: Any, tmp_path: Path) -> None:
    cells = filled.store.cell_dirs()
    (cells[0].path / "result.json").write_text("{half")
    (cells[1].path / "result.json").write_text(json.dumps({"schema_version": 0}))
    (filled.out / "cells" / "foreign").mkdir()
    quality = filled.out / "quality"
    quality.mkdir()
    (quality / "x.json").write_text("[]")
    page = text_of(build(filled, tmp_path / "site"), "index.html")
    assert "half-written" in page
    assert "schema version 0" in page
    assert "no cell" in page


def test_a_folder_without_evaluations_says_so(folder: Any, tmp_path: Path) -> None:
    assert "No evaluations yet" in text_of(build(folder, tmp_path / "site"), "index.html")


def test_the_whole_training_set_has_no_picture(filled: Any, tmp_path: Path) -> None:
    filled.pictures()
    assert len(list((build(filled, tmp_path / "site") / "images").iterdir())) == 6


def test_500_results_are_less_than_3_mb(folder: Any, tmp_path: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("many_results", Path(__file__).parent.parent / "many_results.py")
    assert spec is not None
    assert spec.loader is not None
    many = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(many)
    assert many.fill(folder, 500) == 500
    site = build(folder, tmp_path / "site")
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 3e6


def test_an_axis_of_values_that_differ_in_their_last_bits_has_a_width() -> None:
    from ddbench.reports.site.pictures.charts import axis

    for log in (False, True):
        found = axis([12.339999999999998, 12.34], 52, 624, log=log)
        assert 52 < found(12.34) < 624
        assert found.high / found.low > 1.01
