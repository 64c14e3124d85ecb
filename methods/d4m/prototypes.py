"""Prototypes of a class (D4M, CVPR 2024): cluster centres of its real images' latents, one for each image."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from ddbench.benchmark.core import seeds
from ddbench.methods.base import DistillTask
from ddbench.methods.d4m.params import D4MParams
from ddbench.methods.diffusion.clustering import class_centroids
from ddbench.methods.diffusion.latents import class_latents, latents_key
from ddbench.methods.diffusion.prior import Prior


def class_prototypes(task: DistillTask, prior: Prior, params: D4MParams, class_index: int) -> np.ndarray:
    """The prototypes of one class, made once: (IPC, C, h, w) float32. They are the same in every distilled set."""
    assert task.ipc is not None
    if params.clustering == "kmeans":
        return class_centroids(task, prior, class_index, task.ipc, params.latents)
    count, batch, class_id = task.ipc, params.batch_factor * task.ipc, task.class_ids[class_index]
    latents = class_latents(task, prior, class_index, params.latents)

    def make() -> dict[str, np.ndarray]:
        task.progress(f"mini-batch k-means of class {class_id}")
        order = torch.randperm(len(latents), generator=seeds.stream(0, "mini-batch order", class_id)).numpy()
        flat, seed = latents.reshape(len(latents), -1), seeds.sklearn_seed(0, "k-means", class_id)
        return {"prototypes": one_pass(flat[order], count, batch, seed)}

    key = latents_key(task, prior, class_index, params.latents) | {"count": count, "batch": batch}
    key |= {"prior": prior.latents_of}
    return task.cache.arrays("prototypes", key, make)["prototypes"].reshape(count, *prior.latent_shape)


def one_pass(latents: np.ndarray, count: int, batch: int, seed: int) -> np.ndarray:
    """Centres of mini-batch k-means after one pass over the latents in their order: (K, D) float32.

    A last batch of fewer than K latents belongs to the pass too (the program forgets it for all classes but one).

    Args:
        latents: (N, D), N ≥ K.
        batch: latents in a step, at least K.
    """
    search = MiniBatchKMeans(count, random_state=seed, n_init="auto", batch_size=batch)
    with threadpool_limits(limits=1):
        for first in range(0, len(latents), batch):
            search.partial_fit(latents[first : first + batch])
    return search.cluster_centers_.astype(np.float32)
