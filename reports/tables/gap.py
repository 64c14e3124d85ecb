"""The share of the way from `random` to `full` that a method has gone.

Its interval is Fieller's: the shares g at which the test does not tell the method's accuracy from
(1 - g) · random + g · full, with sets and test images as crossed factors (`crossed.contrast_of`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import ALPHA
from ddbench.reports.statistics.pooling import SetVariance
from ddbench.reports.tables.views import RowView

LOWER, UPPER = "random", "full"
"""The companions of every table, between which the gap is measured."""
FARTHEST = 100.0
"""Shares beyond which an end of the interval is not looked for."""


def close_gaps(rows: Sequence[RowView], variance: SetVariance, n_test: int) -> list[str]:
    """Fill in the gap closed and its interval; returns why there is none, where there is none.

    Args:
        variance: the rows' sets, row by row.
    """
    missing = [name for name in (LOWER, UPPER) if not any(_is_companion(row, name) for row in rows)]
    if missing:
        run = f"`bench run --method {','.join(missing)}`"
        return [f"No gap closed: it needs {' and '.join(missing)} in this table ({run})."]
    found: set[str] = set()
    for place, row in enumerate(rows):
        if row.acc_last is None:
            continue
        lower, upper = _companion(rows, LOWER, row), _companion(rows, UPPER, row)
        ends = [crossed.mean_accuracy(variance.methods[end]) for end in (lower, upper)]
        separated = n_test > 1 and _excess(variance, {upper: 1.0, lower: -1.0}, n_test) > 0
        if ends[1] <= ends[0]:
            found.add(f"No gap closed: {UPPER} ({ends[1]:.2f}) is not above {LOWER} ({ends[0]:.2f}).")
        elif not separated:
            found.add(f"No gap closed: {UPPER} ({ends[1]:.2f}) is not separated from {LOWER} ({ends[0]:.2f}).")
        else:
            row.gap_closed_percent = 100 * (row.acc_last.mean - ends[0]) / (ends[1] - ends[0])
            if place not in (lower, upper):
                interval = _fieller(variance, place, lower, upper, n_test)
                row.gap_closed_low_percent, row.gap_closed_high_percent = interval
    unfinished = [row for row in rows if row.method in (LOWER, UPPER) and row.acc_last and row.done < row.expected]
    found |= {f"The gap uses {row.method} as far as it is done ({row.done}/{row.expected})." for row in unfinished}
    return sorted(found)


def _fieller(
    variance: SetVariance, place: int, lower: int, upper: int, n_test: int
) -> tuple[float, float] | tuple[None, None]:
    """Ends in percent; None where the shares that are not told apart have none."""
    from scipy import optimize  # a third of a second, which tables without both companions need not spend

    def excess(share: float) -> float:
        return _excess(variance, {place: 1.0, lower: share - 1, upper: -share}, n_test)

    accuracies = [crossed.mean_accuracy(variance.methods[one]) for one in (place, lower, upper)]
    middle = (accuracies[0] - accuracies[1]) / (accuracies[2] - accuracies[1])
    if excess(middle) >= 0 or excess(middle - FARTHEST) <= 0 or excess(middle + FARTHEST) <= 0:
        return None, None
    ends = [optimize.brentq(excess, *sorted((middle, middle + far)), xtol=1e-6) for far in (-FARTHEST, FARTHEST)]
    return 100 * float(ends[0]), 100 * float(ends[1])


def _excess(variance: SetVariance, weights: Mapping[int, float], n_test: int) -> float:
    """What the square of Σ weight · accuracy exceeds that of the half-width of its interval by, points²: above 0 where
    the test tells it from 0; never where nothing tells how it varies."""
    methods = [variance.methods[place] for place in weights]
    found = crossed.contrast_of(methods, list(weights.values()), n_test, variance.of_contrast(weights))
    half_squared = found.half_width_squared(ALPHA) if found.components else math.inf
    return found.difference**2 - half_squared


def _is_companion(row: RowView, name: str) -> bool:
    return row.method == name and row.spec is not None and row.acc_last is not None


def _companion(rows: Sequence[RowView], name: str, row: RowView) -> int:
    """The place of the companion nearest to `row`: its students' device, then most done, then newest version."""

    def nearness(place: int) -> tuple[bool, int, int]:
        other = rows[place]
        return other.evaluate_device == row.evaluate_device, other.done, other.spec.version if other.spec else 0

    return max((place for place, other in enumerate(rows) if _is_companion(other, name)), key=nearness)
