"""What a difference of two methods is worth: equivalence, many comparisons at once, single students, and power.

Legend: S sets, R students of a set, J test images. Accuracies and differences are in percent points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ddbench.reports.statistics.crossed import ALPHA, CONFIDENCE, Comparison, Difference, SetScore

POWER = 0.8


def equivalence_p_value(found: Difference, margin: float) -> float | None:
    """Two one-sided tests (Schuirmann 1987) that the true difference lies within ± `margin` points.

    The larger of the two one-sided p-values: below 5 %, the methods are equivalent within the margin. None where
    nothing can be tested.

    Raises:
        ValueError: a margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"expected a margin above 0 points, got {margin}")
    if not found.components:
        return None
    inside = margin - abs(found.difference)
    half_tail = found.tail(abs(inside)) / 2
    return half_tail if inside >= 0 else 1 - half_tail


def smallest_visible_difference(found: Difference, power: float = POWER) -> float | None:
    """The true difference that the two-sided 5 % test finds with probability `power`, at this spread and replication.
    None where nothing can be tested.

    The standard error is itself an estimate, so the test's statistic is non-central t, with Satterthwaite's degrees of
    freedom of its parts; its critical value is Banerjee's.
    """
    if not found.components:
        return None
    critical, error = math.sqrt(found.half_width_squared(1 - CONFIDENCE)), math.sqrt(found.variance)
    return _visible(critical, error, found.degrees_of_freedom, power)


def visible_in(found: Comparison, power: float = POWER) -> float | None:
    """The same, of a comparison that has been made."""
    if found.low is None or found.high is None or found.standard_error is None or found.degrees_of_freedom is None:
        return None
    return _visible((found.high - found.low) / 2, found.standard_error, found.degrees_of_freedom, power)


def _visible(critical: float, standard_error: float, degrees_of_freedom: float, power: float) -> float:
    if not standard_error:
        return critical

    # The statistic falls short of its critical value (12.7 at most) so often; the other tail is nothing.
    return standard_error * float(special.nctdtrinc(degrees_of_freedom, 1 - power, critical / standard_error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): below 5 %, the chance of any false finding in the family is at most 5 %."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = running
    return adjusted


def holm_of(comparisons: Sequence[Comparison | None]) -> list[float | None]:
    """Holm's adjustment over those that could be tested; None for the others."""
    adjusted = iter(holm([one.p_value for one in comparisons if one is not None and one.p_value is not None]))
    return [None if one is None or one.p_value is None else next(adjusted) for one in comparisons]


@dataclass(frozen=True)
class StudentPair:
    """Two students with the same seeds on the same test images."""

    only_a: int
    """Test images that only the first got right."""
    only_b: int
    p_value: float
    """Exact McNemar, two-sided."""


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> StudentPair:
    """Exact McNemar test (1947) of two students: the images on which they disagree, against a fair coin.

    It says whether these two networks differ, and nothing of the methods that made their training sets.

    Args:
        right_a, right_b: (J,) bool, which test images each got right.
    """
    from scipy import stats  # a third of a second, which leaderboards need not spend

    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p_value = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return StudentPair(only_a, only_b, p_value)


@dataclass(frozen=True)
class Spread:
    """Where the variation of a method's accuracy comes from: standard deviations, percent points."""

    sets: float | None
    """From one distilled set to another, students' noise taken off; None for one set."""
    students: float | None
    """From one student to another on the same set; None for single students."""
    test_images: float | None
    """Standard error of the accuracy if the test images were drawn anew; None where predictions are missing."""


def spread(scores: Sequence[SetScore]) -> Spread:
    """Moment estimates of the variance components, from students' accuracies within sets and the per-image shares.

    Between sets: Var(set means) - Var(students)/R, not below 0 (R: harmonic mean of the sets' numbers of students).
    """
    replicated = [score.students for score in scores if len(score.students) > 1]
    within = float(np.mean([np.var(students, ddof=1) for students in replicated])) if replicated else None
    between = None
    if len(scores) > 1:
        harmonic = len(scores) / math.fsum(1 / len(score.students) for score in scores)
        between = max(
            0.0, float(np.var([score.accuracy for score in scores], ddof=1)) - (within or 0.0) / harmonic
        )  # fmt: skip
    images = None
    if scores and all(score.correct is not None for score in scores):
        shares = 100 * np.mean([score.correct for score in scores if score.correct is not None], axis=0)
        images = float(np.std(shares, ddof=1)) / math.sqrt(len(shares))
    return Spread(
        None if between is None else math.sqrt(between), None if within is None else math.sqrt(within), images
    )


def pigeonhole_interval(
    a: Sequence[SetScore], b: Sequence[SetScore], generator: np.random.Generator, draws: int = 2000
) -> tuple[float, float] | None:
    """Percentile interval of the difference by the crossed bootstrap: sets and test images are drawn anew, each with
    replacement and independently (Owen, "The pigeonhole bootstrap", 2007). Sets of common seeds are paired.

    Returns:
        (low, high) in points at 95 %; None with fewer than two sets each, or without predictions.
    """
    matrix_a, matrix_b, paired = _matrices(a, b)
    if matrix_a is None or matrix_b is None:
        return None
    images = matrix_a.shape[1]
    drawn = np.empty(draws)
    for draw in range(draws):
        weights = np.bincount(generator.integers(images, size=images), minlength=images) / images
        rows_a = generator.integers(len(matrix_a), size=len(matrix_a))
        rows_b = rows_a if paired else generator.integers(len(matrix_b), size=len(matrix_b))
        drawn[draw] = (matrix_a[rows_a].mean(0) - matrix_b[rows_b].mean(0)) @ weights
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _matrices(a: Sequence[SetScore], b: Sequence[SetScore]) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    """Percent right, (S, J) for each method, and whether row s of both has one seed."""
    by_seed = [{s.seed: s.correct for s in side if s.seed is not None and s.correct is not None} for side in (a, b)]
    common = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(common) >= 2:
        first, second = (100 * np.stack([side[seed] for seed in common]) for side in by_seed)
        return first, second, True
    known = [[s.correct for s in side if s.correct is not None] for side in (a, b)]
    if min(map(len, known)) < 2:
        return None, None, False
    return 100 * np.stack(known[0]), 100 * np.stack(known[1]), False
