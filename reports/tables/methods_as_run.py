"""Which rows of several tables are one method as run: for ranks over tables, curves over IPC and methods × IPC."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ddbench.benchmark.core.spec import digest
from ddbench.reports.results.words import numbered, told_apart
from ddbench.reports.tables.views import RowView, TableView


@dataclass(frozen=True)
class MethodAsRun:
    """One method as run: name, version, prior, precision and devices are the same in all its tables."""

    name: str
    """The method's label; with what tells it from its namesakes, where it has any."""
    reference: bool
    rows: dict[int, int]
    """Index of a table -> index of its row there."""


def methods_as_run(tables: Sequence[TableView]) -> list[MethodAsRun]:
    """All methods of some tables as they were run, in order of first appearance.

    Parameters need not agree, since a method's defaults may depend on the IPC; they tell rows apart only where one
    table has two rows that differ in nothing else.
    """
    keys = [[_key(row) for row in table.rows] for table in tables]
    doubled = {key for in_table in keys for key, count in Counter(in_table).items() if count > 1}
    found: dict[Hashable, dict[int, int]] = defaultdict(dict)
    for place, (table, in_table) in enumerate(zip(tables, keys, strict=True)):
        for index, (row, key) in enumerate(zip(table.rows, in_table, strict=True)):
            whole = (key, None if row.spec is None else digest(row.spec.params)) if key in doubled else key
            # Whatever else may be equal: no row is lost.
            found[(whole, index) if place in found[whole] else whole][place] = index
    return _named(tables, [rows for rows in found.values() if rows])


def _key(row: RowView) -> Hashable:
    made_by = row.id if row.spec is None else (row.spec.name, row.spec.version, row.spec.source_sha256)
    return (
        row.method,
        made_by,
        row.prior_sha256,
        row.precision,
        row.distill_device,
        row.evaluate_device,
        row.reference,
    )


def _named(tables: Sequence[TableView], found: Sequence[dict[int, int]]) -> list[MethodAsRun]:
    members = [[tables[place].rows[index] for place, index in rows.items()] for rows in found]
    longer = [
        " · ".join([rows[0].method, *(max((row.qualifiers for row in rows), key=len) or _hash(rows))])
        for rows in members
    ]
    names = numbered(told_apart([rows[0].method for rows in members], longer), "{} ({})")
    named = zip(names, members, found, strict=True)
    return [MethodAsRun(name, rows[0].reference, places) for name, rows, places in named]


def _hash(rows: Sequence[RowView]) -> list[str]:
    """What names images made elsewhere, which one table's qualifiers do not say where it has no namesake."""
    made = sorted({one.image_set_sha256[:8] for row in rows if row.spec is None for one in row.sets})
    return [f"images made elsewhere ({', '.join(made)})"] if made else []
