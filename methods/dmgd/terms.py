"""DMGD's two guidance terms for one batch: with its labels, its draws and its classes' support points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ddbench.benchmark.core.transfers import send
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.batches import Batch, Finished
from ddbench.methods.diffusion.noise import NoiseSource
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.dmgd.distribution import DistributionMatching, Support
from ddbench.methods.dmgd.params import DMGDParams
from ddbench.methods.dmgd.semantic import SemanticMatching

Supports = Mapping[int, Mapping[str, np.ndarray]]
"""Class index -> `points` (K, D) and `masses` (K,)."""


def semantic_matching(
    task: DistillTask, prior: Prior, params: DMGDParams, batch: Batch, noise: NoiseSource
) -> SemanticMatching:
    """The term for a batch; each image's other class is drawn from the dataset's whole list, uniformly."""
    own = torch.tensor([class_index for class_index, _ in batch.keys])
    other = noise.choice(len(task.class_ids) - 1)
    other += other >= own
    labels = torch.tensor([prior.label_of(task.class_ids[c]) for c in other.tolist()])
    r = prior.embed_labels(labels)
    return SemanticMatching(
        send(noise.labels(params.steps, r.shape[1], params.label_noise), prior.device),
        r,
        noise_weight=params.label_noise_weight,
        mix_weight=params.label_mix_weight,
        lower=params.label_t_lower,
        upper=params.label_t_upper,
        exploration=params.exploration,
        weights=params.label_weights,
        perturb_null=params.perturb_null,
        renormalise=params.renormalise,
    )


def distribution_matching(
    prior: Prior, params: DMGDParams, supports: Supports, batch: Batch, finished: Finished
) -> DistributionMatching:
    """The term for a batch, with what is finished of its classes as memory.

    Args:
        batch: class by class, as many images of one as of another.
        finished: of each class as many as of another; a class that is left out has none.
    """
    classes = list(dict.fromkeys(class_index for class_index, _ in batch.keys))
    points, masses = (
        send(torch.from_numpy(np.stack([supports[c][part] for c in classes])).float(), prior.device)
        for part in ("points", "masses")
    )
    none = torch.zeros(0, points.shape[2])
    latents = [finished.get(c, ()) for c in classes]
    memory = torch.stack([torch.stack(list(of_class)).flatten(1) if of_class else none for of_class in latents])
    return DistributionMatching(
        Support(points, masses),
        send(memory, prior.device),
        scale=params.ot_scale,
        epsilon=params.ot_epsilon,
        iterations=params.ot_iterations,
        window=(params.ot_window_first, params.ot_window_last),
        gradient=params.ot_gradient,
        times_sigma=params.ot_sigma,
    )
