"""The training loss of DiT (Peebles & Xie, arXiv 2212.09748): that of improved DDPM (arXiv 2102.09672, section 3.1).

Legend: B batch, C latent channels, h = w latent side, T timesteps of the training schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.schedule import respace

HALF_BIN = 1 / 255
"""Half the distance of two pixel levels in [-1, 1]; the likelihood of a latent at t = 0 is read off the same grid."""


@dataclass(frozen=True)
class Denoised:
    """What one evaluation of the network says of a batch."""

    loss: Tensor
    """Mean loss over the batch, ()."""
    x0: Tensor
    """Predicted clean latents x̂0 = x_t/√ᾱ - √(1/ᾱ - 1)·ε̂, not clipped, with their gradient, (B, C, h, w)."""


class DenoisingLoss:
    """Mean squared error of ε, and for a network that predicts v, the variational bound in bits per number.

    The bound is KL(q(x_{t-1}|x_t, x_0) ‖ p(x_{t-1}|x_t)), at t = 0 the negative log-likelihood of x_0. It trains v
    alone: ε̂ is held constant in it. Both parts weigh 1 (DiT; improved DDPM's λ = 0.001 on a bound summed over T = 1000
    steps is the same).
    """

    def __init__(self, schedule: NoiseScheduleMetadata, device: torch.device | str = "cpu") -> None:
        chain = respace(schedule, schedule.steps)
        names = ("alpha_bar", "log_beta_tilde", "log_beta", "mean_x0", "mean_z")
        self.tables = {name: getattr(chain, name).float().to(device) for name in names}

    def __call__(self, output: Tensor, x: Tensor, x_t: Tensor, noise: Tensor, t: Tensor) -> Denoised:
        """
        Args:
            output: (B, C, h, w) ε̂, or (B, 2C, h, w) ε̂ and v, at x_t.
            x: (B, C, h, w) clean latents.
            noise: (B, C, h, w) ε, with x_t = √ᾱ·x + √(1-ᾱ)·ε.
            t: (B,) int64.

        All on one device, that of the tables.
        """
        epsilon, v = output.chunk(2, dim=1) if output.shape[1] == 2 * x.shape[1] else (output, None)
        alpha_bar = self._at("alpha_bar", t)
        x0 = x_t / alpha_bar.sqrt() - (1 / alpha_bar - 1).sqrt() * epsilon
        loss = (epsilon - noise).square().flatten(1).mean(1)
        if v is not None:
            loss = loss + self._bound(v, x, x_t, x0.detach(), t)
        return Denoised(loss.mean(), x0)

    def posterior_mean(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1}|x_t, x_0) at these clean latents, (B, C, h, w)."""
        return self._at("mean_x0", t) * x0 + self._at("mean_z", t) * x_t

    def _bound(self, v: Tensor, x: Tensor, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """(B,) bits per number."""
        low, high = self._at("log_beta_tilde", t), self._at("log_beta", t)
        log_variance = low + (v + 1) / 2 * (high - low)
        mean = self.posterior_mean(x0, x_t, t)
        difference = self._at("mean_x0", t) * (x0 - x)
        kl = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + difference.square() / log_variance.exp())
        first = (t == 0).view(-1, 1, 1, 1)
        nats = torch.where(first, -discretised_log_likelihood(x, mean, log_variance), kl)
        return nats.flatten(1).mean(1) / math.log(2)

    def _at(self, table: str, t: Tensor) -> Tensor:
        return self.tables[table][t].view(-1, 1, 1, 1)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log P(the level of x) under N(mean, variance) on the grid of 256 levels in [-1, 1], whose ends are open
    (DDPM, arXiv 2006.11239, eq. 13); at least log 1e-12."""
    std = (0.5 * log_variance).exp()
    below = torch.special.ndtr((x - HALF_BIN - mean) / std).masked_fill(x < -0.999, 0)
    up_to = torch.special.ndtr((x + HALF_BIN - mean) / std).masked_fill(x > 0.999, 1)
    return (up_to - below).clamp(min=1e-12).log()
