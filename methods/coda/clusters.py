"""The images that stand for a class: as many clusters as images are wanted, by density, and one member of each
(CoDA, arXiv 2512.03844; the rules are the released program's).

Legend: N points of D numbers. A cluster is the positions of its members.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics.pairwise import euclidean_distances
from threadpoolctl import threadpool_limits

from ddbench.benchmark.core.errors import UsageError

CANDIDATES = 3
"""Of the parts that a cluster falls into, the largest whose pairs may begin its halves."""
SHRINK = 0.75
"""What a forced split multiplies the smallest size of a part by, until there are two."""


@dataclass(frozen=True)
class Cluster:
    members: np.ndarray
    """Positions among all points, rising."""
    centre: int
    """The position of the member that stands for it."""


@dataclass(frozen=True)
class Density:
    """HDBSCAN's two numbers."""

    min_cluster_size: int
    min_samples: int
    """Neighbours within the core distance, without the point itself."""


def noise_factor(count: int) -> int:
    """How many points in no cluster there must be for each missing one, for k-means to make it of them."""
    return 5 if count <= 10 else 3 if count <= 50 else 1


def representatives(points: np.ndarray, count: int, density: Density, of: str = "the points") -> np.ndarray:
    """Positions of `count` points, each from a cluster of its own: (count,).

    HDBSCAN's clusters, of too many the largest. Are they too few, the largest that can hold two is halved, again and
    again; then k-means makes the missing ones of the points in no cluster, if these are many enough; if not, clusters
    are halved whose parts may be smaller than HDBSCAN was told. Ties go to the point, or cluster, that comes first.

    Args:
        points: (N, D).
        of: names the points in the error.

    Raises:
        UsageError: no rule gives so many.
    """
    with threadpool_limits(limits=1):  # threads add partial sums in the order in which they end
        clusters = dense_clusters(points, np.arange(len(points)), density)
        if len(clusters) > count:
            return _centres(_largest_first(clusters)[:count])
        clusters = halve(points, clusters, count, density)
        missing = count - len(clusters)
        noise = np.setdiff1d(np.arange(len(points)), np.concatenate([[], *(each.members for each in clusters)]))
        if missing and len(noise) >= missing * noise_factor(count):
            clusters += _parts(points, noise, KMeans(missing, n_init="auto", random_state=0).fit(points[noise]))
        elif missing:
            clusters = force(points, clusters, count, density)
    if len(clusters) < count:
        raise UsageError(
            f"{of}: {len(clusters)} clusters, expected {count}: neither splits nor the {len(noise)} images in no "
            f"cluster give more. Choose a smaller --ipc, or another min_cluster_size or n_neighbors."
        )
    return _centres(clusters)


def dense_clusters(points: np.ndarray, within: np.ndarray, density: Density) -> list[Cluster]:
    """HDBSCAN's clusters of the points at the positions `within`; each centre is the member of highest membership."""
    if len(within) < 2:
        return []
    samples = min(density.min_samples + 1, len(within))  # scikit-learn counts the point itself
    found = HDBSCAN(min_cluster_size=density.min_cluster_size, min_samples=samples, copy=True).fit(points[within])
    clusters = []
    for label in range(found.labels_.max() + 1):
        inside = np.flatnonzero(found.labels_ == label)
        clusters.append(Cluster(within[inside], int(within[inside[found.probabilities_[inside].argmax()]])))
    return clusters


def halve(points: np.ndarray, clusters: Sequence[Cluster], count: int, density: Density) -> list[Cluster]:
    """The clusters, of which the largest is halved while there are fewer than `count`. Of fewer than twice the smallest
    size none is, nor is one again that does not fall into parts."""
    clusters, smallest = list(clusters), 2 * density.min_cluster_size
    waiting = [each for each in clusters if len(each.members) >= smallest]
    while len(clusters) < count and waiting:
        waiting = _largest_first(waiting)
        parent = waiting.pop(0)
        halves = split(points, parent, density)
        _replace(clusters, parent, halves)
        waiting += [half for half in halves if len(half.members) >= smallest]
    return clusters


def force(points: np.ndarray, clusters: Sequence[Cluster], count: int, density: Density) -> list[Cluster]:
    """As `halve`, of clusters of the smallest size or more; the largest is tried with smaller and smaller parts."""
    clusters = list(clusters)
    waiting = [each for each in clusters if len(each.members) >= density.min_cluster_size]
    while len(clusters) < count and waiting:
        waiting = _largest_first(waiting)
        parent, size, halves = waiting.pop(0), float(density.min_cluster_size), list[Cluster]()
        while not halves and size > 2:
            size *= SHRINK
            smaller = Density(max(int(size), 2), density.min_samples)
            halves = split(points, parent, smaller)
            waiting += [half for half in halves if len(half.members) >= 2 * smaller.min_cluster_size]
        _replace(clusters, parent, halves)
    return clusters


def split(points: np.ndarray, parent: Cluster, density: Density) -> list[Cluster]:
    """Two halves of all its members, or none if HDBSCAN finds no two parts in it: 2-means from the pair of centres, of
    the three largest parts, that ends with the least inertia."""
    parts = _largest_first(dense_clusters(points, parent.members, density))
    if len(parts) < 2:
        return []
    inside = points[parent.members]
    starts = itertools.combinations([points[part.centre] for part in parts[:CANDIDATES]], 2)
    tried = [KMeans(2, init=np.stack(pair), n_init=1, random_state=0).fit(inside) for pair in starts]
    halves = _parts(points, parent.members, min(tried, key=lambda each: each.inertia_))
    return halves if len(halves) == 2 else []


def _parts(points: np.ndarray, within: np.ndarray, found: KMeans) -> list[Cluster]:
    """The clusters of a fit to the points at `within`; each centre is the member nearest to the mean."""
    clusters = []
    for label, mean in enumerate(found.cluster_centers_):
        members = within[found.labels_ == label]
        if len(members):
            clusters.append(Cluster(members, int(members[euclidean_distances(points[members], mean[None]).argmin()])))
    return clusters


def _replace(clusters: list[Cluster], parent: Cluster, halves: Sequence[Cluster]) -> None:
    if halves:
        clusters[:] = [each for each in clusters if each is not parent] + list(halves)


def _largest_first(clusters: Sequence[Cluster]) -> list[Cluster]:
    return sorted(clusters, key=lambda each: -len(each.members))


def _centres(clusters: Sequence[Cluster]) -> np.ndarray:
    return np.array([each.centre for each in clusters])
