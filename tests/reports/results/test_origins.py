"""Who ran a row's cells, when and with what: in frames, tables, notes and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.provenance import PROVENANCE, Origin, Provenance
from ddbench.reports.results import rows
from ddbench.reports.results.frames import sets_frame, students_frame
from ddbench.reports.site.build import build_site
from ddbench.reports.tables.cost_board import cost_table
from ddbench.reports.tables.leaderboard import build

CAME = Origin(bundle="lab-b.tar.zst", sha256="b0" * 32, by="Lab <B> & Co", made_at="2026-05-04T03:02:01Z")


def came(folder: Any, label: str, *, torch: str, unverified: tuple[str, ...] = (), finished: str | None = None) -> None:
    """Mark a method's cells as brought by a bundle."""
    for cell in folder.store.cell_dirs():
        file = cell.path / "result.json"
        noted = json.loads(file.read_text())
        if noted["label"] != label:
            continue
        noted["environment"] = {**noted["environment"], "versions": {"torch": torch, "ddbench": "0.1.0"}}
        file.write_text(json.dumps(noted | {"finished_at": finished}))
        origin = CAME.model_copy(update={"unverified": unverified})
        write_json(cell.path / PROVENANCE, Provenance(origins=(origin,)).model_dump(mode="json"))


def test_frames_and_tables(folder: Any) -> None:
    folder.method("mine", [[80], [81]])
    folder.method("theirs", [[70], [71]])
    came(folder, "theirs", torch="2.9.0", unverified=("images: not here",))
    results = rows.read(folder.out)
    frame = students_frame(results).set_index("method")
    assert frame.loc["theirs", "origin_bundles"].unique().tolist() == ["lab-b.tar.zst (b0b0b0b0)"]
    assert frame.loc["theirs", "origin_finished_at"].unique().tolist() == ["2026-05-04T03:02:01Z"]
    assert frame.loc["theirs", "origin_torch"].unique().tolist() == ["2.9.0"]
    assert frame.loc["mine", "origin_bundles"].unique().tolist() == [""]
    assert frame.loc["mine", "origin_finished_at"].isna().all()
    assert sets_frame(results).set_index("method").loc["theirs", "origin_by"].unique().tolist() == [CAME.by]
    (table,) = build(results).tables
    theirs = next(row.origin for row in table.rows if row.method == "theirs")
    assert (theirs.verified, theirs.unverified) == (False, ["images: not here"])
    assert next(row.origin for row in table.rows if row.method == "mine").verified is None
    assert any("theirs: from others by Lab <B> & Co, not all of it recomputed here" in note for note in table.notes)


def test_versions_share_a_table_with_a_note(folder: Any) -> None:
    for label, version in (("old", "2.9.0"), ("new", "2.14.1"), ("newer", "2.14.1")):
        folder.method(label, [[80], [81]])
        came(folder, label, torch=version)
    (table,) = build(rows.read(folder.out)).tables
    mixed = [note for note in table.notes if note.startswith("Mixed versions")]
    assert len(mixed) == 1
    assert "of torch" in mixed[0]
    assert "new, newer with 2.14.1; old with 2.9.0" in mixed[0].replace("newer, new ", "new, newer ")


def test_pages_say_who_when_and_with_what(folder: Any, tmp_path: Path) -> None:
    folder.method("mine", [[80], [81]])
    build_site(folder.out, tmp_path / "alone")
    assert "run by" not in next((tmp_path / "alone" / "tables").glob("*.html")).read_text()
    folder.method("theirs", [[70], [71]])
    folder.method("proved", [[70], [71]])
    came(folder, "theirs", torch="2.9.0", unverified=("images: not here",), finished="2026-06-07T08:09:10Z")
    came(folder, "proved", torch="2.9.0")
    build_site(folder.out, tmp_path / "site", public=True, left_out=[rows.Problem("/x/y/bad.tar.zst", "refused: it")])
    page = next((tmp_path / "site" / "tables").glob("*.html")).read_text()
    assert "Lab &lt;B&gt; &amp; Co" in page
    assert "<B>" not in page
    assert "2026-06-07 · torch 2.9.0 · ddbench 0.1.0" in page
    assert page.count(">not all verified<") == page.count(">verified<") == 1
    assert 'title="images: not here"' in page
    index = (tmp_path / "site" / "index.html").read_text()
    assert "refused: it" in index
    assert "bad.tar.zst" in index
    run = next(p.read_text() for p in (tmp_path / "site" / "runs").glob("distill-*.html") if "theirs" in p.read_text())
    assert "from bundle lab-b.tar.zst (b0b0b0b0)" in run


