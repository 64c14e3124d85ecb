"""Which group of each class is kept (IMS3, CVPR 2026, arXiv 2603.13960, eq. 8 to 11, Algorithm 2).

With c_{i,g} the centroid of class i's group g and r_i that of its real images, the groups g_1 … g_K maximise

    α Σ_i -log d(c_{i,g_i}, r_i)  +  β Σ_{i<j} log d(c_{i,g_i}, c_{j,g_j}),        d = 1 - cos

near the real images, far from the other classes, by coordinate ascent: class after class takes the group that is best
while the others keep theirs. It ends in a choice that no change of one class's group improves, not always in the best.

Legend: K classes, G groups, N images, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST_DISTANCE = float(np.finfo(np.float64).eps)
"""Below it, 1 - cos is rounding error; the program's logarithm has no ε (its script sets 0)."""


def centroid(features: np.ndarray) -> np.ndarray:
    """(N, F) -> (F,) float64 of length 1: the mean of the features, each brought to length 1 first."""
    return _unit(_unit(features.astype(np.float64)).mean(0))


def objective(
    choice: Sequence[int], groups: np.ndarray, real: np.ndarray, *, proximity_weight: float, separation_weight: float
) -> float:
    """The sum above, in nats.

    Args:
        choice: the group of each class.
        groups: (K, G, F) centroids of length 1.
        real: (K, F), the same of the real images.
    """
    kept = groups[np.arange(len(groups)), list(choice)]
    pairs = np.triu_indices(len(kept), 1)
    near = -_log_distance((kept * real).sum(1)).sum()
    apart = _log_distance((kept @ kept.T)[pairs]).sum()
    return float(proximity_weight * near + separation_weight * apart)


def choose(
    groups: np.ndarray,
    real: np.ndarray,
    first: Sequence[int],
    *,
    proximity_weight: float,
    separation_weight: float,
    sweeps: int,
) -> list[int]:
    """The group of each class after at most `sweeps` sweeps, from `first`, in the order of the classes.

    A class's group gives way to a better one only, to the first of several that are best. Arguments as `objective`.
    """
    choice = list(first)
    near = -proximity_weight * _log_distance(np.einsum("kgf,kf->kg", groups, real))
    for _ in range(sweeps):
        before = list(choice)
        for i in range(len(groups)):
            others = [groups[j, choice[j]] for j in range(len(groups)) if j != i]
            gain = near[i]
            if others:
                gain = gain + separation_weight * _log_distance(groups[i] @ np.stack(others).T).sum(1)
            best = int(gain.argmax())
            if gain[best] > gain[choice[i]]:
                choice[i] = best
        if choice == before:
            break
    return choice


def nearest(groups: np.ndarray, real: np.ndarray) -> list[int]:
    """The group of each class whose centroid is nearest to the real one."""
    return np.einsum("kgf,kf->kg", groups, real).argmax(1).tolist()


def _log_distance(cosine: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(1 - cosine, SMALLEST_DISTANCE))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
