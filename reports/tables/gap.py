"""The share of the way from `random` to `full` that a method has gone."""

from __future__ import annotations

from collections.abc import Sequence

from ddbench.reports.tables.views import RowView

LOWER, UPPER = "random", "full"
"""The companions of every table, between which the gap is measured."""


def close_gaps(rows: Sequence[RowView]) -> list[str]:
    """Fill in `gap_closed_percent`; returns why there is none, where there is none."""
    missing = [name for name in (LOWER, UPPER) if not any(_is_companion(row, name) for row in rows)]
    if missing:
        run = f"`bench run --method {','.join(missing)}`"
        return [f"No gap closed: it needs {' and '.join(missing)} in this table ({run})."]
    found: set[str] = set()
    for row in rows:
        lower, upper = _companion(rows, LOWER, row), _companion(rows, UPPER, row)
        if row.acc_last is None:
            continue
        if upper <= lower:
            found.add(f"No gap closed: {UPPER} ({upper:.2f}) is not above {LOWER} ({lower:.2f}).")
            continue
        row.gap_closed_percent = 100 * (row.acc_last.mean - lower) / (upper - lower)
    unfinished = [row for row in rows if row.method in (LOWER, UPPER) and row.acc_last and row.done < row.expected]
    found |= {f"The gap uses {row.method} as far as it is done ({row.done}/{row.expected})." for row in unfinished}
    return sorted(found)


def _is_companion(row: RowView, name: str) -> bool:
    return row.method == name and row.spec is not None and row.acc_last is not None


def _companion(rows: Sequence[RowView], name: str, row: RowView) -> float:
    """Mean accuracy of the companion nearest to `row`: its students' device, then most done, then newest version."""
    nearest = max(
        (other for other in rows if _is_companion(other, name)),
        key=lambda other: (
            other.evaluate_device == row.evaluate_device,
            other.done,
            other.spec.version if other.spec else 0,
        ),
    )
    assert nearest.acc_last is not None
    return nearest.acc_last.mean
