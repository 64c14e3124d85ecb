"""A batch of images sampled on the linear path, with the draws of its images' own streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ddbench.benchmark.core.transfers import send
from ddbench.methods.diffusion.batches import Batch
from ddbench.methods.diffusion.flow_sampler import LAST_STEP, Guided, flow_ode, flow_sde
from ddbench.methods.diffusion.guidance import Step
from ddbench.methods.diffusion.noise import StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.sampler import SampleOutcome, check_finite, label_pairs


@torch.no_grad()
def sample_flow(
    prior: Prior,
    batch: Batch,
    stream: Callable[..., torch.Generator],
    *,
    sampler: Literal["sde", "euler", "dopri5"],
    steps: int,
    cfg_scale: float,
) -> SampleOutcome:
    """Sample one batch.

    Raises:
        UsageError: a class that the prior does not know.
        RunError: a latent became infinite or NaN.
    """
    noise, (first, last) = StreamNoise(stream, batch.images), prior.path_range
    pair = label_pairs(prior, batch.images)
    # What a prior of noise calls pure noise lies at its first point of the path.
    start = send(noise.initial(prior.latent_shape), prior.device) * prior.path_scale(first)
    sums: list[Tensor] = []

    def on_step(n: int, x: Tensor) -> None:
        sums.append(x.flatten(1).sum(1))
        batch.on_step(Step(n, steps - 1 - n, steps - 1 - n), x)

    velocity = Guided(prior, pair, cfg_scale)
    if sampler == "sde":
        times = torch.linspace(first, min(last, 1 - LAST_STEP), steps, dtype=torch.float64)
        x = flow_sde(velocity, start, times, lambda n: send(noise.step(n, prior.latent_shape), prior.device), on_step)
    else:
        times = torch.linspace(first, last, steps, dtype=torch.float64)
        if sampler == "euler":
            x = flow_ode(velocity, start, times, "euler", on_step)
        else:
            alone = [Guided(prior, pair[row : row + 1], cfg_scale) for row in range(len(pair))]
            ends = torch.tensor([first, last], dtype=torch.float64)
            x = torch.cat([flow_ode(one, start[row : row + 1], ends, "dopri5") for row, one in enumerate(alone)])
        if last < 1:  # what is left to the data, in one step
            x = x + (1 - last) * velocity(last, x)
        sums.append(x.flatten(1).sum(1))
    check_finite(torch.stack(sums), batch.images, list(range(len(sums)))[::-1])
    return SampleOutcome(x, {})
