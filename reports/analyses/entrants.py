"""The methods of one table with their distilled sets by image hash, so that tables can be compared on common sets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.store import Store
from ddbench.reports.results import groups
from ddbench.reports.results.groups import RowKey
from ddbench.reports.results.predictions import labels_read_once
from ddbench.reports.results.words import told_apart
from ddbench.reports.statistics.crossed import SetScore
from ddbench.reports.tables.scores import score_of

FEWEST_METHODS = 3
"""Fewest methods with a ranking to speak of."""


class Contender(Record):
    id: str
    """`RowKey.id`."""
    name: str


@dataclass(frozen=True)
class Entrant:
    """A method in one table: its sets by image hash."""

    contender: Contender
    row: groups.Row
    scores: dict[str, SetScore]

    def common(self, other: Entrant) -> list[str]:
        return [sha for sha in self.scores if sha in other.scores]


Entrants = dict[RowKey, Entrant]
RowSet = tuple[RowKey, str]
"""A method's set: two methods can make the same images, and each has students of its own."""


def takes_part(row: groups.Row) -> bool:
    return bool(row.finished) and not row.reference


def entrants(store: Store, table: groups.Table, names: dict[RowKey, str]) -> Entrants:
    labels_of = labels_read_once(store)
    return {
        row.key: Entrant(
            Contender(id=row.key.id, name=names[row.key]),
            row,
            {made.image_set_sha256: score_of(store, made, labels_of) for made in row.sets},
        )
        for row in table.rows
        if takes_part(row)
    }


def names_of(members: Iterable[groups.Row]) -> dict[RowKey, str]:
    """Labels; where two rows bear one, with what tells them apart."""
    labels = {row.key: row.label for row in members}
    made_with = [f"{label} · {_made_with(one)}" for one, label in labels.items()]
    in_full = [f"{longer}, {one.method[:8]}" for one, longer in zip(labels, made_with, strict=True)]
    return dict(zip(labels, told_apart(list(labels.values()), made_with, in_full), strict=True))


def _made_with(one: RowKey) -> str:
    prior = None if one.prior_sha256 is None else f"prior {one.prior_sha256[:8]}"
    return ", ".join(filter(None, (prior, one.images, one.precision, f"students on {one.evaluate_device}")))
