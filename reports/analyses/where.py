"""The table that an analysis takes its rows from."""

from __future__ import annotations

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
    key = table.key
    return Where(
        table=table.title,
        dataset=key.dataset,
        split=key.split,
        ipc=key.ipc,
        protocol=key.protocol,
        student=key.student,
        modified_protocol=table.modified_protocol,
        n_test=table.n_test,
    )
