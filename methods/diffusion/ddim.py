"""DDIM (arXiv 2010.02502, with η = 0): deterministic walks along the noise levels of a prior, in either direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.guidance import Step
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.sampler import check_finite, guided_prediction, label_pairs
from ddbench.methods.diffusion.schedule import alpha_bar


def ddim_levels(training_steps: int, steps: int) -> list[int]:
    """The timesteps t_i = i · (N // S), i = 0 … S-1, of N training steps ("leading" spacing: 0, 20, …, 980 for 50).

    Raises:
        UsageError: fewer than 2 steps, or more than N.
    """
    if not 2 <= steps <= training_steps:
        raise UsageError(f"this prior can be sampled in 2 … {training_steps} steps, got steps={steps}")
    return [i * (training_steps // steps) for i in range(steps)]


@torch.no_grad()
def walk(
    prior: Prior,
    images: Sequence[ImageKey],
    z: Tensor,
    timesteps: Sequence[int],
    *,
    cfg_scale: float,
    on_step: Callable[[Step, Tensor], None] = lambda step, z: None,
) -> Tensor:
    """Take latents from noise level to noise level: upwards it is DDIM inversion, downwards DDIM sampling.

    Each step predicts ε at the noisier of its two timesteps, in both directions (as D3HR's program does), so that with
    an ε that does not depend on the latents the way down is exactly the way up, reversed:
    z' = √(ᾱ'/ᾱ)·(z - √(1-ᾱ)·ε) + √(1-ᾱ')·ε. Classifier-free guidance acts on all channels, not on the prior's
    guided ones only; x̂0 is never clipped, which could not be inverted.

    Args:
        images: whose class ids give the labels.
        z: (B, C, h, w) latents at level `timesteps[0]`, on the prior's device.
        timesteps: the levels in order, original timesteps of the training schedule.
        on_step: called with each executed step and the latents after it; `Step.k` counts the steps still to come.

    Returns:
        (B, C, h, w) the latents at level `timesteps[-1]`.

    Raises:
        UsageError: a class that the prior does not know.
        RunError: a latent became infinite or NaN; it names the step and the class.
    """
    signal = alpha_bar(prior.metadata.schedule).tolist()
    pair = label_pairs(prior, images)
    first, sums = z, []
    for n, (here, there) in enumerate(pairwise(timesteps)):
        t = max(here, there)
        epsilon, _ = guided_prediction(prior, z, t, pair, cfg_scale, z.shape[1])
        now, then = signal[here], signal[there]
        z = (then / now) ** 0.5 * (z - (1 - now) ** 0.5 * epsilon) + (1 - then) ** 0.5 * epsilon
        sums.append(z.flatten(1).sum(1))
        on_step(Step(n, len(timesteps) - 2 - n, t), z)
    if sums:
        noisier = [max(two) for two in pairwise(timesteps)]
        check_finite(torch.stack(sums), images, noisier, "DDIM", prior=prior, first=first)
    return z