def test_provenance_that_says_nothing_is_no_origin(folder: Any) -> None:
    folder.method("mine", [[80]])
    for number, cell in enumerate(folder.store.cell_dirs()):
        (cell.path / PROVENANCE).write_text('{"origins": []}' if number else "no JSON")
    assert students_frame(rows.read(folder.out))["origin_bundles"].tolist() == [""]


def test_what_was_passed_on_says_by_whom(folder: Any) -> None:
    """Whoever passes a bundle on says who has run it; nobody can check that."""
    folder.method("theirs", [[80]])
    for cell in folder.store.cell_dirs():
        last = Origin(bundle="b.tar.zst", sha256="b1" * 32, by="Mallory")
        write_json(cell.path / PROVENANCE, Provenance(origins=(CAME, last)).model_dump(mode="json"))
    assert students_frame(rows.read(folder.out))["origin_by"].tolist() == [f"{CAME.by}, as Mallory has it"]


def test_a_cell_of_several_environments_is_none_of_one(folder: Any) -> None:
    """What the machines and versions of earlier attempts and of shards decided counts as much as the last one's."""
    folder.method("whole", [[80], [81]])
    folder.method("mixed", [[70, 72], [71, 73]])
    other = {
        "hardware": {"cpu": "Old CPU", "gpus": []},
        "device": "cpu",
        "versions": {"torch": "2.9.0", "ddbench": "0.1.0"},
    }
    for cell in folder.store.cell_dirs():
        file = cell.path / "result.json"
        noted = json.loads(file.read_text())
        noted["environment"] = {**noted["environment"], "versions": {"torch": "2.14.1", "ddbench": "0.1.0"}}
        if noted["label"] == "mixed":
            part = {"attempts": [1, 2]} if noted["kind"] == "evaluate" else {"shards": ["distill-a"]}
            noted["other_environments"] = [{**part, "environment": other}]
        file.write_text(json.dumps(noted))
    results = rows.read(folder.out)
    (table,) = build(results).tables
    row = next(row for row in table.rows if row.method == "mixed")
    assert (row.origin.torch, row.cost.distill_hardware) == (["2.14.1", "2.9.0"], ["Old CPU", "Testing CPU"])
    assert row.cost.evaluate_hardware == ["Old CPU", "Testing CPU"]
    differs = "torch 2.9.0, not 2.14.1, CPU Old CPU, not Testing CPU"
    assert row.origin.mixed == [f"attempts 1, 2: {differs}", f"shard distill-a: {differs}"]
    assert next(row for row in table.rows if row.method == "whole").origin.mixed == []
    assert any(note.startswith("mixed: not made in one environment") and differs in note for note in table.notes)
    assert any(note.startswith("Mixed versions of torch") and "mixed with 2.9.0" in note for note in table.notes)
    assert any(note.startswith("Mixed hardware") and "mixed on Old CPU" in note for note in table.notes)
    costs = cost_table(table, by="cost")
    assert [one.method for axis in costs.axes for one in axis.rows] == ["whole"]
    assert [one.why_not for one in costs.not_placed] == [
        "its sets were made on Old CPU, 1 thread and Testing CPU, 1 thread"
    ]
    frame = students_frame(results).set_index("method")
    assert frame.loc["mixed", "evaluate_hardware"].unique().tolist() == ["Old CPU; Testing CPU"]
    site = folder.out.parent / "site"
    build_site(folder.out, site)
    pages = [page.read_text() for page in (site / "runs").glob("*.html")]
    mixed = [page for page in pages if "Parts were made in another environment" in page]
    assert len(mixed) == 2
    assert all(page.count(f"attempts 1, 2: {differs}") == 1 for page in mixed), "once, of all students"
    assert sum("Old CPU" in page and "2.9.0" in page for page in pages) >= 3, "and the page of all environments"
