"""The statistics of a leaderboard: intervals over distilled sets, and the test behind ranges of ranks.

The unit of replication is the distilled set. Students trained on one set are averaged first: they are not independent
evidence of the method. Sets and test images are crossed random factors: every student meets the same test images.

Legend: S sets, R students of a set, J test images. Accuracies, differences and standard deviations are in percent
points; variances are in points squared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
ALPHA = 0.05
"""Two-sided level at which one method counts as better than another; per pair, not corrected for their number."""
SMALLEST_P_VALUE = 1e-15
"""Below it a p-value says nothing that it does not say at it."""
BRACKET = 1e-8
"""Relative width that rounding gets beside a p-value's bounds."""

Cut = Literal["", "low", "high", "both"]
Basis = Literal["table", "own", "noisier"]
"""Whose variance between sets an interval rests on: that of the table's methods together, the method's own because
there is nothing to pool, or its own because it is noisier than they are."""


@dataclass(frozen=True)
class Summary:
    """Accuracy of a method over its distilled sets."""

    n: int
    """Distilled sets."""
    mean: float
    """Mean accuracy over sets, percent."""
    std: float | None
    """Sample standard deviation over sets (divisor n - 1); none for one set."""
    low: float | None
    """Lower end of the 95 % Student-t interval for the mean over sets, not below 0; none for one set."""
    high: float | None
    """Upper end of that interval, not above 100."""
    student_std: float | None
    """For one set only: sample standard deviation over its students, none for one student. It says how much training
    varies and nothing of how another set would do."""
    basis: Basis | None = None
    """Whose variance between sets the interval rests on: `table` that of the table's methods together, `own` the
    method's, `noisier` its own because it is noisier than they are; none for one set."""
    degrees_of_freedom: float | None = None
    """Of that variance."""
    cut: Cut = ""
    """Which ends of the interval would lie where no accuracy can."""

    @property
    def spread(self) -> float | None:
        """What stands behind ±: over sets, of one set over its students."""
        return self.student_std if self.n == 1 else self.std


@dataclass(frozen=True, eq=False)
class SetScore:  # compared as itself: arrays are not simply equal
    """What the students of one distilled set did on the test images."""

    students: tuple[float, ...]
    """(R,) accuracy of each student, percent."""
    seed: int | None = None
    """The seed that made the set; two methods' sets of one seed started from the same noise and are paired."""
    correct: np.ndarray | None = None
    """(J,) share of the students that were right about each test image; None where predictions are missing."""

    @cached_property
    def accuracy(self) -> float:
        return math.fsum(self.students) / len(self.students)


@dataclass(frozen=True)
class Component:
    """One independent part of the variance of an estimate."""

    variance: float
    degrees_of_freedom: float


BetweenSets = Callable[[Sequence[int]], Component | None]
"""Common seeds -> what a difference varies by between sets; None: what its own sets tell."""


