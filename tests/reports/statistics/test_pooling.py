"""The variance between sets of a table's methods together: against textbook designs, and where it must not be used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ddbench.reports.statistics.crossed import SetScore, common_seeds, compare, summary
from ddbench.reports.statistics.pooling import NOISIER_MEAN, SetVariance

N_TEST = 100


def methods(accuracies: np.ndarray, *, seeds: bool = False) -> list[list[SetScore]]:
    """(M, S) accuracies, all images alike so that sets are all that varies."""
    return [
        [SetScore((float(y),), s if seeds else None, np.full(N_TEST, y / 100)) for s, y in enumerate(row)]
        for row in accuracies
    ]


def draws(m: int, sets: int, seed: int, stds: float | np.ndarray = 1.0) -> np.ndarray:
    return 50 + np.random.default_rng(seed).normal(size=(m, sets)) * np.reshape(stds, (-1, 1))


def test_independent_sets_have_the_variance_of_a_one_way_layout() -> None:
    y = draws(5, 3, 0)
    found = SetVariance(methods(y)).of_mean(2)
    assert found is not None
    within = np.mean(y.var(1, ddof=1))
    assert found[0].variance == pytest.approx(within / 3)
    assert (found[0].degrees_of_freedom, found[1]) == (10, "table")
    low, high = stats.t.interval(0.95, 10, loc=y[2].mean(), scale=np.sqrt(within / 3))
    one = summary([[a] for a in y[2]], found)
    assert (one.low, one.high) == (pytest.approx(low), pytest.approx(high))


def test_equal_seeds_are_blocks_of_a_two_way_layout() -> None:
    y = draws(4, 3, 1) + np.array([-20.0, 0.0, 20.0])  # luck of a seed, common to all methods
    rows, columns = (np.repeat(np.eye(n), *how) for n, how in ((4, (3, 0)), (3, (1, 0))))
    design = np.hstack([rows, np.tile(columns, (4, 1))])
    _, squares, rank, _ = np.linalg.lstsq(design, y.ravel(), rcond=None)
    squares = np.sum((y.ravel() - design @ np.linalg.lstsq(design, y.ravel(), rcond=None)[0]) ** 2)
    scores = methods(y, seeds=True)
    found = SetVariance(scores).of_difference(0, 1, common_seeds(scores[:2]))
    assert found is not None
    free = y.size - rank
    assert (found.degrees_of_freedom, free) == (6, 6)
    assert found.variance == pytest.approx(2 * squares / free / 3)


def test_luck_that_all_methods_share_is_that_of_one_method() -> None:
    """Four copies of one method know no more of the luck of seeds than one."""
    y = np.tile(draws(1, 5, 2), (4, 1)) + np.arange(4)[:, None]
    shared = SetVariance(methods(y, seeds=True)).of_mean(0)
    apart = SetVariance(methods(y)).of_mean(0)
    assert shared is not None
    assert apart is not None
    assert shared[0].variance == pytest.approx(apart[0].variance)
    assert (shared[0].degrees_of_freedom, apart[0].degrees_of_freedom) == (pytest.approx(4), 16)


@pytest.mark.parametrize("seeds", [True, False])
def test_a_noisier_method_keeps_its_own_variance(seeds: bool) -> None:
    y = draws(6, 4, 3, np.array([8.0, 1, 1, 1, 1, 1]))
    scores = methods(y, seeds=seeds)
    variance = SetVariance(scores)
    found = variance.of_mean(0)
    assert found is not None
    ratio = y[0].var(ddof=1) / np.mean(y[1:].var(1, ddof=1))
    assert stats.f.sf(ratio, 3, 15) < NOISIER_MEAN
    assert (found[0].variance, found[0].degrees_of_freedom) == (pytest.approx(y[0].var(ddof=1) / 4), 3)
    assert found[1] == "noisier"
    assert variance.of_difference(0, 1, common_seeds(scores[:2])) is None
    assert variance.of_contrast({0: 1.0, 1: -1.0}) == ()


def test_two_methods_have_nothing_to_borrow() -> None:
    scores = methods(draws(2, 3, 4))
    variance = SetVariance(scores)
    assert variance.pools == 0
    assert variance.of_difference(0, 1, []) is None
    found = variance.of_mean(0)
    assert found is not None
    assert found[1] == "own"
    assert SetVariance([scores[0], scores[1][:1], []]).of_mean(1) is None


def test_a_reference_varies_by_its_students_alone_and_borrows_where_it_has_one() -> None:
    y = draws(5, 3, 0)
    within = np.mean(y[1:].var(1, ddof=1))
    for students, own in (((90.0, 91.0, 95.0), True), ((90.0,), False)):
        scores = [[SetScore(students)], *methods(y)[1:]]
        variance = SetVariance(scores, frozenset({0}))
        assert variance.pools == 4
        pooled, *of_students = variance.of_contrast({0: 2.0, 1: -1.0})
        assert pooled.variance == pytest.approx(within * (1 / 3 + (0 if own else 4)))
        assert [(c.variance, c.degrees_of_freedom) for c in of_students] == (
            [(pytest.approx(4 * np.var(students, ddof=1) / 3), 2)] if own else []
        )


def test_a_difference_says_that_its_variance_is_pooled() -> None:
    scores = methods(draws(4, 3, 0), seeds=True)
    variance = SetVariance(scores)
    pooled = compare(scores[0], scores[1], N_TEST, lambda seeds: variance.of_difference(0, 1, seeds))
    assert pooled.basis.startswith("3 pairs of sets with the same seed, their variance pooled over the table")
    assert "pooled" not in compare(scores[0], scores[1], N_TEST).basis


@given(order=st.permutations(range(5)), seeds=st.booleans(), sets=st.integers(2, 4), seed=st.integers(0, 50))
def test_the_order_of_the_rows_is_nothing(order: list[int], seeds: bool, sets: int, seed: int) -> None:
    scores = methods(draws(5, sets, seed, np.array([3.0, 1, 1, 1, 0.2])), seeds=seeds)
    one, other = SetVariance(scores), SetVariance([scores[place] for place in order])
    for place in range(5):
        first, second = one.of_mean(place), other.of_mean(order.index(place))
        assert first is not None
        assert second is not None
        assert first[1] == second[1]
        assert first[0].variance == pytest.approx(second[0].variance)
    common = common_seeds(scores)
    found, again = one.of_difference(0, 3, common), other.of_difference(order.index(0), order.index(3), common)
    assert (found is None) == (again is None)
    if found is not None and again is not None:
        assert found.variance == pytest.approx(again.variance)
