"""Whether the evaluation decides who wins: the same distilled sets under several protocols and students.

Tables of one dataset, split, resolution and IPC can hold the same distilled sets; where two of them are compared, only
the sets that both have (by the hash of their images) count. Rankings are by mean accuracy over those sets.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from scipy import stats

from ddbench.benchmark import seeds
from ddbench.benchmark.result import Record
from ddbench.benchmark.store import Store
from ddbench.reports import groups, rows, statistics
from ddbench.reports.equivalence import holm
from ddbench.reports.groups import Contestant
from ddbench.reports.leaderboard import contestant_id, score_of, titles
from ddbench.reports.statistics import ALPHA, Comparison, SetScore, Summary

DRAWS = 1000
FEWEST_METHODS = 3
"""Fewer have no ranking to speak of."""
CHUNK = 4_000_000
"""Numbers of a bootstrap that are in memory at once."""
TIE = 1e-4
"""Means of accuracies, percent, that differ by less are equal but for rounding."""

Standing = Literal["separated", "same direction", "no difference", "reversed", "reversed and separated"]


class Setup(Record):
    """One table: how the sets are evaluated."""

    table: str
    protocol: str
    student: str
    modified_protocol: bool
    n_test: int


class Contender(Record):
    id: str
    """`leaderboard.contestant_id`."""
    name: str


class MatrixCell(Record):
    acc_last: Summary
    rank: int | None
    """Among the methods that all columns have, by mean; 1 is the best, equal means share the smaller rank. None for a
    method that some column lacks."""


class MatrixRow(Record):
    method: Contender
    cells: list[MatrixCell | None]
    """One for each column."""
    mean_rank: float | None


class Matrix(Record):
    """Methods by students under one protocol, or by protocols with one student. All of a row's sets count."""

    fixed: str
    """What all columns share."""
    varies: Literal["student", "protocol"]
    setups: list[int]
    """The columns: indices into the arena's setups."""
    rows: list[MatrixRow]
    """By mean rank; then those that some column lacks."""
    n_common: int
    """Methods that all columns have."""
    kendall_w: float | None
    """Kendall's coefficient of concordance (1939) of R columns' rankings, corrected for ties: 1 where they agree, on
    average 1/R where they have nothing in common. None with fewer than three common methods."""


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
    """Of no association: exact without ties (scipy)."""
    low: float | None
    high: float | None
    """95 % percentile interval over `DRAWS` crossed draws of seeds and test images. None where nothing can be drawn
    anew. Noise that a draw adds can only shuffle a ranking, so the interval lies low where methods are close."""
    basis: str


class Check(Record):
    """What another setup says of a finding, from the sets that both have."""

    setup: int
    comparison: Comparison
    p_holm: float | None
    """Adjusted over the findings of the one setup that the other can check."""
    standing: Standing


class Finding(Record):
    """A separation after Holm's correction over all pairs of one table."""

    setup: int
    better: Contender
    worse: Contender
    difference: float
    p_holm: float
    checks: list[Check]
    """By the other setups that have sets of both methods in common with this one."""

    @property
    def survives(self) -> bool:
        """Found again by every setup that can check it."""
        return bool(self.checks) and all(check.standing == "separated" for check in self.checks)


class Arena(Record):
    """One dataset and IPC, evaluated in two or more ways."""

    title: str
    dataset: str
    split: str
    resolution: int
    ipc: int | None
    setups: list[Setup]
    matrices: list[Matrix]
    pairs: list[Agreement]
    """Of all setups that share methods; without those that share none."""
    findings: list[Finding]
    """Largest difference first."""


@dataclass(frozen=True)
class _Entrant:
    """A method in one table: its sets by image hash."""

    contender: Contender
    row: groups.Row
    scores: dict[str, SetScore]

    def common(self, other: _Entrant) -> list[str]:
        return [sha for sha in self.scores if sha in other.scores]


_Table = dict[Contestant, _Entrant]
_Set = tuple[Contestant, str]
"""A method's set: two methods can make the same images, and each has students of its own."""


