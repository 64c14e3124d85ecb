"""k-means over the latents of a class: what several methods take for its modes, prototypes or support."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.ahead import Ahead
from ddbench.methods.diffusion.latents import Posterior, class_latents, kept_latents, latents_key
from ddbench.methods.diffusion.prior import Prior


def kmeans(
    latents: np.ndarray,
    count: int,
    *,
    init: Literal["k-means++", "random"],
    seed: int,
    setting: str = "support_points",
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids of k-means and the share of the latents that each one stands for.

    The centroids are the exact means of their clusters, also where scikit-learn stopped just before convergence.
    `random` starts from points drawn with replacement and stops after 100 iterations, as DMGD's released program does.

    Args:
        latents: (N, D).
        count: K.
        seed: of the starting points, 32 bits.
        setting: what the user sets to choose K; named in the error.

    Returns:
        (K, D) float32 and (K,) float64 with sum 1.

    Raises:
        UsageError: fewer than K distinct latents.
    """
    if init == "random":
        start = latents[np.random.default_rng(seed).integers(len(latents), size=count)]
        search = KMeans(count, init=start, n_init=1, max_iter=100, random_state=seed)
    else:
        search = KMeans(count, init="k-means++", n_init=1, random_state=seed)
    # One thread: scikit-learn's threads add partial sums in the order in which they end.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = search.fit(latents).labels_
    counts = np.bincount(labels, minlength=count)
    if not counts.all():
        raise UsageError(
            f"k-means found {np.count_nonzero(counts)} clusters among {len(latents)} latents, expected {count}: too "
            f"many of the images are equal. Set {setting}={np.count_nonzero(counts)} or fewer."
        )
    centroids = np.stack([latents[labels == cluster].mean(axis=0, dtype=np.float64) for cluster in range(count)])
    return centroids.astype(np.float32), counts / len(latents)


def class_centroids(
    task: DistillTask, prior: Prior, class_index: int, count: int, posterior: Posterior = "mean"
) -> np.ndarray:
    """The centroids of k-means (k-means++) over a class's latents, made once: (K, C, h, w) float32.

    They start from the same points in every distilled set.

    Raises:
        UsageError: the class has fewer than K images, or fewer than K distinct ones.
    """
    return _centroids(task, prior, [class_index], count, posterior)[class_index]


def cluster_classes(task: DistillTask, prior: Prior, count: int, posterior: Posterior = "mean") -> None:
    """k-means of all classes of a task side by side, which changes no result: `class_centroids` then finds them.

    Raises:
        UsageError: as `class_centroids`.
    """
    for class_index in task.class_indices:  # all of them first, so that encoding and clustering share no time
        kept_latents(task, prior, class_index, posterior)
    _centroids(task, prior, task.class_indices, count, posterior)


def _centroids(
    task: DistillTask, prior: Prior, class_indices: Sequence[int], count: int, posterior: Posterior
) -> dict[int, np.ndarray]:
    def make(class_index: int, latents: np.ndarray) -> dict[str, np.ndarray]:
        seed = seeds.sklearn_seed(0, "k-means", task.class_ids[class_index])
        flat = latents.reshape(len(latents), -1)
        return {"centroids": kmeans(flat, count, init="k-means++", seed=seed, setting="--ipc")[0]}

    found = {}
    with Ahead(lambda c: class_latents(task, prior, c, posterior), make, class_indices) as ahead:
        for class_index in class_indices:
            task.progress(f"k-means of class {task.class_ids[class_index]}")
            key = latents_key(task, prior, class_index, posterior) | {"prior": prior.latents_of, "count": count}
            made = task.cache.arrays("clusters", key, partial(ahead, class_index))
            found[class_index] = made["centroids"].reshape(count, *prior.latent_shape)
    return found
