"""Which images are optimised together: their statistics are matched as one, so this decides what they look like.

Batches are made of all classes of the dataset, never of those that a cell has, so an image is the same in every shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

Key = tuple[int, int]
"""(class index, image index)."""


def batches(
    order: Literal["across", "within", "classes", "class"], size: int, n_classes: int, ipc: int
) -> Iterator[tuple[Key, ...]]:
    """All images of a set, at most `size` at once.

    Args:
        order: `across`, image j of `size` classes, then of the next, then image j + 1; `within`, all images class
            after class, cut wherever a batch is full; `classes`, the same of as many whole classes as fit, at least
            one; `class`, those of one class, and no others.
    """
    if order == "across":
        runs = [[(c, i) for c in range(n_classes)] for i in range(ipc)]
    else:
        by_class = [[(c, i) for i in range(ipc)] for c in range(n_classes)]
        runs = by_class if order == "class" else [[key for run in by_class for key in run]]
        size = max(size // ipc, 1) * ipc if order == "classes" else size
    for run in runs:
        for first in range(0, len(run), size):
            yield tuple(run[first : first + size])