def build(results: rows.Results, grouped: Sequence[groups.Group] | None = None) -> list[Arena]:
    """Every dataset and IPC that was evaluated in more than one way. Reference rows take no part.

    Args:
        grouped: `groups.group(results)`, where it is at hand.
    """
    tables = groups.group(results) if grouped is None else grouped
    named = titles([table.key for table in tables])
    arenas: dict[tuple[Any, ...], list[tuple[str, groups.Group]]] = defaultdict(list)
    for title, table in zip(named, tables, strict=True):
        key = table.key
        same = (key.dataset, key.split, key.resolution, key.ipc, key.split_hash, key.content_hash)
        if any(row.finished and not row.reference for row in table.rows):
            arenas[same].append((title, table))
    return [_arena(results.store, members) for members in arenas.values() if len(members) > 1]


def _arena(store: Store, members: Sequence[tuple[str, groups.Group]]) -> Arena:
    key = members[0][1].key
    setups = [
        Setup(
            table=title,
            protocol=table.key.protocol,
            student=table.key.student,
            modified_protocol=any(cell.spec.protocol.overrides for row in table.rows for cell in row.cells),
            n_test=next(student.data.n_test for row in table.rows for student in row.finished),
        )
        for title, table in members
    ]
    names = _names(row for _, table in members for row in table.rows if _takes_part(row))
    tables = [_entrants(store, table, names) for _, table in members]
    ipc = "whole training set" if key.ipc is None else f"IPC {key.ipc}"
    title = f"{key.dataset} ({key.split} split) · {ipc} · {key.resolution} px"
    return Arena(
        title=title,
        dataset=key.dataset,
        split=key.split,
        resolution=key.resolution,
        ipc=key.ipc,
        setups=setups,
        matrices=_matrices(setups, tables),
        pairs=_agreements(setups, tables, title),
        findings=_findings(setups, tables),
    )


def _takes_part(row: groups.Row) -> bool:
    return bool(row.finished) and not row.reference


def _entrants(store: Store, table: groups.Group, names: dict[Contestant, str]) -> _Table:
    return {
        row.contestant: _Entrant(
            Contender(id=contestant_id(row.contestant), name=names[row.contestant]),
            row,
            {made.image_set_sha256: score_of(store, made) for made in row.sets},
        )
        for row in table.rows
        if _takes_part(row)
    }


def _names(members: Iterable[groups.Row]) -> dict[Contestant, str]:
    """Labels; where two contestants bear one, with what tells them apart."""
    labels = {row.contestant: row.label for row in members}
    for facts in (_made_with, lambda one: f"{_made_with(one)}, {one.method[:8]}"):
        counts = Counter(labels.values())
        labels = {
            one: label if counts[label] == 1 else f"{label.partition(' · ')[0]} · {facts(one)}"
            for one, label in labels.items()
        }
    return labels


def _made_with(one: Contestant) -> str:
    prior = None if one.prior_sha256 is None else f"prior {one.prior_sha256[:8]}"
    images = "images made elsewhere" if one.foreign else None
    return ", ".join(filter(None, (prior, images, one.precision, f"students on {one.evaluate_device}")))


# Matrices -------------------------------------------------------------------------------------------------------------


def _matrices(setups: Sequence[Setup], tables: Sequence[_Table]) -> list[Matrix]:
    """Students under each protocol that has several; then protocols with each student that has several."""
    by_protocol, by_student = defaultdict(list), defaultdict(list)
    for index, setup in enumerate(setups):
        by_protocol[setup.protocol].append(index)
        by_student[setup.student].append(index)
    found = [_matrix(fixed, "student", columns, tables) for fixed, columns in by_protocol.items() if len(columns) > 1]
    found += [_matrix(fixed, "protocol", columns, tables) for fixed, columns in by_student.items() if len(columns) > 1]
    return found


def _matrix(
    fixed: str, varies: Literal["student", "protocol"], columns: Sequence[int], tables: Sequence[_Table]
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
        kendall_w=_concordance(means.round(9)),
    )


def _summary(entrant: _Entrant) -> Summary:
    return statistics.summary([score.students for score in entrant.scores.values()])


def _concordance(means: np.ndarray) -> float | None:
    """Kendall's W of (M, R) means of M methods by R raters: Friedman's χ² over its largest value, R (M - 1)."""
    methods, raters = means.shape
    if methods < FEWEST_METHODS or raters < 2 or (means == means[:1]).all():
        return None
    chi_squared = float(stats.friedmanchisquare(*means).statistic)
    return chi_squared / (raters * (methods - 1))


# Rankings -------------------------------------------------------------------------------------------------------------


