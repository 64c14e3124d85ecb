"""Sampling with CoDA's pull (arXiv 2512.03844): DPM-Solver++ of second order (arXiv 2211.01095) on the noise levels of
Karras et al. (arXiv 2206.00364), both as `diffusers` has them.

Legend: B images, C channels, h = w latent side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from ddbench.benchmark.core.transfers import send
from ddbench.methods.diffusion.guidance import Step
from ddbench.methods.diffusion.noise import ImageKey, NoiseSource
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.sampler import SampleOutcome, check_finite, label_pairs


@torch.no_grad()
def sample_pulled(
    prior: Prior,
    images: Sequence[ImageKey],
    targets: Tensor,
    noise: NoiseSource,
    *,
    steps: int,
    cfg_scale: float,
    guidance_scale: float,
    guided_from: float,
    guided_share: float,
    on_step: Callable[[Step, Tensor], None] = lambda step, z: None,
) -> SampleOutcome:
    """Sample one batch, each image pulled towards the latents of its representative until step ⌊share·S⌋.

    Classifier-free guidance acts on all channels, and x̂0 is never clipped: as the program's text-to-image prior has it.

    Args:
        targets: r, (B, C, h, w) on the prior's device.
        steps: S.
        guidance_scale: γ.
        guided_from: the σ above which nothing is pulled.

    Raises:
        UsageError: a class that the prior does not know.
        RunError: a latent became infinite or NaN; it names the step and the class.
    """
    scheduler = dpm_solver(prior.metadata.schedule, steps)
    timesteps = [int(t) for t in scheduler.timesteps]
    alone_from = timesteps[min(int(steps * guided_share), steps - 1)]
    pair = label_pairs(prior, images)
    z = first = send(noise.initial(prior.latent_shape), prior.device)
    sums = []
    for n, t in enumerate(timesteps):
        both, _ = prior.predict(z.repeat_interleave(2, 0), t, pair.flatten(0, 1))
        of_class, of_none = both[0::2], both[1::2]
        sigma = float(scheduler.sigmas[n])
        if t > alone_from and sigma <= guided_from:
            alpha_bar = float(scheduler.alphas_cumprod[t])
            of_class = pull(of_class, z, targets, alpha_bar=alpha_bar, share=guidance_scale * sigma)
        epsilon = of_none + cfg_scale * (of_class - of_none)
        z = scheduler.step(epsilon, scheduler.timesteps[n], z, return_dict=False)[0]
        sums.append(z.flatten(1).sum(1))
        on_step(Step(n, steps - 1 - n, t), z)
    check_finite(torch.stack(sums), images, timesteps, prior=prior, first=first)
    return SampleOutcome(z, {})


def pull(epsilon: Tensor, z: Tensor, targets: Tensor, *, alpha_bar: float, share: float) -> Tensor:
    """ε - √(ᾱ/(1-ᾱ)) · share · (r - x̂0): the noise whose x̂0 = (z - √(1-ᾱ)·ε)/√ᾱ lies that share of the way nearer to
    r, beyond it where the share is above 1. All (B, C, h, w)."""
    x0 = (z - (1 - alpha_bar) ** 0.5 * epsilon) / alpha_bar**0.5
    return epsilon - (alpha_bar / (1 - alpha_bar)) ** 0.5 * share * (targets - x0)


def dpm_solver(schedule: NoiseScheduleMetadata, steps: int) -> Any:
    """The sampler before its first step, a DPMSolverMultistepScheduler (Any: its base is not typed).
    Its tables stay on the CPU, so that nothing waits for a GPU."""
    scheduler: Any = DPMSolverMultistepScheduler(
        num_train_timesteps=schedule.steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=schedule.kind,
        algorithm_type="dpmsolver++",
        solver_order=2,
        use_karras_sigmas=True,
    )
    scheduler.set_timesteps(steps, device="cpu")
    return scheduler
