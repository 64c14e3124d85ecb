"""Mean ranks of methods over the tables that they have in common, in clusters of results that are not independent.

One rank per method is taken in each *cell*: a table and a seed, with what the method's students of that seed reached.
Cells of one dataset and seed are one *cluster*: sets of one seed at different IPC share images (a greedy method's set
of 10 begins with its set of 1), students of other networks and protocols saw the same sets, and all meet the same test
images. Ranks are averaged within a cluster first; the interval is over clusters.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.seeds import STUDENTS_PER_SET
from ddbench.reports.statistics.crossed import CONFIDENCE, t_quantile
from ddbench.reports.tables.methods_as_run import MethodAsRun, methods_as_run
from ddbench.reports.tables.views import TableView
from ddbench.reports.tables.win_tie_loss import Pairing, pairings

Cell = tuple[int, int]
"""(index of the table, seed)."""
DECIMALS = 9
"""Accuracies that agree so far are a tie; sums in another order differ by less."""
PERMUTATIONS = 9_999
FEWEST_CLUSTERS = 3
"""Fewest clusters for an interval: two often have equal ranks, and an interval without width would say certainty."""
CAVEATS = (
    "A mean rank depends on which methods are compared and says nothing of how large the differences are.",
    "Intervals are each method's own, over seeds on these datasets and test images; that two of them overlap or do not "
    "is no test of two methods; wins, ties and losses are. Where few clusters agree by luck they are too short.",
)


class MethodRank(Record):
    method: str
    mean_rank: float
    """1 is best; ties are mid-ranks."""
    low: float | None
    high: float | None
    """95 % Student-t interval over clusters, cut at the first and the last rank; None for fewer than three."""
    by_cluster: list[float]
    """The method's mean rank in each cluster."""


class Cluster(Record):
    dataset: str
    seed: int
    tables: list[str]
    """Titles of the tables whose cells it holds."""


class LeftOut(Record):
    """A method that lacks cells which all compared methods have."""

    method: str
    cells: int
    """Compared cells that the method has."""


class MeanRanks(Record):
    methods: list[MethodRank]
    """Best first; empty where no two methods have a common cell."""
    clusters: list[Cluster]
    cells: int
    """Cells that all these methods have."""
    cells_left_out: int
    """Cells of which one of these methods has nothing."""
    left_out: list[LeftOut]
    p_value: float | None
    """p-value of no method differing from another: permutation test of Friedman's statistic. None for one cluster."""
    pairings: list[Pairing]
    """Wins, ties and losses of every two methods with a common table, also of those left out above."""
    caveats: tuple[str, ...] = CAVEATS


def mean_ranks(tables: Sequence[TableView]) -> MeanRanks:
    """Mean ranks of the methods that are in all common cells; the others are named.

    Results folders are rarely complete. Compared is the block of methods × cells with the most entries, where methods
    are taken in the order of how many cells they have (among equals the block with more methods).

    The p-value is that of Friedman's statistic under permutations of the methods within each cluster: his χ²
    approximation asks for many clusters of independent ranks, which means of several cells are not.
    """
    known = {one.name: found for one in methods_as_run(tables) if not one.reference and (found := _cells(tables, one))}
    chosen = _largest_block(known)
    common = sorted(set.intersection(*(set(known[name]) for name in chosen))) if chosen else []
    members: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for cell in common:
        members[tables[cell[0]].dataset, cell[1]].append(cell)
    by_cluster = np.array(
        [
            np.mean([_ranks([known[name][cell] for name in chosen]) for cell in cells], axis=0)
            for cells in members.values()
        ]
    )
    return MeanRanks(
        methods=sorted(
            (_method_rank(name, by_cluster[:, i], len(chosen)) for i, name in enumerate(chosen)),
            key=lambda one: (one.mean_rank, one.method),
        ),
        clusters=[
            Cluster(dataset=dataset, seed=seed, tables=[tables[place].title for place, _ in cells])
            for (dataset, seed), cells in members.items()
        ],
        cells=len(common),
        cells_left_out=len(set().union(*known.values())) - len(common),
        left_out=[
            LeftOut(method=name, cells=len(set(common) & cells.keys()))
            for name, cells in known.items()
            if name not in chosen
        ],
        p_value=_permutation_p_value(by_cluster) if len(by_cluster) > 1 else None,
        pairings=pairings(tables),
    )


def _cells(tables: Sequence[TableView], one: MethodAsRun) -> dict[Cell, float]:
    """Mean accuracy of a method's students of each seed in each table.

    A student's seed tells the set seed that it was trained for, also where a method makes one set for all seeds.
    """
    found: dict[Cell, list[float]] = defaultdict(list)
    for place, index in one.rows.items():
        for made in tables[place].rows[index].sets:
            for accuracy, seed in zip(made.acc_last, made.evaluate_seeds, strict=True):
                found[place, seed // STUDENTS_PER_SET].append(accuracy)
    return {cell: round(math.fsum(values) / len(values), DECIMALS) for cell, values in found.items()}


def _largest_block(known: dict[str, dict[Cell, float]]) -> list[str]:
    order = sorted(known, key=lambda name: (-len(known[name]), name))
    best: tuple[int, int] = (0, 0)
    common: set[Cell] = set().union(*known.values())
    for count, name in enumerate(order, start=1):
        common &= known[name].keys()
        if count >= 2:
            best = max(best, (count * len(common), count if common else 0))
    return order[: best[1]]


def _ranks(accuracies: Sequence[float]) -> np.ndarray:
    """1 for the highest, mid-ranks for equals."""
    ranks: np.ndarray = stats.rankdata(-np.array(accuracies), method="average")
    return ranks


def _method_rank(name: str, ranks: np.ndarray, methods: int) -> MethodRank:
    clusters, mean = len(ranks), float(ranks.mean())
    low = high = None
    if clusters >= FEWEST_CLUSTERS:
        half = t_quantile((1 + CONFIDENCE) / 2, clusters - 1) * float(np.std(ranks, ddof=1)) / math.sqrt(clusters)
        low, high = max(1.0, mean - half), min(float(methods), mean + half)
    return MethodRank(method=name, mean_rank=mean, low=low, high=high, by_cluster=ranks.tolist())


def _permutation_p_value(by_cluster: np.ndarray) -> float:
    """Share of permutations within clusters whose mean ranks lie as far apart; (clusters, methods) of ranks."""
    generator = np.random.default_rng(seeds.stream_seed(0, "mean rank permutations"))
    observed, as_far = _unevenness(by_cluster), 1
    for _ in range(PERMUTATIONS):
        as_far += _unevenness(generator.permuted(by_cluster, axis=1)) >= observed - 1e-9
    return as_far / (PERMUTATIONS + 1)


def _unevenness(by_cluster: np.ndarray) -> Any:
    """Friedman's statistic without its constant factor."""
    return np.square(by_cluster.mean(axis=0)).sum()