def _agreements(setups: Sequence[Setup], tables: Sequence[_Table], title: str) -> list[Agreement]:
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
    methods: Sequence[Contestant],
    tables: Sequence[_Table],
    drawn: Sequence[dict[_Set, np.ndarray]],
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
        low, high = (float(v) for v in np.quantile(_kendall_each(*sides), [ALPHA / 2, 1 - ALPHA / 2]))
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


def _over_images(table: _Table, drawn: np.ndarray) -> dict[_Set, np.ndarray]:
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
    sets: Sequence[_Set],
    drawn: dict[_Set, np.ndarray],
    seed_of: dict[_Set, int | None],
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


def _kendall_each(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """τ-b of each column of two (M, D) arrays; 0 where one has all values equal."""
    first, second = np.triu_indices(len(a), 1)
    order_a, order_b = (np.sign(np.where(abs(d := x[first] - x[second]) < TIE, 0.0, d)) for x in (a, b))
    untied = np.sqrt(np.abs(order_a).sum(axis=0) * np.abs(order_b).sum(axis=0))
    return np.asarray((order_a * order_b).sum(axis=0) / np.maximum(untied, 1.0))


# Findings -------------------------------------------------------------------------------------------------------------


def _findings(setups: Sequence[Setup], tables: Sequence[_Table]) -> list[Finding]:
    found = []
    for index, (setup, table) in enumerate(zip(setups, tables, strict=True)):
        separated = _separated(table, setup.n_test)
        checks: dict[tuple[Contestant, Contestant], list[Check]] = defaultdict(list)
        for other, (checking, there) in enumerate(zip(setups, tables, strict=True)):
            if other != index:
                for pair, check in _checks(separated, table, there, other, checking.n_test).items():
                    checks[pair].append(check)
        found += [
            Finding(
                setup=index,
                better=table[better].contender,
                worse=table[worse].contender,
                difference=comparison.difference,
                p_holm=p_holm,
                checks=checks[better, worse],
            )
            for (better, worse), (comparison, p_holm) in separated.items()
        ]
    return sorted(found, key=lambda finding: -finding.difference)


_Pairs = dict[tuple[Contestant, Contestant], tuple[Comparison, float]]


def _separated(table: _Table, n_test: int) -> _Pairs:
    """(better, worse) -> the difference and its adjusted p-value, of all pairs that Holm's correction leaves."""
    tested = []
    for a, b in combinations(table, 2):
        comparison = statistics.compare(list(table[a].scores.values()), list(table[b].scores.values()), n_test)
        if comparison.p_value is not None:
            pair, comparison = ((a, b), comparison) if comparison.difference >= 0 else ((b, a), _turned(comparison))
            tested.append((pair, comparison))
    adjusted = holm([comparison.p_value for _, comparison in tested if comparison.p_value is not None])
    return {
        pair: (comparison, p_holm)
        for (pair, comparison), p_holm in zip(tested, adjusted, strict=True)
        if p_holm < ALPHA
    }


def _turned(one: Comparison) -> Comparison:
    low, high = (None if edge is None else -edge for edge in (one.high, one.low))
    return Comparison(-one.difference, one.standard_error, low, high, one.p_value, one.basis)


def _checks(
    separated: _Pairs, table: _Table, there: _Table, other: int, n_test: int
) -> dict[tuple[Contestant, Contestant], Check]:
    """What another table says of the pairs, from the sets that both tables have."""
    compared = {}
    for pair in separated:
        if all(one in there and table[one].common(there[one]) for one in pair):
            better, worse = ([there[one].scores[sha] for sha in table[one].common(there[one])] for one in pair)
            compared[pair] = statistics.compare(better, worse, n_test)
    adjusted = iter(holm([found.p_value for found in compared.values() if found.p_value is not None]))
    checks = {}
    for pair, comparison in compared.items():
        p_holm = None if comparison.p_value is None else next(adjusted)
        checks[pair] = Check(
            setup=other, comparison=comparison, p_holm=p_holm, standing=_standing(comparison.difference, p_holm)
        )
    return checks


def _standing(difference: float, p_holm: float | None) -> Standing:
    separated = p_holm is not None and p_holm < ALPHA
    if abs(difference) < TIE:
        return "no difference"
    if difference > 0:
        return "separated" if separated else "same direction"
    return "reversed and separated" if separated else "reversed"
