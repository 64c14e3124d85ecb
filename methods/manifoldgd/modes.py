"""The modes of ManifoldGD: leaves of a bisecting tree of 2-means over a class's latents. Legend: K = IPC."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import BisectingKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.latents import class_latents, latents_key
from ddbench.methods.diffusion.prior import Prior

STARTS = 10
"""Of each 2-means."""


def bisecting_modes(task: DistillTask, prior: Prior, class_index: int) -> np.ndarray:
    """The means of K leaves, made once: (K, C, h, w) float32. Each time the leaf of largest inertia is split in two.

    Raises:
        UsageError: the class has fewer than K distinct images.
    """
    assert task.ipc is not None
    key = latents_key(task, prior, class_index, "mean") | {"prior": prior.latents_of, "leaves": task.ipc}

    def make() -> dict[str, np.ndarray]:
        latents = class_latents(task, prior, class_index, "mean")
        seed = seeds.sklearn_seed(0, "bisecting k-means", task.class_ids[class_index])
        return {"centroids": leaves(latents.reshape(len(latents), -1), task.ipc or 0, seed)}

    made = task.cache.arrays("clusters", key, make)
    return made["centroids"].reshape(task.ipc, *prior.latent_shape)


def leaves(latents: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(N, D) -> (K, D) float32, the means of the leaves in the order of scikit-learn's labels.

    Raises:
        UsageError: fewer than K distinct latents.
    """
    if (distinct := len(np.unique(latents, axis=0))) < count:
        raise UsageError(f"a class has {distinct} distinct images, fewer than --ipc {count}")
    search = BisectingKMeans(count, n_init=STARTS, random_state=seed, bisecting_strategy="biggest_inertia")
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = search.fit(latents).labels_
    found = [latents[labels == leaf].mean(axis=0, dtype=np.float64) for leaf in np.unique(labels)]
    if len(found) < count:
        raise UsageError(f"the tree has {len(found)} leaves, fewer than --ipc {count}: too many images are equal")
    return np.stack(found).astype(np.float32)
