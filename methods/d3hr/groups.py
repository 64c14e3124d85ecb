"""Group sampling (D3HR, ICML 2025): of many groups of noise-level latents, the one that is most like its class.

Legend: n = IPC vectors in a group, D numbers in a latent, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.transfers import send
from ddbench.methods.diffusion.ahead import begun_ahead

BLOCK_NUMBERS = 1 << 22
"""Numbers drawn at once: it bounds memory, and belongs to what determines a draw."""
NO_SPREAD = 1e-20
"""Below it a group's standard deviation at one place is 0, and what is standardised by it too."""


def group_scores(groups: Tensor, mean: Tensor, std: Tensor, skew_weight: float) -> Tensor:
    """‖mean of the group - μ‖ + ‖std of the group - σ‖ + λ·‖skewness of each vector‖: (G,).

    A vector's skewness is that across its D numbers, each of them standardised by the group's mean and standard
    deviation at its place. Standard deviations are the unbiased ones; a group of one vector has none, and the terms
    that need it are left out.

    Args:
        groups: (G, n, D).
        mean: (D,) μ.
        std: (D,) σ.
        skew_weight: λ.
    """
    means, n, numbers = groups.mean(1, keepdim=True), groups.shape[1], groups.shape[2]
    score = (means[:, 0] - mean).norm(dim=-1)
    if n == 1:
        return score
    centred = groups - means
    spread = (centred.square().sum(1) / (n - 1)).sqrt()  # torch.std over this axis takes many times as long
    score += (spread - std).norm(dim=-1)
    standardised = centred / spread.clamp_min(NO_SPREAD)[:, None]
    cubes = (standardised.square() * standardised).sum(-1)
    return score + skew_weight * numbers / ((numbers - 1) * (numbers - 2)) * cubes.norm(dim=-1)


def best_group(
    draw: Callable[[int], torch.Generator],
    mean: Tensor,
    std: Tensor,
    *,
    size: int,
    groups: int,
    skew_weight: float,
    factor: Tensor | None = None,
) -> Tensor:
    """The group with the lowest score among `groups` of N(μ, diag σ²), or of N(μ, FᵀF): (size, D).

    Groups come in blocks of fixed size, so that neither memory nor the device's size has a say in which there are.

    Args:
        draw: the generator of the b-th block, on the CPU.
        mean: (D,) μ.
        std: (D,) σ.
        size: n.
        skew_weight: see `group_scores`.
        factor: (K, D) F; None: draws have no covariance.

    Raises:
        RunError: scores that are not numbers.
    """
    shape = (size, len(mean))
    drawn_shape = shape if factor is None else (size, len(factor))
    in_block = max(1, BLOCK_NUMBERS // (size * max(len(mean), drawn_shape[1])))
    lowest = torch.full((), torch.inf, device=mean.device)
    best = torch.zeros(shape, device=mean.device)

    def drawn(block: int) -> Tensor:
        count = min(in_block, groups - block * in_block)
        return torch.randn(count, *drawn_shape, generator=draw(block))

    # One block is drawn by one thread; a class of ImageNet at the paper's numbers has thousands of them.
    threads = torch.get_num_threads()
    threads = threads if threads > 1 or mean.is_cuda else 0
    for noise in begun_ahead(drawn, range(math.ceil(groups / in_block)), threads):
        sent = send(noise, mean.device)
        block_groups = torch.addcmul(mean, sent, std) if factor is None else mean + sent @ factor
        score, at = group_scores(block_groups, mean, std, skew_weight).min(0, keepdim=True)
        better = score < lowest  # chosen where the groups lie: the host draws the next block meanwhile
        lowest = torch.where(better, score, lowest)
        best = torch.where(better, block_groups[at][0], best)
    if not lowest.isfinite():
        raise RunError("no group of latents has a finite score; look at the prior and its latents of the real images")
    return best
