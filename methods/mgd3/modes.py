"""Mode discovery and mode guidance (MGD3, arXiv 2505.18963). Legend: K = IPC modes of a class."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import pairwise_distances_argmin
from torch import Tensor

from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.clustering import class_centroids
from ddbench.methods.diffusion.guidance import ShiftGuidance, State
from ddbench.methods.diffusion.latents import Posterior, class_latents
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.mgd3.params import MGD3Params


def class_modes(task: DistillTask, prior: Prior, params: MGD3Params, class_index: int) -> np.ndarray:
    """The modes of one class, one for each of its images: (K, C, h, w) float32."""
    assert task.ipc is not None
    if params.modes == "centroid":
        return class_centroids(task, prior, class_index, task.ipc, params.latents)
    latents = class_latents(task, prior, class_index, params.latents)
    if params.modes == "nearest":
        return latents[nearest_to_centroids(task, prior, class_index, params.latents)]
    order = torch.randperm(len(latents), generator=task.stream("random modes", task.class_ids[class_index]))
    return latents[order[: task.ipc].numpy()]


def nearest_to_centroids(task: DistillTask, prior: Prior, class_index: int, posterior: Posterior) -> np.ndarray:
    """For each centroid of a class the position, among the class's images, of the one with the nearest latent: (K,)."""
    assert task.ipc is not None
    centroids = class_centroids(task, prior, class_index, task.ipc, posterior).reshape(task.ipc, -1)
    latents = class_latents(task, prior, class_index, posterior)
    return pairwise_distances_argmin(centroids.astype(np.float64), latents.reshape(len(latents), -1).astype(np.float64))


class ModeGuidance(ShiftGuidance):
    """shift = λ · σ_k · (m - x̂0) at the steps k > `stop_step`; afterwards the prior is left alone.

    x̂0 is what the posterior mean uses: after classifier-free guidance, and clipped if the prior clips.

    Args:
        modes: (B, C, h, w), the mode m of each image in the batch.
        scale: λ.
        stop_step: index k in the respaced chain.
        clip: the prior's `clip_denoised`.
    """

    name = "mode"

    def __init__(self, modes: Tensor, *, scale: float, stop_step: int, clip: bool) -> None:
        self.modes, self.scale, self.stop_step, self.clip = modes, scale, stop_step, clip

    def shift(self, state: State) -> Tensor | None:
        if state.step.k <= self.stop_step:
            return None
        x0 = state.x0.clamp(-1, 1) if self.clip else state.x0
        return self.scale * state.sigma * (self.modes - x0)