@dataclass(frozen=True)
class Comparison:
    """The difference in accuracy, first method minus second."""

    difference: float
    """Mean accuracy of the first method minus that of the second, percent points."""
    standard_error: float | None = None
    """Root of the summed variance estimate; none, like all below, where nothing can be tested."""
    low: float | None = None
    """Lower end of the difference's 95 % interval."""
    high: float | None = None
    """Upper end of that interval."""
    basis: str = ""
    """What was compared, or why nothing could be."""
    degrees_of_freedom: float | None = None
    """Of the standard error, by Satterthwaite."""
    components: tuple[Component, ...] = ()
    """The independent parts of the variance."""

    @cached_property
    def p_value(self) -> float | None:
        """Two-sided p-value of no difference. It takes longer than all the rest, and whether it is below the level is
        known without it."""
        return tail(self.components, abs(self.difference)) if self.components else None

    @property
    def separates(self) -> bool:
        """Whether the p-value is below the level: the interval then leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def turned(self) -> Comparison:
        """Second method minus first."""
        low, high = (None if edge is None else -edge for edge in (self.high, self.low))
        return replace(self, difference=0.0 - self.difference, low=low, high=high)  # zero has no sign


def t_quantile(probability: float, degrees_of_freedom: float) -> float:
    return float(stdtrit(degrees_of_freedom, probability))


def summary(sets: Sequence[Sequence[float]], varies: tuple[Component, Basis] | None = None) -> Summary:
    """Mean, spread and Student-t interval over sets, from the accuracies of each set's students.

    The interval is cut at 0 and 100, where an accuracy must lie; that costs no coverage.

    Args:
        varies: what the mean varies by (`pooling.SetVariance.of_mean`); None: by the method's own sets.
    """
    means = [math.fsum(students) / len(students) for students in sets]
    n, mean = len(means), math.fsum(means) / len(means)
    if n == 1:
        student_std = float(np.std(sets[0], ddof=1)) if len(sets[0]) > 1 else None
        return Summary(1, mean, None, None, None, student_std)
    std = math.sqrt(variance_of(means))
    component, basis = varies or (Component(std**2 / n, n - 1), "own")
    half = t_quantile((1 + CONFIDENCE) / 2, component.degrees_of_freedom) * math.sqrt(component.variance)
    low, high = mean - half < 0, mean + half > 100
    beyond: Cut = "both" if low and high else "low" if low else "high" if high else ""
    ends = max(0.0, mean - half), min(100.0, mean + half)
    return Summary(n, mean, std, *ends, None, basis, component.degrees_of_freedom, beyond)


def compare(
    a: Sequence[SetScore], b: Sequence[SetScore], n_test: int, between_sets: BetweenSets | None = None
) -> Comparison:
    """Test whether two methods differ, with sets and test images as crossed random factors (`difference_of`).

    Level and interval sum the squares of half-widths (Banerjee, Sankhyā 22, 1960): critical value² =
    Σ t²(f_i) · v_i. Since the tail of χ²₁ is convex, its size never exceeds the level, also for two sets, where
    Satterthwaite's approximation rejects true hypotheses up to twice too often.
    """
    return comparison_of(difference_of(a, b, n_test, between_sets))


def comparison_of(found: Difference) -> Comparison:
    """The standard error, interval and p-value of a difference or another contrast, as `compare` says."""
    if not found.components:
        return Comparison(found.difference, basis=found.basis)
    half, error = math.sqrt(found.half_width_squared(1 - CONFIDENCE)), math.sqrt(found.variance)
    low, high = found.difference - half, found.difference + half
    return Comparison(found.difference, error, low, high, found.basis, found.degrees_of_freedom, found.components)


@dataclass(frozen=True)
class Difference:
    """A difference in accuracy, or another contrast of methods, and the independent parts of its variance; none where
    nothing can be tested."""

    difference: float
    components: tuple[Component, ...]
    basis: str

    @property
    def turned(self) -> Difference:
        """Second method minus first."""
        return replace(self, difference=0.0 - self.difference)

    @property
    def variance(self) -> float:
        return sum(c.variance for c in self.components)

    @property
    def degrees_of_freedom(self) -> float:
        """Of the summed variance, by Satterthwaite (1946)."""
        parts = math.fsum(c.variance**2 / c.degrees_of_freedom for c in self.components)
        return self.variance**2 / parts if parts else math.fsum(c.degrees_of_freedom for c in self.components)

    def half_width_squared(self, alpha: float) -> float:
        """Of the two-sided interval of level 1 - alpha."""
        return sum(t_quantile(alpha / 2, c.degrees_of_freedom) ** 2 * c.variance for c in self.components)

    def tail(self, distance: float) -> float:
        """Two-sided probability of an estimate at least so far (points, not negative) from the truth."""
        return tail(self.components, distance)


def tail(components: Sequence[Component], distance: float) -> float:
    """Two-sided probability of an estimate at least so far (points, not negative) from the truth, of one whose variance
    has these independent parts: the level whose interval just reaches it."""
    from scipy import optimize  # a third of a second, which leaderboards need not spend

    parts = [(c.degrees_of_freedom, c.variance) for c in components]
    square, error = distance**2, math.sqrt(sum(c.variance for c in components))

    def excess(alpha: float) -> float:  # half_width_squared, with nothing looked up: it is asked twenty times
        half = alpha / 2
        return sum(float(stdtrit(free, half)) ** 2 * variance for free, variance in parts) - square

    if distance == 0:
        return 1.0
    if not error:
        return SMALLEST_P_VALUE
    # It lies between those of the whole variance with the most and with the fewest degrees of freedom.
    low, high = (2 * float(stdtr(among(parts)[0], -distance / error)) for among in (max, min))
    low, high = max(SMALLEST_P_VALUE, low * (1 - BRACKET)), min(1.0, high * (1 + BRACKET))
    if excess(low) <= 0:
        return low
    if excess(high) >= 0:
        return high
    return float(optimize.brentq(excess, low, high, xtol=1e-17, rtol=1e-10))


def common_seeds(methods: Sequence[Sequence[SetScore]]) -> list[int]:
    """The seeds of which all methods have a set, by which they are paired; none for fewer than two."""
    common = sorted(set.intersection(*({s.seed for s in scores if s.seed is not None} for scores in methods)))
    return common if len(common) >= 2 else []


def entering(methods: Sequence[Sequence[SetScore]], common: Sequence[int] | None = None) -> list[list[SetScore]]:
    """The sets that a difference of the methods is made of: those of common seeds, where they are paired; else all.

    Args:
        common: `common_seeds`, where they are known.
    """
    common = common_seeds(methods) if common is None else common
    if not common:
        return [list(scores) for scores in methods]
    by_seed = [{score.seed: score for score in scores} for scores in methods]
    return [[scores[seed] for seed in common] for scores in by_seed]


class MeanCorrect:
    """(J,) share of a method's students that were right about each of J test images, mean over sets; None where the
    predictions of one are missing. A table asks for that of each method for each of its pairs; it is reckoned once."""

    def __init__(self, n_test: int) -> None:
        self.n_test = n_test
        self._known: dict[tuple[SetScore, ...], np.ndarray | None] = {}

    def __call__(self, scores: Sequence[SetScore]) -> np.ndarray | None:
        of = tuple(scores)
        if of not in self._known:
            arrays = [s.correct for s in of if s.correct is not None and s.correct.shape == (self.n_test,)]
            self._known[of] = np.mean(arrays, axis=0) if len(arrays) == len(of) else None
        return self._known[of]


def difference_of(
    a: Sequence[SetScore],
    b: Sequence[SetScore],
    n_test: int,
    between_sets: BetweenSets | None = None,
    mean_correct: MeanCorrect | None = None,
) -> Difference:
    """The difference of two methods' accuracies and what it varies by.

    The sets are paired by seed where two or more seeds are common: with D[s, j] the share of A's students right about
    test image j minus B's, for the pair of sets s,

        Var(mean of D) <= Var(row means of D) / S + Var(column means of D) / J        (sample variances)

    the crossed ("pigeonhole") moment estimate of Owen, "The pigeonhole bootstrap" (2007). It is conservative: both
    terms hold the interaction's share of the variance, which the truth holds once.
    Where fewer seeds are common, the two methods' sets vary independently and the first term becomes one term each.
    A method with one set is taken as that set: its term is the variation of its students; with one student nothing
    tells how it varies, and the other method's variance over sets is borrowed for it.

    Where predictions are missing, the second term becomes the largest that the two accuracies allow: at each image
    |D| is at most the sum of the two error rates and at most the sum of the two accuracies.

    Args:
        between_sets: of the common seeds (`common_seeds`), the term of the sets where a table's other methods tell it
            (`pooling.SetVariance.of_difference`); it is then all that the sets contribute.
        mean_correct: what several differences share.
    """
    common = common_seeds([a, b])
    pooled = None if between_sets is None else between_sets(common)
    mean_correct = mean_correct or MeanCorrect(n_test)
    return _contrast([a, b], common, [1.0, -1.0], mean_correct, () if pooled is None else (pooled,))


def contrast_of(
    methods: Sequence[Sequence[SetScore]], weights: Sequence[float], n_test: int, pooled: Sequence[Component] = ()
) -> Difference:
    """A weighted sum of M methods' accuracies, Σ w_m · accuracy_m, and what it varies by.

    As `difference_of`, with D[s, j] = Σ w_m · (share of method m's students right about test image j): over the sets
    of the seeds that all methods have, if there are two or more; else with a term for each method's sets, each times
    w_m², where a method without replication borrows the mean variance over sets of those that have it. A main effect of
    a 2 x 2 design has weights ½, ½, -½, -½, its interaction 1, -1, -1, 1.

    Raises:
        ValueError: not one weight for each method, or a method without sets.
    """
    if len(methods) != len(weights) or not all(methods):
        raise ValueError(f"expected a weight and one or more sets for each method, got {list(map(len, methods))} sets")
    return _contrast(methods, common_seeds(methods), weights, MeanCorrect(n_test), pooled)


def _contrast(
    methods: Sequence[Sequence[SetScore]],
    common: Sequence[int],
    weights: Sequence[float],
    mean_correct: MeanCorrect,
    pooled: Sequence[Component],
) -> Difference:
    methods = entering(methods, common)
    if common:
        several = f"{len(common)} seeds with a set of each of the {len(methods)} methods"
        basis = several if len(methods) > 2 else f"{len(common)} pairs of sets with the same seed"
    else:
        basis = f"{', '.join(str(len(scores)) for scores in methods[:-1])} and {len(methods[-1])} sets, independent"
    if pooled:
        basis = f"{basis}, their variance pooled over the table"
    varying = pooled or (_paired_sets(methods, weights) if common else _independent_sets(methods, weights))
    estimate = weighted_sum(weights, [mean_accuracy(scores) for scores in methods])
    if not varying:
        return Difference(estimate, (), "one set each: nothing tells how far another set would differ")
    images, images_basis = _test_images(methods, weights, mean_correct)
    return Difference(estimate, (*varying, images), f"{basis}; {images_basis}")


def variance_of(values: Sequence[float]) -> float:
    """Sample variance (divisor n - 1) of two or more numbers; numpy takes ten times as long for so few."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def weighted_sum(weights: Sequence[float], values: Sequence[float]) -> float:
    """Σ w_i · x_i."""
    return math.fsum(weight * value for weight, value in zip(weights, values, strict=True))


def mean_accuracy(scores: Sequence[SetScore]) -> float:
    """Over sets, percent."""
    return math.fsum(score.accuracy for score in scores) / len(scores)


def _paired_sets(methods: Sequence[Sequence[SetScore]], weights: Sequence[float]) -> list[Component]:
    """The component of sets of common seeds, of which each gives a sum."""
    sums = [weighted_sum(weights, [score.accuracy for score in made]) for made in zip(*methods, strict=True)]
    return [Component(variance_of(sums) / len(sums), len(sums) - 1)]


def _independent_sets(methods: Sequence[Sequence[SetScore]], weights: Sequence[float]) -> list[Component]:
    """A component for each method's sets; empty if no method has two."""
    replicated = sum(len(scores) >= 2 for scores in methods)
    if not replicated:
        return []
    single = [weight for scores, weight in zip(methods, weights, strict=True) if _stands_alone(scores)]
    # One draw of each method that has nothing of its own to tell its variance by.
    borrowed = math.fsum(weight**2 for weight in single) / replicated
    components = []
    for scores, weight in zip(methods, weights, strict=True):
        if len(scores) >= 2:
            spread = variance_of([score.accuracy for score in scores])
            components.append(Component(spread * (weight**2 / len(scores) + borrowed), len(scores) - 1))
        elif len(students := scores[0].students) >= 2:
            variance = weight**2 * variance_of(students) / len(students)
            components.append(Component(variance, len(students) - 1))
    return components


def _stands_alone(scores: Sequence[SetScore]) -> bool:
    return len(scores) == 1 and len(scores[0].students) == 1


def _test_images(
    methods: Sequence[Sequence[SetScore]], weights: Sequence[float], mean_correct: MeanCorrect
) -> tuple[Component, str]:
    n_test = mean_correct.n_test
    correct = [array for scores in methods if (array := mean_correct(scores)) is not None]
    if len(correct) == len(methods):
        summed = 100 * (np.asarray(weights) @ np.stack(correct))
        centred = summed - summed.mean()
        variance = float(centred @ centred) / (n_test - 1)
        return Component(variance / n_test, n_test - 1), f"{n_test} test images, paired"
    right = [mean_accuracy(scores) / 100 for scores in methods]
    largest = _largest_square(right, weights) - weighted_sum(weights, right) ** 2
    variance = 100**2 * max(largest, 0.0) * n_test / (n_test - 1)
    return Component(variance / n_test, n_test - 1), f"{n_test} test images, bounded: per-image predictions are missing"


def _largest_square(right: Sequence[float], weights: Sequence[float]) -> float:
    """The largest mean over images of (Σ w_m · share right)² that methods right about these shares of them can have."""
    if list(weights) == [1.0, -1.0]:
        return min(right[0] + right[1], 2 - right[0] - right[1])
    # The square is convex, so it is largest where each image is right or wrong with each method: a mixture of those
    # patterns, which a linear program finds.
    from scipy import optimize

    patterns = np.array(list(itertools.product((0.0, 1.0), repeat=len(right))))
    found = optimize.linprog(
        -((patterns @ np.asarray(weights)) ** 2),
        A_eq=np.vstack([patterns.T, np.ones(len(patterns))]),
        b_eq=[*right, 1.0],
    )
    if not found.success:
        raise ValueError(f"expected shares between 0 and 1, got {right}: {found.message}")
    return -float(found.fun)


def rank_ranges(better: Sequence[Sequence[bool]]) -> list[tuple[int, int]]:
    """The ranks that each of M methods can have, from `better[i][j]`, "method i is better than method j, beyond what
    chance explains": from 1 plus the number of methods that are better to M minus the number of those that are worse.
    """
    count = len(better)
    return [(1 + sum(row[j] for row in better), count - sum(better[j])) for j in range(count)]
