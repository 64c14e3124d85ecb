"""Known answers from scipy.stats, closed forms, and simulations of coverage and of false positives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ddbench.reports.statistics.crossed import (
    Component,
    Difference,
    MeanCorrect,
    SetScore,
    compare,
    difference_of,
    rank_ranges,
    summary,
)


def score(correct: np.ndarray, seed: int | None = None) -> SetScore:
    """One student's right and wrong answers: (J,) of 0 and 1, or shares."""
    return SetScore((100 * float(np.mean(correct)),), seed, np.asarray(correct, float))


def paired(differences: np.ndarray) -> tuple[list[SetScore], list[SetScore]]:
    """Two methods whose D[s, j], in {-1, 0, 1}, is given."""
    a = [score(row > 0, seed) for seed, row in enumerate(differences)]
    b = [score(row < 0, seed) for seed, row in enumerate(differences)]
    return a, b


# Summary


def test_interval_over_sets_is_student_t() -> None:
    sets = [[61.0, 63.0], [70.0], [64.0, 66.0, 65.0], [58.0, 60.0]]
    means = [62.0, 70.0, 65.0, 59.0]  # students of a set count once, however many there are
    found = summary(sets)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(means), scale=stats.sem(means))
    assert (found.n, found.student_std) == (4, None)
    assert (found.mean, found.std) == (pytest.approx(64.0), pytest.approx(np.std(means, ddof=1)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_set_has_no_interval_and_says_how_its_students_vary() -> None:
    found = summary([[90.0, 92.0, 94.0]])
    assert (found.n, found.mean, found.std, found.low, found.high) == (1, 92.0, None, None, None)
    assert found.student_std == pytest.approx(2.0)
    assert summary([[90.0]]).student_std is None


def test_interval_is_cut_where_no_accuracy_can_be() -> None:
    found = summary([[97.0], [99.0]])
    assert (found.high, found.cut) == (100.0, "high")
    assert summary([[1.0], [3.0]]).cut == "low"
    assert summary([[30.0], [70.0]]).cut == "both"
    assert summary([[50.0], [51.0]]).cut == ""
    assert found.low == pytest.approx(98 - stats.t.ppf(0.975, 1))


def test_interval_covers() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        found = summary([[x] for x in rng.normal(50, 1, size=3)])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 50 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)  # 3 standard errors


# Comparison: where one source of variance vanishes, it is a textbook test


def test_without_variation_of_images_it_is_the_paired_t_test() -> None:
    a = [score(np.full(16, share), seed) for seed, share in enumerate((0.80, 0.91, 0.85))]
    b = [score(np.full(16, share), seed) for seed, share in enumerate((0.71, 0.75, 0.78))]
    expected = stats.ttest_rel([s.accuracy for s in a], [s.accuracy for s in b])
    found = compare(a, b, 16)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_without_variation_of_sets_it_is_a_t_test_over_images() -> None:
    row = np.array([1, 1, 0, 0, 0, -1, 0, 1, 0, 1])
    a, b = paired(np.vstack([row, row[::-1]]))
    means = 100 * np.vstack([row, row[::-1]]).mean(axis=0)
    expected = stats.ttest_1samp(means, 0)
    found = compare(a, b, len(row))
    assert found.difference == pytest.approx(30.0)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)


def test_one_set_with_one_student_borrows_the_other_methods_variance() -> None:
    # Without image variance this is the pooled two-sample t-test, which a single value on one side leaves defined.
    a = [score(np.ones(8) * share, seed) for seed, share in enumerate((0.8, 0.85, 0.9))]
    b = [score(np.ones(8) * 0.6, 0)]
    expected = stats.ttest_ind([80.0, 85.0, 90.0], [60.0], equal_var=True)
    assert compare(a, b, 8).p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert compare(b, a, 8).p_value == pytest.approx(expected.pvalue, rel=1e-6)


