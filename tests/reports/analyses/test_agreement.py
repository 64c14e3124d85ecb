"""Rankings by known accuracies under several protocols and students, against scipy and counts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ddbench.benchmark.core.spec import ProtocolSpec
from ddbench.reports.analyses import agreement
from ddbench.reports.analyses.agreement import Arena
from ddbench.reports.analyses.rank_agreement import kendall_each
from ddbench.reports.analyses.student_matrix import concordance
from ddbench.reports.results import groups, rows

OTHER = ProtocolSpec(name="other", version=1, overrides={}, hash="22" * 32)
FIRST = {"a": 60.0, "b": 64.0, "c": 70.0, "d": 80.0}
SECOND = {"a": 60.0, "b": 78.0, "c": 70.0, "d": 76.0}


def same_images(method: str) -> dict[str, Any]:
    """`Folder.method`'s sets have the same images whatever the student."""
    return {"images": lambda seed: f"{method}{seed}".encode().hex().ljust(64, "0")}


def two_setups(folder: Any, *, second: dict[str, float] | None = None, **how: Any) -> None:
    for method, accuracy in FIRST.items():
        folder.method(method, [[accuracy + s] for s in range(3)], **same_images(method))
    for method, accuracy in (SECOND if second is None else second).items():
        sets = [[accuracy + s] for s in range(3)]
        folder.method(method, sets, **{"protocol": OTHER, **same_images(method), **how})


def build(folder: Any) -> list[Arena]:
    return agreement.build(folder.store, groups.group(rows.read(folder.out)))


def test_kendalls_tau_of_the_means(folder: Any) -> None:
    two_setups(folder)
    (arena,) = build(folder)
    (pair,) = arena.pairs
    expected = stats.kendalltau(list(FIRST.values()), list(SECOND.values()))
    assert (pair.tau, pair.p_value) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert pair.tau == pytest.approx((4 - 2) / 6)  # of six pairs, b-c and b-d are turned round
    assert (pair.n_methods, pair.n_sets, pair.n_seeds) == (4, 12, 3)
    # Of any two methods one is right wherever the other is, and their sets move together: no draw turns them round.
    assert (pair.low, pair.high) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert pair.basis == "drawn over 3 seeds and test images"


