"""The noise schedule of a respaced DDPM chain, as tables in float64.

`diffusers`' DDPMScheduler gives the same timesteps and ᾱ (the tests compare them), but not σ at the last step, and
it recomputes the rest in float32 at every call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata


@dataclass(frozen=True)
class Respaced:
    """S steps out of the training schedule's; index k = 0 … S-1, where S-1 is the noisiest and executed first.

    All tables are (S,) float64 on the CPU; their entries enter the computation as Python numbers.
    """

    timesteps: torch.Tensor
    """Original timesteps t_k = round(k · (N-1)/(S-1)) of N training steps; (S,) int64."""
    alpha_bar: torch.Tensor
    """ᾱ at t_k."""
    log_beta: torch.Tensor
    """log β_k, β_k = 1 - ᾱ_k/ᾱ_{k-1} with ᾱ_{-1} = 1: the largest posterior variance."""
    log_beta_tilde: torch.Tensor
    """log β̃_k, β̃_k = β_k (1 - ᾱ_{k-1})/(1 - ᾱ_k): the smallest. β̃_0 is 0, and β̃_1 stands in for it."""
    mean_x0: torch.Tensor
    """Coefficient of x̂0 in the posterior mean: β_k √ᾱ_{k-1}/(1 - ᾱ_k)."""
    mean_z: torch.Tensor
    """Coefficient of z_k: (1 - ᾱ_{k-1}) √(1 - β_k)/(1 - ᾱ_k)."""

    def __len__(self) -> int:
        return len(self.timesteps)


def alpha_bar(schedule: NoiseScheduleMetadata) -> torch.Tensor:
    """ᾱ_t = Π_{s ≤ t} (1 - β_s) of the training schedule: (N,) float64."""
    power = 0.5 if schedule.kind == "scaled_linear" else 1.0
    ends = schedule.beta_start**power, schedule.beta_end**power
    beta = torch.linspace(*ends, schedule.steps, dtype=torch.float64) ** (1 / power)
    return torch.cumprod(1 - beta, 0)


def respace(schedule: NoiseScheduleMetadata, steps: int) -> Respaced:
    """The chain of `steps` equally spaced steps (DDPM, arXiv 2006.11239, eq. 7; respacing: arXiv 2102.09672, sec. 4).

    Raises:
        UsageError: fewer than 2 steps, or more than the training schedule has.
    """
    if not 2 <= steps <= schedule.steps:
        raise UsageError(f"this prior can be sampled in 2 … {schedule.steps} steps, got steps={steps}")
    timesteps = torch.tensor([round(k * (schedule.steps - 1) / (steps - 1)) for k in range(steps)])
    now = alpha_bar(schedule)[timesteps]
    before = torch.cat([torch.ones(1, dtype=torch.float64), now[:-1]])
    beta = 1 - now / before
    beta_tilde = beta * (1 - before) / (1 - now)
    beta_tilde[0] = beta_tilde[1]
    return Respaced(
        timesteps=timesteps,
        alpha_bar=now,
        log_beta=beta.log(),
        log_beta_tilde=beta_tilde.log(),
        mean_x0=beta * before.sqrt() / (1 - now),
        mean_z=(1 - before) * (1 - beta).sqrt() / (1 - now),
    )