def test_half_widths_of_all_components_add_in_squares() -> None:
    rng = np.random.default_rng(2)
    a = [score(rng.random(50) < 0.8, seed) for seed in (0, 1, 2)]
    b = [SetScore((60.0, 64.0, 71.0), 0, rng.random(50))]
    found = compare(a, b, 50)
    sets = np.var([s.accuracy for s in a], ddof=1) / 3
    students = np.var([60.0, 64.0, 71.0], ddof=1) / 3
    assert a[0].correct is not None
    assert b[0].correct is not None
    images = np.var(100 * (np.mean([s.correct for s in a], axis=0) - b[0].correct), ddof=1) / 50
    half = math.sqrt(sum(stats.t.ppf(0.975, f) ** 2 * v for f, v in ((2, sets), (2, students), (49, images))))
    assert found.low == pytest.approx(found.difference - half)
    assert found.standard_error == pytest.approx(math.sqrt(sets + students + images))


def test_p_value_meets_the_interval() -> None:
    """p < 5 % exactly where the 95 % interval leaves out zero."""
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(200):
        a, b = paired(rng.choice([-1, 0, 1], p=[0.15, 0.55, 0.3], size=(3, 60)))
        found = compare(a, b, 60)
        assert found.low is not None
        assert found.high is not None
        assert found.p_value is not None
        assert found.separates == (not found.low <= 0 <= found.high) == (found.p_value < 0.05)
        seen.add(found.separates)
    assert seen == {True, False}


PARTS = st.lists(
    st.builds(Component, st.floats(1e-4, 50), st.sampled_from([1, 1.5, 2, 3, 7, 20.3, 100, 499, 4999])),
    min_size=1,
    max_size=4,
)


@given(PARTS, st.floats(0.01, 6))
def test_a_tail_is_the_level_whose_interval_just_reaches_so_far(parts: list[Component], errors: float) -> None:
    whole = Difference(0.0, tuple(parts), "")
    distance = errors * math.sqrt(whole.variance)
    level = whole.tail(distance)
    assert 0 < level <= 1
    assert whole.half_width_squared(level) == pytest.approx(distance**2, rel=1e-6)


@pytest.mark.parametrize("free", [1, 2, 7.5, 400])
def test_the_tail_of_one_part_is_students(free: float) -> None:
    for errors in (1e-3, 0.5, 2.0, 8.0):
        expected = 2 * stats.t.sf(errors, free)
        assert Difference(0.0, (Component(0.25, free),), "").tail(0.5 * errors) == pytest.approx(expected, rel=1e-6)


def test_the_share_that_was_right_is_reckoned_once_for_all_pairs_of_a_method() -> None:
    rng = np.random.default_rng(5)
    methods = [[score(rng.random(40) < 0.7, seed) for seed in range(3)] for _ in range(3)]
    shared = MeanCorrect(40)
    for i, j in ((0, 1), (0, 2), (1, 2), (0, 1)):
        together = difference_of(methods[i], methods[j], 40, mean_correct=shared)
        assert together == difference_of(methods[i], methods[j], 40)
    assert shared(methods[0]) is shared(list(methods[0]))
    expected = np.mean([one.correct for one in methods[2] if one.correct is not None], axis=0)
    assert shared(methods[2]) == pytest.approx(expected)
    assert shared(methods[0][:2]) != pytest.approx(shared(methods[0]))
    assert MeanCorrect(39)(methods[0]) is None


def test_two_single_sets_cannot_be_separated() -> None:
    a, b = [SetScore((99.0, 98.0), 0, np.ones(10))], [SetScore((10.0, 11.0), 0, np.zeros(10))]
    found = compare(a, b, 10)
    assert (found.difference, found.p_value, found.separates) == (88.0, None, False)
    assert "one set each" in found.basis


def test_sets_are_paired_by_seed_and_not_by_position() -> None:
    rng = np.random.default_rng(4)
    a = [score(rng.random(100) < p, seed) for seed, p in enumerate((0.5, 0.6, 0.7))]
    b = [score(rng.random(100) < p, seed) for seed, p in enumerate((0.45, 0.55, 0.65))]
    assert compare(a, b[::-1], 100) == compare(a, b, 100)
    assert "3 pairs" in compare(a, b, 100).basis
    # A set that only one of them has is left out of a paired comparison.
    assert compare([*a, score(np.ones(100), 7)], b, 100).difference == pytest.approx(compare(a, b, 100).difference)
    strangers = [SetScore(s.students, None, s.correct) for s in b]
    assert "independent" in compare(a, strangers, 100).basis


