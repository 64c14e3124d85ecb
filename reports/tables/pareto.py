"""Which methods no other beats in both cost and accuracy, by their means and by the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both: no dearer (x) and no worse (y), and better in one."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(ox <= x and oy >= y and (ox, oy) != (x, y) for j, (ox, oy) in enumerate(points) if j != i)
    ]


@dataclass(frozen=True)
class Rivals:
    """What the test says of a point and those that are no dearer than it."""

    better: tuple[int, ...]
    """Those that are better than it: it is behind the front."""
    untold: tuple[int, ...]
    """Those that it is not told apart from."""


def rivals(costs: Sequence[float], better: Callable[[int, int], bool]) -> list[Rivals]:
    """Of each point, the others that cost no more.

    A point without rivals of either kind is better than all that cost no more: it is on the front whatever the true
    means are, as far as the test tells. A point with no better rival may be on it.

    Args:
        better: whether the first is better than the second beyond what chance explains.
    """
    found = []
    for i, cost in enumerate(costs):
        cheaper = [j for j, other in enumerate(costs) if j != i and other <= cost]
        ahead = tuple(j for j in cheaper if better(j, i))
        untold = tuple(j for j in cheaper if j not in ahead and not better(i, j))
        found.append(Rivals(ahead, untold))
    return found
