"""Which methods no other beats in both cost and accuracy."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both: no dearer (x) and no worse (y), and better in one."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(ox <= x and oy >= y and (ox, oy) != (x, y) for j, (ox, oy) in enumerate(points) if j != i)
    ]
