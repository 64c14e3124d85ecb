"""Which images a coreset keeps, from one score each.

Legend: N images of a class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

ABOVE = 1.0001
"""The last stratum ends at this many times the largest score, so that it holds it."""


def ends(scores: np.ndarray, count: int, *, highest: bool) -> np.ndarray:
    """The `count` images of highest or lowest score, the most extreme first; among equals the first come first.

    Args:
        scores: (N,).

    Returns:
        (count,) places in `scores`.
    """
    return np.argsort(-scores if highest else scores, kind="stable")[:count]


def stratified(
    scores: np.ndarray, count: int, *, left_out_share: float, strata: int, stream: torch.Generator
) -> np.ndarray:
    """Coverage-centric selection (Zheng et al., ICLR 2023, Algorithm 1, as their program has it).

    The ⌊βN⌋ images of lowest score are left out, but never so many that fewer than `count` are left. The rest is cut
    into strata of equal width over [min, 1.0001 · max]; from the one with the fewest images up, each gives as many as
    it has of an equal share of what is still to be chosen, drawn at random.

    Args:
        scores: (N,), low for hard images.

    Returns:
        (count,) places in `scores`: by stratum, in the order in which strata were drawn from.
    """
    import torch

    left_out = min(int(left_out_share * len(scores)), len(scores) - count)
    kept = np.sort(np.argsort(scores, kind="stable")[left_out:])
    low, high = float(scores[kept].min()), float(scores[kept].max())
    # Of scores below 0, 1.0001 times the largest lies below it.
    high = max(high * ABOVE, np.nextafter(high, np.inf))
    edges = np.linspace(low, high, strata + 1)
    of = np.clip(np.searchsorted(edges, scores[kept], side="right") - 1, 0, strata - 1)
    members = [kept[of == stratum] for stratum in range(strata)]
    chosen: list[np.ndarray] = []
    still = count
    for drawn_from, stratum in enumerate(sorted(range(strata), key=lambda one: len(members[one]))):
        budget = min(len(members[stratum]), still // (strata - drawn_from))
        order = torch.randperm(len(members[stratum]), generator=stream).numpy()
        chosen.append(members[stratum][order[:budget]])
        still -= budget
    return np.concatenate(chosen)
