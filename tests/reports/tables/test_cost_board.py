"""Leaderboards by cost: fronts against their definition, and rows of known cost, hardware and labels."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddbench.benchmark.core.result import TeacherRecord
from ddbench.reports.results import rows
from ddbench.reports.results.origins import Origin
from ddbench.reports.statistics.crossed import Comparison, Summary
from ddbench.reports.tables.cost_board import By, CostAxis, CostBoard, CostRow, CostTable, cost_table
from ddbench.reports.tables.frames import cost_frame
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.views import CostRecord, Pair, RowView, TableView

CPU_1 = "Testing CPU, 1 thread"
GPU = {"hardware": {"cpu": "Testing CPU", "gpus": [{"name": "Testing GPU"}]}, "device": "cuda:0"}
OTHER = {"hardware": {"cpu": "Another CPU", "gpus": []}, "device": "cpu"}
TEACHER = TeacherRecord(network="convnet3", sha256="ab" * 32, accuracy=90.0, accuracy_of="test", recipe={})


def cost_of(seconds: float | None) -> CostRecord:
    known = dict.fromkeys(CostRecord.model_fields)
    lists: dict[str, Any] = {"distill_batch_sizes": [], "cells_at_once": [1], "evaluate_hardware": ["c"]}
    return CostRecord(
        **{**known, **lists, "distill_cold_seconds": seconds, "distill_hardware": ["c"], "shared_gpu": False,
           "distill_threads": (1,), "evaluate_threads": (1,)}  # type: ignore[arg-type]  # fields by name
    )  # fmt: skip


def a_row(name: str, mean: float, seconds: float) -> RowView:
    """A complete, ranked row."""
    summary = Summary(n=2, mean=mean, std=1.0, low=None, high=None, student_std=None)
    return RowView.model_construct(
        id=name, rank=1, last_rank=1, reference=False, method=name, qualifiers=[], done=2, expected=2,
        distill_device="cpu", evaluate_device="cpu", acc_last=summary, cost=cost_of(seconds), teacher_passes=None,
        image_bytes=None, label_bytes=None, stored_label_bytes=None, own_labels_used=None,
        origin=Origin.model_construct(),
    )  # fmt: skip


def a_table(members: list[RowView], tested: dict[tuple[int, int], int]) -> TableView:
    """Args: tested: (a, b) -> 1 where a is better by the test, -1 where b is, 0 where they are not told apart."""
    pairs = [Pair(a=a, b=b, comparison=Comparison(d, low=d - 0.5, high=d + 0.5)) for (a, b), d in tested.items()]
    text = dict.fromkeys(("title", "dataset", "split", "protocol", "protocol_hash", "student"), "x")
    return TableView.model_construct(
        **text, split_hash=None, content_hash=None, resolution=8, ipc=1, modified_protocol=False, settings=[],
        teacher=None, rows=members, pairs=pairs, notes=[],
    )  # type: ignore[arg-type]  # fields by name  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[tuple[int, int]], dict[tuple[int, int], int]]:
    """(cost, accuracy) of rows, many of them equal, and what a test might say of each pair."""
    points = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=7))
    pairs = list(combinations(range(len(points)), 2))
    said = draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=len(pairs), max_size=len(pairs)))
    return points, dict(zip(pairs, said, strict=True))


@given(tables())
def test_standings_are_those_of_the_definition(drawn: tuple[list[tuple[int, int]], dict[tuple[int, int], int]]) -> None:
    points, tested = drawn
    (axis,) = cost_table(
        a_table([a_row(str(i), accuracy, cost) for i, (cost, accuracy) in enumerate(points)], tested), "cost"
    ).axes
    found = {int(row.id): row for row in axis.rows}
    assert [row.amount for row in axis.rows] == sorted(cost for cost, _ in points)

    def beats(a: int, b: int) -> bool:
        return tested.get((a, b)) == 1 or tested.get((b, a)) == -1

    for i, (cost, accuracy) in enumerate(points):
        cheaper = [j for j in range(len(points)) if j != i and points[j][0] <= cost]
        dominated = any(points[j][1] >= accuracy and points[j] != (cost, accuracy) for j in cheaper)
        row = found[i]
        assert row.on_front is not dominated
        assert sorted(row.better) == sorted(str(j) for j in cheaper if beats(j, i))
        assert sorted(row.not_told_apart) == sorted(str(j) for j in cheaper if not beats(j, i) and not beats(i, j))
        if any(beats(j, i) for j in cheaper):
            assert row.standing == "behind"
        elif dominated:
            assert row.standing == "not separated"
        elif all(beats(i, j) for j in cheaper):
            assert row.standing == "front"
        else:
            assert row.standing == "front on means"


def by(folder: Any, what: By = "cost") -> CostTable:
    (table,) = build(rows.read(folder.out)).tables
    return cost_table(table, what)


def only_axis(table: CostTable) -> CostAxis:
    (axis,) = table.axes
    return axis


def of(table: CostTable, name: str) -> CostRow:
    (row,) = (r for r in [*(r for a in table.axes for r in a.rows), *table.not_placed] if r.name.startswith(name))
    return row


def method(folder: Any, name: str, accuracy: float, seconds: float, cold: float | None = None, **more: Any) -> None:
    """Two sets with a student each, one point apart."""
    cost = folder.cost(seconds, cold, **more.pop("cost", {}))
    image_bytes = more.pop("image_bytes", None)
    folder.method(
        name, [[accuracy - 0.5], [accuracy + 0.5]], distill={"cost": cost, "image_bytes": image_bytes}, **more
    )


def test_cold_costs_are_counted_and_accuracies_are_the_leaderboards(folder: Any) -> None:
    method(folder, "cheap", 50, 1.0, 10.0)
    method(folder, "dear", 90, 200.0)
    method(folder, "worse", 40, 300.0)
    method(folder, "close", 89.9, 400.0)
    axis = only_axis(by(folder))
    assert (axis.unit, axis.device, axis.hardware) == ("seconds", "cpu", CPU_1)
    assert [(row.name, row.amount, row.standing) for row in axis.rows] == [
        ("cheap", 10.0, "front"),
        ("dear", 200.0, "front"),
        ("worse", 300.0, "behind"),
        ("close", 400.0, "not separated"),
    ]
    assert [row.acc_last and row.acc_last.mean for row in axis.rows] == pytest.approx([50, 90, 40, 89.9])
    assert axis.rows[2].better == ("dear", "cheap"), "in the leaderboard's order"
    assert axis.rows[3].not_told_apart == ("dear",)


def test_a_front_that_the_test_cannot_tell_apart_says_so(folder: Any) -> None:
    method(folder, "cheap", 50, 1.0)
    method(folder, "dear", 50.2, 2.0)
    assert [(r.on_front, r.standing) for r in only_axis(by(folder)).rows] == [(True, "front"), (True, "front on means")]


def test_equal_points_are_both_on_the_front(folder: Any) -> None:
    method(folder, "a", 50, 1.0)
    method(folder, "b", 50, 1.0)
    assert [(r.on_front, r.standing) for r in only_axis(by(folder)).rows] == [(True, "front on means")] * 2


def test_a_single_row_is_the_front(folder: Any) -> None:
    method(folder, "only", 50, 1.0)
    (row,) = only_axis(by(folder)).rows
    assert (row.standing, row.better, row.not_told_apart) == ("front", (), ())


def test_one_set_each_is_never_told_apart(folder: Any) -> None:
    folder.method("a", [[20.0]], distill={"cost": folder.cost(1.0)})
    folder.method("b", [[90.0]], distill={"cost": folder.cost(2.0)})
    assert [row.standing for row in only_axis(by(folder)).rows] == ["front", "front on means"]


def on_gpu(folder: Any, name: str, accuracy: float, seconds: float, **cost: Any) -> None:
    """Two sets that a GPU made, their students trained on it too."""
    for seed in (0, 1):
        spec = folder.distill_spec(name, seed=seed, device="cuda")
        images = folder.distill(spec, name, cost=folder.cost(seconds, **cost))
        student = folder.evaluate_spec(spec, seed=1000 * seed, device="cuda")
        folder.student(student, name, accuracy + seed, images=images, made_by=spec)


def test_hardware_is_never_on_one_axis(folder: Any, make_folder: Any) -> None:
    method(folder, "one", 50, 5.0)
    method(folder, "two", 60, 9.0)
    method(folder, "threads", 85, 1.0, cost={"threads": 8})
    on_gpu(make_folder(folder.out, environment=GPU), "gpu", 90, 0.1)
    method(make_folder(folder.out, environment=OTHER), "other", 90, 0.1)
    found = by(folder)
    places = {axis.hardware: [(r.name.partition(" ·")[0], r.standing) for r in axis.rows] for axis in found.axes}
    assert places == {
        CPU_1: [("one", "front"), ("two", "front")],
        "Testing CPU, 8 threads": [("threads", "front")],
        "Another CPU, 1 thread": [("other", "front")],
        "Testing GPU": [("gpu", "front")],
    }
    assert [axis.device for axis in found.axes if axis.hardware == "Testing GPU"] == ["cuda"]
    assert found.notes == ["Times of different hardware are not compared: 4 kinds, each with its own front."]


def test_the_hours_of_a_gpu_whose_threads_differ_are_one_axis(folder: Any, make_folder: Any) -> None:
    on_gpu(make_folder(folder.out, environment=GPU), "a", 50, 5.0, threads=1)
    on_gpu(make_folder(folder.out, environment=GPU), "b", 60, 9.0, threads=8)
    assert [row.standing for row in only_axis(by(folder)).rows] == ["front", "front"]


def test_sets_of_two_machines_have_no_mean_cost(folder: Any, make_folder: Any) -> None:
    folder.method("m", [[50.0]], seeds=[0])
    make_folder(folder.out, environment=OTHER).method("m", [[51.0]], seeds=[1])
    found = by(folder)
    assert found.axes == []
    assert of(found, "m").why_not == "its sets were made on Another CPU, 1 thread and Testing CPU, 1 thread"


def test_what_is_not_known_is_named_and_not_placed(folder: Any) -> None:
    method(folder, "known", 50, 1.0)
    method(folder, "shared", 60, 1.0, cost={"exclusive_gpu": False})
    folder.student(folder.evaluate_spec("ef" * 32), "mine", 70.0, images="ef" * 32)
    folder.plan("asked", folder.distill_spec("asked"), students=2)
    found = by(folder)
    assert [row.name for row in only_axis(found).rows] == ["known"]
    assert {row.name.partition(" ·")[0]: row.why_not for row in found.not_placed} == {
        "shared": "what distilling cost was measured on a GPU that others were using",
        "mine": "made elsewhere: what distilling it cost is not recorded",
        "asked": "no student has finished",
    }
    assert all(row.amount is None and row.standing == "not placed" for row in found.not_placed)


def test_references_and_unfinished_rows_take_no_part(folder: Any) -> None:
    method(folder, "good", 80, 10.0)
    folder.method("full", [[99.0]], ipc=None, distill={"cost": folder.cost(0.1)})
    method(folder, "half", 95, 1.0)
    spec = folder.distill_spec("half", seed=2)
    folder.plan("half", spec, students=1)
    found = by(folder)
    standings = {row.name: row.standing for row in only_axis(found).rows}
    assert standings == {"full": "no part", "half": "no part", "good": "front"}
    assert "half: 2 of 3 students done, so it takes no part in the front." in found.notes


def test_bytes_are_those_of_images_where_labels_are_hard(folder: Any) -> None:
    method(folder, "small", 50, 1.0, image_bytes=1000)
    method(folder, "large", 80, 1.0, image_bytes=4000)
    method(folder, "old", 90, 1.0)
    found = by(folder, "bytes")
    axis = only_axis(found)
    assert (axis.unit, axis.device, axis.hardware) == ("bytes", None, None)
    assert [(row.name, row.amount, row.label_bytes) for row in axis.rows] == [("small", 1000, 0), ("large", 4000, 0)]
    assert of(found, "old").why_not == "what its images take is not recorded"


def change_students(folder: Any, **values: Any) -> None:
    for file in folder.out.glob("cells/*/result.json"):
        result = json.loads(file.read_text())
        if result["kind"] == "evaluate":
            file.write_text(json.dumps({**result, **values}))


def test_a_teachers_labels_cost_at_most_the_students_training(folder: Any) -> None:
    method(folder, "m", 50, 1.0, 8.0, image_bytes=1000)
    change_students(folder, teacher=TEACHER.model_dump(), images_seen=200)
    row = of(by(folder), "m")
    assert (row.distill_seconds, row.labelling_seconds, row.amount, row.teacher_passes) == (8.0, 4.5, 12.5, 200)
    assert "labelling costs at most this" in " ".join(by(folder).counted)
    assert of(by(folder, "bytes"), "m").amount == 1000, "nothing is stored"
    change_students(folder, stored_label_bytes=300)
    assert of(by(folder, "bytes"), "m").amount == 1300
    change_students(folder, images_seen=None, stored_label_bytes=None)
    assert of(by(folder, "bytes"), "m").why_not == "what its labels take is not recorded"


def test_seconds_of_two_devices_are_not_summed(folder: Any) -> None:
    method(folder, "m", 50, 1.0)
    gpu = {"hardware": {"gpus": [{"name": "G"}]}, "device": "cuda"}
    change_students(folder, teacher=TEACHER.model_dump(), images_seen=200, environment=gpu)
    assert of(by(folder), "m").why_not is not None
    assert by(folder).axes == []


def test_a_sets_own_labels_count_where_they_are_used(folder: Any) -> None:
    folder.student(folder.evaluate_spec("ef" * 32), "mine", 70.0, images="ef" * 32)
    soft = {"source": "x", "used": True, "sha256": "aa" * 32, "kind": "logits", "label_bytes": 500}
    change_students(folder, soft_labels=soft, image_bytes=1000)
    assert of(by(folder, "bytes"), "mine").amount == 1500
    change_students(folder, soft_labels={**soft, "used": False})
    assert of(by(folder, "bytes"), "mine").amount == 1000


@pytest.mark.parametrize("what", ["cost", "bytes"])
def test_every_row_is_in_the_frame_once(folder: Any, what: By) -> None:
    method(folder, "placed", 50, 1.0, image_bytes=7)
    folder.student(folder.evaluate_spec("ef" * 32), "mine", 70.0, images="ef" * 32)
    found = by(folder, what)
    frame = cost_frame(CostBoard(tables=[found], problems=[]))
    assert list(frame["method"]) == ["placed", "mine"]
    assert list(frame["standing"]) == ["front", "not placed"]
    assert list(frame["amount"].isna()) == [False, True]
    assert frame["amount_unit"][0] == ("seconds" if what == "cost" else "bytes")
