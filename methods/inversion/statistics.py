"""BatchNorm's inputs as moments, and how far they lie from the statistics that a network keeps.

    d = Σ_l w_l ( a ‖v_l − V_l‖₂ + ‖m_l − M_l‖₂ )

m, v: mean and biased variance of layer l's input by channel, over images and places; M, V: its running statistics.

Legend: B images, C channels of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddbench.benchmark.core.errors import UsageError


class Moments(NamedTuple):
    """Mean and biased variance by channel, (C,) each."""

    mean: Tensor
    variance: Tensor


class BatchNormInputs:
    """The BatchNorm layers of a network, in the order of `modules()`.

    Raises:
        UsageError: it has none.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self.layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        if not self.layers:
            raise UsageError(f"teacher {name} has no BatchNorm layers to match; choose a network that has")
        self.kept = [Moments(_known(layer.running_mean), _known(layer.running_var)) for layer in self.layers]

    @contextmanager
    def seen(self) -> Iterator[list[Moments]]:
        """While it is open, a forward pass fills the list with the moments of each layer's input."""
        found: list[Moments] = []
        slots: dict[int, Moments] = {}

        def note(place: int, inputs: tuple[Tensor, ...]) -> None:
            slots[place] = moments(inputs[0])
            if len(slots) == len(self.layers):
                found[:] = [slots[i] for i in range(len(self.layers))]

        handles = [
            layer.register_forward_pre_hook(lambda _module, inputs, place=place: note(place, inputs))
            for place, layer in enumerate(self.layers)
        ]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def distance(self, found: Sequence[Moments], first_weight: float, variance_weight: float) -> Tensor:
        """d above, w = `first_weight` for the first layer, else 1, and a = `variance_weight`."""
        total = torch.zeros((), device=found[0].mean.device)
        for place, (one, kept) in enumerate(zip(found, self.kept, strict=True)):
            apart = variance_weight * torch.linalg.vector_norm(one.variance - kept.variance)
            apart = apart + torch.linalg.vector_norm(one.mean - kept.mean)
            total = total + (first_weight if place == 0 else 1.0) * apart
        return total


def moments(x: Tensor) -> Moments:
    """Of (B, C, ·, ·), by channel."""
    mean = x.mean((0, 2, 3))
    return Moments(mean, (x - mean[:, None, None]).square().mean((0, 2, 3)))


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
