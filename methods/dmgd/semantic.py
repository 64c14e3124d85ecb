"""Semantic Matching (DMGD, arXiv 2605.03877): the label that conditions the network is dynamic, in three stages.

By the paper's Lemma 1, classifier-free guidance is a step along ∇ log p(y|z_t); this term decides which label it
steps towards: none in particular at first (exploration), then a soft label, then the class itself (refinement).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ddbench.methods.diffusion.guidance import LabelGuidance, Step


class SemanticMatching(LabelGuidance):
    """Perturbs the embedding pair P = [class; null] of each image by noise and by another class of the dataset.

        Q  = a·P + b·(β_n·u + β_s·r)
        P' = (Q - mean Q)/std Q · std P + mean P            mean and unbiased std over all numbers of the pair

    | stage                                 | λ(t)                        | r       |
    |---------------------------------------|-----------------------------|---------|
    | exploration, t > upper                | 0 (1 if not `exploration`)  | left out|
    | dynamic soft label, lower ≤ t ≤ upper | (upper - t)/(upper - lower) | added   |
    | refinement, t < lower                 | 1: P' = P                   | –       |

    a, b = √λ, √(1-λ), or λ, 1-λ with `weights="linear"`. Legend: B images, S steps, D embedding width.

    Args:
        noise: (S, B, 2, D) u, a new draw each step.
        other: (B, D) r, the embedding of one other class, fixed for an image.
        noise_weight: β_n.
        mix_weight: β_s.
        lower, upper: bounds of the soft-label stage in original timesteps.
        perturb_null: perturb the null row too; if not, mean and std are those of the class row alone.
        renormalise: give P' the mean and std of P; if not, P' = Q.
    """

    def __init__(
        self,
        noise: Tensor,
        other: Tensor,
        *,
        noise_weight: float,
        mix_weight: float,
        lower: float,
        upper: float,
        exploration: bool = True,
        weights: Literal["sqrt", "linear"] = "sqrt",
        perturb_null: bool = True,
        renormalise: bool = True,
    ) -> None:
        self.lower, self.upper, self.exploration = lower, upper, exploration
        self.weights, self.renormalise = weights, renormalise
        self.rows = slice(0, 2 if perturb_null else 1)
        self.noise = noise_weight * noise[:, :, self.rows]
        self.other = mix_weight * other[:, None]

    def clean_fraction(self, t: int) -> float:
        """λ(t)."""
        if t > self.upper:
            return 0.0 if self.exploration else 1.0
        return (self.upper - t) / (self.upper - self.lower) if t >= self.lower else 1.0

    def label(self, step: Step, pair: Tensor) -> Tensor:
        clean = self.clean_fraction(step.t)
        if clean == 1:
            return pair
        a, b = (math.sqrt(clean), math.sqrt(1 - clean)) if self.weights == "sqrt" else (clean, 1 - clean)
        perturbation = self.noise[step.n] if step.t > self.upper else self.noise[step.n] + self.other
        p = pair[:, self.rows]
        q = a * p + b * perturbation
        if self.renormalise:
            q = match_moments(q, p)
        return torch.cat([q, pair[:, q.shape[1] :]], dim=1)


def match_moments(q: Tensor, p: Tensor) -> Tensor:
    """Each image's q with the mean and unbiased std of its p, both (B, R, D); p itself where q has no spread."""
    p_std, p_mean = torch.std_mean(p, dim=(1, 2), keepdim=True)
    q_std, q_mean = torch.std_mean(q, dim=(1, 2), keepdim=True)
    return torch.where(q_std > 0, (q - q_mean) * (p_std / q_std) + p_mean, p)
