"""The variance between distilled sets, estimated from all methods of a table together.

Two or three sets say next to nothing of their own variance: Student's t with one degree of freedom is 12.7. A table's
methods are judged by the same students on the same images, so their variances are pooled, except for a method that an
F test says is noisier than the others: it keeps its own. docs/statistics.md simulates how often the intervals and tests
that come of it are right.

Legend: M methods with two or more sets, S_m sets of method m, y[m, s] accuracies in percent points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy import special

from ddbench.reports.statistics.crossed import Basis, Component, SetScore, variance_of

NOISIER_MEAN = 0.125
"""Level of the F test by which a method's mean keeps its own variance."""
NOISIER_DIFFERENCE = 0.15
"""Level of those by which a difference does: an error there is a false finding. Both were chosen by simulation."""
BLOCK_POWER = 1.5
"""Power of the correlation in the degrees of freedom of methods that share seeds. 2 would be exact were the correlation
known; estimated from a few seeds it gives intervals that cover too rarely."""


@dataclass(frozen=True)
class SetVariance:
    """The methods of one table, by their places in it.

    Args:
        methods: accuracies are pooled over those that have two or more sets.
        references: places that are not pooled, as of a method that is not like the others.
    """

    methods: Sequence[Sequence[SetScore]]
    references: frozenset[int] = frozenset()

    def of_mean(self, place: int) -> tuple[Component, Basis] | None:
        """What the mean of a method's sets varies by; None for fewer than two sets."""
        if place not in self._squares:
            return None
        count = len(self.methods[place])
        if not self._shared:
            return self._own(place), "own"
        if self._noisier(place, NOISIER_MEAN):
            return self._own(place), "noisier"
        return Component(self._pooled / count, self._degrees_of_freedom), "table"

    def of_difference(self, a: int, b: int, seeds: Sequence[int]) -> Component | None:
        """What the difference of two methods varies by between sets; None where their own sets are to tell.

        Args:
            seeds: those of which both have a set, if the difference is paired by them; else none.
        """
        if not self._shared or not {a, b} <= self._squares.keys():
            return None
        if self._noisier(a, NOISIER_DIFFERENCE) or self._noisier(b, NOISIER_DIFFERENCE):
            return None
        return self._paired(a, b, seeds) if seeds else self._of_means({a: 1.0, b: -1.0})

    def of_contrast(self, weights: Mapping[int, float]) -> tuple[Component, ...]:
        """What Σ weight · accuracy varies by between sets, as if no seeds were common: place -> weight. A reference is
        one set whatever the seed and varies by its students; one that has a single student, and a method that is not
        pooled, take the others' variance. Empty where their own sets are to tell."""
        pooled = self._squares.keys() & weights.keys()
        if not self._shared or any(self._noisier(place, NOISIER_DIFFERENCE) for place in pooled):
            return ()
        own = []
        for place in self.references & weights.keys():
            students = [accuracy for score in self.methods[place] for accuracy in score.students]
            if len(students) >= 2:
                variance = weights[place] ** 2 * variance_of(students) / len(students)
                own.append(Component(variance, len(students) - 1))
        rest = {place: weight for place, weight in weights.items() if place not in self.references or not own}
        return (self._of_means(rest), *own)

    def _of_means(self, weights: Mapping[int, float]) -> Component:
        shares = math.fsum(weight**2 / len(self.methods[place]) for place, weight in weights.items())
        return Component(self._pooled * shares, self._degrees_of_freedom)

    def _paired(self, a: int, b: int, seeds: Sequence[int]) -> Component | None:
        """From the residuals of all methods that have these seeds, seeds as blocks (two-way layout): twice their mean
        square over S, unless the difference itself varies more than the rest of them."""
        methods, total = self._block(tuple(seeds))
        if methods < 3:
            return None
        own = self._by_seed[a], self._by_seed[b]
        free = len(seeds) - 1
        sum_own = free * variance_of([own[0][seed] - own[1][seed] for seed in seeds]) / 2
        if _exceeds(sum_own, free, total - sum_own, (methods - 2) * free, NOISIER_DIFFERENCE):
            return None
        free_of_all = (methods - 1) * free
        return Component(2 * total / free_of_all / len(seeds), free_of_all)

    def _block(self, seeds: tuple[int, ...]) -> tuple[int, float]:
        """(methods that have these seeds, sum of their squared residuals): most pairs of a table share their seeds."""
        if seeds not in self._blocks:
            block = [p for p in self._squares if all(seed in self._by_seed[p] for seed in seeds)]
            total = 0.0
            if block:
                y = np.array([[self._by_seed[p][seed] for seed in seeds] for p in block])  # (M, S)
                residuals = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
                total = float((residuals**2).sum())
            self._blocks[seeds] = len(block), total
        return self._blocks[seeds]

    @cached_property
    def _blocks(self) -> dict[tuple[int, ...], tuple[int, float]]:
        return {}

    @property
    def pools(self) -> int:
        """Methods whose variances are pooled; 0 where there is nothing to pool."""
        return len(self._squares) if self._shared else 0

    @cached_property
    def _squares(self) -> dict[int, tuple[float, int]]:
        """Place -> sum of squares about the method's mean, and its degrees of freedom."""
        found = {}
        for place, scores in enumerate(self.methods):
            if len(scores) >= 2 and place not in self.references:
                accuracies = [score.accuracy for score in scores]
                found[place] = (variance_of(accuracies) * (len(accuracies) - 1), len(accuracies) - 1)
        return found

    @property
    def _shared(self) -> bool:
        return len(self._squares) >= 3

    def _own(self, place: int) -> Component:
        squares, free = self._squares[place]
        return Component(squares / free / (free + 1), free)

    def _noisier(self, place: int, level: float) -> bool:
        squares, free = self._squares[place]
        return _exceeds(squares, free, self._total - squares, self._free - free, level)

    @cached_property
    def _total(self) -> float:
        return math.fsum(squares for squares, _ in self._squares.values())

    @cached_property
    def _free(self) -> int:
        return sum(free for _, free in self._squares.values())

    @property
    def _pooled(self) -> float:
        return self._total / self._free

    @cached_property
    def _by_seed(self) -> list[dict[int, float]]:
        return [{s.seed: s.accuracy for s in scores if s.seed is not None} for scores in self.methods]

    @cached_property
    def _degrees_of_freedom(self) -> float:
        """Of the pooled variance: fewer where methods share seeds and the luck of a seed is common to them.

        Satterthwaite's for M equal variances of which each pair with common seeds correlates by ρ²: ν / (1 + p ρ²), p
        the partners that a method has on average. ρ is what the differences of paired sets leave of the variance.
        """
        squares = free = partners = 0.0
        for a, b in combinations(self._squares, 2):
            common = self._by_seed[a].keys() & self._by_seed[b].keys()
            if len(common) >= 2:
                differences = [self._by_seed[a][seed] - self._by_seed[b][seed] for seed in common]
                squares += variance_of(differences) * (len(common) - 1) / 2
                free += len(common) - 1
                partners += 2 / len(self._squares)
        if not free or not self._pooled:
            return float(self._free)
        correlation = min(1.0, max(0.0, 1 - squares / free / self._pooled))
        return self._free / (1 + partners * correlation**BLOCK_POWER)


def _exceeds(squares: float, free: int, others: float, free_of_others: int, level: float) -> bool:
    """Whether a variance is larger than that of the others, by a one-sided F test."""
    if not squares or free_of_others < 1:
        return False
    if others <= 0:
        return True
    ratio = squares / free / (others / free_of_others)
    return float(special.fdtrc(free, free_of_others, ratio)) < level
