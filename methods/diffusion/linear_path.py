"""The linear path x_t = t·x₁ + (1 − t)·ε between noise (t = 0) and data (t = 1), beside the chain of DDPM.

Both are the same Gaussian corruption at another scale and clock: with ᾱ at equal signal-to-noise ratio,
z = √ᾱ·x₁ + √(1 − ᾱ)·ε is x_t / √(t² + (1 − t)²) and t = √ᾱ / (√ᾱ + √(1 − ᾱ)). So a network that predicts the velocity
v = x₁ − ε (flow matching, arXiv 2210.02747; SiT, arXiv 2401.08740) gives the noise that DDPM's chain asks for,
ε̂ = x − t·v, and one that predicts noise gives a velocity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def path_time(alpha_bar: Tensor) -> Tensor:
    """ᾱ of any shape -> t at the same signal-to-noise ratio, float64."""
    signal, noise = alpha_bar.double().sqrt(), (1 - alpha_bar.double()).sqrt()
    return signal / (signal + noise)


def scale_at(t: Tensor) -> Tensor:
    """t -> √(t² + (1 − t)²), by which a latent of DDPM's chain is multiplied to lie on the path."""
    return torch.hypot(t, 1 - t)


def alpha_bar_at(t: float) -> float:
    """t in (0, 1) -> ᾱ at the same signal-to-noise ratio."""
    return t**2 / (t**2 + (1 - t) ** 2)


def chain_position(alpha_bar: Tensor, at: float) -> float:
    """The place in a training schedule where ᾱ is `at`, between timesteps where it is between theirs: log-SNR is taken
    as linear from one timestep to the next. Beyond the ends it is the end.

    Args:
        alpha_bar: of the schedule, (N,) float64, falling.
    """
    snr = torch.log(alpha_bar) - torch.log1p(-alpha_bar)  # (N,) falling
    wanted = math.log(at) - math.log1p(-at)
    after = int((snr > wanted).sum())  # timesteps with more signal
    if after in (0, len(snr)):
        return float(min(after, len(snr) - 1))
    high, low = float(snr[after - 1]), float(snr[after])
    return after - 1 + (high - wanted) / (high - low)
