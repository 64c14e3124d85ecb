"""The table that an analysis takes its rows from."""

from __future__ import annotations

from dataclasses import asdict

from ddbench.benchmark.core.result import Record
from ddbench.reports.results.groups import Table


class Where(Record):
    """One table: whose images, and how the sets are evaluated."""

    table: str
    """Title of the table."""
    dataset: str
    split: str
    ipc: int | None
    protocol: str
    student: str
    modified_protocol: bool
    n_test: int


def where(table: Table) -> Where:
    known = asdict(table.key) | {"modified_protocol": table.modified_protocol, "n_test": table.n_test}
    return Where(table=table.title, **{name: known[name] for name in Where.model_fields if name != "table"})
