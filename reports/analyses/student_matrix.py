"""Methods by students under one protocol, or by protocols with one student, and how far the columns agree."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from ddbench.benchmark.core.result import Record
from ddbench.reports.analyses.entrants import FEWEST_METHODS, Contender, Entrant, Entrants
from ddbench.reports.analyses.where import Where
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Summary


class MatrixCell(Record):
    acc_last: Summary
    rank: int | None
    """Rank by mean among the methods that all columns have; 1 is the best, equal means share the smaller rank. None for
    a method that some column lacks."""


class MatrixRow(Record):
    method: Contender
    cells: list[MatrixCell | None]
    """The method in each column."""
    mean_rank: float | None


class Matrix(Record):
    """Methods by students under one protocol, or by protocols with one student. All of a row's sets count."""

    fixed: str
    """What all columns share."""
    varies: Literal["student", "protocol"]
    setups: list[int]
    """The columns: indices into the arena's setups."""
    rows: list[MatrixRow]
    """Methods by mean rank; then those that some column lacks."""
    n_common: int
    """Methods that all columns have."""
    kendall_w: float | None
    """Kendall's coefficient of concordance (1939) of R columns' rankings, corrected for ties: 1 where they agree, on
    average 1/R where they have nothing in common. None with fewer than three common methods."""


def matrices(setups: Sequence[Where], tables: Sequence[Entrants]) -> list[Matrix]:
    """Students under each protocol that has several; then protocols with each student that has several."""
    by_protocol, by_student = defaultdict(list), defaultdict(list)
    for index, setup in enumerate(setups):
        by_protocol[setup.protocol].append(index)
        by_student[setup.student].append(index)
    found = [_matrix(fixed, "student", columns, tables) for fixed, columns in by_protocol.items() if len(columns) > 1]
    found += [_matrix(fixed, "protocol", columns, tables) for fixed, columns in by_student.items() if len(columns) > 1]
    return found


def _matrix(
    fixed: str, varies: Literal["student", "protocol"], columns: Sequence[int], tables: Sequence[Entrants]
) -> Matrix:
    shown = [tables[index] for index in columns]
    everyone = list(dict.fromkeys(one for table in shown for one in table))
    common = [one for one in everyone if all(one in table for table in shown)]
    means = np.array([[_summary(table[one]).mean for table in shown] for one in common]).reshape(-1, len(shown))
    ranks = stats.rankdata(-means.round(9), method="min", axis=0).astype(int) if common else means
    rank_of = {one: [int(rank) for rank in ranks[place]] for place, one in enumerate(common)}
    built = []
    for one in everyone:
        its_ranks = rank_of.get(one)
        cells = [
            MatrixCell(acc_last=_summary(table[one]), rank=None if its_ranks is None else its_ranks[place])
            if one in table
            else None
            for place, table in enumerate(shown)
        ]
        contender = next(table[one].contender for table in shown if one in table)
        mean_rank = None if its_ranks is None else float(np.mean(its_ranks))
        built.append(MatrixRow(method=contender, cells=cells, mean_rank=mean_rank))
    built.sort(key=lambda row: (math.inf if row.mean_rank is None else row.mean_rank, row.method.name))
    return Matrix(
        fixed=fixed,
        varies=varies,
        setups=list(columns),
        rows=built,
        n_common=len(common),
        kendall_w=concordance(means.round(9)),
    )


def _summary(entrant: Entrant) -> Summary:
    return crossed.summary([score.students for score in entrant.scores.values()])


def concordance(means: np.ndarray) -> float | None:
    """Kendall's W of (M, R) means of M methods by R raters: Friedman's χ² over its largest value, R (M - 1)."""
    methods, raters = means.shape
    if methods < FEWEST_METHODS or raters < 2 or (means == means[:1]).all():
        return None
    chi_squared = float(stats.friedmanchisquare(*means).statistic)
    return chi_squared / (raters * (methods - 1))
