"""Two methods side by side, in every table that has both: `bench compare`.

One line per table and pair: the paired difference with its interval, Holm's correction over all lines, equivalence
within a margin, and the smallest difference that so many sets and test images can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.store import Store
from ddbench.reports.results import groups, rows
from ddbench.reports.results.predictions import correct, labels_of_test
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import ALPHA, Comparison
from ddbench.reports.statistics.equivalence import (
    Spread,
    StudentPair,
    equivalence_p_value,
    holm_of,
    mcnemar,
    pigeonhole_interval,
    smallest_visible_difference,
    spread,
)
from ddbench.reports.tables.leaderboard import pooled_over
from ddbench.reports.tables.qualifiers import settings_of
from ddbench.reports.tables.scores import scores_of


class ClassDifference(Record):
    """Accuracy on the test images of one class, first method minus second, percent points."""

    class_index: int
    difference: float


class Line(Record):
    """One pair of methods in one table."""

    table: str
    """Title of the table that has both."""
    dataset: str
    """Name of the dataset."""
    ipc: int | None
    """Images per class; none for the whole training set."""
    a: str
    """The first method, with its qualifiers where the table has two rows of one."""
    b: str
    """The second method, likewise."""
    sets: tuple[int, int]
    """Distilled sets of each that enter the difference: those of common seeds, where there are two or more."""
    sets_left_out: tuple[int, int]
    """Sets of each whose seed the other method lacks."""
    n_test: int
    """Test images."""
    accuracy: tuple[float, float]
    """Means of `acc_last` over the sets that enter the difference, percent."""
    comparison: Comparison
    p_holm: float | None
    """The p-value after Holm's correction over all lines of this comparison."""
    bootstrap: tuple[float, float] | None
    """95 % interval by the crossed bootstrap; a second opinion."""
    p_equivalent: float | None
    """p-value of a difference of the margin or more (two one-sided tests)."""
    visible: float | None
    """The true difference that this test finds with probability 0.8, points."""
    spread: tuple[Spread, Spread]
    student_pairs: list[StudentPair]
    """Students of the same set seed and student seed."""
    classes: list[ClassDifference]

    @property
    def verdict(self) -> str:
        """`<method> better`, `equivalent`, `not told apart`, or `not tested` (one set each)."""
        if self.comparison.p_value is None:
            return "not tested"
        if self.p_holm is not None and self.p_holm < ALPHA:
            return f"{self.a if self.comparison.difference > 0 else self.b} better"
        if self.p_equivalent is not None and self.p_equivalent < ALPHA:
            return "equivalent"
        return "not told apart"


class Report(Record):
    margin: float
    """Points within which two methods count as equivalent."""
    lines: list[Line]
    missing: list[str]
    """Tables that have one of the methods only."""


def compare_methods(results: rows.Results, methods: Sequence[str], margin: float) -> Report:
    """Compare the first of `methods` with each of the others, wherever both have finished students.

    Raises:
        UsageError: fewer than two methods, one that no result is of, or no table with two of them.
    """
    if len(set(methods)) < 2:
        raise UsageError(f"expected two or more different methods, got {', '.join(methods) or 'none'}")
    if not 0 < margin <= 100:
        raise UsageError(f"--margin {margin}: expected points above 0, up to 100")
    grouped = groups.group(results)
    known = {row.label for table in grouped for row in table.rows}
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise UsageError(f"no results of {', '.join(unknown)}; there are some of {', '.join(sorted(known)) or 'none'}")
    lines, missing = [], []
    for table in grouped:
        of = {name: [row for row in table.rows if row.label == name and row.finished] for name in methods}
        present = [name for name in methods if of[name]]
        if len(present) == 1:
            missing.append(f"{table.title}: only {present[0]}")
        for other in present[1:]:
            pairs = product(of[present[0]], of[other])
            lines += [_line(results.store, table, (a, b), margin) for a, b in pairs]
    if not lines:
        raise UsageError(f"no table has finished students of two of {', '.join(methods)}")
    return Report(margin=margin, lines=_corrected(lines), missing=missing)


def _corrected(lines: Sequence[Line]) -> list[Line]:
    """With Holm's adjustment over all that could be tested."""
    adjusted = holm_of([line.comparison for line in lines])
    return [line.model_copy(update={"p_holm": p_holm}) for line, p_holm in zip(lines, adjusted, strict=True)]


def _name(table: groups.Table, row: groups.Row) -> str:
    """The method, with what tells its row from others of that method in the table."""
    members = [other for other in table.rows if other.label == row.label]
    _, qualifiers = settings_of(members)
    return " · ".join([row.label, *(qualifiers[members.index(row)] if len(members) > 1 else [])])


def _line(store: Store, table: groups.Table, pair: tuple[groups.Row, groups.Row], margin: float) -> Line:
    a, b = pair
    n_test = a.finished[0].data.n_test
    scores = [scores_of(store, row) for row in table.rows]
    at, beside = (table.rows.index(row) for row in pair)
    scores_a, scores_b = scores[at], scores[beside]
    between_sets = partial(pooled_over(table.rows, scores).of_difference, at, beside)
    found = crossed.difference_of(scores_a, scores_b, n_test, between_sets)
    entering = crossed.entering([scores_a, scores_b])
    stream = np.random.default_rng(seeds.stream_seed(0, "pigeonhole bootstrap", table.title, a.label, b.label))
    return Line(
        table=table.title,
        dataset=table.key.dataset,
        ipc=table.key.ipc,
        a=_name(table, a),
        b=_name(table, b),
        sets=(len(entering[0]), len(entering[1])),
        sets_left_out=(len(scores_a) - len(entering[0]), len(scores_b) - len(entering[1])),
        n_test=n_test,
        accuracy=(crossed.mean_accuracy(entering[0]), crossed.mean_accuracy(entering[1])),
        comparison=crossed.comparison_of(found),
        p_holm=None,
        bootstrap=pigeonhole_interval(scores_a, scores_b, stream),
        p_equivalent=equivalence_p_value(found, margin),
        visible=smallest_visible_difference(found),
        spread=(spread(scores_a), spread(scores_b)),
        student_pairs=_student_pairs(store, a, b),
        classes=_classes(store, table, *entering),
    )


def _student_pairs(store: Store, a: groups.Row, b: groups.Row) -> list[StudentPair]:
    """Of students with equal seeds of both stages, where both have predictions."""
    right = []
    for row in (a, b):
        students = {(s.result.distill_seed, s.result.evaluate_seed): s for s in row.finished}
        right.append({key: found for key, s in students.items() if (found := correct(store, s)) is not None})
    return [mcnemar(right[0][key], right[1][key]) for key in sorted(right[0].keys() & right[1].keys(), key=str)]


def _classes(
    store: Store, table: groups.Table, a: Sequence[crossed.SetScore], b: Sequence[crossed.SetScore]
) -> list[ClassDifference]:
    """All classes in label order; empty without predictions."""
    labels = labels_of_test(store, table.key.content_hash)
    shares = [[s.correct for s in scores if s.correct is not None] for scores in (a, b)]
    if labels is None or len(shares[0]) < len(a) or len(shares[1]) < len(b):
        return []
    difference = 100 * (np.mean(shares[0], axis=0) - np.mean(shares[1], axis=0))
    if len(labels) != len(difference):
        return []
    return [
        ClassDifference(class_index=int(label), difference=float(difference[labels == label].mean()))
        for label in np.unique(labels)
    ]
