"""Markup in every text that a foreign result can set: each output shows it as the text that it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from shifted_looks import look, record

from ddbench.benchmark.core.result import MemberRecord, SetSource, SoftLabelsRecord, TeacherRecord
from ddbench.benchmark.core.spec import ProtocolSpec, ShiftedSpec
from ddbench.reports.output import formats, latex, latex_wide
from ddbench.reports.output.figures.draw import draw_all
from ddbench.reports.output.set_card import set_card
from ddbench.reports.quality import tables as quality_tables
from ddbench.reports.quality import text as quality_text
from ddbench.reports.quality.records import read_quality
from ddbench.reports.quality.sets import finished_sets
from ddbench.reports.results import rows
from ddbench.reports.results.rows import Results
from ddbench.reports.robustness import table as robust_tables
from ddbench.reports.robustness import text as robust_text
from ddbench.reports.site.build import build_site
from ddbench.reports.tables import leaderboard

MARKUP = (
    "</script></td>\"'><zzz onzzz=1>--><![CDATA[<zzz/>]]> [zzz](javascript:zzz) ![zzz](https://zzz.example/x) "
    "<https://zzz.example> `zzz` *zzz* | a | &lt;zzz&gt; $\\zzz$ \\input{zzz} %zzz \\end{tabular} {{ zzz }} {% zzz %}"
)
"""Whatever acts in HTML, Markdown, LaTeX or a template; each would leave a `zzz` where only markup can stand."""
IDENTITY = re.compile(r"(cell|kind|status|schema_version|image_set_sha256|predictions|finished_at|content_hash|sha256)")
"""Keys whose values are checked, or are no text."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    from tests.reports.conftest import Folder

    folder = Folder(
        tmp_path_factory.mktemp("hostile") / "runs", dataset=f"d{MARKUP}", split=f"s{MARKUP}", warning=MARKUP
    )
    protocol = ProtocolSpec(name=f"p{MARKUP}", version=1, overrides={MARKUP: MARKUP}, hash="11" * 32)
    for method in (f"a{MARKUP}", f"b{MARKUP}"):
        for seed in (0, 1):
            spec = folder.distill_spec(method, seed=seed, prior="ab" * 32, params={MARKUP: MARKUP})
            images = folder.distill(spec, method, guidance={MARKUP: [0.1]})
            evaluate = folder.evaluate_spec(spec, seed=1000 * seed, protocol=protocol, student=f"n{MARKUP}")
            folder.student(evaluate, method, 40 + seed, images=images, made_by=spec)
    folder.student(folder.evaluate_spec("ef" * 32, protocol=protocol), f"foreign{MARKUP}", 60.0, images="ef" * 32)
    folder.distill(folder.distill_spec("random", seed=7), "f", status="failed", reason=MARKUP)
    folder.plan(f"planned{MARKUP}", folder.distill_spec("random", seed=9), 1, protocol=protocol)
    strange = ShiftedSpec(name=MARKUP, corruptions=(MARKUP,), severities=(1,), sha256="0f" * 32)
    look(folder, f"a{MARKUP}", 2, 60, {strange: record(strange, 60, {f"{MARKUP}/1": 50})})
    folder.pictures()
    taught: dict[str, Any] = {"network": "x", "sha256": "0", "accuracy": 1.0, "accuracy_of": "x", "recipe": {"x": "x"}}
    optional = {
        "source": SetSource(
            address="x", revision="x", files={"x": "x"}, layout="x", normalisation="x", class_order="x"
        ),
        "soft_labels": SoftLabelsRecord(source="x", used=True, sha256="0"),
        "teacher": TeacherRecord(
            **taught, members=[MemberRecord(**taught, share=0.5), MemberRecord(**taught, share=0.5)]
        ),
    }
    changed = set()
    for file in sorted(folder.out.rglob("result.json")):
        content = json.loads(file.read_text())
        if content["kind"] == "evaluate" and content["distill_cell"] is None:
            content |= {key: value.model_dump(mode="json") for key, value in optional.items()}
        before = len(rows.read(folder.out).problems)
        for where, key, path in list(texts(content)):
            kept, where[key] = where[key], MARKUP
            file.write_text(json.dumps(content))
            if len(rows.read(folder.out).problems) > before:  # a field that has a few values only
                where[key] = kept
            else:
                changed.add(path)
        file.write_text(json.dumps(content))
    named = {"teacher.network", "teacher.members.0.network"}
    named |= {"shifted.0.looks.0.condition", "shifted.0.made_by.imagecorruptions-imaug"}
    assert {"label", "dataset.name", "student", *named, "source.address", "prior.trained_on"} <= changed, changed
    (folder.out / "cells" / f"x{MARKUP.replace('/', '')}"[:200]).mkdir()
    return rows.read(folder.out)


