"""The robustness page: the numbers of known results, no page where there are none, and names that are text."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from shifted_looks import FOG, V2, foggy, look, record, with_looks

from ddbench.benchmark.core.spec import ShiftedSpec, cell_id
from ddbench.benchmark.core.store import Launch
from ddbench.reports.results import rows
from ddbench.reports.robustness import table, text
from ddbench.reports.site.build import build_site

HOSTILE = "<script>alert(1)<img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page's tables as rows of texts, its links, headings and tags."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.tables, self.links = file, list[list[list[str]]](), list[str]()
        self.headings, self.tags, self.handlers, self._open = list[str](), list[str](), list[str](), ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.links += [value for name, value in attrs if name == "href" and value]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")
        self._open = tag if tag in ("th", "td", "h2") else self._open

    def handle_endtag(self, tag: str) -> None:
        self._open = "" if tag == self._open else self._open

    def handle_data(self, data: str) -> None:
        if self._open == "h2":
            self.headings[-1] += data
        elif self._open:
            self.tables[-1][-1][-1] += data


def build(folder: Any, to: Path, **options: Any) -> Path:
    build_site(folder.out, to, **options)
    return to


@pytest.fixture
def filled(folder: Any) -> Any:
    return with_looks(folder)


def test_the_numbers_of_known_results(filled: Any, tmp_path: Path) -> None:
    page = Page(build(filled, tmp_path / "site") / "robustness.html")
    drops, by_corruption, by_severity = page.tables
    assert drops == [
        ["method", "sets", "clean %", "shifted %", "drop", "beside random's", "kept %"],
        ["herding", "2", "81.00 ± 1.41", "45.50 ± 0.71", "35.50 ± 0.71", "+10.50", "56.2"],
        ["random", "2", "65.00 ± 7.07", "40.00 ± 7.07", "25.00 ± 0.00", "+0.00", "61.5"],
    ]
    assert [row[3:] for row in by_corruption] == [["frost", "fog"], ["51.0", "40.0"], ["45.0", "35.0"]]
    assert [row[3:] for row in by_severity] == [["1", "5"], ["56.0", "35.0"], ["50.0", "30.0"]]
    assert page.headings[0].endswith("px · on imagenet-c-made[corruption=frost,fog,severity=1,5]")
    said = page.file.read_text()
    assert "500 images of 10 classes under each of 4 conditions · pixels cccccccc" in said
    assert "Corrupted here by imagecorruptions-imaug 1.1.5" in said


def test_it_shows_what_bench_robust_prints(filled: Any, tmp_path: Path) -> None:
    look(filled, "herding", 0, 80, {V2: record(V2, 80, {"": 71})})
    look(filled, "dm", 0, 15, {V2: record(V2, 15, {"": 14})})
    page = Page(build(filled, tmp_path / "site") / "robustness.html")
    report = table.build(rows.read(filled.out))
    assert page.headings == [f"{one.title} · on {one.test_on}" for one in report.tables]
    expected = []
    for one in report.tables:
        for by in (None, "corruption", "severity") if one.n_conditions > 1 else (None,):
            columns = list(text.columns(one, by))
            cells = zip(*(column for _, column in columns), strict=True)
            expected.append([[name for name, _ in columns], *map(list, cells)])
        for note in one.notes:
            assert note in html.unescape(page.file.read_text())
    assert page.tables == expected
    assert len(page.tables) == 4
    assert "dm is below twice what guessing gives" in page.file.read_text()


def test_no_page_and_no_entry_without_looks(filled: Any, tmp_path: Path) -> None:
    site = build(filled, tmp_path / "site")
    for page in site.rglob("*.html"):
        assert f"{'../' * (len(page.relative_to(site).parts) - 1)}robustness.html" in Page(page).links
    for cell in filled.store.cell_dirs():
        if cell.path.name.startswith("evaluate"):
            shutil.rmtree(cell.path)
    filled.method("random", [[60.0]])
    asked = filled.evaluate_spec(filled.distill_spec("herding")).model_copy(update={"test_on": (FOG,)})
    filled.store.add(asked, Launch(label="herding"))  # asked for is not looked at
    assert table.build(rows.read(filled.out)).tables
    build(filled, site)
    assert not (site / "robustness.html").exists()
    for page in site.rglob("*.html"):
        assert "obustness" not in page.read_text(), page


def test_a_sets_page_says_how_to_look_again(filled: Any, tmp_path: Path) -> None:
    light = FOG.model_copy(update={"severities": (1,)})
    look(filled, "herding", 0, 80, {V2: record(V2, 80, {"": 71})})
    look(filled, "herding", 0, 80, {light: record(light, 80, {"frost/1": 50, "fog/1": 50})})
    site = build(filled, tmp_path / "site")
    (said,) = (text for file in site.rglob("*.html") if "--test-on" in (text := html.unescape(file.read_text()))
               and "--method herding" in text and "--seeds 0" in text)  # fmt: skip
    again = [shlex.split(line) for line in said.splitlines() if "--test-on" in line]
    made = "imagenet-c-made[corruption=frost,fog,severity="
    assert [words[words.index("--test-on") + 1] for words in again] == [f"{made}1,5],imagenet-v2", f"{made}1]"]


def test_every_link_leads_somewhere(filled: Any, tmp_path: Path) -> None:
    site = build(filled, tmp_path / "site")
    page = Page(site / "robustness.html")
    (leaderboard,) = [link for link in page.links if link.startswith("tables/")]
    assert "herding" in (site / leaderboard).read_text()
    for file in site.rglob("*.html"):
        for link in Page(file).links:
            if link != "data:,":
                assert (file.parent / link.partition("#")[0]).exists(), f"{file.name} → {link}"


def test_a_table_that_is_no_leaderboard_has_no_link(folder: Any, tmp_path: Path) -> None:
    """Of the whole training set alone: its leaderboard is that of other IPCs, in which it stands as a reference."""
    folder.method("random", [[60.0]])
    made_by = folder.distill_spec("full", ipc=None)
    images = folder.distill(made_by)
    spec = folder.evaluate_spec(made_by, ipc=None).model_copy(update={"test_on": (V2,)})
    result = folder.student(spec, "full", 90, images=images, made_by=made_by)
    file = folder.store.cell(result.cell).path / "result.json"
    file.write_text(result.model_copy(update={"shifted": [record(V2, 90, {"": 80})]}).model_dump_json())
    page = Page(build(folder, tmp_path / "site") / "robustness.html")
    assert [row[:2] for row in page.tables[0][1:]] == [["full", "1"]]
    assert not [link for link in page.links if link.startswith("tables/")]


def test_a_run_page_has_the_looks_at_its_students(filled: Any, tmp_path: Path) -> None:
    """Also those of a student that another cell trained without, and each look once."""
    look(filled, "random", 0, 60, {})
    look(filled, "random", 0, 60, {V2: record(V2, 60, {"": 55}, content="ee" * 32)})
    look(filled, "random", 0, 60, foggy(60, (50, 30), (40, 20)) | {V2: record(V2, 60, {"": 55}, content="ee" * 32)})
    look(filled, "herding", 2, 50, {})
    site = build(filled, tmp_path / "site")
    page = Page(site / "runs" / f"{cell_id(filled.distill_spec('random'))}.html")
    (shown,) = [rows for rows in page.tables if "shifted %" in rows[0]]
    fog = "imagenet-c-made[corruption=frost,fog,severity=1,5]"
    assert shown == [
        ["student", "test set", "clean %", "shifted %", "drop", "images", "conditions", "pixels"],
        ["seed 0", fog, "60.00", "35.00", "25.00", "500", "4", "cccccccc"],
        ["seed 0", "imagenet-v2", "60.00", "55.00", "5.00", "500", "1", "eeeeeeee"],
    ]
    without = Page(site / "runs" / f"{cell_id(filled.distill_spec('herding', seed=2))}.html")
    assert not [rows for rows in without.tables if "shifted %" in rows[0]]


def test_a_public_page_names_no_folder_and_keeps_its_notes(filled: Any, tmp_path: Path) -> None:
    look(filled, "dm[checkpoint=/home/jane/secret.pt]", 0, 50, foggy(50, (50, 30), (40, 20)))
    said = (build(filled, tmp_path / "site", public=True) / "robustness.html").read_text()
    assert "jane" not in said
    assert "dm[checkpoint=secret.pt]" in said
    assert "(docs/robustness.md)" in said


def test_names_are_text_and_nothing_else(folder: Any, tmp_path: Path) -> None:
    strange = ShiftedSpec(name=HOSTILE, corruptions=(HOSTILE,), severities=(1,), sha256="0f" * 32)
    of_strange = record(strange, 60, {f"{HOSTILE}/{HOSTILE}": 50, HOSTILE: 40})  # the second names no severity
    hostile = of_strange.model_copy(update={"made_by": {HOSTILE: HOSTILE}, "content_sha256": HOSTILE})
    look(folder, HOSTILE, 0, 60, {strange: hostile})
    look(folder, "random", 0, 60, {strange: of_strange})
    look(folder, "random", 1, 60, foggy(60, (50, 30), (40, 20)))
    site = build(folder, tmp_path / "site")
    plain = Page(site / "field.html").tags.count("script")
    for file in [site / "robustness.html", *site.glob("runs/*.html")]:
        page = Page(file)
        assert (page.tags.count("script"), page.handlers) == (plain, []), file
    page = Page(site / "robustness.html")
    assert any(HOSTILE in heading for heading in page.headings)
    of_strange_pixels = next(rows for rows in page.tables if HOSTILE in rows[0])  # by corruption
    assert of_strange_pixels[0] == ["method", "sets", "clean %", HOSTILE]
    assert HOSTILE in {rows[1][0] for rows in page.tables}
    assert f"by {HOSTILE} {HOSTILE} from" in html.unescape(page.file.read_text())


def test_a_look_of_no_classes_is_a_problem_and_no_page_fails(filled: Any, tmp_path: Path) -> None:
    file = next(file for file in sorted(filled.out.rglob("result.json")) if '"shifted":' in file.read_text())
    changed = re.sub(r'"n_classes": ?10', '"n_classes": 0', file.read_text())
    assert changed != file.read_text()
    file.write_text(changed)
    said = (build(filled, tmp_path / "site") / "index.html").read_text()
    assert "n_classes" in said
