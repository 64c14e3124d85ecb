"""How different the images of a set are from each other, in a feature space."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist


def class_spread(features: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Class -> mean Euclidean distance between two images of it; classes with one image have none.

    Args:
        features: (N, F).
        labels: (N,) classes.
    """
    spread = {}
    for label in np.unique(labels):
        mine = features[labels == label]
        if len(mine) > 1:
            spread[int(label)] = float(pdist(mine.astype(np.float64)).mean())
    return spread


def diversity_percent(distilled: dict[int, float], real: dict[int, float]) -> float | None:
    """Mean over classes of the distilled spread as a percentage of the real one (`class_spread`); None where no class
    has both."""
    shares = [100 * distilled[label] / real[label] for label in distilled if real.get(label)]
    return float(np.mean(shares)) if shares else None
