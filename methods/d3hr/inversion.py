"""Domain mapping and representative groups (D3HR, ICML 2025): what is known of a class at a noise level."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ddbench.methods.base import DistillTask
from ddbench.methods.d3hr.groups import best_group
from ddbench.methods.d3hr.params import D3HRParams
from ddbench.methods.diffusion.ddim import ddim_levels, walk
from ddbench.methods.diffusion.latents import class_latents, latents_key
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior


def class_group(task: DistillTask, prior: Prior, params: D3HRParams, class_index: int) -> np.ndarray:
    """The latents from which the images of one class are denoised, made once: (IPC, C, h, w) float32."""
    assert task.ipc is not None
    size, class_id = task.ipc, task.class_ids[class_index]

    def make() -> dict[str, np.ndarray]:
        mean, std, factor = class_statistics(task, prior, params, class_index)
        task.progress(f"choosing among {params.groups} groups for class {class_id}")
        group = best_group(
            lambda block: task.stream("group", class_id, block),
            mean.to(prior.device),
            std.to(prior.device),
            size=size,
            groups=params.groups,
            skew_weight=params.skew_weight,
            factor=None if factor is None else factor.to(prior.device),
        )
        return {"group": group.cpu().numpy()}

    key = _statistics_key(task, prior, params, class_index)
    key |= {"seed": task.seed, "size": size, "groups": params.groups, "skew_weight": params.skew_weight}
    key |= {"skewness": "standardised in the group"}  # groups from before were chosen by another
    return task.cache.arrays("groups", key, make)["group"].reshape(size, *prior.latent_shape)


def class_statistics(
    task: DistillTask, prior: Prior, params: D3HRParams, class_index: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and (unbiased) standard deviation of the class's inverted latents at the level, made once: (D,) float32; and
    with `covariance=full` F, (K, D) float32 with FᵀF their covariance, K the fewer of images and D."""

    def make() -> dict[str, np.ndarray]:
        inverted = invert_class(task, prior, params, class_index).flatten(1).double()
        variance, mean = torch.var_mean(inverted, 0)
        made = {"mean": mean.float().numpy(), "std": variance.sqrt().float().numpy()}
        if params.covariance == "full":
            made["factor"] = covariance_factor(inverted - mean).float().numpy()
        return made

    kept = task.cache.arrays("inversion", _statistics_key(task, prior, params, class_index), make)
    factor = torch.tensor(kept["factor"]) if params.covariance == "full" else None
    return torch.tensor(kept["mean"]), torch.tensor(kept["std"]), factor


def covariance_factor(centred: Tensor) -> Tensor:
    """F, (K, D) with FᵀF the (unbiased) covariance of the rows of (N, D), whose mean is 0; K the fewer of N and D."""
    scaled = centred / math.sqrt(len(centred) - 1)
    return scaled if len(scaled) <= scaled.shape[1] else torch.linalg.qr(scaled, mode="r").R


def invert_class(task: DistillTask, prior: Prior, params: D3HRParams, class_index: int) -> Tensor:
    """Real latents of a class after DDIM inversion up to the level: (N, C, h, w) float32 on the CPU; N are all, or
    `real_images`."""
    latents, class_id = class_latents(task, prior, class_index, params.latents), task.class_ids[class_index]
    latents = latents[: params.real_images]
    upwards = ddim_levels(prior.metadata.schedule.steps, params.steps)[: params.level + 1]
    inverted = []
    for first in range(0, len(latents), task.batch_size):
        task.progress(f"inverting class {class_id}: {first} of {len(latents)} images")
        z = torch.tensor(latents[first : first + task.batch_size])
        images = [ImageKey(class_id, first + row) for row in range(len(z))]
        inverted.append(walk(prior, images, z.to(prior.device), upwards, cfg_scale=params.cfg_scale).cpu())
    return torch.cat(inverted)


def _statistics_key(task: DistillTask, prior: Prior, params: D3HRParams, class_index: int) -> dict[str, object]:
    of_params: dict[str, object] = {"steps": params.steps, "cfg_scale": params.cfg_scale, "level": params.level}
    if params.real_images is not None:
        of_params["real_images"] = params.real_images
    if params.covariance != "diagonal":
        of_params["covariance"] = params.covariance
    return latents_key(task, prior, class_index, params.latents) | of_params | prior.rounding
