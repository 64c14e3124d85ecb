"""What a results folder says, and what it cannot say, read without stumbling."""

from __future__ import annotations

import json
import os
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.spec import cell_id
from ddbench.benchmark.core.store import Launch
from ddbench.reports.output import status
from ddbench.reports.quality.sets import finished_sets
from ddbench.reports.results import groups, rows
from ddbench.reports.results.filters import Filters
from ddbench.reports.results.predictions import correct
from ddbench.reports.tables import leaderboard
from ddbench.reports.tables.methods_as_run import methods_as_run


def problems(results: rows.Results) -> dict[str, str]:
    return {Path(problem.path).name: problem.reason for problem in results.problems}


def test_a_student_is_joined_with_its_distill_cell(folder: Any) -> None:
    folder.method("dmgd", [[80.0]], prior="ab" * 32)
    results = rows.read(folder.out)
    (student,) = results.evaluates.values()
    assert student.ok
    assert student.distill is not None
    assert student.distill.result is not None
    assert student.distill.spec.prior_sha256 == "ab" * 32
    assert results.problems == []


def test_one_look_at_a_cell_tells_whether_links_lead_out_of_it(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links are followed where there are some, and nowhere else: each takes a look at every folder above it."""
    for seed in range(3):
        folder.distill(folder.distill_spec("dmgd", seed=seed), "dmgd")
    followed, leads_out = [], rows.leads_out
    monkeypatch.setattr(rows, "leads_out", lambda path, out: followed.append(path) or leads_out(path, out))
    found = rows.read(folder.out, follow_links=False)
    assert len(found.distills) == 3
    assert all(folder.store.cells not in path.parents for path in followed)
    outside = tmp_path / "outside"
    kept, moved, linked = sorted(folder.store.cells.iterdir())
    moved.rename(outside)
    moved.symlink_to(outside)
    (linked / "result.json").rename(tmp_path / "result.json")
    (linked / "result.json").symlink_to(tmp_path / "result.json")
    found = rows.read(folder.out, follow_links=False)
    assert list(found.distills) == [kept.name]
    assert [problem.path for problem in found.problems] == [str(moved), str(linked / "result.json")]


def test_each_file_is_read_once(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.method("dmgd", [[80.0], [81.0]])
    opened: list[str] = []
    os_open = os.open

    def counted(path: Path | str, *flags: int) -> int:
        opened.append("/".join(Path(path).parts[-2:]))
        return os_open(path, *flags)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", counted)  # as `read_regular` does
        results = rows.read(folder.out)
    cells = [*results.distills, *results.evaluates]
    files = ("spec.json", "result.json", "provenance.json")
    # Which schema the folder has is asked of its first result.
    assert sorted(opened) == sorted(
        [f"{cell}/{file}" for cell in cells for file in files] + [f"{min(cells)}/result.json"]
    )


def test_a_text_that_json_writes_as_it_is_reaches_no_terminal(folder: Any) -> None:
    spec = folder.distill_spec()
    folder.distill(spec, "dmgd\x7f")  # DEL is the one character of ASCII that needs no escape and is none to print
    (cell,) = rows.read(folder.out).distills.values()
    assert cell.result is not None
    assert cell.label == cell.result.label == "dmgd\N{REPLACEMENT CHARACTER}"


def test_a_foreign_set_has_no_distill_cell(folder: Any) -> None:
    folder.student(folder.evaluate_spec("ef" * 32), "theirs", 70.0, images="ef" * 32)
    (student,) = rows.read(folder.out).evaluates.values()
    assert student.ok
    assert student.distill is None


def test_what_a_plan_asks_for_is_expected(folder: Any) -> None:
    spec = folder.distill_spec()
    folder.plan("dmgd", spec, students=3)
    folder.student(folder.evaluate_spec(spec), "dmgd", 80.0, images=folder.distill(spec), made_by=spec)
    results = rows.read(folder.out)
    assert [cell.state for cell in results.evaluates.values()] == ["ok", "absent", "absent"]
    assert all(cell.planned for cell in results.evaluates.values())


def test_students_of_a_failed_set_are_blocked(folder: Any) -> None:
    spec = folder.distill_spec()
    folder.plan("dmgd", spec, students=1)
    folder.distill(spec, status="oom", reason="out of memory")
    (student,) = rows.read(folder.out).evaluates.values()
    assert (student.state, student.standing) == ("absent", rows.BLOCKED)
    assert student.why == "distilled set oom: out of memory"


def test_a_set_that_changed_makes_its_students_stale(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    folder.distill(folder.distill_spec(), images="99" * 32)
    (student,) = rows.read(folder.out).evaluates.values()
    assert student.state == rows.STALE
    assert not student.ok
    assert student.reason is not None
    assert "9999" in student.reason


def test_a_living_cell_is_running_and_a_dead_one_interrupted(folder: Any) -> None:
    cell = folder.store.add(folder.distill_spec(), Launch(label="dmgd"))
    with cell.lock():
        assert rows.read(folder.out).distills[cell.id].state == "running"
    assert rows.read(folder.out).distills[cell.id].state == "interrupted"


def test_unreadable_results_are_listed_and_the_rest_is_read(folder: Any) -> None:
    folder.method("good", [[80.0]])
    good = next(path for path in folder.store.cells.iterdir() if path.name.startswith("evaluate"))

    half = folder.store.add(folder.distill_spec("half"), Launch(label="half"))
    (half.path / "result.json").write_bytes((good / "result.json").read_bytes()[:100])
    old = folder.store.add(folder.distill_spec("old"), Launch(label="old"))
    (old.path / "result.json").write_text(json.dumps({"schema_version": 0, "kind": "distill"}))
    other = folder.store.add(folder.distill_spec("other"), Launch(label="other"))
    (other.path / "result.json").write_bytes((good / "result.json").read_bytes())
    writing = folder.store.add(folder.distill_spec("writing"), Launch(label="writing"))
    (writing.path / ".result.json.17.tmp").write_text("{")
    copied = good.with_name("evaluate-0000000000000000")
    shutil.copytree(good, copied)
    (folder.store.cells / "holiday-photos").mkdir()
    bad_spec = folder.store.cells / "distill-1111111111111111"
    bad_spec.mkdir()
    (bad_spec / "spec.json").write_text('{"kind": "distill"}')
    (folder.store.plans / "half.json").write_text('{"sets": [')
    (folder.store.cells / "README").write_text("not a folder")

    results = rows.read(folder.out)
    assert sum(cell.ok for cell in results.evaluates.values()) == 1
    states = {cell.label: cell.state for cell in results.distills.values()}
    assert states == {
        "good": "ok",
        "half": "unreadable",
        "old": "unreadable",
        "other": "unreadable",
        "writing": "interrupted",
    }
    reasons = {cell.label: cell.reason for cell in results.distills.values()}
    assert reasons["half"] == "not JSON: half-written or foreign"
    assert reasons["old"] == "schema version 0; this program reads 2"
    assert reasons["other"] is not None
    assert "not of this cell" in reasons["other"]
    found = problems(results)
    assert "a copy, or edited" in found["evaluate-0000000000000000"]
    assert found["holiday-photos"] == "no cell: there is no spec.json in it"
    assert "half.json" in found
    assert len([p for p in results.problems if p.path.endswith("spec.json")]) == 1
    assert len(results.problems) == 7  # three results, a copy, a folder, a specification, a plan


def test_cells_of_an_earlier_version_beside_ours_are_one_problem(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    for number in range(3):
        old = folder.store.cells / f"distil-{number:016x}"
        old.mkdir()
        (old / "spec.json").write_text('{"kind": "distil", "seed": 0}')
    student = folder.store.cells / f"evaluate-{4:016x}"
    student.mkdir()
    (student / "spec.json").write_text('{"kind": "evaluate", "images": {"cell": "distil-0000000000000000"}}')
    (student / "result.json").write_text('{"schema_version": 1, "kind": "evaluate"}')
    results = rows.read(folder.out)
    assert [cell.ok for cell in results.evaluates.values()] == [True]
    (problem,) = results.problems
    assert problem.path == str(folder.store.cells)
    assert problem.reason == "4 cells of schema version 1; this program reads 2; run again into another folder"


def test_a_folder_of_an_earlier_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "cells" / f"distil-{number:016x}").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"holds results of schema 1, and this version .* schema 2: [^\n]*\.$"):
        rows.read(tmp_path)


def test_a_result_nested_too_deep_to_read_is_listed(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    path = next(folder.store.cells.glob("evaluate-*/result.json"))
    path.write_text("[" * 100_000)
    assert "half-written or foreign" in rows.read(folder.out).problems[0].reason


def test_a_result_that_says_ok_but_has_no_numbers_is_unreadable(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    path = next(folder.store.cells.glob("evaluate-*/result.json"))
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "metrics": None}))
    (student,) = rows.read(folder.out).evaluates.values()
    assert student.state == "unreadable"


@pytest.mark.parametrize("accuracy", ["NaN", "1e9", "-1"])
def test_an_impossible_accuracy_is_unreadable(folder: Any, accuracy: str) -> None:
    folder.method("dmgd", [[80.0]])
    path = next(folder.store.cells.glob("evaluate-*/result.json"))
    path.write_text(path.read_text().replace('"acc_last": 80.0', f'"acc_last": {accuracy}'))
    (student,) = rows.read(folder.out).evaluates.values()
    assert student.state == "unreadable"


@pytest.mark.parametrize("count", [-1, 10**400])
@pytest.mark.parametrize("key", ["n_images", "image_bytes", "images_seen", "stored_label_bytes"])
def test_an_impossible_count_is_unreadable(folder: Any, key: str, count: int) -> None:
    folder.method("dmgd", [[80.0]])
    path = next(folder.store.cells.glob("evaluate-*/result.json"))
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: count}))
    (student,) = rows.read(folder.out).evaluates.values()
    assert student.state == "unreadable"


def test_specifications_that_have_no_identity_are_listed(folder: Any) -> None:
    spec = folder.distill_spec(params={"x": 12.5})
    folder.plan("dmgd", spec, students=1)
    cell = folder.store.add(spec, Launch(label="dmgd"))
    for path in (cell.path / "spec.json", next(folder.store.plans.iterdir())):
        path.write_text(path.read_text().replace("12.5", "NaN"))
    results = rows.read(folder.out)
    assert (results.distills, results.evaluates, len(results.problems)) == ({}, {}, 2)


def test_a_deleted_distill_cell_costs_only_what_it_knew(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    shutil.rmtree(next(folder.store.cells.glob("distill-*")))
    results = rows.read(folder.out)
    (student,) = results.evaluates.values()
    assert student.ok
    (table,) = groups.group(results)
    assert table.rows[0].label == "dmgd"
    assert table.rows[0].key.images_sha256 is None


def test_escape_sequences_do_not_survive_reading(folder: Any) -> None:
    folder.student(folder.evaluate_spec("ef" * 32), "\x1b]0;title\x07evil\u202e", 70.0, images="ef" * 32)
    spec = folder.distill_spec()
    folder.distill(spec, status="failed", reason="first\nsecond \x1b[31m")
    results = rows.read(folder.out)
    (student,) = results.evaluates.values()
    assert student.label == "\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}evil\N{REPLACEMENT CHARACTER}"
    assert results.distills[cell_id(spec)].reason == "first\nsecond \N{REPLACEMENT CHARACTER}[31m"


def test_no_such_folder_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        rows.read(tmp_path / "nowhere")


# Filters


def test_filters_choose_and_the_whole_set_goes_along(folder: Any) -> None:
    folder.method("a", [[80.0]], ipc=1)
    folder.method("a", [[80.0]], ipc=10)
    folder.method("full", [[99.0]], ipc=None)
    results = rows.read(folder.out)
    found = Filters(ipcs=(10,), protocols=("quick",)).apply(results)
    assert {cell.spec.ipc for cell in found.evaluates.values()} == {10, None}
    assert {cell.spec.ipc for cell in found.distills.values()} == {10, None}
    assert Filters(protocols=("quick@1",), datasets=("digits",), students=("convnet3",)).apply(results) == results


@pytest.mark.parametrize(
    "filters", [{"ipcs": (7,)}, {"protocols": ("quick@2",)}, {"students": ("resnet18",)}, {"datasets": ("woof",)}]
)
def test_a_filter_that_nothing_passes_says_what_there_is(folder: Any, filters: dict[str, Any]) -> None:
    folder.method("a", [[80.0]], ipc=1)
    folder.method("full", [[99.0]], ipc=None)
    with pytest.raises(UsageError, match="--dataset digits; --ipc 1; --protocol quick@1; --student convnet3"):
        Filters(**filters).apply(rows.read(folder.out))


# Predictions


def only_student(folder: Any) -> rows.Student:
    (cell,) = rows.read(folder.out).evaluates.values()
    assert cell.student is not None
    return cell.student


def test_correctness_comes_from_predictions_and_labels(folder: Any) -> None:
    right = np.random.default_rng(0).random(500) < 0.7
    folder.method("dmgd", [[right]])
    found = correct(folder.store, only_student(folder))
    assert found is not None
    assert np.array_equal(found, right)


def spoil_length(cell: Path, labels: Path) -> None:
    np.save(cell / "predictions.npy", np.zeros(499, np.uint16))


def spoil_values(cell: Path, labels: Path) -> None:
    np.save(cell / "predictions.npy", np.zeros(500, np.uint16))


def spoil_pickle(cell: Path, labels: Path) -> None:
    np.save(cell / "predictions.npy", np.array([{}] * 500, object), allow_pickle=True)


def spoil_labels(cell: Path, labels: Path) -> None:
    labels.unlink()


def spoil_file(cell: Path, labels: Path) -> None:
    (cell / "predictions.npy").write_bytes(b"\x93NUMPY")


def spoil_name(cell: Path, labels: Path) -> None:
    (cell / "predictions.npy").rename(cell.parent / "predictions.npy")
    noted = json.loads((cell / "result.json").read_bytes())
    (cell / "result.json").write_text(json.dumps({**noted, "predictions": "../predictions.npy"}))


@pytest.mark.parametrize("spoil", [spoil_length, spoil_values, spoil_pickle, spoil_labels, spoil_file, spoil_name])
def test_arrays_that_are_not_this_results_are_not_used(folder: Any, spoil: Any) -> None:
    folder.method("dmgd", [[80.0]])
    assert correct(folder.store, only_student(folder)) is not None
    cell = next(folder.store.cells.glob("evaluate-*"))
    spoil(cell, next((folder.store.artefacts / "test-labels").iterdir()))
    assert correct(folder.store, only_student(folder)) is None


def two_sets_of_one_name(folder: Any) -> None:
    """As `bench eval --images methodA/train` and `--images methodB/train` leave them."""
    for images, place, accuracies in (("ab" * 32, "/a/train", (60.0, 62.0)), ("cd" * 32, "/b/train", (70.0,))):
        for seed, accuracy in enumerate(accuracies):
            spec = folder.evaluate_spec(images, seed=seed)
            folder.student(spec, "train", accuracy, images=images)
            launch = folder.store.cell(cell_id(spec)).path / "launch.json"
            launch.write_text(Launch(label="train", images=place).model_dump_json())


def test_two_sets_made_elsewhere_are_two_rows_whatever_their_name(folder: Any) -> None:
    two_sets_of_one_name(folder)
    (table,) = leaderboard.build(rows.read(folder.out)).tables
    assert [(row.name, row.done, len(row.sets), row.acc_last.mean) for row in table.rows if row.acc_last] == [
        ("train · images made elsewhere (cdcdcdcd, b/train)", 1, 1, 70.0),
        ("train · images made elsewhere (abababab, a/train)", 2, 1, 61.0),
    ]
    assert len({row.id for row in table.rows}) == 2


def test_one_set_made_elsewhere_needs_no_hash_in_its_name(folder: Any) -> None:
    folder.student(folder.evaluate_spec("ab" * 32), "train", 60.0, images="ab" * 32)
    (table,) = leaderboard.build(rows.read(folder.out)).tables
    assert [row.name for row in table.rows] == ["train"]


def test_sets_made_elsewhere_of_one_name_are_not_one_method_over_tables(folder: Any) -> None:
    for images, ipc in (("ab" * 32, 1), ("cd" * 32, 10)):
        folder.student(folder.evaluate_spec(images, ipc=ipc), "train", 60.0, images=images)
    folder.student(folder.evaluate_spec("cd" * 32, student="resnet18"), "train", 65.0, images="cd" * 32)
    tables = leaderboard.build(rows.read(folder.out)).tables
    found = {one.name: len(one.rows) for one in methods_as_run(tables)}
    assert found == {"train · images made elsewhere (abababab)": 1, "train · images made elsewhere (cdcdcdcd)": 2}


def test_status_says_which_images_and_where(folder: Any) -> None:
    two_sets_of_one_name(folder)
    built = status.build(rows.read(folder.out))
    assert {(cell.label, cell.images_sha256, cell.images_folder) for cell in built.cells} == {
        ("train", "ab" * 32, "/a/train"),
        ("train", "cd" * 32, "/b/train"),
    }
    console = Console(file=StringIO(), width=160)
    status.print_terminal(built, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "train (abababab): images in /a/train" in shown
    assert "train (cdcdcdcd): images in /b/train" in shown


def test_quality_tells_sets_of_one_name_apart(folder: Any) -> None:
    two_sets_of_one_name(folder)
    for cell in folder.store.cell_dirs():
        launch = cell.launch()
        (folder.out / "theirs" / launch.images[1:]).mkdir(parents=True, exist_ok=True)
        here = launch.model_copy(update={"images": str(folder.out / "theirs" / launch.images[1:])})
        (cell.path / "launch.json").write_text(here.model_dump_json())
    sets, problems = finished_sets(rows.read(folder.out))
    assert problems == []
    assert len({made.maker for made in sets}) == 2