def test_a_pair_turned_round_has_the_same_interval_from_the_other_side() -> None:
    rng = np.random.default_rng(6)
    a, b = ([score(rng.random(60) < share, seed) for seed in range(4)] for share in (0.8, 0.5))
    there, back = compare(a, b, 60), compare(b, a, 60)
    assert there.difference > 0 > back.difference
    assert there.turned == back
    assert math.copysign(1, compare(a, a, 60).turned.difference) == 1.0


def test_equal_sets_do_not_differ() -> None:
    rng = np.random.default_rng(5)
    a = [score(rng.random(30) < 0.7, seed) for seed in range(3)]
    assert compare(a, a, 30).p_value == 1.0


answers = st.integers(2, 4).flatmap(
    lambda sets: st.lists(st.lists(st.booleans(), min_size=24, max_size=24), min_size=2 * sets, max_size=2 * sets)
)


@given(answers)
@settings(max_examples=150, deadline=None)
def test_without_predictions_the_test_is_never_bolder(rows: list[list[bool]]) -> None:
    half = len(rows) // 2
    a = [score(np.array(row), seed) for seed, row in enumerate(rows[:half])]
    b = [score(np.array(row), seed) for seed, row in enumerate(rows[half:])]
    full, forward = compare(a, b, 24), compare(b, a, 24)
    bounded = compare([SetScore(s.students, s.seed) for s in a], b, 24)
    assert forward.difference == pytest.approx(-full.difference)
    assert forward.p_value == pytest.approx(full.p_value)
    assert "bounded" in bounded.basis
    assert full.p_value is not None
    assert bounded.p_value is not None
    assert bounded.p_value >= full.p_value - 1e-12


# Comparison: simulations


def rejections(sets: int, set_effect: float, gain: float, runs: int, seed: int, images: int = 150) -> float:
    """Share of simulated comparisons that separate two methods.

    Answers follow a logistic model: difficulty of an image (shared), taste of a method for an image, luck of a set,
    and a gain of the second method. With gain 0 the methods are equal over sets and images.
    """
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(runs):
        easy = rng.normal(1.0, 1.5, images)
        methods = []
        for which in range(2):
            logits = easy + rng.normal(0, 0.7, images) + rng.normal(0, set_effect, (sets, 1)) + gain * which
            right = rng.random((sets, images)) < 1 / (1 + np.exp(-logits))
            methods.append([score(row, s) for s, row in enumerate(right)])
        found += compare(methods[0], methods[1], images).separates
    return found / runs


@pytest.mark.parametrize(("sets", "set_effect"), [(2, 0.0), (2, 0.5), (2, 1.5), (3, 0.5), (3, 1.5), (5, 0.5)])
def test_equal_methods_are_rarely_told_apart(sets: int, set_effect: float) -> None:
    """Not more often than the level says, however few sets: two standard errors of 500 runs are 2 points."""
    assert rejections(sets, set_effect, 0.0, runs=500, seed=10 * sets) <= 0.05 + 0.02


def test_the_level_is_used_where_sets_vary_most() -> None:
    assert rejections(3, 3.0, 0.0, runs=500, seed=7) >= 0.02


def test_different_methods_are_told_apart() -> None:
    assert rejections(3, 0.1, 1.5, runs=60, seed=8) >= 0.9
    assert rejections(5, 0.1, 1.0, runs=60, seed=9) >= 0.9


# Ranks


def test_rank_counts_those_that_are_better() -> None:
    #        a      b      c      d
    better = [
        [False, False, True, True],
        [False, False, False, True],
        [False, False, False, False],
        [False, False, False, False],
    ]
    assert rank_ranges(better) == [(1, 2), (1, 3), (2, 4), (3, 4)]
    assert rank_ranges([]) == []
