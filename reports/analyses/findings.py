"""Pairs of methods that one table separates, and what other tables say of them from the same sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Literal

from ddbench.benchmark.core.result import Record
from ddbench.reports.analyses.entrants import Contender, Entrants
from ddbench.reports.analyses.rank_agreement import TIE
from ddbench.reports.analyses.where import Where
from ddbench.reports.results.groups import RowKey
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import ALPHA, Comparison
from ddbench.reports.statistics.equivalence import holm_of
from ddbench.reports.statistics.pooling import SetVariance

Standing = Literal["separated", "same direction", "no difference", "reversed", "reversed and separated"]


class Check(Record):
    """What another setup says of a finding, from the sets that both have."""

    setup: int
    comparison: Comparison
    p_holm: float | None
    """p-value after Holm's correction over the findings of one setup that the other can check."""
    standing: Standing


class Finding(Record):
    """A separation after Holm's correction over all pairs of one table."""

    setup: int
    better: Contender
    worse: Contender
    difference: float
    p_holm: float
    checks: list[Check]
    """What the other setups say that have sets of both methods in common with this one."""

    @property
    def survives(self) -> bool:
        """Found again by every setup that can check it."""
        return bool(self.checks) and all(check.standing == "separated" for check in self.checks)


Known = Callable[[str, str], Comparison | None]
"""(id of a row, id of another one) -> their comparison, where it was made before."""


def findings(
    setups: Sequence[Where], tables: Sequence[Entrants], known: Sequence[Known | None] | None = None
) -> list[Finding]:
    """Of each setup.

    Args:
        known: for each setup, the comparisons that were made before of the same sets.
    """
    found = []
    for index, (setup, table) in enumerate(zip(setups, tables, strict=True)):
        separated = _separated(table, setup.n_test, known[index] if known else None)
        checks: dict[tuple[RowKey, RowKey], list[Check]] = defaultdict(list)
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


_Pairs = dict[tuple[RowKey, RowKey], tuple[Comparison, float]]


def _separated(table: Entrants, n_test: int, known: Known | None) -> _Pairs:
    """(better, worse) -> the difference and its adjusted p-value, of all pairs that Holm's correction leaves."""
    compared = []
    scores = [list(entrant.scores.values()) for entrant in table.values()]
    variance = SetVariance(scores)
    for (i, a), (j, b) in combinations(enumerate(table), 2):
        before = known(table[a].contender.id, table[b].contender.id) if known is not None else None
        between = partial(variance.of_difference, i, j)
        comparison = before or crossed.compare(scores[i], scores[j], n_test, between)
        compared.append(((a, b), comparison) if comparison.difference >= 0 else ((b, a), comparison.turned))
    adjusted = holm_of([comparison for _, comparison in compared])
    return {
        pair: (comparison, p_holm)
        for (pair, comparison), p_holm in zip(compared, adjusted, strict=True)
        if p_holm is not None and p_holm < ALPHA
    }


def _checks(
    separated: _Pairs, table: Entrants, there: Entrants, other: int, n_test: int
) -> dict[tuple[RowKey, RowKey], Check]:
    """What another table says of the pairs, from the sets that both tables have."""
    compared = {}
    for pair in separated:
        if all(one in there and table[one].common(there[one]) for one in pair):
            better, worse = ([there[one].scores[sha] for sha in table[one].common(there[one])] for one in pair)
            compared[pair] = crossed.compare(better, worse, n_test)
    adjusted = holm_of(list(compared.values()))
    return {
        pair: Check(setup=other, comparison=found, p_holm=p_holm, standing=_standing(found.difference, p_holm))
        for (pair, found), p_holm in zip(compared.items(), adjusted, strict=True)
    }


def _standing(difference: float, p_holm: float | None) -> Standing:
    separated = p_holm is not None and p_holm < ALPHA
    if abs(difference) < TIE:
        return "no difference"
    if difference > 0:
        return "separated" if separated else "same direction"
    return "reversed and separated" if separated else "reversed"
