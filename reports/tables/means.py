"""The leaderboards of a results folder in a few numbers, for programs that draw them over time."""

from __future__ import annotations

from pathlib import Path

from ddbench.reports.results import rows
from ddbench.reports.tables.leaderboard import build


def means(out: Path) -> dict[str, dict[str, float]]:
    """Title of each table -> name of each row that has a finished student -> its mean accuracy over sets, percent.

    Raises:
        UsageError: `out` is no results folder.
    """
    return {
        table.title: {row.name: row.acc_last.mean for row in table.rows if row.acc_last is not None}
        for table in build(rows.read(out)).tables
    }