def test_the_interval_is_that_of_a_plain_crossed_bootstrap(folder: Any) -> None:
    rng = np.random.default_rng(5)
    tables = []
    for how in ({}, {"protocol": OTHER}):
        level = np.linspace(0.5, 0.6, 6)[:, None, None] + rng.normal(0, 0.02, (6, 3, 1))
        tables.append(rng.random((6, 3, 500)) < level)
        for index, sets in enumerate(tables[-1]):
            folder.method(f"m{index}", [[one] for one in sets], **same_images(f"m{index}"), **how)
    (arena,) = build(folder)
    drawn = []
    for _ in range(600):
        rows_, images = rng.integers(3, size=3), rng.integers(500, size=500)
        means = [sets[:, rows_][:, :, images].mean((1, 2)) for sets in tables]
        drawn.append(stats.kendalltau(*means).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (arena.pairs[0].low, arena.pairs[0].high) == (pytest.approx(low, abs=0.14), pytest.approx(high, abs=0.14))
    assert high - low > 0.4


def test_a_ranking_that_nothing_can_shuffle_has_a_point_as_interval(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", arrays=False)  # no predictions, so that only seeds are drawn
    two_setups(folder)
    (arena,) = build(folder)
    assert (arena.pairs[0].low, arena.pairs[0].high) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert arena.pairs[0].basis == "drawn over 3 seeds"


def test_one_seed_without_predictions_has_no_interval(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", arrays=False)
    for method, accuracy in FIRST.items():
        for protocol in ({}, {"protocol": OTHER}):
            folder.method(method, [[accuracy]], **same_images(method), **protocol)
    (arena,) = build(folder)
    assert (arena.pairs[0].tau, arena.pairs[0].low) == (pytest.approx(1.0), None)
    assert "no interval" in arena.pairs[0].basis


def test_only_common_sets_count(folder: Any) -> None:
    for method, accuracy in FIRST.items():
        folder.method(method, [[accuracy], [accuracy + 1]], **same_images(method))
    # Seed 1's set was evaluated a second time only, and two further ones only there.
    for method, accuracy in SECOND.items():
        sets = [[accuracy], [99.0 - accuracy], [99.0 - accuracy]]
        folder.method(method, sets, seeds=[1, 2, 3], protocol=OTHER, **same_images(method))
    (arena,) = build(folder)
    (pair,) = arena.pairs
    assert (pair.tau, pair.n_sets, pair.n_seeds) == (pytest.approx(1 / 3), 4, 1)


def test_two_methods_have_no_ranking(folder: Any) -> None:
    two_setups(folder, second={"a": 60.0, "b": 50.0, "z": 70.0})
    (arena,) = build(folder)
    assert (arena.pairs[0].tau, arena.pairs[0].n_methods) == (None, 2)
    assert "fewer than 3" in arena.pairs[0].basis


def test_other_datasets_and_ipcs_are_other_arenas(folder: Any) -> None:
    folder.method("a", [[60.0]])
    folder.method("b", [[60.0]], ipc=20)
    assert build(folder) == []


def test_findings_and_what_the_other_setup_says_of_them(folder: Any) -> None:
    two_setups(folder)
    (arena,) = build(folder)
    first, second = range(2) if arena.setups[0].protocol == "quick@1" else (1, 0)
    found = {(f.better.name, f.worse.name): f for f in arena.findings if f.setup == first}
    assert set(found) == {("b", "a"), ("c", "a"), ("d", "a"), ("c", "b"), ("d", "b"), ("d", "c")}
    standing = {pair: [check.standing for check in finding.checks] for pair, finding in found.items()}
    assert standing["d", "a"] == ["separated"]
    assert standing["c", "b"] == ["reversed and separated"]
    assert found["d", "a"].survives
    assert not found["c", "b"].survives
    (check,) = found["c", "b"].checks
    assert (check.setup, check.comparison.difference) == (second, pytest.approx(-8.0))
    assert check.p_holm is not None
    assert check.comparison.p_value is not None
    assert check.p_holm >= check.comparison.p_value
    assert found["d", "a"].difference == pytest.approx(20.0)


def test_weak_and_absent_checks_are_told_apart(folder: Any) -> None:
    # In the second setup the sets of b scatter, so nothing separates it; c and d are not there.
    for method, accuracy in FIRST.items():
        folder.method(method, [[accuracy + s] for s in range(3)], **same_images(method))
    folder.method("a", [[60.0], [60.0], [60.0]], protocol=OTHER, **same_images("a"))
    folder.method("b", [[50.0], [62.0], [80.0]], protocol=OTHER, **same_images("b"))
    (arena,) = build(folder)
    found = {(f.better.name, f.worse.name): f for f in arena.findings}
    assert [check.standing for check in found["b", "a"].checks] == ["same direction"]
    assert found["d", "c"].checks == []
    assert not found["d", "c"].survives


def test_a_matrix_of_students_ranks_what_all_columns_have(folder: Any) -> None:
    two_setups(folder, second={**SECOND, "z": 90.0}, student="resnet_ap10")
    for method, accuracy in SECOND.items():
        folder.method(method, [[accuracy + s] for s in range(3)], protocol=OTHER, **same_images(method))
    (arena,) = build(folder)
    (matrix,) = (m for m in arena.matrices if m.varies == "student")
    assert (matrix.fixed, matrix.n_common) == ("other@1", 4)
    assert {arena.setups[i].student for i in matrix.setups} == {"convnet3", "resnet_ap10"}
    ranks = {row.method.name: [cell.rank for cell in row.cells if cell is not None] for row in matrix.rows}
    assert ranks == {"b": [1, 1], "d": [2, 2], "c": [3, 3], "a": [4, 4], "z": [None]}
    assert [row.method.name for row in matrix.rows] == ["b", "d", "c", "a", "z"]
    assert matrix.kendall_w == pytest.approx(1.0)


def test_kendalls_w_against_its_definition() -> None:
    means = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 1.0], [4.0, 1.0, 3.0], [3.0, 4.0, 4.0]])
    ranks = stats.rankdata(means, axis=0)
    sums = ranks.sum(axis=1)
    methods, raters = means.shape
    expected = 12 * ((sums - sums.mean()) ** 2).sum() / (raters**2 * (methods**3 - methods))
    assert concordance(means) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    chance = [concordance(rng.random((6, 4))) for _ in range(500)]
    assert np.mean([found for found in chance if found is not None]) == pytest.approx(1 / 4, abs=0.02)
    assert concordance(np.ones((4, 3))) is None
    assert concordance(means[:2]) is None


def test_many_taus_at_once_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (7, 30)).astype(float), rng.integers(0, 5, (7, 30)).astype(float)
    expected = [stats.kendalltau(a[:, i], b[:, i]).statistic for i in range(30)]
    assert kendall_each(a, b) == pytest.approx(expected)


def test_namesakes_are_told_apart(folder: Any) -> None:
    for prior in ("a" * 64, "b" * 64):
        for protocol in ({}, {"protocol": OTHER}):
            folder.method("dmgd", [[60.0]], prior=prior, **protocol)
    (arena,) = build(folder)
    assert sorted(row.method.name.split(",")[0] for row in arena.matrices[0].rows) == [
        "dmgd · prior aaaaaaaa",
        "dmgd · prior bbbbbbbb",
    ]


def test_the_same_folder_gives_the_same_intervals(folder: Any) -> None:
    two_setups(folder)
    assert build(folder) == build(folder)
