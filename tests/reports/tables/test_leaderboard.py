"""From a results folder to tables: what is together, what is apart, who ranks where, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.spec import ProtocolSpec
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.reports.output.columns import accuracy_text, gap, rank
from ddbench.reports.results import rows
from ddbench.reports.statistics.equivalence import visible_in
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.views import Leaderboard, RowView, TableView

PRIOR = "a1b2c3d4" * 8


def board(folder: Any) -> Leaderboard:
    return build(rows.read(folder.out))


def table(folder: Any) -> TableView:
    (only,) = board(folder).tables
    return only


def row(table: TableView, method: str, **facts: Any) -> RowView:
    (found,) = (
        r for r in table.rows if r.method == method and all(getattr(r, name) == value for name, value in facts.items())
    )
    return found


def answers(accuracy: float, seed: int, n: int = 3) -> list[list[np.ndarray]]:
    """One student for each of n sets, right about random images."""
    rng = np.random.default_rng(seed)
    return [[rng.random(500) < accuracy / 100] for _ in range(n)]


# What is together


def test_protocol_student_ipc_and_split_are_never_mixed(folder: Any, make_folder: Any) -> None:
    other = ProtocolSpec(name="quick", version=1, overrides={"epochs": 3}, hash="22" * 32)
    folder.method("dmgd", [[80.0]])
    folder.method("dmgd", [[81.0]], ipc=1)
    folder.method("dmgd", [[82.0]], student="resnet_ap10")
    folder.method("dmgd", [[83.0]], protocol=other)
    make_folder(folder.out, split="other").method("dmgd", [[84.0]])
    make_folder(folder.out, resolution=16).method("dmgd", [[85.0]])
    make_folder(folder.out, dataset="woof").method("dmgd", [[86.0]])
    tables = board(folder).tables
    assert [len(t.rows) for t in tables] == [1] * 7
    assert len({t.title for t in tables}) == 7


def test_same_split_from_other_pixels_is_another_table(folder: Any, make_folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    make_folder(folder.out, content_hash="dd" * 32).method("dit", [[81.0]])
    tables = board(folder).tables
    assert [[r.method for r in t.rows] for t in tables] == [["dmgd"], ["dit"]]
    assert ["data cccccccc" in tables[0].title, "data dddddddd" in tables[1].title] == [True, True]


def test_methods_with_and_without_a_prior_meet(folder: Any) -> None:
    folder.method("dmgd", [[80.0]], prior=PRIOR)
    folder.method("random", [[70.0]])
    found = table(folder)
    assert {r.method for r in found.rows} == {"dmgd", "random"}
    assert "prior digits-dit (a1b2c3d4)" in found.settings
    assert row(found, "dmgd").qualifiers == []


def test_rows_that_differ_in_prior_or_precision_are_apart_and_say_so(folder: Any) -> None:
    folder.method("dmgd", [[80.0]], prior=PRIOR)
    folder.method("dmgd", [[81.0]], prior="ee" * 32)
    folder.method("dmgd", [[82.0]], prior=PRIOR, precision="bf16")
    folder.method("random", [[70.0]])
    found = table(folder)
    marks = {tuple(r.qualifiers) for r in found.rows if r.method == "dmgd"}
    assert marks == {
        ("prior digits-dit (a1b2c3d4)", "sampled in fp32"),
        ("prior digits-dit (eeeeeeee)", "sampled in fp32"),
        ("prior digits-dit (a1b2c3d4)", "sampled in bf16"),
    }
    assert row(found, "random").qualifiers == []
    assert found.settings == ["distilled on cpu", "students on cpu"]


def test_versions_and_parameters_are_told_apart_under_one_name(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    folder.method("dmgd", [[81.0]], version=2)
    folder.method("dmgd", [[82.0]], params={"x": 1})
    marks = sorted(r.qualifiers for r in table(folder).rows)
    assert [mark[0] for mark in marks] == ["version 1", "version 1", "version 2"]
    assert all(mark[1].startswith("parameters ") for mark in marks)


def test_a_set_made_elsewhere_called_as_a_method_has_no_precision(folder: Any) -> None:
    folder.method("random", [[70.0]])
    folder.student(folder.evaluate_spec("ab" * 32), "random", 50.0, images="ab" * 32)
    marks = {found.acc_last.mean: found.qualifiers for found in table(folder).rows}
    assert marks[50.0] == ["images made elsewhere (abababab)"]
    assert "sampled in fp32" in marks[70.0]


def test_one_method_under_two_names_is_one_row(folder: Any) -> None:
    folder.method("dmgd[sm=false]", [[80.0]], seeds=[0], params={"sm": False})
    spec = folder.distill_spec("dmgd", seed=1, params={"sm": False})
    folder.student(folder.evaluate_spec(spec), "dmgd-dm", 82.0, images=folder.distill(spec, "dmgd-dm"), made_by=spec)
    (only,) = table(folder).rows
    assert (only.method, len(only.sets)) == ("dmgd-dm", 2)


def test_the_whole_set_stands_beside_every_ipc_unranked(folder: Any) -> None:
    folder.method("random", [[50.0], [52.0]], ipc=1)
    folder.method("random", [[70.0], [72.0]], ipc=10)
    folder.method("full", [[98.0, 99.0]], ipc=None)
    tables = board(folder).tables
    assert [t.ipc for t in tables] == [1, 10]
    for found in tables:
        assert found.rows[-1].method == "full"
        assert (found.rows[-1].reference, found.rows[-1].rank) == (True, None)


def test_the_whole_set_alone_is_a_table(folder: Any) -> None:
    folder.method("full", [[98.0]], ipc=None)
    found = table(folder)
    assert found.ipc is None
    assert "whole training set" in found.title


# Numbers


def test_students_are_averaged_first_and_n_counts_sets(folder: Any) -> None:
    folder.method("dmgd", [[80.0, 82.0], [90.0]])
    found = row(table(folder), "dmgd")
    assert found.acc_last is not None
    assert found.acc_best is not None
    assert (found.acc_last.n, found.acc_last.mean) == (2, pytest.approx(85.5))
    assert found.acc_last.std == pytest.approx(np.std([81, 90], ddof=1))
    assert found.acc_best.mean == pytest.approx(86.0)
    assert found.students_per_set == [1, 2]
    assert [made.acc_last for made in found.sets] == [[80.0, 82.0], [90.0]]


def test_equal_images_under_several_seeds_are_one_set(folder: Any) -> None:
    folder.method("random-first", [[80.0, 81.0], [82.0, 83.0]], images=lambda seed: "77" * 32)
    found = row(table(folder), "random-first")
    assert found.acc_last is not None
    assert (found.acc_last.n, found.acc_last.std, found.acc_last.low) == (1, None, None)
    assert found.acc_last.student_std == pytest.approx(np.std([80, 81, 82, 83], ddof=1))
    assert found.sets[0].seeds == [0, 1]
    assert any("† one set" in note for note in table(folder).legend)


def test_gap_is_the_way_from_random_to_full(folder: Any) -> None:
    folder.method("dmgd", answers(90, 1))
    folder.method("dit", answers(80, 2))
    folder.method("random", answers(70, 3))
    folder.method("full", answers(98, 4, n=1), ipc=None)
    found = table(folder)
    lower, middle, upper = (row(found, name).acc_last.mean for name in ("random", "dmgd", "full"))
    one = row(found, "dmgd")
    assert one.gap_closed_percent == pytest.approx(100 * (middle - lower) / (upper - lower))
    assert one.gap_closed_low_percent < one.gap_closed_percent < one.gap_closed_high_percent
    assert gap(one).startswith(f"{one.gap_closed_percent:.1f} ({one.gap_closed_low_percent:.0f}–")
    assert row(found, "random").gap_closed_percent == pytest.approx(0)
    assert row(found, "full").gap_closed_percent == pytest.approx(100)


def test_no_gap_between_companions_that_the_test_cannot_tell_apart(folder: Any) -> None:
    folder.method("random", answers(70, 3, n=2))
    folder.method("full", answers(71, 4, n=1), ipc=None)
    found = table(folder)
    assert row(found, "random").gap_closed_percent is None
    assert any("is not separated from random" in note or "is not above random" in note for note in found.notes)


@pytest.mark.parametrize("there", ["random", "full", None])
def test_without_a_companion_there_is_no_gap_and_a_note(folder: Any, there: str | None) -> None:
    folder.method("dmgd", [[90.0]])
    if there == "random":
        folder.method("random", [[70.0]])
    if there == "full":
        folder.method("full", [[99.0]], ipc=None)
    found = table(folder)
    assert all(r.gap_closed_percent is None for r in found.rows)
    missing = {"random": "full", "full": "random", None: "random and full"}[there]
    assert any(f"it needs {missing} in this table" in note for note in found.notes)


def test_foreign_images_called_random_are_no_companion(folder: Any) -> None:
    folder.student(folder.evaluate_spec("ef" * 32), "random", 70.0, images="ef" * 32)
    folder.method("full", [[99.0]], ipc=None)
    assert any("it needs random" in note for note in table(folder).notes)


def test_no_gap_between_companions_in_the_wrong_order(folder: Any) -> None:
    folder.method("random", [[90.0]])
    folder.method("full", [[80.0]], ipc=None)
    found = table(folder)
    assert row(found, "random").gap_closed_percent is None
    assert any("full (80.00) is not above random (90.00)" in note for note in found.notes)


def test_guidance_is_averaged_over_sets(folder: Any) -> None:
    for seed, nats in enumerate(([1.0, 2.0, 6.0], [3.0, 4.0, 8.0])):
        spec = folder.distill_spec(seed=seed)
        made = folder.distill(spec, guidance={"semantic": nats})
        folder.student(folder.evaluate_spec(spec), "dmgd", 80.0, images=made, made_by=spec)
    found = row(table(folder), "dmgd").guidance["semantic"]
    assert (found.mean_nats, found.first_image_nats, found.last_image_nats) == (4.0, 2.0, 7.0)


# Costs


def test_costs_cold_and_spent(folder: Any) -> None:
    for seed, (spent, cold) in enumerate(((10.0, 50.0), (20.0, 20.0))):
        spec = folder.distill_spec(seed=seed)
        made = folder.distill(spec, cost=folder.cost(spent, cold, host_peak_mib=100.0 + seed))
        for repeat in range(2):
            folder.student(
                folder.evaluate_spec(spec, seed=repeat),
                "dmgd",
                80.0,
                images=made,
                made_by=spec,
                cost=folder.cost(3.0 + repeat),
            )
    cost = row(table(folder), "dmgd").cost
    assert (cost.distill_cold_seconds, cost.distill_spent_seconds) == (35.0, 15.0)
    assert cost.evaluate_seconds_per_student == 3.5
    assert (cost.distill_host_peak_mib, cost.distill_gpu_peak_allocated_mib) == (101.0, None)


def test_costs_from_a_shared_gpu_are_left_out_and_named(folder: Any) -> None:
    gpu = {"gpu_peak_allocated_mib": 2000.0, "gpu_peak_reserved_mib": 3000.0}
    for seed, alone in enumerate((True, False)):
        spec = folder.distill_spec(seed=seed)
        cost = folder.cost(10.0 if alone else 99.0, exclusive_gpu=alone, **gpu)
        folder.student(folder.evaluate_spec(spec), "dmgd", 80.0, images=folder.distill(spec, cost=cost), made_by=spec)
    found = table(folder)
    assert row(found, "dmgd").cost.distill_spent_seconds == 10.0
    assert row(found, "dmgd").cost.shared_gpu
    assert any("others were using are left out: dmgd" in note for note in found.notes)


def test_mixed_hardware_and_batch_sizes_are_said(folder: Any, make_folder: Any) -> None:
    gpu = {"hardware": {"cpu": "C", "gpus": [{"name": "Big GPU"}]}, "device": "cuda:0"}
    big = make_folder(folder.out, environment=gpu)
    for made_in, name, batch in ((folder, "dit", 10), (big, "dmgd", 20)):
        cost = folder.cost(1.0, gpu_peak_allocated_mib=5.0, batch_size=batch)
        made_in.method(name, [[80.0]], prior=PRIOR, distill={"cost": cost})
    notes = table(folder).notes
    assert any("Distilled: dmgd on Big GPU; dit on Testing CPU" in note for note in notes)
    assert any("different batch sizes: dit 10, dmgd 20" in note for note in notes)


def test_times_of_cells_side_by_side_and_of_one_alone_are_said(folder: Any) -> None:
    folder.method("dit", [[80.0]])
    assert not any("side by side" in note for note in table(folder).notes)
    folder.method("dmgd", [[80.0]], distill={"cost": folder.cost(1.0, cells_at_once=2)})
    assert any("with 1 or 2 cells side by side" in note for note in table(folder).notes)


# Ranks


def test_rows_stand_by_their_means_with_the_ranks_that_the_test_leaves(folder: Any) -> None:
    folder.method("best", answers(95, 1))
    folder.method("middle", answers(70, 2))
    folder.method("twin", answers(70, 3))
    folder.method("worst", answers(30, 4))
    found = table(folder)
    assert {r.method: (r.rank, r.last_rank) for r in found.rows} == {
        "best": (1, 1),
        "middle": (2, 3),
        "twin": (2, 3),
        "worst": (4, 4),
    }
    assert [rank(r) for r in found.rows] == ["1", "2–3", "2–3", "4"]
    means = [r.acc_last.mean for r in found.rows if r.acc_last]
    assert means == sorted(means, reverse=True)
    assert len(found.pairs) == 6
    pair = next(p for p in found.pairs if {found.rows[p.a].method, found.rows[p.b].method} == {"best", "worst"})
    sign = 1 if found.rows[pair.a].method == "best" else -1
    assert sign * pair.comparison.difference == pytest.approx(65, abs=5)


def test_a_noisy_method_stands_where_its_mean_does(folder: Any) -> None:
    """It is not separated from the best, nor from the worst; that puts it above nobody."""
    folder.method("best", [[80.0], [80.2], [80.4]])
    folder.method("good", [[70.0], [70.2], [70.4]])
    folder.method("noisy", [[20.0], [60.0], [99.0]])
    folder.method("bad", [[30.0], [30.2], [30.4]])
    found = table(folder)
    assert [r.method for r in found.rows] == ["best", "good", "noisy", "bad"]
    assert found.rows[2].acc_last is not None
    assert found.rows[2].acc_last.basis == "noisier"
    assert any("~ noisier than the others" in text for text in found.legend)
    assert "~" in accuracy_text(found.rows[2].acc_last)


def test_one_set_each_is_separated_from_nothing_whatever_the_means(folder: Any) -> None:
    folder.method("high", [[95.0]])
    folder.method("low", [[20.0]])
    assert [(r.method, r.rank, r.last_rank) for r in table(folder).rows] == [("high", 1, 2), ("low", 1, 2)]


def test_incomplete_rows_rank_below_complete_ones(folder: Any) -> None:
    folder.method("done", answers(60, 1))
    folder.method("ahead", answers(95, 2, n=2))
    folder.method("behind", answers(20, 3, n=2))
    for name in ("ahead", "behind"):
        for seed in range(3):
            folder.plan(name, folder.distill_spec(name, seed=seed), students=1)
    found = table(folder)
    assert [(r.method, r.rank, r.done, r.expected) for r in found.rows] == [
        ("done", 1, 3, 3),
        ("ahead", 2, 2, 3),
        ("behind", 3, 2, 3),
    ]
    assert any(note.startswith("ahead: 2 of 3 students done; 1 absent") for note in found.notes)


def test_a_method_with_nothing_finished_shows_why(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    spec = folder.distill_spec("bad")
    folder.plan("bad", spec, students=2)
    folder.distill(spec, "bad", status="failed", reason="the prior is truncated\nlong story")
    found = table(folder)
    bad = row(found, "bad")
    assert (bad.rank, bad.acc_last, bad.done, bad.expected, bad.states) == (None, None, 0, 2, {"blocked": 2})
    assert "bad: 0 of 2 students done; 2 blocked (distilled set failed: the prior is truncated)." in found.notes
    assert found.rows[-1] is bad


def test_a_folder_with_plans_only_still_shows_what_was_asked_for(folder: Any) -> None:
    folder.plan("dmgd", folder.distill_spec(), students=2)
    found = table(folder)
    assert (found.n_test, found.split_hash) == (None, None)
    assert row(found, "dmgd").states == {"absent": 2}


def test_stale_evaluations_do_not_count_and_are_listed(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [90.0]])
    folder.distill(folder.distill_spec(seed=1), images="99" * 32)
    found = board(folder)
    assert row(found.tables[0], "dmgd").states == {"ok": 1, "stale": 1}
    assert [problem.reason.partition(":")[0] for problem in found.problems] == ["stale"]


def test_without_predictions_rows_are_marked_and_compared_by_a_bound(folder: Any, make_folder: Any) -> None:
    folder.method("dmgd", answers(95, 1))
    make_folder(folder.out, arrays=False).method("dit", answers(20, 2))
    found = table(folder)
    assert (row(found, "dmgd").has_predictions, row(found, "dit").has_predictions) == (True, False)
    assert "bounded" in found.pairs[0].comparison.basis
    assert any("‡" in text for text in found.legend)


# Notes


def test_protocol_split_and_modification_are_noted(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", warning="this split leaks")
    modified = ProtocolSpec(name="quick", version=1, overrides={"epochs": 3}, hash="22" * 32)
    folder.method("dmgd", [[80.0]], protocol=modified)
    found = table(folder)
    assert found.modified_protocol
    assert found.notes[0] == "quick: not comparable with papers"
    assert "Modified protocol: quick[epochs=3]@1" in found.notes[1]
    assert found.notes[2] == "this split leaks"


def test_results_of_an_unknown_protocol_are_shown(folder: Any) -> None:
    folder.method("dmgd", [[80.0]], protocol=ProtocolSpec(name="gone", version=3, overrides={}, hash="33" * 32))
    assert "gone@3" in table(folder).title


def test_a_board_survives_its_own_json(folder: Any) -> None:
    folder.method("dmgd", answers(80, 1))
    folder.method("random", answers(70, 2))
    found = board(folder)
    assert Leaderboard.model_validate_json(found.model_dump_json()) == found


def test_a_note_says_what_could_have_been_seen(folder: Any) -> None:
    rng = np.random.default_rng(0)
    for name in ("dmgd", "dit", "random"):
        folder.method(name, [[rng.random(500) < 0.7] for _ in range(3)])
    folder.method("herding", [[rng.random(500) < 0.7]])
    found = table(folder)
    visible = [visible_in(pair.comparison) for pair in found.pairs]
    assert len(visible) == 6
    expected = f"difference below {np.median([points for points in visible if points is not None]):.1f} points"
    (note,) = [note for note in found.notes if note.startswith("Power:")]
    assert expected in note
    assert "with 500 test images and 1–3 sets a method" in note


def test_without_a_test_there_is_no_power_to_speak_of(folder: Any) -> None:
    folder.method("dmgd", [[70.0]])
    folder.method("dit", [[60.0]])
    assert not any(note.startswith("Power:") for note in table(folder).notes)


def test_hardware_is_told_of_rows_and_not_of_names(folder: Any) -> None:
    """One method on two machines is two rows."""
    folder.method("dmgd", [[80.0], [81.0]])
    folder.environment = {"hardware": {"cpu": "Other CPU", "gpus": []}, "device": "cpu"}
    folder.method("dmgd", [[82.0], [83.0]], prior="ab" * 32)
    (table,) = build(rows.read(folder.out)).tables
    (note,) = [note for note in table.notes if "Students trained" in note]
    assert "Testing CPU" in note
    assert "Other CPU" in note


@pytest.mark.parametrize(
    ("protocol", "resolution", "said"),
    [
        ("hard-minimax-sgd", 224, "224 px"),
        ("hard-minimax-sgd[epochs=60,image_size=32]", 224, "224 px, students at 32 px"),
        ("hard-minimax-sgd[epochs=60]", 32, "32 px, students at 224 px"),
        ("quick", 32, "32 px"),
    ],
)
def test_a_title_says_what_students_saw(
    protocol: str, resolution: int, said: str, tmp_path: Path, make_folder: Any
) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=resolution)
    folder.method("random", [[31.0]], protocol=resolve_protocol(protocol)[1])
    assert table(folder).title.rpartition(" · ")[2] == said


def test_a_protocol_that_is_not_here_says_nothing_of_its_side(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs")
    folder.method("random", [[31.0]], protocol=ProtocolSpec(name="of-a-plugin", version=1, overrides={}, hash="0" * 64))
    assert table(folder).student_image_size is None
