"""How many distilled sets and students a comparison needs: `bench leaderboard --how-many`.

From the variance components of the methods that a table has: a true difference is seen that the test of a table with as
many methods finds four times in five (`equivalence.smallest_visible_difference`), with S sets of R students each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.store import Store
from ddbench.reports.results import groups
from ddbench.reports.statistics.crossed import Component, Difference, SetScore, common_seeds, entering
from ddbench.reports.statistics.equivalence import smallest_visible_difference
from ddbench.reports.tables.scores import scores_of

SETS = (2, 3, 5, 10, 20, 50)
STUDENTS = (1, 2, 3, 5)
MOST_SETS = 1000
"""More than anybody makes."""


class HowMany(Record):
    """What one table's methods vary by, and what designs of so many sets and students would show."""

    table: str
    """Title of the table."""
    methods: int
    """Methods with two or more sets, from which the components are."""
    paired: bool
    """Whether they have sets of common seeds."""
    n_test: int
    std_over_sets: float
    """From one distilled set to another, the luck of a common seed and students' noise taken off, percent points."""
    std_over_students: float | None
    """From one student to another of one set; None where no set has two, and students are then part of the sets."""
    std_over_test_images: float
    """Standard error of a difference if the test images were drawn anew, whatever the number of sets."""
    visible: dict[str, float]
    """`S×R` -> the smallest true difference that is found four times in five, points."""
    points: float
    """What is to be seen."""
    sets_needed: dict[int, int | None]
    """Students of a set -> the fewest sets that see it; None where no number does: the test images are too few."""


class Designs(Record):
    tables: list[HowMany]


def how_many(store: Store, table: groups.Table, points: float) -> HowMany | None:
    """None for a table without two methods of two sets each."""
    scores = [
        made
        for row in table.rows
        if not row.reference and len(made := scores_of(store, row)) >= 2 and all(s.correct is not None for s in made)
    ]
    if len(scores) < 2 or table.n_test < 2:
        return None
    paired = all(common_seeds(pair) for pair in combinations(scores, 2))
    students = _students(scores)
    harmonic = 1 / float(np.mean([1 / len(score.students) for made in scores for score in made]))
    between = max(0.0, _between_sets(scores, paired=paired) - (students or 0.0) / harmonic)
    of_pairs = [_images(*entering(pair), paired=paired) for pair in combinations(scores, 2)]
    taste, chance = (float(np.median(values)) for values in zip(*of_pairs, strict=True))

    def visible(sets: int, per_set: int) -> float:
        freedom = (sets - 1) * ((len(scores) - 1) if paired else len(scores))
        of_sets = Component(2 * (between + (students or 0.0) / per_set) / sets, freedom)
        of_images = Component((taste + chance / sets) / table.n_test, table.n_test - 1)
        return smallest_visible_difference(Difference(0.0, (of_sets, of_images), "")) or 0.0

    numbers = STUDENTS if students is not None else (1,)
    return HowMany(
        table=table.title,
        methods=len(scores),
        paired=paired,
        n_test=table.n_test,
        std_over_sets=math.sqrt(between),
        std_over_students=None if students is None else math.sqrt(students),
        std_over_test_images=math.sqrt(taste / table.n_test),
        visible={f"{sets}×{per_set}": visible(sets, per_set) for sets in SETS for per_set in numbers},
        points=points,
        sets_needed={
            per_set: next((sets for sets in range(2, MOST_SETS) if visible(sets, per_set) <= points), None)
            if visible(MOST_SETS, per_set) <= points
            else None
            for per_set in numbers
        },
    )


def _students(scores: Sequence[Sequence[SetScore]]) -> float | None:
    """Mean variance over students of one set."""
    found = [np.var(score.students, ddof=1) for made in scores for score in made if len(score.students) > 1]
    return float(np.mean(found)) if found else None


def _between_sets(scores: Sequence[Sequence[SetScore]], *, paired: bool) -> float:
    """Variance between sets of one method: half that of paired differences, where seeds are common."""
    if not paired:
        return float(np.mean([np.var([score.accuracy for score in made], ddof=1) for made in scores]))
    variances = []
    for pair in combinations(scores, 2):
        a, b = ([score.accuracy for score in made] for made in entering(pair))
        variances.append(np.var(np.subtract(a, b), ddof=1))
    return float(np.mean(variances)) / 2


def _images(a: Sequence[SetScore], b: Sequence[SetScore], *, paired: bool) -> tuple[float, float]:
    """What a difference varies by from one test image to another, points²: the methods' own part, which more sets leave
    as it is, and the part of one set (of a pair, where paired), which they average out."""
    shares = [100 * np.stack([score.correct for score in made if score.correct is not None]) for made in (a, b)]
    of_sets = [shares[0] - shares[1]] if paired else shares
    chance = [float(np.var(one, axis=0, ddof=1).mean()) for one in of_sets]
    averaged = sum(variance / len(one) for variance, one in zip(chance, of_sets, strict=True))
    total = float(np.var(shares[0].mean(0) - shares[1].mean(0), ddof=1))
    return max(0.0, total - averaged), sum(chance)
