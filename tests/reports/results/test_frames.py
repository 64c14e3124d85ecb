"""Data frames hold what the results folder was filled with, and a column has one type and one documented meaning."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddbench.benchmark.core.result import Cost
from ddbench.datasets.validation import SUFFIX
from ddbench.reports.results import rows
from ddbench.reports.results.columns import Columns, frame
from ddbench.reports.results.frames import sets_frame, students_frame
from ddbench.reports.tables.compare import compare_methods
from ddbench.reports.tables.frames import compare_frame, leaderboard_frame
from ddbench.reports.tables.leaderboard import build

PRIOR = "ab" * 32
DOCUMENT = Path(__file__).parents[1] / "columns_document.py"


@pytest.fixture
def filled(folder: Any) -> Any:
    """Two finished methods, one that is asked for, one that failed, and images made elsewhere."""
    costs = {"cost": folder.cost(12.0, 100.0, gpu_peak_allocated_mib=2048.5)}
    folder.method("dmgd", [[80.0, 82.0], [84.0, 86.0]], prior=PRIOR, params={"ot_scale": 0.05}, distill=costs)
    folder.method("random", [[50.0], [52.0]])
    folder.plan("mgd3", folder.distill_spec("mgd3"), students=2)
    failed = folder.distill_spec("igd")
    folder.plan("igd", failed, students=1)
    folder.distill(failed, "igd", status="failed", reason="a singular matrix")
    folder.student(folder.evaluate_spec("ef" * 32), "theirs", 60.0, images="ef" * 32)
    folder.pictures()
    return folder


def test_students_are_rows_with_their_numbers(filled: Any) -> None:
    students = students_frame(rows.read(filled.out))
    assert len(students) == 4 + 2 + 2 + 1 + 1
    done = students[students["state"] == "ok"]
    assert done.groupby("method")["acc_last"].mean().to_dict() == {
        "dmgd": pytest.approx(83.0),
        "random": pytest.approx(51.0),
        "theirs": pytest.approx(60.0),
    }
    dmgd = students[students["method"] == "dmgd"].sort_values("evaluate_seed")
    assert dmgd["evaluate_seed"].tolist() == [0, 1, 1000, 1001]
    assert dmgd["distill_seed"].tolist() == [0, 0, 1, 1]
    assert dmgd["image_set_sha256"].nunique() == 2
    assert set(dmgd["prior_sha256"]) == {PRIOR}
    assert set(dmgd["distill_cold_seconds"]) == {100.0}
    assert set(dmgd["distill_gpu_peak_allocated_mib"]) == {2048.5}
    assert set(dmgd["evaluate_seconds"]) == {4.5}
    assert set(dmgd["distill_hardware"]) == {"Testing CPU"}
    assert [json.loads(text) for text in dmgd["parameters"]] == 4 * [{"ot_scale": 0.05}]
    assert set(dmgd["protocol"]) == {"quick@1"}
    assert set(dmgd["content_hash"]) == {filled.content_hash}
    assert all(Path(cell, "result.json").is_file() for cell in dmgd["folder"])


def test_students_that_have_not_finished_say_so(filled: Any) -> None:
    students = students_frame(rows.read(filled.out)).set_index("method")
    assert students.loc["mgd3", "state"].tolist() == ["absent", "absent"]
    assert students.loc["igd", "state"] == "blocked"
    assert "a singular matrix" in students.loc["igd", "reason"]
    assert students.loc[["mgd3", "igd"], "acc_last"].isna().all()
    assert students.loc[["mgd3", "igd"], "evaluate_seconds"].isna().all()


def test_sets_are_rows_with_their_folders(filled: Any) -> None:
    sets = sets_frame(rows.read(filled.out))
    assert sorted(sets["method"]) == ["dmgd", "dmgd", "igd", "mgd3", "random", "random", "theirs"]
    by_method = sets.set_index("method")
    assert by_method.loc["dmgd", "students_ok"].tolist() == [2, 2]
    assert (by_method.loc["mgd3", "students"], by_method.loc["mgd3", "students_ok"]) == (2, 0)
    assert by_method.loc["igd", "distill_state"] == "failed"
    assert by_method.loc["theirs", "image_set_sha256"] == "ef" * 32
    for place in by_method.loc[["dmgd", "random"], "set_folder"]:
        assert len(list(Path(place).glob("*/*.png"))) == 20
    assert by_method.loc[["mgd3", "igd", "theirs"], "set_folder"].isna().all()


def test_neither_tuning_runs_nor_the_whole_training_set_are_sets(folder: Any, make_folder: Any) -> None:
    folder.method("full", [[99.0]], ipc=None)
    make_folder(folder.out, dataset=f"digits{SUFFIX}").method("dmgd", [[80.0]])
    results = rows.read(folder.out)
    assert len(results.evaluates) == 2
    assert students_frame(results)["method"].tolist() == ["full"]
    assert students_frame(results)["ipc"].isna().all()
    assert len(sets_frame(results)) == 0


def test_a_stale_student_keeps_the_hash_that_it_was_trained_on(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    trained_on = students_frame(rows.read(folder.out))["image_set_sha256"][0]
    folder.distill(folder.distill_spec("dmgd"), images="99" * 32)
    (student,) = students_frame(rows.read(folder.out)).to_dict("records")
    assert (student["state"], student["image_set_sha256"]) == ("stale", trained_on)
    assert pd.isna(student["acc_last"])


def test_the_leaderboard_is_what_people_see(filled: Any) -> None:
    board = build(rows.read(filled.out))
    (table,) = board.tables
    shown = leaderboard_frame(board)
    assert shown["method"].tolist() == [row.method for row in table.rows]
    best = shown.iloc[0]
    assert (best["method"], best["rank"], best["n_sets"], best["done"]) == ("dmgd", 1, 2, 4)
    assert best["acc_last_mean"] == pytest.approx(83.0)
    assert best["acc_last_std"] == pytest.approx(2 * 2**0.5)
    assert best["acc_last_low"] <= 83.0 <= best["acc_last_high"]
    assert shown.set_index("method").loc["mgd3", "states"] == "2 absent"


def test_a_comparison_is_first_minus_second(filled: Any) -> None:
    (line,) = compare_frame(compare_methods(rows.read(filled.out), ["dmgd", "random"], 1.0)).to_dict("records")
    assert (line["a"], line["b"], line["sets_a"], line["sets_b"]) == ("dmgd", "random", 2, 2)
    assert line["difference"] == pytest.approx(83.0 - 51.0)
    assert (line["acc_last_a"], line["acc_last_b"]) == (pytest.approx(83.0), pytest.approx(51.0))
    assert line["std_a_over_students"] == pytest.approx(2**0.5)
    assert pd.isna(line["std_b_over_students"])


def test_types_do_not_depend_on_what_is_there(filled: Any, make_folder: Any, tmp_path: Path) -> None:
    full, empty = (rows.read(one.out) for one in (filled, make_folder(tmp_path / "empty")))
    for make in (students_frame, sets_frame, lambda results: leaderboard_frame(build(results))):
        assert make(full).dtypes.to_dict() == make(empty).dtypes.to_dict()
        assert set(map(str, make(empty).dtypes)) == {"string", "Int64", "Float64", "boolean"}


def test_a_new_field_is_a_new_column_of_its_type() -> None:
    class Dearer(Cost):
        carbon_grams: float | None
        refills: int
        counted: bool

    columns = {column.name: column.dtype for column in Columns(Dearer, leave=("phases", "measured"), prefix="x_")}
    assert columns["x_carbon_grams"] == "Float64"
    assert columns["x_refills"] == "Int64"
    assert columns["x_counted"] == "boolean"
    assert columns["x_oom_batch_sizes"] == "string"


def test_a_field_that_fits_into_no_cell_is_refused() -> None:
    @dataclass
    class Nested:
        cost: Cost

    with pytest.raises(TypeError, match="column x_cost: expected a truth value, number, text or list of them"):
        frame([Columns(Nested, prefix="x_")], [])


def test_every_column_is_documented_where_its_model_is() -> None:
    found = importlib.util.spec_from_file_location("columns_document", DOCUMENT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    for title, _, parts in module.FRAMES:
        described = module.described(parts)
        assert [name for name, _, meaning in described if not meaning] == [], title
        names = [name for name, _, _ in described]
        assert len(set(names)) == len(names), title
    page = Path(__file__).parents[3] / "docs" / "columns.md"
    again = "write it again: python -P tests/reports/columns_document.py > docs/columns.md"
    assert page.read_text(encoding="utf-8") == module.document(), again
