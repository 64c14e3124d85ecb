"""Published cells against results with known best and last accuracies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.reports.analyses import reproduction
from ddbench.reports.analyses.reproduction import Reproduction, combined_standard_error, contradictions
from ddbench.reports.results import groups, rows
from ddbench.reports.results.paper_numbers import all_published
from ddbench.reports.statistics.crossed import Summary

SGD = "hard-minimax-sgd"


@pytest.fixture
def woof(tmp_path: Path, make_folder: Any) -> Any:
    return make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)


def fill(folder: Any, method: str, sets: list[list[tuple[float, float]]], protocol: str = SGD, **how: Any) -> None:
    """`sets[set][student]` = (last, best)."""
    for seed, students in enumerate(sets):
        made_by = folder.distill_spec(method, seed=seed, **how)
        images = folder.distill(made_by)
        for repeat, (last, best) in enumerate(students):
            spec = folder.evaluate_spec(
                made_by, seed=100 * seed + repeat, protocol=resolve_protocol(protocol)[1], student="resnet_ap10"
            )
            folder.student(spec, method, last, images=images, made_by=made_by, best=best)


def build(folder: Any) -> Reproduction:
    return reproduction.build(groups.group(rows.read(folder.out)))


SETS = [[(28.0, 30.0), (29.0, 30.4)], [(31.0, 31.8), (32.0, 33.0)], [(27.0, 29.0), (27.4, 28.0)]]


def test_the_papers_number_ours_and_the_papers_own_estimand(woof: Any) -> None:
    fill(woof, "random", SETS)
    (cell,) = build(woof).cells
    assert (cell.paper.value, cell.method, cell.ipc) == (29.4, "random", 10)
    assert cell.acc_last.mean == pytest.approx((28.5 + 31.5 + 27.2) / 3)
    assert cell.acc_best.mean == pytest.approx((30.2 + 32.4 + 28.5) / 3)
    # The first seed's set alone, with the divisor n.
    assert (cell.estimand.mean, cell.estimand.std) == (pytest.approx(30.2), pytest.approx(np.std([30.0, 30.4])))
    assert (cell.estimand.students, cell.estimand.seed) == (2, 0)
    assert cell.difference_estimand == pytest.approx(0.8)
    assert cell.difference_last == pytest.approx(cell.acc_last.mean - 29.4)


def test_inflation_is_averaged_over_students_with_an_interval_over_sets(woof: Any) -> None:
    fill(woof, "random", SETS)
    found = build(woof)
    (cell,) = found.cells
    by_set = [1.7, 0.9, 1.3]
    assert cell.inflation.mean == pytest.approx(np.mean(by_set))
    assert (cell.inflation.n, cell.inflation.std) == (3, pytest.approx(np.std(by_set, ddof=1)))
    assert cell.inflation.low == pytest.approx(max(0, 1.3 - 4.302653 * 0.4 / math.sqrt(3)))
    assert found.inflations[0].mean == pytest.approx(1.3)
    assert found.inflations[0].largest_of == "random"


def test_disagreements_are_ordered_by_standard_errors(woof: Any) -> None:
    fill(woof, "random", SETS)
    fill(woof, "herding", [[(20.0, 20.0)], [(20.2, 20.2)], [(20.4, 20.4)]])  # the paper has 32.0
    fill(woof, "k-center", [[(22.0, 22.0)]])  # one set: no standard error
    found = build(woof)
    assert [cell.method for cell in found.cells] == ["herding", "k-center", "random"]
    assert [cell.method for cell in found.disagreements] == ["herding", "random"]
    herding = found.disagreements[0]
    assert herding.difference_best == pytest.approx(20.2 - 32.0)
    assert herding.standard_errors is not None
    assert herding.paper.std is not None
    error = math.sqrt(0.2**2 * 4 / 3 + herding.paper.std**2 / 2)
    assert herding.standard_errors == pytest.approx((20.2 - 32.0) / error)


def test_the_standard_error_by_hand() -> None:
    ours = Summary(n=4, mean=30.0, std=1.5, low=None, high=None, student_std=None)
    one = Summary(n=1, mean=30.0, std=None, low=None, high=None, student_std=2.0)
    paper: Any = type("Paper", (), {"std": 0.8})()
    silent: Any = type("Paper", (), {"std": None})()
    assert combined_standard_error(ours, paper) == pytest.approx(math.sqrt(1.5**2 * 1.25 + 0.8**2 / 2))
    assert combined_standard_error(ours, silent) == pytest.approx(1.5 * math.sqrt(1.25))
    assert combined_standard_error(one, paper) is None


def test_a_new_set_lies_beyond_two_standard_errors_as_often_as_it_should() -> None:
    rng, beyond = np.random.default_rng(2), 0
    for _ in range(4000):
        sets = rng.normal(30, 1, 10)
        ours = Summary(10, float(sets.mean()), float(sets.std(ddof=1)), None, None, None)
        error = combined_standard_error(ours, type("Paper", (), {"std": None})())  # type: ignore[arg-type]
        assert error is not None
        beyond += abs(ours.mean - rng.normal(30, 1)) > 2.262 * error  # t, 9 degrees of freedom
    assert beyond / 4000 == pytest.approx(0.05, abs=0.011)


@pytest.mark.parametrize(
    ("changed", "protocol", "why"),
    [
        ({"split": "fastai"}, SGD, "this is fastai"),
        ({"dataset": "digits", "split": "default"}, SGD, "numbers for digits"),
        ({}, f"{SGD}[epochs=60]", "modified"),
    ],
)
def test_other_conditions_are_no_reproduction(
    tmp_path: Path, make_folder: Any, changed: dict[str, str], protocol: str, why: str
) -> None:
    folder = make_folder(tmp_path / "runs", **{"dataset": "woof", "split": "imagenet", "resolution": 224, **changed})
    fill(folder, "random", SETS, protocol=protocol)
    found = build(folder)
    assert found.cells == []
    assert found.disagreements == []
    (unmatched,) = found.unmatched
    assert why in unmatched.reason
    assert found.inflations[0].mean == pytest.approx(1.3)  # what looking would have added is known all the same


def test_the_whole_training_set_is_one_cell_however_many_tables_show_it(woof: Any) -> None:
    fill(woof, "full", [[(85.0, 86.0)]], ipc=None)
    for ipc in (10, 20):
        fill(woof, "random", SETS, ipc=ipc)
    cells = [cell for cell in build(woof).cells if cell.method == "full"]
    assert [(cell.ipc, cell.paper.value) for cell in cells] == [(None, 87.5)]


def test_images_made_elsewhere_are_marked(woof: Any) -> None:
    spec = woof.evaluate_spec("e" * 64, protocol=resolve_protocol(SGD)[1], student="resnet_ap10")
    woof.student(spec, "minimax", 38.0, images="e" * 64)
    (cell,) = build(woof).cells
    assert (cell.foreign, cell.paper.value, cell.estimand.seed) == (True, 39.2, None)


def test_contradictions_stand_at_the_cells_that_they_concern(woof: Any) -> None:
    fill(woof, "mgd3", SETS)
    fill(woof, "random", SETS)
    found = build(woof)
    notes = {cell.method: {note.id for note in found.notes_of(cell)} for cell in found.cells}
    assert {"optimiser", "mgd3-woof", "fastai-split", "best-look"} <= notes["mgd3"]
    assert "mgd3-woof-std" not in notes["mgd3"]  # it is about IPC 50
    assert "random-is-first" in notes["random"]
    assert "mgd3-woof" not in notes["random"]
    assert not any("fadrm" in id for ids in notes.values() for id in ids), "about methods that are not here"
    concerned = set.union(*notes.values())
    assert {note.id for note in found.contradictions[: len(concerned)]} == concerned


def test_contradictions_name_things_that_exist() -> None:
    found = contradictions()
    methods, datasets = {entry.name for entry in METHODS}, {entry.name for entry in DATASETS}
    protocols = {entry.name for entry in PROTOCOLS} | {"soft-rded"}
    assert len({note.id for note in found}) == len(found)
    printed = {number.printed_as for _, number in all_published()}
    for note in found:
        assert set(note.methods) <= methods
        assert set(note.printed) <= printed
        assert set(note.datasets) <= datasets
        assert set(note.protocols) <= protocols
        assert note.sources


def test_two_rows_of_one_name_both_count_in_a_tables_inflation(woof: Any) -> None:
    fill(woof, "dmgd", [[(80.0, 81.0)]], prior="ab" * 32)
    fill(woof, "dmgd", [[(80.0, 84.0)]], prior="cd" * 32)
    (found,) = build(woof).inflations
    assert (found.methods, found.smallest, found.largest) == (2, pytest.approx(1.0), pytest.approx(4.0))
    assert found.mean == pytest.approx(2.5)


def test_smaller_images_than_the_papers_are_no_reproduction(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=32)
    fill(folder, "random", [[(30.0, 31.0)]])
    found = build(folder)
    assert not found.cells
    assert "32 px" in found.unmatched[0].reason
