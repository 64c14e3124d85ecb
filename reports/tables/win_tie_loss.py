"""Wins, ties and losses between pairs of methods over tables: a win is a difference that the test separates."""

from __future__ import annotations

from collections import Counter
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
    """The first is better by a two-sided 5 % test over sets and test images (`crossed.compare`)."""
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
        outcomes: Counter[str] = Counter()
        for place in a.rows.keys() & b.rows.keys():
            ends = a.rows[place], b.rows[place]
            pair, better, worse = compared[place].get(ends), "wins", "losses"
            if pair is None:
                pair, better, worse = compared[place].get(ends[::-1]), "losses", "wins"
            if pair is None or pair.p_value is None:
                outcomes["not_tested"] += 1
            else:
                outcomes["ties" if not pair.separates else better if pair.difference > 0 else worse] += 1
        if outcomes:
            counts = {what: outcomes[what] for what in ("wins", "ties", "losses", "not_tested")}
            counted.append(Pairing(a=a.name, b=b.name, **counts))
    return counted
