"""Kendall's τ between the rankings that two setups give their common sets, with crossed bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.result import Record
from ddbench.reports.analyses.entrants import FEWEST_METHODS, Entrants, RowSet
from ddbench.reports.analyses.where import Where
from ddbench.reports.results.groups import RowKey
from ddbench.reports.statistics.crossed import ALPHA

DRAWS = 1000
CHUNK = 4_000_000
"""Numbers of a bootstrap that are in memory at once."""
TIE = 1e-4
"""Means of accuracies, percent, that differ by less are equal but for rounding."""


class Agreement(Record):
    """Two setups and the rankings that they give the sets that both have."""

    a: int
    b: int
    """Indices into the arena's setups."""
    n_methods: int
    n_sets: int
    """Distilled sets, over all methods."""
    n_seeds: int
    tau: float | None
    """Kendall's τ-b; None with fewer than three methods, or where all means are equal."""
    p_value: float | None
    """p-value of no association: exact without ties (scipy)."""
    low: float | None
    high: float | None
    """95 % percentile interval over `DRAWS` crossed draws of seeds and test images. None where nothing can be drawn
    anew. Noise that a draw adds can only shuffle a ranking, so the interval lies low where methods are close."""
    basis: str


def agreements(setups: Sequence[Where], tables: Sequence[Entrants], title: str) -> list[Agreement]:
    images = _drawn_images(setups[0].n_test, title)
    drawn = [_over_images(table, images) for table in tables]
    found = []
    for a, b in combinations(range(len(setups)), 2):
        methods = [one for one in tables[a] if one in tables[b] and tables[a][one].common(tables[b][one])]
        if methods:
            found.append(_agreement((a, b), methods, tables, drawn, title))
    return found


def _agreement(
    pair: tuple[int, int],
    methods: Sequence[RowKey],
    tables: Sequence[Entrants],
    drawn: Sequence[dict[RowSet, np.ndarray]],
    title: str,
) -> Agreement:
    a, b = (tables[index] for index in pair)
    sets = {one: a[one].common(b[one]) for one in methods}
    means = [[np.mean([side[one].scores[sha].accuracy for sha in sets[one]]) for one in methods] for side in (a, b)]
    seed_of = {(one, sha): a[one].scores[sha].seed for one in methods for sha in sets[one]}
    known = sorted({seed for seed in seed_of.values() if seed is not None})
    tau, p_value = _kendall(*np.round(means, 9)) if len(methods) >= FEWEST_METHODS else (None, None)
    images = any(drawn[index][made].size > 1 for index in pair for made in seed_of)
    low = high = None
    if tau is not None and (images or len(known) > 1):
        stream = np.random.default_rng(seeds.stream_seed(0, "rankings over seeds", title, *pair))
        weights: dict[int, np.ndarray] = {}
        if known:
            counts = stream.multinomial(len(known), np.full(len(known), 1 / len(known)), size=DRAWS)
            weights = dict(zip(known, counts.T, strict=True))
        sides = [
            np.stack(
                [_over_seeds([(one, sha) for sha in sets[one]], drawn[index], seed_of, weights) for one in methods]
            )
            for index in pair
        ]
        low, high = (float(v) for v in np.quantile(kendall_each(*sides), [ALPHA / 2, 1 - ALPHA / 2]))
    factors = [f"{len(known)} seeds"] if len(known) > 1 else []
    factors += ["test images"] if images else []
    few = len(methods) < FEWEST_METHODS
    drawn_over = f"drawn over {' and '.join(factors)}" if factors else "no interval: one seed, and no predictions"
    return Agreement(
        a=pair[0],
        b=pair[1],
        n_methods=len(methods),
        n_sets=len(seed_of),
        n_seeds=len(known),
        tau=tau,
        p_value=p_value,
        low=low,
        high=high,
        basis=f"fewer than {FEWEST_METHODS} methods in common" if few else drawn_over,
    )


def _drawn_images(n_test: int, title: str) -> np.ndarray:
    """(DRAWS, n_test) how often each test image was drawn, one draw for all tables of an arena."""
    stream = np.random.default_rng(seeds.stream_seed(0, "rankings over test images", title))
    counts = (np.bincount(stream.integers(n_test, size=n_test), minlength=n_test) for _ in range(DRAWS))
    return np.stack([np.minimum(count, 255).astype(np.uint8) for count in counts])


def _over_images(table: Entrants, drawn: np.ndarray) -> dict[RowSet, np.ndarray]:
    """Set -> (DRAWS,) accuracy on the drawn test images.

    A set without predictions has its accuracy in every draw: (1,).
    """
    n_test = drawn.shape[1]
    scores = {(one, sha): score for one, entrant in table.items() for sha, score in entrant.scores.items()}
    known = {made: s.correct for made, s in scores.items() if s.correct is not None and len(s.correct) == n_test}
    found = {made: np.array([score.accuracy]) for made, score in scores.items()}
    if not known:
        return found
    right = 100 * np.stack(list(known.values())).astype(np.float32) / n_test
    step = max(1, CHUNK // n_test)
    chunks = [right @ drawn[start : start + step].T.astype(np.float32) for start in range(0, DRAWS, step)]
    return found | dict(zip(known, np.concatenate(chunks, axis=1).astype(float), strict=True))


def _over_seeds(
    sets: Sequence[RowSet],
    drawn: dict[RowSet, np.ndarray],
    seed_of: dict[RowSet, int | None],
    weights: dict[int, np.ndarray],
) -> np.ndarray:
    """(DRAWS,) mean over one method's sets, each as often as its seed was drawn.

    A draw that has none of a method's seeds, and a method whose sets have none, keeps the plain mean: what there is
    only once cannot be drawn anew.

    Args:
        weights: seed -> (DRAWS,) how often it was drawn.
    """
    accuracies = np.stack([np.broadcast_to(drawn[made], DRAWS) for made in sets])
    known = [seed for made in sets if (seed := seed_of[made]) is not None]
    if len(known) < len(sets):
        return np.asarray(accuracies.mean(axis=0))
    counts = np.stack([weights[seed] for seed in known]).astype(float)
    counts[:, counts.sum(axis=0) == 0] = 1.0
    return np.asarray((accuracies * counts).sum(axis=0) / counts.sum(axis=0))


def _kendall(a: np.ndarray, b: np.ndarray) -> tuple[float | None, float | None]:
    found = stats.kendalltau(a, b, variant="b")
    return (None, None) if math.isnan(found.statistic) else (float(found.statistic), float(found.pvalue))


def kendall_each(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """τ-b of each column of two (M, D) arrays; 0 where one has all values equal."""
    first, second = np.triu_indices(len(a), 1)
    order_a, order_b = (np.sign(np.where(abs(d := x[first] - x[second]) < TIE, 0.0, d)) for x in (a, b))
    untied = np.sqrt(np.abs(order_a).sum(axis=0) * np.abs(order_b).sum(axis=0))
    return np.asarray((order_a * order_b).sum(axis=0) / np.maximum(untied, 1.0))
