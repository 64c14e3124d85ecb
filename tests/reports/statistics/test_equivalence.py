"""Equivalence, corrections, exact tests and power against scipy, closed forms and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ddbench.reports.statistics.crossed import Component, Difference, SetScore, compare, difference_of
from ddbench.reports.statistics.equivalence import (
    equivalence_p_value,
    holm,
    mcnemar,
    pigeonhole_interval,
    smallest_visible_difference,
    spread,
    visible_in,
)


def constant(shares: list[float]) -> list[SetScore]:
    """Sets on which every image is got right by the same share of students: images do not vary."""
    return [SetScore((100 * share,), seed, np.full(16, share)) for seed, share in enumerate(shares)]


def test_one_component_is_the_paired_two_one_sided_t_tests() -> None:
    a, b = [0.80, 0.81, 0.805, 0.80], [0.79, 0.81, 0.80, 0.80]
    differences = 100 * (np.array(a) - np.array(b))
    found = equivalence_p_value(difference_of(constant(a), constant(b), 16), margin=1.0)
    above = stats.ttest_1samp(differences, -1.0, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, 1.0, alternative="less").pvalue
    assert found == pytest.approx(max(above, below), rel=1e-6)


def test_a_difference_beyond_the_margin_is_never_equivalent() -> None:
    found = Difference(2.0, (Component(0.01, 5), Component(0.01, 499)), "")
    assert equivalence_p_value(found, 1.0) > 0.95  # type: ignore[operator]
    assert equivalence_p_value(found, 2.0) == pytest.approx(0.5)
    assert equivalence_p_value(found, 4.0) < 0.001  # type: ignore[operator]
    with pytest.raises(ValueError, match="margin above 0"):
        equivalence_p_value(found, 0.0)


def test_it_does_not_matter_which_method_is_named_first() -> None:
    better, worse = constant([0.82, 0.84, 0.825]), constant([0.80, 0.81, 0.805])
    for margin in (0.5, 1.0, 3.0, 10.0):
        one, other = (
            equivalence_p_value(difference_of(*pair, 16), margin) for pair in ((better, worse), (worse, better))
        )
        assert one == pytest.approx(other)


def test_equivalence_errs_at_most_at_its_level() -> None:
    rng, false = np.random.default_rng(0), 0
    for _ in range(600):  # the true difference lies on the margin
        rows = rng.random((3, 200)) < 0.5
        noise = rng.normal(0, 0.01, (3, 1))
        a = [SetScore((100 * float(r.mean() + e[0] + 0.01),), s, r + e + 0.01) for s, (r, e) in enumerate(zip(rows, noise, strict=True))]  # fmt: skip  # noqa: E501
        b = [SetScore((100 * float(r.mean()),), s, r.astype(float)) for s, r in enumerate(rows)]
        p_value = equivalence_p_value(difference_of(a, b, 200), 1.0)
        assert p_value is not None
        false += p_value < 0.05
    assert false / 600 < 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_closed_test_procedure(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    ordered = sorted(p_values)
    for p_value, found in zip(p_values, adjusted, strict=True):
        last = max(place for place, other in enumerate(ordered) if other == p_value)
        assert found >= p_value
        assert found == pytest.approx(
            max(min(1.0, (len(ordered) - place) * ordered[place]) for place in range(last + 1))
        )


def test_mcnemar_is_the_binomial_test_of_the_discordant_images() -> None:
    right_a = np.array([1] * 12 + [0] * 3 + [1] * 50 + [0] * 35, bool)
    right_b = np.array([0] * 12 + [1] * 3 + [1] * 50 + [0] * 35, bool)
    found = mcnemar(right_a, right_b)
    tail = sum(stats.binom.pmf(k, 15, 0.5) for k in range(4))
    assert (found.only_a, found.only_b) == (12, 3)
    assert found.p_value == pytest.approx(2 * tail)
    assert mcnemar(right_a, right_a).p_value == 1.0


def test_power_at_the_smallest_visible_difference_is_what_it_says() -> None:
    rng, found, runs = np.random.default_rng(1), 0, 1500
    spread_points, sets = 1.0, 8
    component = Component(spread_points**2 / sets, sets - 1)
    visible = smallest_visible_difference(Difference(0.0, (component,), ""))
    assert visible is not None
    for _ in range(runs):
        draws = rng.normal(visible, spread_points, sets)
        found += stats.ttest_1samp(draws, 0).pvalue < 0.05
    assert 0.74 < found / runs < 0.9  # a normal quantile where the test is Student's: a little off, on purpose


def test_components_of_a_simulated_method_are_found() -> None:
    rng = np.random.default_rng(2)
    sets, students, images = 400, 4, 50
    easiness = rng.random(images)
    scores = []
    for seed in range(sets):
        level = rng.normal(0, 3)
        of_set = tuple(60 + level + rng.normal(0, 2, students))
        scores.append(SetScore(of_set, seed, easiness))
    found = spread(scores)
    assert found.sets == pytest.approx(3, rel=0.12)
    assert found.students == pytest.approx(2, rel=0.08)
    assert found.test_images == pytest.approx(100 * np.std(easiness, ddof=1) / np.sqrt(images))
    assert spread(scores[:1]).sets is None
    assert spread([SetScore((50.0,))]) == spread([SetScore((60.0,))])


def test_students_noise_is_taken_off_the_variance_between_sets() -> None:
    # Set means 60, 70 and 80 vary by 100; students of a set by 2; 3 / (1/1 + 1/2 + 1/2) = 3/2
    # students a set in the harmonic mean, so that their noise is 2 / (3/2) of the 100.
    found = spread([SetScore((60.0,)), SetScore((69.0, 71.0)), SetScore((79.0, 81.0))])
    assert found.students == pytest.approx(2**0.5)
    assert found.sets == pytest.approx((100 - 2 / 1.5) ** 0.5)
    # Sets that differ no more than their students: nothing is left, and nothing negative.
    assert spread([SetScore((40.0, 60.0)), SetScore((41.0, 61.0))]).sets == 0.0


def test_few_noisy_students_do_not_make_sets_look_different() -> None:
    # One true accuracy for all sets, students' noise of 3: without taking it off, sets would vary by 3 / sqrt(2) = 2.1.
    rng = np.random.default_rng(3)
    scores = [SetScore(tuple(60 + rng.normal(0, 3, 2))) for _ in range(2000)]
    found = spread(scores).sets
    assert found is not None
    assert found < 0.7


def test_the_crossed_bootstrap_agrees_with_the_moment_interval() -> None:
    rng = np.random.default_rng(3)
    easiness = rng.random(300)
    a, b = [], []
    for seed in range(12):
        for side, lift in ((a, 0.08), (b, 0.0)):
            right = (rng.random(300) < np.clip(easiness + lift + rng.normal(0, 0.02), 0, 1)).astype(float)
            side.append(SetScore((100 * float(right.mean()),), seed, right))
    interval, moments = pigeonhole_interval(a, b, np.random.default_rng(4)), compare(a, b, 300)
    assert interval is not None
    assert moments.low is not None
    assert moments.high is not None
    width, expected = interval[1] - interval[0], moments.high - moments.low
    assert 0.75 < width / expected < 1.25
    assert abs(np.mean(interval) - moments.difference) < 0.5
    assert pigeonhole_interval(a[:1], b[:1], np.random.default_rng(4)) is None


def test_the_bootstrap_draws_sets_of_one_seed_together_and_others_apart() -> None:
    """Sets differ by far more than the methods: of one seed, that luck is common to both and drops out."""
    rng = np.random.default_rng(7)
    luck = [0.1, 0.5, 0.9]
    a = [SetScore((100 * p,), seed, (rng.random(200) < p).astype(float)) for seed, p in enumerate(luck)]
    same = pigeonhole_interval(a, a, np.random.default_rng(8))
    assert same == (0.0, 0.0)
    elsewhere = [SetScore(one.students, 10 + seed, one.correct) for seed, one in enumerate(a)]
    apart = pigeonhole_interval(a, elsewhere, np.random.default_rng(8))
    assert apart is not None
    assert apart[0] < -30
    assert apart[1] > 30


def test_a_comparison_that_was_made_sees_what_its_parts_would_see() -> None:
    rng = np.random.default_rng(6)
    a, b = ([SetScore((100 * float(row.mean()),), s, row) for s, row in enumerate(rng.random((3, 80)))] for _ in "ab")
    expected = smallest_visible_difference(difference_of(a, b, 80))
    assert visible_in(compare(a, b, 80)) == pytest.approx(expected)
    assert visible_in(compare(a[:1], b[:1], 80)) is None
