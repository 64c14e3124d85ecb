"""Measures in a feature space against brute force, closed forms, POT's and scipy's own solutions."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from ddbench.reports.quality import neighbours, spread, transport
from ddbench.reports.quality.frechet import FrechetDistance


def points(seed: int, n: int, dimensions: int = 3, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, dimensions))


def brute_radii(x: np.ndarray, k: int) -> np.ndarray:
    distances = np.array([[math.dist(a, b) for b in x] for a in x])
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, k - 1]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_radii_are_those_of_the_definition(k: int) -> None:
    x = points(0, 40)
    np.testing.assert_allclose(neighbours.radii(x, k), brute_radii(x, k), atol=1e-9)


def test_radii_need_more_points_than_neighbours() -> None:
    with pytest.raises(ValueError, match="5th nearest other of 5"):
        neighbours.radii(points(0, 5), 5)


@pytest.mark.parametrize(("n", "shift"), [(5, 0.0), (60, 0.0), (25, 1.5), (10, 30.0)])
def test_coverage_precision_and_recall_are_those_of_the_definitions(n: int, shift: float) -> None:
    real, made = points(1, 50), points(2, n, shift=shift)
    radii = brute_radii(real, 3)
    covered = [any(math.dist(r, s) <= radius for s in made) for r, radius in zip(real, radii, strict=True)]
    precise = [any(math.dist(r, s) <= radius for r, radius in zip(real, radii, strict=True)) for s in made]
    own = brute_radii(made, 3)
    recalled = [any(math.dist(r, s) <= radius for s, radius in zip(made, own, strict=True)) for r in real]
    assert neighbours.coverage(real, neighbours.radii(real, 3), made) == np.mean(covered)
    assert neighbours.inside(made, real, neighbours.radii(real, 3)) == np.mean(precise)
    assert neighbours.inside(real, made, neighbours.radii(made, 3)) == np.mean(recalled)


@given(
    arrays.arrays(np.int8, st.tuples(st.integers(6, 20), st.integers(1, 4)), elements=st.integers(-3, 3)),
    st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_a_set_covers_itself_whatever_it_is(values: np.ndarray, scale: int) -> None:
    """Also with images that occur twice, and at any scale."""
    x = values.astype(np.float64) * 10.0 ** (scale % 7 - 3)
    radii = neighbours.radii(x, 5)
    assert neighbours.coverage(x, radii, x) == 1
    assert neighbours.inside(x, x, radii) == 1


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    a, b = points(3, 200, 4), points(4, 90, 4, shift=0.7) @ np.diag([1.0, 2.0, 0.5, 1.5])
    first, second = np.cov(a.T), np.cov(b.T)
    expected = (
        ((a.mean(0) - b.mean(0)) ** 2).sum()
        + np.trace(first)
        + np.trace(second)
        - 2 * np.trace(sqrtm(sqrtm(first) @ second @ sqrtm(first)).real)
    )
    distance = FrechetDistance(a)
    assert distance.to(b) == pytest.approx(expected, rel=1e-9)
    assert distance.to(a) == pytest.approx(0, abs=1e-6)
    assert distance.to(b) == pytest.approx(expected, rel=1e-9), "an earlier set must not count"
    assert ot.gaussian.bures_wasserstein_distance(a.mean(0), b.mean(0), first, second) ** 2 == pytest.approx(expected)


def test_frechet_distance_of_few_images_does_not_break() -> None:
    real, two = points(5, 100, 8), points(6, 2, 8)
    # Two images lie on a line: the one eigenvalue of the product is that line's.
    line = (two[0] - two[1]) / math.sqrt(2)
    crossed = math.sqrt(line @ np.cov(real.T) @ line)
    expected = ((real.mean(0) - two.mean(0)) ** 2).sum() + np.trace(np.cov(real.T)) + line @ line - 2 * crossed
    assert FrechetDistance(real).to(two) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_transport_of_sets_of_one_size_is_the_best_assignment(seed: int, n: int) -> None:
    a, b = points(seed, n), points(seed + 1, n)
    costs = np.array([[math.dist(x, y) ** 2 for y in b] for x in a])
    rows, columns = linear_sum_assignment(costs)
    assert transport.least_cost(transport.squared_distances(a, b)) == pytest.approx(costs[rows, columns].mean())


def test_transport_on_the_line_sorts() -> None:
    a, b = np.array([[0.0], [1.0]]), np.array([[3.0], [1.0], [2.0], [0.5]])
    # Half of the mass of each of a's images goes to each of two of b's, in order.
    expected = (0.5**2 + 1**2 + 1**2 + 2**2) / 4
    assert transport.least_cost(transport.squared_distances(a, b)) == pytest.approx(expected)


def covariance(x: np.ndarray) -> np.ndarray:
    """With a trace of spread in all directions: POT takes roots of eigenvalues of singular ones, some below zero."""
    return (np.cov(x.T) if len(x) > 1 else 0) + 1e-10 * np.eye(x.shape[1])


@pytest.mark.parametrize(("n", "m", "dimensions"), [(30, 20, 3), (4, 50, 6), (50, 4, 6), (1, 9, 4), (1, 1, 4)])
def test_distance_of_class_gaussians_is_pots(n: int, m: int, dimensions: int) -> None:
    a, b = points(7, n, dimensions), 2 * points(8, m, dimensions, shift=1)
    expected = ot.gaussian.bures_wasserstein_distance(a.mean(0), b.mean(0), covariance(a), covariance(b)) ** 2
    found = transport.ClassGaussian(a).squared_distance(transport.ClassGaussian(b))
    assert found == pytest.approx(float(expected), abs=1e-3)


def test_otdd_is_transport_at_the_cost_of_images_and_classes() -> None:
    a, b = points(9, 12), points(10, 6, shift=0.5)
    labels_a, labels_b = np.repeat([0, 1, 2], 4), np.repeat([0, 2], 3)
    cost = np.empty((12, 6))
    for i, (x, label) in enumerate(zip(a, labels_a, strict=True)):
        for j, (y, other) in enumerate(zip(b, labels_b, strict=True)):
            mine, theirs = a[labels_a == label], b[labels_b == other]
            between = ot.gaussian.bures_wasserstein_distance(
                mine.mean(0), theirs.mean(0), covariance(mine), covariance(theirs)
            )
            cost[i, j] = math.dist(x, y) ** 2 + float(between) ** 2
    expected = ot.emd2(np.full(12, 1 / 12), np.full(6, 1 / 6), cost)
    between = transport.label_distances(transport.class_gaussians(a, labels_a), transport.class_gaussians(b, labels_b))
    found = transport.otdd(transport.squared_distances(a, b), labels_a, labels_b, between)
    assert found == pytest.approx(expected, abs=1e-3)
    assert found > transport.least_cost(transport.squared_distances(a, b))


def test_otdd_sees_labels_that_transport_does_not() -> None:
    x = np.concatenate([points(11, 10), points(12, 10, shift=9)])
    right, swapped = np.repeat([0, 1], 10), np.repeat([1, 0], 10)
    mixed = np.tile([0, 1], 10)
    costs = transport.squared_distances(x, x)

    def to(labels: np.ndarray) -> float:
        between = transport.label_distances(transport.class_gaussians(x, right), transport.class_gaussians(x, labels))
        return transport.otdd(costs, right, labels, between)

    assert to(right) == pytest.approx(0, abs=1e-9)
    assert to(swapped) == pytest.approx(0, abs=1e-9), "names of classes do not count, their images do"
    assert to(mixed) > 10


def test_diversity_is_relative_to_the_same_class_of_the_real_images() -> None:
    real = {0: 2.0, 1: 4.0}
    made = spread.class_spread(np.array([[0.0], [1.0], [5.0], [9.0], [3.0]]), np.array([0, 0, 1, 1, 2]))
    assert made == {0: 1.0, 1: 4.0}, "a class with one image has no spread"
    assert spread.diversity_percent(made, real) == pytest.approx((50 + 100) / 2)
    assert spread.diversity_percent({}, real) is None
    x, labels = points(13, 30), np.repeat([0, 1, 2], 10)
    pairs = [math.dist(x[i], x[j]) for i in range(10) for j in range(i)]
    assert spread.class_spread(x, labels)[0] == pytest.approx(np.mean(pairs))