def texts(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """(where, key, path) of every text."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        name = f"{path}.{key}".lstrip(".")
        if isinstance(one, str) and IDENTITY.search(str(key)) is None:
            yield value, key, name
        yield from texts(one, name)


class Tags(HTMLParser):
    """Notes what no page of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.bad += [tag] if "zzz" in tag else []
        self.bad += [f"{tag} {name}" for name, _ in attrs if "zzz" in name]
        links = [value or "" for name, value in attrs if name in ("href", "src", "action", "style")]
        self.bad += [link for link in links if re.match(r"\s*javascript:|https?://zzz", link)]

    def handle_decl(self, decl: str) -> None:
        self.bad += [decl] if "zzz" in decl else []


def test_html(found: Results, tmp_path: Path) -> None:
    build_site(found.store.out, tmp_path / "site")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert any("&lt;zzz onzzz=1&gt;" in page.read_text() for page in pages), "the names are there"
    for page in pages:
        parser = Tags()
        parser.feed(page.read_text())
        assert parser.bad == [], page
        assert re.fullmatch(r"[\w.-]+", page.name)


def acting(markdown: str) -> list[str]:
    """What a reader of Markdown would make of it beside text, tables, lists and headings."""
    found, tables = [], MarkdownIt("commonmark").enable("table")
    for block in tables.parse(markdown):
        found += (
            [block.content] if block.type in ("html_block", "code_block", "fence") and "zzz" in block.content else []
        )
        for token in block.children or ():
            if token.type in ("html_inline", "link_open", "image", "code_inline", "em_open"):
                found.append(f"{token.type} {token.content} {token.attrs}")
    return [one for one in found if "zzz" in one or one.startswith("em_open")]


def cells_of_rows(markdown: str) -> set[int]:
    """By how many columns the rows of a table differ from its head; Markdown drops what is too much in silence."""
    differing = set()
    for block in re.findall(r"(?:^\|.*\|$\n?)+", markdown, flags=re.M):
        counts = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in block.splitlines()]
        differing |= {count - counts[0] for count in counts}
    return differing


def test_markdown(found: Results) -> None:
    sets, problems = finished_sets(found, [])
    quality = quality_tables.build(found, sets, read_quality(found.store), problems, spaces=None, methods=[])
    (distill,) = [cell for cell in found.distills.values() if cell.result and cell.label.startswith("a")][:1] or [None]
    students = [cell for cell in found.evaluates.values() if cell.student is not None]
    card = set_card("ab" * 32, distill, students, n_images=1, how=None)
    foreign = set_card("ab" * 32, None, students, n_images=1, how=None)
    robust = robust_tables.build(found)
    assert robust.tables
    fell = [robust_text.markdown(robust, by) for by in (None, "corruption", "severity")]
    for text in (formats.markdown(leaderboard.build(found)), quality_text.markdown(quality), *fell, card, foreign):
        assert "zzz" in text
        assert acting(text) == []
        assert cells_of_rows(text) <= {0}
    for text in (card, foreign):
        assert text.split("---")[1].count("\n") == 6, "nothing more in the front matter"


def test_latex(found: Results) -> None:
    board = leaderboard.build(found)
    for text in (latex.tables(board), latex_wide.wide(board)):
        assert "zzz" in text
        assert re.search(r"\\(zzz|input)\b", text) is None
        assert re.search(r"(?<!\\)(\\\\)*%zzz", text) is None
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_figures(found: Results, tmp_path: Path) -> None:
    files, _ = draw_all(leaderboard.build(found), tmp_path / "figures", "column")
    for file in files:
        if file.suffix == ".svg":
            names = {one.tag for one in ElementTree.parse(file).iter()}
            assert not any("zzz" in name for name in names if isinstance(name, str))
        elif file.suffix == ".md":
            assert acting(file.read_text()) == []
    assert files
