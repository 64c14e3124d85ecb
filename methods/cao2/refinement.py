"""The second half of CaO2 (ICCV 2025): latents are moved to where the prior denoises them well without a label.

Legend: B images, C latent channels, h = w latent side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddbench.benchmark.core.transfers import send
from ddbench.methods.base import DistillTask
from ddbench.methods.cao2.params import CaO2Params
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.sampler import check_finite

CHUNK = 8
"""Latents that are refined at once: DiT-XL/2 keeps about a GiB for the gradient of each."""


def refine(task: DistillTask, prior: Prior, params: CaO2Params, images: Sequence[ImageKey], latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) after `refine_steps` of Adam on `denoising_loss`, each with its own fixed noise and its own
    draws of k, of named streams.

    Raises:
        RunError: a latent became infinite or NaN.
    """
    if not params.refine_steps:
        return latents
    chain, done = prior.schedule(params.steps), []
    null = prior.embed_labels(torch.tensor([prior.null_label]))
    for start in range(0, len(images), CHUNK):
        task.progress(f"refining: {start} of {len(images)} latents")
        chunk = images[start : start + CHUNK]
        noise = send(torch.stack([_noise(task, prior, params, image) for image in chunk]), prior.device)
        k = torch.stack([_indices(task, params, image) for image in chunk], dim=1)
        times = send(chain.timesteps[k] if params.refine_time == "timestep" else k, prior.device)
        alpha_bar = send(chain.alpha_bar[k], prior.device)
        z = latents[start : start + CHUNK].detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([z], lr=params.refine_rate)
        for step in range(params.refine_steps):
            optimiser.zero_grad()
            with torch.enable_grad():
                loss = denoising_loss(prior, z, noise, alpha_bar[step], times[step], null, max_weight=params.max_weight)
                with prior.products():
                    loss.sum().backward()
            optimiser.step()
        done.append(z.detach())
    refined = torch.cat(done)
    last = [int(chain.timesteps[params.refine_last])]
    check_finite(refined.flatten(1).sum(1)[None], images, last, what="refinement")
    return refined


def denoising_loss(
    prior: Prior, z: Tensor, noise: Tensor, alpha_bar: Tensor, times: Tensor, label: Tensor, *, max_weight: float
) -> Tensor:
    """(B,): mean (ε̂ - ε)² + `max_weight` · max |ε̂ - ε| with ε̂ of √ᾱ·z + √(1-ᾱ)·ε; differentiable in z.

    Args:
        z, noise: (B, C, h, w).
        alpha_bar: (B,) float64.
        times: (B,) what the denoiser is told.
        label: (1, D).
    """
    signal, spread = (a.to(z).view(-1, 1, 1, 1) for a in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    epsilon, _ = prior.predict(signal * z + spread * noise, times, label)
    error = (epsilon - noise).flatten(1)
    return error.square().mean(1) + max_weight * error.abs().amax(1)


def _noise(task: DistillTask, prior: Prior, params: CaO2Params, image: ImageKey) -> Tensor:
    """(C, h, w): the entry of the bank that the image drew."""
    entry = int(torch.randint(params.noise_bank, (), generator=task.stream("refinement noise", *image)))
    return torch.randn(prior.latent_shape, generator=task.stream("refinement noise bank", entry))


def _indices(task: DistillTask, params: CaO2Params, image: ImageKey) -> Tensor:
    """(refine_steps,) int64, uniform on 1 … refine_last."""
    generator = task.stream("refinement time", *image)
    return torch.randint(1, params.refine_last + 1, (params.refine_steps,), generator=generator)
