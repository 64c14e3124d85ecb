"""Distribution Matching (DMGD, arXiv 2605.03877): each image of a class is guided so that the class's distilled
images, together, lie close to its real ones in the sense of entropic optimal transport.

Legend: G classes in the batch, M finished latents of a class (its memory), n latents in flight, R = M + n rows,
K support points, D = C·h·w numbers in a latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from ot.batch import bregman_log_projection_batch
from torch import Tensor

from ddbench.methods.diffusion.guidance import ShiftGuidance, State


def transport_plan(cost: Tensor, masses: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The entropic transport plan after some Sinkhorn scalings, differentiable through them: (G, R, K).

    T = exp(-cost/ε), then, `iterations` times: rows scaled to sum 1/R each, columns scaled to the masses; worked out in
    the log domain, where nothing underflows.

    Args:
        cost: (G, R, K).
        masses: (G, K).
    """
    rows = torch.full_like(cost[..., 0], 1 / cost.shape[-2])
    # No tolerance, so that the scalings are as many as asked for. POT reads its error all the same, at the first of
    # every ten: there a GPU's host waits, once a step (counted on a pretend GPU; what it costs has yet to be measured).
    scaled = bregman_log_projection_batch(cost / -epsilon, rows, masses, max_iter=iterations, tol=0, grad="autodiff")
    return scaled["T"]


def transport_cost(
    cost: Tensor,
    memory_cost: Tensor,
    masses: Tensor,
    epsilon: float,
    iterations: int,
    gradient: Literal["unrolled", "envelope"],
) -> tuple[Tensor, Tensor]:
    """L = Σ T·cost of each class, and its gradient with respect to the cost rows of the latents in flight.

    `unrolled` differentiates through the scalings; `envelope` holds T constant, so that ∂L/∂cost = T.

    Args:
        cost: (G, n, K) rows in flight.
        memory_cost: (G, M, K) rows of the finished latents.
        masses: (G, K).

    Returns:
        L (G,) and ∂L/∂cost (G, n, K).
    """
    with torch.enable_grad():
        leaf = cost.detach().requires_grad_(gradient == "unrolled")
        rows = torch.cat([memory_cost, leaf], dim=1)
        plan = transport_plan(rows, masses, epsilon, iterations)
        total = (plan * rows).sum((1, 2))
        if gradient == "envelope":
            return total, plan[:, memory_cost.shape[1] :]
        return total.detach(), torch.autograd.grad(total.sum(), leaf)[0]


def sphere_distances(x: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Rows on the unit sphere and their Euclidean distances (not squared) to support points on it.

    Args:
        x: (G, n, D).
        support: (G, K, D), of unit norm.

    Returns:
        x divided by its row norms, (G, n, D), and the distances, (G, n, K).
    """
    unit = F.normalize(x, dim=-1)
    # Differences, not the expanded square: near a support point that would lose all digits.
    return unit, torch.cdist(unit, support, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class Support:
    """What stands for the real distribution of each class: weighted points in latent space."""

    points: Tensor
    """The support points, (G, K, D)."""
    masses: Tensor
    """Their masses, (G, K), positive, with sum 1 for each class."""


class DistributionMatching(ShiftGuidance):
    """shift = -ρ · σ_k · ∂L/∂z_k at the steps of the window, ε of the network held constant.

    The batch is class by class: the images of class g are rows g·n … g·n + n-1. n = 1 is the paper's greedy
    matching; n = IPC with an empty memory optimises all images of a class jointly.

    Args:
        support: of the batch's classes, in the batch's order.
        memory: (G, M, D) finished latents.
        scale: ρ.
        epsilon: entropic regularisation.
        iterations: number of scalings.
        window: first and last respaced index k at which it acts, both included.
        gradient: see `transport_cost`.
        times_sigma: the factor σ_k (in the released program, not in the paper's formula).
    """

    name = "transport"

    def __init__(
        self,
        support: Support,
        memory: Tensor,
        *,
        scale: float,
        epsilon: float,
        iterations: int,
        window: tuple[int, int],
        gradient: Literal["unrolled", "envelope"] = "unrolled",
        times_sigma: bool = True,
    ) -> None:
        self.support = F.normalize(support.points, dim=-1)
        self.masses = support.masses
        _, self.memory_cost = sphere_distances(memory, self.support)
        self.scale, self.epsilon, self.iterations, self.window = scale, epsilon, iterations, window
        self.gradient, self.times_sigma = gradient, times_sigma
        self.costs: list[Tensor] = []
        """L of each class, (G,), at each guided step so far."""

    def shift(self, state: State) -> Tensor | None:
        first, last = self.window
        if not first <= state.step.k <= last:
            return None
        x0 = state.x0.reshape(len(self.support), -1, self.support.shape[-1])
        unit, cost = sphere_distances(x0, self.support)
        total, weights = transport_cost(
            cost, self.memory_cost, self.masses, self.epsilon, self.iterations, self.gradient
        )
        self.costs.append(total)
        # ∂cost_ij/∂x̂0_i = -(b_j - (b_j·a_i) a_i)/(cost_ij ‖x̂0_i‖) with a = x̂0/‖x̂0‖; at distance 0 take the
        # subgradient 0. x̂0 = z/√ᾱ - …, so z is one division away.
        pull = (weights / cost).masked_fill(cost == 0, 0) @ self.support
        pull -= (pull * unit).sum(-1, keepdim=True) * unit
        pull *= self.scale / state.alpha_bar**0.5
        pull /= x0.norm(dim=-1, keepdim=True)
        delta = pull.view_as(state.x0)
        return delta * state.sigma if self.times_sigma else delta
