"""The inputs of a network's layers as moments, and how far those of a batch lie from others.

    d = Σ_l w_l Σ_s ( a ‖v_s − V_s‖₂ + ‖m_s − M_s‖₂ )

m, v: mean and biased variance; M, V: those that are wanted. Of a BatchNorm layer l there is one statistic s, by
channel, over images and places (SRe2L). Of a convolution there are two (G-VBSM): by channel, and by block of 16 × 16
places, over images, channels and the places of the block, after a bilinear resize of the input to the next multiples of
16. An input smaller than a block is so enlarged to a single one, whatever its size.

Legend: B images, C channels of a layer, P blocks of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core.errors import UsageError

BLOCK = 16
"""Side of a block in places, G-VBSM's."""


class Moments(NamedTuple):
    """Mean and biased variance, (C,) or (P,) each; of images apart, (B, C) or (B, P)."""

    mean: Tensor
    variance: Tensor


class LayerInputs:
    """The layers of a network whose inputs are looked at, in the order of `modules()`: BatchNorm, and convolutions
    where they are asked for.

    Args:
        name: of the network, for messages.

    Raises:
        UsageError: it has no such layers, or BatchNorm layers that keep no statistics.
    """

    def __init__(self, network: nn.Module, name: str, convolutions: bool = False) -> None:
        self.name, kinds = name, (nn.BatchNorm2d, nn.Conv2d) if convolutions else (nn.BatchNorm2d,)
        self.layers = [module for module in network.modules() if isinstance(module, kinds)]
        if not self.layers:
            what = "BatchNorm layers and no convolutions" if convolutions else "BatchNorm layers"
            raise UsageError(f"teacher {name} has no {what} to match; choose a network that has")
        self.looks = [_looks(layer) for layer in self.layers]
        self.of_first_layer = len(self.looks[0])

    def kept(self) -> list[Moments | None]:
        """For each statistic, what the layer itself keeps of the real images: nothing, if it is a convolution."""
        found: list[Moments | None] = []
        for layer, looks in zip(self.layers, self.looks, strict=True):
            if isinstance(layer, nn.BatchNorm2d):
                found.append(Moments(_known(layer.running_mean), _known(layer.running_var)))
            else:
                found += [None] * len(looks)
        return found

    @contextmanager
    def seen(self, apart: bool = False) -> Iterator[list[Moments]]:
        """While it is open, a forward pass fills the list with the moments of each layer's input, statistic by
        statistic.

        Args:
            apart: the moments of each image, not those of all together.

        Raises:
            UsageError: on leaving it, a layer that no forward pass used.
        """
        found: list[Moments] = []
        slots: dict[int, list[Moments]] = {}

        def note(place: int, inputs: tuple[Tensor, ...]) -> None:
            slots[place] = [look(inputs[0], apart) for look in self.looks[place]]
            if len(slots) == len(self.layers):
                found[:] = [one for i in range(len(self.layers)) for one in slots[i]]

        handles = [
            layer.register_forward_pre_hook(lambda _module, inputs, place=place: note(place, inputs))
            for place, layer in enumerate(self.layers)
        ]
        try:
            yield found
            if not found:
                unused = len(self.layers) - len(slots)
                raise UsageError(f"teacher {self.name} has {unused} layers that images do not pass; choose another")
        finally:
            for handle in handles:
                handle.remove()

    def distance(
        self, found: Sequence[Moments], wanted: Sequence[Moments], first_weight: float, variance_weight: float
    ) -> Tensor:
        """d above, w = `first_weight` for the first layer, else 1, and a = `variance_weight`; of moments of groups, one
        a row, the mean over the groups."""
        total = torch.zeros((), device=found[0].mean.device)
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            apart = variance_weight * torch.linalg.vector_norm(one.variance - other.variance, dim=-1).mean()
            apart = apart + torch.linalg.vector_norm(one.mean - other.mean, dim=-1).mean()
            total = total + (first_weight if place < self.of_first_layer else 1.0) * apart
        return total


