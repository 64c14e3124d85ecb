"""Optimal transport between the real images and a distilled set: without labels, and with them (OTDD).

Legend: R real and S distilled images, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import ot

from ddbench.benchmark.core.errors import RunError

MOST_ITERATIONS = 50_000_000
"""Iterations of POT's network simplex, which ends by itself; its own limit of 100,000 is for small problems."""


def least_cost(cost: np.ndarray) -> float:
    """The least mean cost of carrying one uniform distribution to another, for a cost matrix (R, S); exact.

    Raises:
        RunError: the solver did not come to an end.
    """
    value, log = ot.emd2([], [], np.ascontiguousarray(cost, np.float64), numItermax=MOST_ITERATIONS, log=True)
    if log["warning"]:
        raise RunError(f"the transport problem of {cost.shape[0]} × {cost.shape[1]} images: {log['warning']}")
    return float(value)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) squared Euclidean distances between rows."""
    return np.asarray(ot.dist(a.astype(np.float64), b.astype(np.float64), metric="sqeuclidean"))


class ClassGaussian:
    """A class as a Gaussian: its mean and a factor of its covariance.

    Args:
        features: (N, F) of the class; one image is a Gaussian without spread.
    """

    def __init__(self, features: np.ndarray) -> None:
        points = features.astype(np.float64)
        self.mean = points.mean(0)
        factor = (points - self.mean) / np.sqrt(max(len(points) - 1, 1))
        # (min(N, F), F), so that a large class costs no more than one of F images.
        tall = len(points) > points.shape[1]
        self.factor = np.asarray(np.linalg.qr(factor, mode="r")) if tall else factor
        self.trace = float((self.factor**2).sum())

    def squared_distance(self, other: ClassGaussian) -> float:
        """Squared Wasserstein-2 distance: ‖μ − μ'‖² + tr Σ + tr Σ' − 2 tr (Σ^½ Σ' Σ^½)^½.

        With Σ = AᵀA and Σ' = BᵀB the last trace is the sum of the singular values of A Bᵀ: for ten images a class a
        matrix of ten columns instead of roots of (F, F) ones, and right for singular covariances, where POT's
        `bures_wasserstein_distance` takes roots of eigenvalues that rounding has put below zero.
        """
        crossed = float(np.linalg.svd(self.factor @ other.factor.T, compute_uv=False).sum())
        between = float(((self.mean - other.mean) ** 2).sum())
        return max(0.0, between + self.trace + other.trace - 2 * crossed)


def class_gaussians(features: np.ndarray, labels: np.ndarray) -> dict[int, ClassGaussian]:
    """Class -> its Gaussian, for (N, F) features and (N,) classes."""
    return {int(label): ClassGaussian(features[labels == label]) for label in np.unique(labels)}


def label_distances(
    real: Mapping[int, ClassGaussian], distilled: Mapping[int, ClassGaussian]
) -> dict[tuple[int, int], float]:
    """(class in R, class in S) -> squared Wasserstein-2 distance of their Gaussians."""
    return {(a, b): mine.squared_distance(theirs) for a, mine in real.items() for b, theirs in distilled.items()}


def otdd(
    feature_costs: np.ndarray,
    real_labels: np.ndarray,
    distilled_labels: np.ndarray,
    between: Mapping[tuple[int, int], float],
) -> float:
    """Optimal transport dataset distance (Alvarez-Melis & Fusi, NeurIPS 2020) with p = 2, exact, not rooted.

    Args:
        feature_costs: (R, S) squared distances of features.
        real_labels, distilled_labels: (R,) and (S,) classes.
        between: `label_distances`.
    """
    rows, row_of = np.unique(real_labels, return_inverse=True)
    columns, column_of = np.unique(distilled_labels, return_inverse=True)
    table = np.array([[between[int(a), int(b)] for b in columns] for a in rows])
    return least_cost(feature_costs + table[row_of][:, column_of])
