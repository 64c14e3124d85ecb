"""The manifold term of ManifoldGD (arXiv 2602.23295), as its released program computes it.

Around an image's mode m lie points m + ρ·u in uniform directions u, which stand for the data; they are diffused to the
step's noise level. Of those the nearest to z span, by their principal directions, a tangent space; what of z - mean is
normal to it gives the direction of a step, whose length grows with the distance to the nearest point.

The paper's g_manifold projects the mode's pull instead; the program leaves that alone, and adds this.

Legend: B images, C channels, h = w side, D = C·h·w, P points, N neighbours, d tangent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddbench.benchmark.core.transfers import send
from ddbench.methods.diffusion.guidance import ShiftGuidance, State

POINTS, NEIGHBOURS = 300, 12
SMALLEST_RADIUS = 0.1
"""Where half of the points' radii begin: from here to the step's radius at equal distances."""


class ManifoldGuidance(ShiftGuidance):
    """shift = scale · tanh(distance / bandwidth) · v / ‖v‖ at the steps k > `stop_step`, v = -(I - UUᵀ)(z - mean).

    Args:
        modes: (B, C, h, w), the mode m of each image in the batch.
        draws: index in the batch -> the CPU generator of that image's points, from which every step draws anew.
        radius_at: n, the number of steps executed before -> the radius.
    """

    name = "manifold"

    def __init__(
        self,
        modes: Tensor,
        draws: list[torch.Generator],
        *,
        scale: float,
        bandwidth: float,
        radius_at: Callable[[int], float],
        tangent_dimensions: int,
        stop_step: int,
    ) -> None:
        self.modes, self.draws = modes, draws
        self.scale, self.bandwidth, self.radius_at = scale, bandwidth, radius_at
        self.tangent_dimensions, self.stop_step = tangent_dimensions, stop_step

    def shift(self, state: State) -> Tensor | None:
        if state.step.k <= self.stop_step:
            return None
        radius = self.radius_at(state.step.n)
        shifts = [
            self._of_one(z.flatten(), mode.flatten(), generator, radius, state.alpha_bar)
            for z, mode, generator in zip(state.z, self.modes, self.draws, strict=True)
        ]
        return torch.stack(shifts).view_as(state.z)

    def _of_one(self, z: Tensor, mode: Tensor, generator: torch.Generator, radius: float, alpha_bar: float) -> Tensor:
        """(D,) of one image."""
        points = diffused_points(mode, radius, alpha_bar, generator)
        distances = torch.linalg.vector_norm(points - z, dim=1)
        nearest = distances.topk(NEIGHBOURS, largest=False)
        normal = normal_direction(z, points[nearest.indices], self.tangent_dimensions)
        return self.scale * torch.tanh(nearest.values[0] / self.bandwidth) * normal


def diffused_points(mode: Tensor, radius: float, alpha_bar: float, generator: torch.Generator) -> Tensor:
    """(P, D): m + ρ·u, half of the radii ρ at equal distances from `SMALLEST_RADIUS` to the radius and half uniform on
    (0, radius), at the noise level ᾱ with noise of their own."""
    width = len(mode)
    directions = torch.randn(POINTS, width, generator=generator)
    directions /= torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    spaced = torch.linspace(SMALLEST_RADIUS, radius, POINTS // 2)
    uniform = radius * torch.rand(POINTS - POINTS // 2, generator=generator)
    radii = torch.cat([spaced, uniform])[:, None]
    noise = torch.randn(POINTS, width, generator=generator)
    around, noise = (send(drawn, mode.device) for drawn in (radii * directions, noise))
    return math.sqrt(alpha_bar) * (mode + around) + math.sqrt(1 - alpha_bar) * noise


def normal_direction(z: Tensor, neighbours: Tensor, tangent_dimensions: int) -> Tensor:
    """(D,) the unit vector from z towards the neighbours' mean, without its part in their first principal directions;
    0 where nothing is left."""
    mean = neighbours.mean(0)
    centred = neighbours - mean
    # The covariance of N points has rank N - 1 at most: its leading eigenvectors are right singular vectors of these.
    tangent = torch.linalg.svd(centred, full_matrices=False).Vh[:tangent_dimensions]
    away = z - mean
    normal = -(away - tangent.T @ (tangent @ away))
    length = torch.linalg.vector_norm(normal)
    return torch.where(length > 0, normal / length.clamp(min=1e-12), torch.zeros_like(normal))


def annealed_radius(radius: float, factor: float, warm_steps: int) -> Callable[[int], float]:
    """n -> radius · (1 + (factor - 1) s), where s = (eᵖ - 1)/(e - 1) and p falls from 1 to 0 over the warm steps."""

    def at(n: int) -> float:
        left = max(0.0, 1 - n / warm_steps) if warm_steps else 0.0
        return radius * (1 + (factor - 1) * math.expm1(left) / math.expm1(1))

    return at
