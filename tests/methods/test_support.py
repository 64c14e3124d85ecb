"""Support points: the three approximations, and Proposition 2 of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.clustering import kmeans
from ddbench.methods.dmgd.support import density, mean


def clustered(count: int = 60, size: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, size)) * 5
    return (centres[rng.integers(4, size=count)] + rng.normal(size=(count, size))).astype(np.float32)


def squared_w2(x: np.ndarray, points: np.ndarray, masses: np.ndarray) -> float:
    """Squared-Euclidean W2 between the uniform measure on x and weighted points, exactly."""
    cost = ot.dist(x.astype(np.float64), points.astype(np.float64), metric="sqeuclidean")
    return float(ot.emd2(ot.unif(len(x)), masses, cost))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(2, 40),
    size=st.integers(1, 6),
    share=st.floats(0, 1),
    init=st.booleans(),
)
def test_proposition_2_kmeans_is_no_worse_than_the_mean(
    seed: int, count: int, size: int, share: float, init: bool
) -> None:
    x = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32) * 3
    points = 1 + int(share * (count - 1))
    try:
        near = squared_w2(x, *kmeans(x, points, init="k-means++" if init else "random", seed=seed % 1000))
    except UsageError:
        assert not init  # starting points drawn with replacement can leave a cluster empty
        return
    far = squared_w2(x, *mean(x))
    assert near <= far * (1 + 1e-5) + 1e-9
    # The mean's distance is the total variance, a closed form.
    assert far == pytest.approx(((x - x.mean(0, dtype=np.float64)) ** 2).sum(1).mean(), rel=1e-4)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_centroids_are_the_means_of_their_cells(init: Any) -> None:
    x = clustered()
    points, masses = kmeans(x, 4, init=init, seed=0)
    nearest = ot.dist(x, points).argmin(1)
    for cluster in range(4):
        np.testing.assert_allclose(points[cluster], x[nearest == cluster].mean(0), atol=1e-4)
        assert masses[cluster] == pytest.approx((nearest == cluster).mean())
    assert masses.sum() == pytest.approx(1)
    assert points.dtype == np.float32


def test_kmeans_repeats_itself() -> None:
    x = clustered()
    once, again = (kmeans(x, 7, init="k-means++", seed=3) for _ in range(2))
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_as_many_points_as_latents() -> None:
    x = clustered(10)
    points, masses = kmeans(x, 10, init="k-means++", seed=0)
    assert squared_w2(x, points, masses) == pytest.approx(0, abs=1e-8)


def test_too_few_distinct_latents_are_refused() -> None:
    x = np.repeat(clustered(3), 5, axis=0)
    with pytest.raises(UsageError, match="support_points=3 or fewer"):
        kmeans(x, 6, init="k-means++", seed=0)


def test_mean() -> None:
    x = clustered()
    points, masses = mean(x)
    np.testing.assert_allclose(points, x.mean(0, keepdims=True), atol=1e-5)
    assert masses.tolist() == [1]


def test_density_draws_latents_by_closeness() -> None:
    x = clustered(30)
    weights = 1 / ot.dist(x, x, metric="euclidean").sum(1)
    generator = torch.Generator().manual_seed(0)
    counts = np.zeros(30)
    for _ in range(2000):
        points, masses = density(x, 1, generator)
        counts[np.flatnonzero((x == points[0]).all(1))] += 1
        assert masses.tolist() == [1]
    expected = weights / weights.sum() * 2000
    assert ((counts - expected) ** 2 / expected).sum() < 60  # χ² with 29 degrees of freedom: p = 0.0006

    points, masses = density(x, 10, generator)
    rows = [int(np.flatnonzero((x == point).all(1))[0]) for point in points]
    assert len(set(rows)) == 10
    np.testing.assert_allclose(masses, weights[rows] / weights[rows].sum(), rtol=1e-5)


def test_density_of_equal_latents() -> None:
    points, masses = density(np.ones((5, 3), np.float32), 3, torch.Generator())
    assert points.shape == (3, 3)
    np.testing.assert_allclose(masses, 1 / 3)
