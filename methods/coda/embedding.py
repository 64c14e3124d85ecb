"""From the latents of a class to its representative images (CoDA, arXiv 2512.03844)."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ddbench.methods.base import DistillTask
from ddbench.methods.coda.clusters import Density, representatives
from ddbench.methods.coda.params import RepresentativeParams
from ddbench.methods.diffusion.latents import class_latents, latents_key
from ddbench.methods.diffusion.prior import Prior


def class_representatives(
    task: DistillTask, prior: Prior, params: RepresentativeParams, class_index: int
) -> np.ndarray:
    """For each image wanted of a class the position, among the class's images, of the real one that it is to be like:
    (IPC,). The same in every distilled set.

    Raises:
        UsageError: the class has no such number of clusters.
    """
    assert task.ipc is not None
    class_id = task.class_ids[class_index]

    def make() -> dict[str, np.ndarray]:
        latents = class_latents(task, prior, class_index)
        points = embed(latents.reshape(len(latents), -1), params)
        density = Density(params.min_cluster_size, params.min_samples)
        return {"representatives": representatives(points, task.ipc or 0, density, f"class {class_id}")}

    class_latents(task, prior, class_index)  # before, so that encoding and clustering share no time
    task.progress(f"clusters of class {class_id}")
    settings = params.model_dump(mode="json", include=set(RepresentativeParams.model_fields))
    key = latents_key(task, prior, class_index, "mean") | {
        "prior": prior.latents_of,
        "count": task.ipc,
        "coda": settings,
    }
    return task.cache.arrays("clusters", key, make)["representatives"]


def embed(latents: np.ndarray, params: RepresentativeParams) -> np.ndarray:
    """Latents (N, D), each number brought to mean 0 and variance 1, -> their places in UMAP's embedding (arXiv
    1802.03426), (N, dimensions) float32; or, without one, (N, D)."""
    scaled = StandardScaler().fit_transform(latents)
    if params.embedding == "none":
        return scaled
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP

    # With a seed, UMAP works on one thread; BLAS beneath it must, too, for the same distances anywhere.
    with threadpool_limits(limits=1):
        found: np.ndarray = UMAP(
            n_components=params.dimensions,
            n_neighbors=params.n_neighbors,
            min_dist=0.0,
            random_state=params.embedding_seed,
            n_jobs=1,
        ).fit_transform(scaled)
    return found
