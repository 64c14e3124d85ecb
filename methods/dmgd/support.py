"""Distribution Approximate Matching (DMGD, arXiv 2605.03877): a few weighted points that stand for a class.

The three approximations of the paper's Table 6. Legend: N latents of the class's real images, D numbers in a latent,
K support points.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ddbench.benchmark import seeds
from ddbench.benchmark.errors import UsageError
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.latents import class_latents, latents_key

if TYPE_CHECKING:
    from ddbench.methods.dmgd.method import DMGD


def class_support(task: DistillTask, params: DMGD.Params, class_index: int) -> Mapping[str, np.ndarray]:
    """The support of one class, made once: `points` (K, D) float32 and `masses` (K,) float64 with sum 1.

    k-means starts from the same points in every distilled set; a density sample belongs to its set's seed.
    """
    prior, class_id, count = task.load_prior(), task.class_ids[class_index], params.support_points
    latents = class_latents(task, prior, class_index, params.support_latents)
    latents = latents.reshape(len(latents), -1)
    key = latents_key(task, prior, class_index, params.support_latents) | {"support": params.support}
    if params.support == "kmeans":
        key |= {"points": count, "init": params.support_init}
    elif params.support == "density":
        key |= {"points": count, "seed": task.seed}

    def make() -> dict[str, np.ndarray]:
        task.progress(f"support points of class {class_id}")
        if params.support == "kmeans":
            seed = seeds.sklearn_seed(0, "k-means", class_id)
            points, masses = kmeans(latents, count, init=params.support_init, seed=seed)
        elif params.support == "density":
            points, masses = density(latents, count, task.stream("density support", class_id))
        else:
            points, masses = mean(latents)
        return {"points": points, "masses": masses}

    return task.cache.arrays("support", key, make)


def kmeans(
    latents: np.ndarray, count: int, *, init: Literal["k-means++", "random"], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids of k-means and the share of the latents that each one stands for.

    The centroids are the exact means of their clusters (Proposition 2 needs that), also where scikit-learn stopped
    just before convergence. `random` starts from points drawn with replacement and stops after 100 iterations, as the
    released program does.

    Args:
        latents: (N, D).
        count: K.
        seed: of the starting points, 32 bits.

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
            f"many of the images are equal. Set support_points={np.count_nonzero(counts)} or fewer."
        )
    centroids = np.stack([latents[labels == cluster].mean(axis=0, dtype=np.float64) for cluster in range(count)])
    return centroids.astype(np.float32), counts / len(latents)


def mean(latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean matching: the mean of the latents (N, D) as the one support point, (1, D) float32 and (1,)."""
    return latents.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32), np.ones(1)


def density(latents: np.ndarray, count: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """K of the latents themselves, drawn without replacement with probability ∝ 1/Σ distances to all the others.

    Returns:
        (K, D) float32, and those probabilities scaled to sum 1, (K,) float64.
    """
    points = torch.tensor(latents, dtype=torch.float64)
    spread = torch.cdist(points, points).sum(1)
    probability = 1 / spread.clamp_min(1e-12)  # 0 where all latents are equal
    chosen = torch.multinomial(probability / probability.sum(), count, generator=generator)
    masses = probability[chosen] / probability[chosen].sum()
    return latents[chosen.numpy()], masses.numpy()
