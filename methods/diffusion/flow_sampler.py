"""Samplers on the linear path: the probability-flow ODE and SiT's SDE (Ma et al., arXiv 2401.08740), with
classifier-free guidance on the prior's guided channels. They know no guidance terms; methods with terms run DDPM's
chain (`sampler.py`), which takes the same priors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torchdiffeq import odeint

from ddbench.methods.diffusion.prior import Prior

LAST_STEP = 0.04
"""Length of the SDE's last step, which adds no noise: SiT's default."""
ATOL, RTOL = 1e-6, 1e-3
"""Tolerances of the adaptive ODE solver: SiT's default."""


@dataclass(frozen=True)
class Guided:
    """The velocity of a batch under classifier-free guidance.

    Legend: B images, C channels, h = w side, D embedding width.
    """

    prior: Prior
    pair: Tensor
    """(B, 2, D): the embeddings [class; null] of each image."""
    cfg_scale: float

    def __call__(self, t: float, x: Tensor) -> Tensor:
        """(B, C, h, w) on the path at t -> v of that shape; the unguided channels are the class's own."""
        return self.halves(t, x)[0]

    def halves(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and beside it v whose unguided channels are those of no class."""
        if self.cfg_scale == 1:
            own = self.prior.velocity(x, t, self.pair[:, 0])
            return own, own
        both = self.prior.velocity(x.repeat_interleave(2, 0), t, self.pair.flatten(0, 1))
        own, null = both[0::2].clone(), both[1::2].clone()
        guided = slice(0, self.prior.guided_channels)
        own[:, guided] = null[:, guided] = null[:, guided] + self.cfg_scale * (own[:, guided] - null[:, guided])
        return own, null


@torch.no_grad()
def flow_ode(
    velocity: Guided,
    start: Tensor,
    times: Tensor,
    solver: Literal["euler", "dopri5"],
    on_step: Callable[[int, Tensor], None] = lambda n, x: None,
) -> Tensor:
    """Integrate dx/dt = v from the first of `times` (T,) to the last; (B, C, h, w) there.

    Args:
        start: x at the first time.
        solver: `euler`, one step between two times; `dopri5`, steps of its own choice, which depend on the whole batch:
            an image's pixels depend on its neighbours, unless it is alone.
        on_step: called after each Euler step with its number, from 0, and x.
    """
    if solver == "dopri5":
        # SiT's program carries the half without a class along, whose unguided channels count in the solver's error.
        half = len(start)

        def derivative(t: Tensor, x: Tensor) -> Tensor:
            return torch.cat(velocity.halves(float(t), x[:half]))

        there = times.to(start.device)
        reached: Tensor = odeint(derivative, start.repeat(2, 1, 1, 1), there, method=solver, atol=ATOL, rtol=RTOL)
        return reached[-1, :half]
    x = start
    for n, (now, after) in enumerate(pairwise(times.tolist())):
        x = x + (after - now) * velocity(now, x)
        on_step(n, x)
    return x


@torch.no_grad()
def flow_sde(
    velocity: Callable[[float, Tensor], Tensor],
    start: Tensor,
    times: Tensor,
    noise: Callable[[int], Tensor],
    on_step: Callable[[int, Tensor], None] = lambda n, x: None,
) -> Tensor:
    """Euler-Maruyama of dx = (v + w·score) dt + √(2w) dW with w = 1 − t between `times` (T,), then one step of the
    mean, to t = 1: (B, C, h, w).

    On the path score = (t·v − x)/(1 − t), so w·score = t·v − x.

    Args:
        noise: n = 0 … T − 2 -> (B, C, h, w) standard normal, asked for in order.
    """
    x = start
    moments = times.tolist()
    for n, (now, after) in enumerate(pairwise(moments)):
        step = after - now
        x = x + step * _drift(velocity, now, x) + (2 * (1 - now) * step) ** 0.5 * noise(n)
        on_step(n, x)
    x = x + (1 - moments[-1]) * _drift(velocity, moments[-1], x)
    on_step(len(moments) - 1, x)
    return x


def _drift(velocity: Callable[[float, Tensor], Tensor], t: float, x: Tensor) -> Tensor:
    v = velocity(t, x)
    return v + (t * v - x)
