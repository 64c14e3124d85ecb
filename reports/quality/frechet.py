"""Fréchet distance between two sets in a feature space: what FID is in Inception's."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

BLOCK = 4096
"""Rows handed over at once."""


class FrechetDistance:
    """Squared Wasserstein-2 distance between Gaussians fitted to R and to a set (Dowson & Landau, 1982):
    ‖μ − μ'‖² + tr(Σ + Σ' − 2 (Σ Σ')^½), covariances with divisor n − 1.

    torchmetrics computes it, in float64; its "images" are features that are there already.

    Args:
        real: (R, F) features, R at least 2.
    """

    def __init__(self, real: np.ndarray) -> None:
        identity = nn.Identity()
        identity.num_features = real.shape[1]  # what torchmetrics asks of a network
        self._metric = FrechetInceptionDistance(feature=identity, reset_real_features=False)
        self._metric.set_dtype(torch.float64)
        self._update(real, real=True)

    def to(self, distilled: np.ndarray) -> float:
        """The distance to (S, F) features, S at least 2."""
        self._metric.reset()
        self._update(distilled, real=False)
        return max(0.0, float(self._metric.compute()))

    def _update(self, features: np.ndarray, *, real: bool) -> None:
        for block in torch.from_numpy(features.astype(np.float64)).split(BLOCK):
            self._metric.update(block, real=real)
