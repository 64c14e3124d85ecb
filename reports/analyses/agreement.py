"""Whether the evaluation decides who wins: the same distilled sets under several protocols and students.

Tables of one dataset, split, resolution and IPC can hold the same distilled sets; where two of them are compared, only
the sets that both have (by the hash of their images) count. Rankings are by mean accuracy over those sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.store import Store
from ddbench.reports.analyses.entrants import entrants, names_of, takes_part
from ddbench.reports.analyses.findings import Finding, Known, findings
from ddbench.reports.analyses.rank_agreement import Agreement, agreements
from ddbench.reports.analyses.student_matrix import Matrix, matrices
from ddbench.reports.analyses.where import Where, where
from ddbench.reports.results import groups


class Arena(Record):
    """One dataset and IPC, evaluated in two or more ways."""

    title: str
    dataset: str
    split: str
    resolution: int
    ipc: int | None
    setups: list[Where]
    matrices: list[Matrix]
    pairs: list[Agreement]
    """How far two setups agree, for each two that share methods."""
    findings: list[Finding]
    """Separations of one setup and what the others say of them, the largest difference first."""


def build(
    store: Store, tables: Sequence[groups.Table], known: Mapping[groups.TableKey, Known] | None = None
) -> list[Arena]:
    """Every dataset and IPC that was evaluated in more than one way. Reference rows take no part.

    Args:
        known: the comparisons of a table's rows, where they were made before.
    """
    arenas: dict[tuple[Any, ...], list[groups.Table]] = defaultdict(list)
    for table in tables:
        key = table.key
        same = (key.dataset, key.split, key.resolution, key.ipc, key.split_hash, key.content_hash)
        if any(row.finished and not row.reference for row in table.rows):
            arenas[same].append(table)
    return [_arena(store, members, known or {}) for members in arenas.values() if len(members) > 1]


def _arena(store: Store, members: Sequence[groups.Table], known: Mapping[groups.TableKey, Known]) -> Arena:
    key = members[0].key
    setups = [where(table) for table in members]
    names = names_of(row for table in members for row in table.rows if takes_part(row))
    tables = [entrants(store, table, names) for table in members]
    title = groups.title_of(key.dataset, key.split, key.ipc, f"{key.resolution} px")
    return Arena(
        title=title,
        dataset=key.dataset,
        split=key.split,
        resolution=key.resolution,
        ipc=key.ipc,
        setups=setups,
        matrices=matrices(setups, tables),
        pairs=agreements(setups, tables, title),
        findings=findings(setups, tables, [known.get(table.key) for table in members]),
    )
