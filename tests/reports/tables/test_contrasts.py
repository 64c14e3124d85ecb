"""Contrasts of several methods, against textbook tests, a second computation and exhaustive bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ddbench.reports.statistics.crossed import (
    Difference,
    SetScore,
    _largest_square,
    compare,
    comparison_of,
    contrast_of,
    difference_of,
    t_quantile,
)

INTERACTION = [1.0, -1.0, -1.0, 1.0]
MAIN = [-0.5, 0.5, -0.5, 0.5]


def method(shares: np.ndarray, *, first_seed: int = 0, predictions: bool = True) -> list[SetScore]:
    """(S, J) share of students right -> its sets, each with one student's accuracy."""
    return [
        SetScore((100 * float(row.mean()),), first_seed + seed, row.astype(float) if predictions else None)
        for seed, row in enumerate(shares)
    ]


def four(seed: int = 0, sets: int = 3, images: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.random((sets, images)) < p).astype(float) for p in (0.5, 0.6, 0.55, 0.8)]


def test_without_variation_of_images_it_is_a_t_test_of_the_contrast_of_each_seed() -> None:
    accuracies = np.array([[0.60, 0.65, 0.58], [0.71, 0.70, 0.75], [0.63, 0.66, 0.62], [0.80, 0.79, 0.84]])
    methods = [method(np.repeat(row[:, None], 8, axis=1)) for row in accuracies]
    for weights in (MAIN, INTERACTION):
        expected = stats.ttest_1samp(100 * np.asarray(weights) @ accuracies, 0.0)
        found = comparison_of(contrast_of(methods, weights, 8))
        assert found.difference == pytest.approx(100 * (np.asarray(weights) @ accuracies).mean())
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_sets_and_images_are_crossed() -> None:
    shares = four()
    contrast = 100 * np.tensordot(INTERACTION, np.stack(shares), axes=1)  # (S, J)
    sets, images = contrast.mean(1).var(ddof=1) / 3, contrast.mean(0).var(ddof=1) / 40
    found = contrast_of([method(one) for one in shares], INTERACTION, 40)
    assert found.difference == pytest.approx(contrast.mean())
    assert [c.variance for c in found.components] == [pytest.approx(sets), pytest.approx(images)]
    assert [c.degrees_of_freedom for c in found.components] == [2, 39]
    half = math.sqrt(t_quantile(0.975, 2) ** 2 * sets + t_quantile(0.975, 39) ** 2 * images)
    assert comparison_of(found).high == pytest.approx(contrast.mean() + half)
    assert "3 seeds with a set of each of the 4 methods; 40 test images, paired" in found.basis


def test_only_the_seeds_that_all_methods_have_are_paired() -> None:
    shares = four(sets=4)
    methods = [method(one) for one in shares]
    methods[2] = methods[2][1:3]
    expected = contrast_of([method(one[1:3], first_seed=1) for one in shares], MAIN, 40)
    assert contrast_of(methods, MAIN, 40) == expected


def test_without_common_seeds_the_methods_vary_independently() -> None:
    shares = four()
    methods = [method(one, first_seed=10 * i) for i, one in enumerate(shares)]
    found = contrast_of(methods, MAIN, 40)
    expected = [0.25 * np.var(100 * one.mean(1), ddof=1) / 3 for one in shares]
    assert [c.variance for c in found.components[:4]] == pytest.approx(expected)


def test_a_method_with_one_student_borrows_the_mean_variance_of_the_others() -> None:
    shares = four()
    methods = [method(one, first_seed=10 * i) for i, one in enumerate(shares)]
    methods[3] = methods[3][:1]
    found = contrast_of(methods, INTERACTION, 40)
    spreads = [np.var(100 * one.mean(1), ddof=1) for one in shares[:3]]
    assert sum(c.variance for c in found.components[:-1]) == pytest.approx(sum(spreads) / 3 + np.mean(spreads))


def test_one_set_each_tests_nothing() -> None:
    methods = [method(one[:1]) for one in four()]
    found = contrast_of(methods, MAIN, 40)
    assert found.components == ()
    assert comparison_of(found).p_value is None


def test_a_pair_is_the_difference() -> None:
    a, b = (method(one) for one in four()[:2])
    assert contrast_of([a, b], [1.0, -1.0], 40) == difference_of(a, b, 40)
    halved = comparison_of(contrast_of([a, b], [0.5, -0.5], 40))
    whole = compare(a, b, 40)
    assert halved.p_value == pytest.approx(whole.p_value)
    assert halved.difference == pytest.approx(whole.difference / 2)


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_program_finds_the_bound_of_a_pair(a: float, b: float) -> None:
    # Twice the weights take the general way; their square is four times as large.
    assert _largest_square([a, b], [2.0, -2.0]) == pytest.approx(4 * min(a + b, 2 - a - b), abs=1e-9)


def test_the_bound_is_reached_and_never_passed() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        right = rng.random((4, 30)) < rng.random((4, 1))
        largest = _largest_square([float(p) for p in right.mean(1)], INTERACTION)
        assert largest >= float(((np.asarray(INTERACTION) @ right) ** 2).mean()) - 1e-9
    # Halves right each: where the first and last are right and the others wrong, and the reverse, it is ±2 throughout.
    assert _largest_square([0.5, 0.5, 0.5, 0.5], INTERACTION) == pytest.approx(4.0)


def test_the_bound_is_the_variance_of_the_predictions_that_reach_it() -> None:
    # Each image is got right by one of the two: no two methods of these accuracies can differ on more images.
    a, b = np.repeat([[1.0] * 6 + [0.0] * 4], 2, axis=0), np.repeat([[0.0] * 6 + [1.0] * 4], 2, axis=0)
    known = difference_of(method(a), method(b), 10)
    unknown = difference_of(method(a, predictions=False), method(b, predictions=False), 10)
    assert "bounded" in unknown.basis
    assert [c.variance for c in unknown.components] == pytest.approx([c.variance for c in known.components])


def test_missing_predictions_widen_the_interval() -> None:
    shares = four()
    known = contrast_of([method(one) for one in shares], MAIN, 40)
    unknown = contrast_of([method(one, predictions=False) for one in shares], MAIN, 40)
    assert unknown.components[-1].variance > known.components[-1].variance
    assert "bounded" in unknown.basis


def test_what_does_not_fit_is_refused() -> None:
    a = method(four()[0])
    with pytest.raises(ValueError, match="a weight and one or more sets for each method"):
        contrast_of([a, a], [1.0], 40)
    with pytest.raises(ValueError, match=r"\[3, 0\] sets"):
        contrast_of([a, []], [1.0, -1.0], 40)


@pytest.mark.parametrize("sets", [2, 3])
def test_an_interaction_of_nothing_is_rarely_found(sets: int) -> None:
    rng, found = np.random.default_rng(7), 0
    for _ in range(400):
        seeds, images = rng.normal(0, 0.05, (sets, 1)), rng.normal(0, 0.2, (1, 60))
        shares = [np.clip(0.5 + seeds + images + rng.normal(0, 0.05, (sets, 60)), 0, 1) for _ in range(4)]
        outcome: Difference = contrast_of([method(one) for one in shares], INTERACTION, 60)
        found += comparison_of(outcome).separates
    assert found / 400 < 0.075  # nominal 0.05 and 2.3 standard errors
