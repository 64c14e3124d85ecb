"""Numbers as people read them, the same in the terminal, in files and on pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddbench.reports.statistics.crossed import Summary

NONE = "–"
"""Text in place of a number that there is not."""
NOTHING = "No evaluations yet: `bench run` makes them, `bench status` shows what there is."
"""Text in place of tables where there are none."""


def number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:+.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """Of a rank or a score, which is never negative."""
    return NONE if low is None or high is None else f"{low:.2f}–{high:.2f}"


def accuracy_interval(summary: Summary) -> str:
    """An end beyond which no accuracy lies, where the interval would go on: `85.20–>100`, `<0–4.10`."""
    if summary.low is None or summary.high is None:
        return NONE
    low = "<0" if summary.cut in ("low", "both") else f"{summary.low:.2f}"
    high = ">100" if summary.cut in ("high", "both") else f"{summary.high:.2f}"
    return f"{low}–{high}"


def signed_interval(low: float | None, high: float | None) -> str:
    """Of a difference."""
    return NONE if low is None or high is None else f"{low:+.2f} … {high:+.2f}"


def seconds(value: float | None) -> str:
    """With the digits that a measured time deserves."""
    if value is None:
        return NONE
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def digits(value: float) -> str:
    """With three digits that say something, whatever its size."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:#.3g}".removesuffix(".")


def p_value(value: float | None) -> str:
    return NONE if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
