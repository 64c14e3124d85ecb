"""Coverage, precision and recall: what the nearest neighbours in a feature space say of two sets.

Balls are closed: a set that equals the real one covers it in full, also where images occur twice.

Legend: N and M rows of any set, R of the real one, S of the distilled one, F features; float64.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors


def radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """(N,) Euclidean distance of each row of `features` (N, F) to its `neighbours`-th nearest other row.

    Raises:
        ValueError: no more than `neighbours` rows.
    """
    if len(features) <= neighbours:
        raise ValueError(f"the {neighbours}th nearest other of {len(features)} images does not exist")
    # Without an argument, a point is not its own neighbour.
    distances, _ = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(features).kneighbors()
    return np.asarray(distances[:, -1])


def coverage(real: np.ndarray, real_radii: np.ndarray, distilled: np.ndarray) -> float:
    """Share of real images in whose ball there is a distilled image (Naeem et al., ICML 2020).

    Args:
        real, distilled: (R, F) and (S, F).
        real_radii: (R,) distance of each to its k-th nearest other.
    """
    nearest, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(distilled).kneighbors(real)
    return float(np.mean(nearest[:, 0] <= real_radii + _rounding(real)))


def inside(points: np.ndarray, centres: np.ndarray, centre_radii: np.ndarray) -> float:
    """Share of `points` (N, F) that lie in the ball of at least one of `centres` (M, F).

    With distilled points and real centres it is precision, with real points and distilled centres recall
    (Kynkäänniemi et al., NeurIPS 2019).
    """

    limits = centre_radii[None] + _rounding(centres)

    def any_ball(distances: np.ndarray, _start: int) -> np.ndarray:
        return np.asarray((distances <= limits).any(1))

    chunks = pairwise_distances_chunked(points, centres, reduce_func=any_ball, metric="euclidean")
    return float(np.mean(np.concatenate(list(chunks))))


def _rounding(features: np.ndarray) -> float:
    """What a distance of zero may come to: distances come from products, which keep half of float64's digits."""
    return 1e-7 * float(np.linalg.norm(features, axis=1).max())
