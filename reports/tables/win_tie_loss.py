"""Wins, ties and losses between pairs of methods over tables: a win is a difference that the test separates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from ddbench.benchmark.core.result import Record
from ddbench.reports.tables.methods_as_run import methods_as_run
from ddbench.reports.tables.views import TableView


class Pairing(Record):
    """How the first method did against the second, counted in tables that have both."""

    a: str
    b: str
    wins: int
    """The first is better by a two-sided 5 % test over sets and test images (`statistics.compare`)."""
    ties: int
    """The test cannot separate them."""
    losses: int
    not_tested: int
    """Nothing could be tested: one set each, or nothing finished."""


def pairings(tables: Sequence[TableView]) -> list[Pairing]:
    """All pairs of ranked methods with a common table. Each table is tested at 5 %, not corrected for their number."""
    found = [one for one in methods_as_run(tables) if not one.reference]
    compared = [{(pair.a, pair.b): pair.comparison for pair in table.pairs} for table in tables]
    counted = []
    for a, b in combinations(found, 2):
        outcomes = []
        for place in a.rows.keys() & b.rows.keys():
            ends = a.rows[place], b.rows[place]
            sign, pair = 1, compared[place].get(ends)
            if pair is None:
                sign, pair = -1, compared[place].get(ends[::-1])
            tested = pair is not None and pair.p_value is not None
            separated = tested and pair is not None and pair.separates
            outcomes.append((sign if pair and pair.difference > 0 else -sign) if separated else 0 if tested else None)
        if outcomes:
            counts = (outcomes.count(1), outcomes.count(0), outcomes.count(-1), outcomes.count(None))
            counted.append(
                Pairing(a=a.name, b=b.name, wins=counts[0], ties=counts[1], losses=counts[2], not_tested=counts[3])
            )
    return counted
