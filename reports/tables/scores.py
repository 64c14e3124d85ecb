"""What statistics need of the sets of a row."""

from __future__ import annotations

import numpy as np

from ddbench.benchmark.core.store import Store
from ddbench.reports.results.groups import DistilledSet, Metric, Row
from ddbench.reports.results.predictions import Labels, correct, labels_read_once
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Basis, Component, SetScore, Summary


def scores_of(store: Store, row: Row) -> list[SetScore]:
    """Of each finished set, in their order."""
    labels_of = labels_read_once(store)
    return [score_of(store, made, labels_of) for made in row.sets]


def accuracies_of(row: Row) -> list[SetScore]:
    """As `scores_of` without the test images, for what the sets' accuracies and seeds tell."""
    return [_score(made, None) for made in row.sets]


def score_of(store: Store, made: DistilledSet, labels_of: Labels | None = None) -> SetScore:
    """What the statistics need of one distilled set; without predictions where a student's are missing.

    Args:
        labels_of: as `predictions.correct`.
    """
    arrays = [correct(store, student, labels_of) for student in made.students]
    known = [array for array in arrays if array is not None]
    if len(known) < len(arrays):
        return _score(made, None)
    return _score(made, known[0].astype(float) if len(known) == 1 else np.mean(known, axis=0))


def _score(made: DistilledSet, correct: np.ndarray | None) -> SetScore:
    students = tuple(student.metrics.acc_last for student in made.students)
    return SetScore(students, made.seeds[0] if made.seeds else None, correct)


def summary_of(row: Row, metric: Metric, varies: tuple[Component, Basis] | None = None) -> Summary | None:
    """Over the row's sets; None unless each has students with this metric.

    Args:
        varies: as `crossed.summary`.
    """
    accuracies = row.accuracies(metric)
    return crossed.summary(accuracies, varies) if accuracies and all(accuracies) else None