Look = Callable[[Tensor, bool], Moments]


def _looks(layer: nn.Module) -> tuple[Look, ...]:
    return (moments, block_moments) if isinstance(layer, nn.Conv2d) else (moments,)


def moments(x: Tensor, apart: bool = False) -> Moments:
    """Of (B, C, ·, ·), by channel; `apart`, of each image."""
    return _over(x, (2, 3) if apart else (0, 2, 3))


def block_moments(x: Tensor, apart: bool = False) -> Moments:
    """Of (B, C, ·, ·), by block of 16 × 16 places, row by row; `apart`, of each image."""
    if max(x.shape[-2:]) <= BLOCK:
        return _moments_of_one_block(x, apart)
    sides = [BLOCK * math.ceil(side / BLOCK) for side in x.shape[-2:]]
    if list(x.shape[-2:]) != sides:
        x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
    blocks = x.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))  # (B, C, rows, 16, columns, 16)
    by_row = _over(blocks, (1, 3, 5) if apart else (0, 1, 3, 5))
    return Moments(by_row.mean.flatten(-2), by_row.variance.flatten(-2))


def _moments_of_one_block(x: Tensor, apart: bool) -> Moments:
    """Of (B, C, h, w) that are enlarged to a block, without the block, which for a map of one place would be 256 times
    as large. Of y = R x Qᵀ the sum is that of (Rᵀ1 1ᵀQ) ∘ x, and that of squares of (RᵀR x QᵀQ) ∘ x."""
    (rows, row_products), (columns, column_products) = (_enlarging(side, x) for side in x.shape[-2:])
    over, shape = ((1,), (-1, 1)) if apart else ((0, 1), (1,))
    centre = x.detach().mean((*over, 2, 3), keepdim=True)  # near the mean, squares lose no digits
    near = x - centre
    mean = (rows[:, None] * columns * near).sum((2, 3)).mean(over)
    square = (row_products @ near @ column_products * near).sum((2, 3)).mean(over)
    return Moments((mean + centre.flatten()).reshape(shape), (square - mean.square()).reshape(shape))


def _enlarging(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rᵀ1 / 16 (side,) and RᵀR / 16 (side, side) of R (16, side), which resizes an axis bilinearly."""
    eye = torch.eye(side, dtype=like.dtype, device=like.device)
    transposed = F.interpolate(eye[None], BLOCK, mode="linear", align_corners=False)[0]
    return transposed.mean(1), transposed @ transposed.T / BLOCK


def _over(x: Tensor, dimensions: tuple[int, ...]) -> Moments:
    mean = x.mean(dimensions, keepdim=True)
    return Moments(mean.squeeze(dimensions), (x - mean).square().mean(dimensions))


def by_group(apart: Moments, groups: Tensor) -> Moments:
    """The moments of each group's images together, (G, ·), from those of each image, (B, ·).

    Args:
        groups: (G, B), 1 where an image is in a group, which has one or more, and 0 elsewhere.
    """
    share = groups / groups.sum(1, keepdim=True)
    mean = share @ apart.mean
    return Moments(mean, share @ (apart.variance + (apart.mean - groups.T @ mean).square()))


def merged(parts: Sequence[Sequence[Moments]], counts: Sequence[int]) -> list[Moments]:
    """The moments of a batch from those of its parts, which hold `counts` images each (Chan et al., 1979)."""
    total = sum(counts)
    whole = []
    for layer in zip(*parts, strict=True):
        mean = torch.stack([n / total * part.mean for n, part in zip(counts, layer, strict=True)]).sum(0)
        spread = [
            n / total * (part.variance + (part.mean - mean).square()) for n, part in zip(counts, layer, strict=True)
        ]
        whole.append(Moments(mean, torch.stack(spread).sum(0)))
    return whole


def _known(statistic: Tensor | None) -> Tensor:
    if statistic is None:
        raise UsageError("the teacher's BatchNorm layers keep no running statistics; choose another network")
    return statistic.detach()
