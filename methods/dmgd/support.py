"""Distribution Approximate Matching (DMGD, arXiv 2605.03877): a few weighted points that stand for a class.

The three approximations of the paper's Table 6. Legend: N latents of the class's real images, D numbers in a latent,
K support points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from ddbench.benchmark.core import seeds
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.ahead import Ahead
from ddbench.methods.diffusion.clustering import kmeans
from ddbench.methods.diffusion.latents import class_latents, kept_latents, latents_key
from ddbench.methods.dmgd.params import DMGDParams


def class_supports(
    task: DistillTask, params: DMGDParams, class_indices: Sequence[int]
) -> dict[int, Mapping[str, np.ndarray]]:
    """The support of each class, made once: `points` (K, D) float32 and `masses` (K,) float64 with sum 1.

    k-means starts from the same points in every distilled set; a density sample belongs to its set's seed. Classes are
    worked on side by side, which changes no result.
    """
    prior, count = task.load_prior(), params.support_points

    def latents(class_index: int) -> np.ndarray:
        found = class_latents(task, prior, class_index, params.support_latents)
        return found.reshape(len(found), -1)

    def make(class_index: int, latents: np.ndarray) -> dict[str, np.ndarray]:
        class_id = task.class_ids[class_index]
        if params.support == "kmeans":
            seed = seeds.sklearn_seed(0, "k-means", class_id)
            points, masses = kmeans(latents, count, init=params.support_init, seed=seed)
        elif params.support == "density":
            points, masses = density(latents, count, task.stream("density support", class_id))
        else:
            points, masses = mean(latents)
        return {"points": points, "masses": masses}

    for class_index in class_indices:  # all of them first, so that encoding and clustering share no time
        kept_latents(task, prior, class_index, params.support_latents)
    found = {}
    with Ahead(latents, make, class_indices) as ahead:
        for class_index in class_indices:
            task.progress(f"support points of class {task.class_ids[class_index]}")
            key = latents_key(task, prior, class_index, params.support_latents) | {"support": params.support}
            if params.support == "kmeans":
                key |= {"points": count, "init": params.support_init}
            elif params.support == "density":
                key |= {"points": count, "seed": task.seed}
            found[class_index] = task.cache.arrays("support", key, partial(ahead, class_index))
    return found


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
