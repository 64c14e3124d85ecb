"""Deviation guidance (IGD, ICLR 2025): an image is pushed away from the most similar finished one of its class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ddbench.benchmark.core.transfers import send
from ddbench.methods.diffusion.guidance import ShiftGuidance, State


class Deviation(ShiftGuidance):
    """shift = -γ ∇_z cos(z, m*), m* = argmax_m cos(z, m), at the steps of the window; nothing for a first image.

    Legend: B images, M finished latents, C channels, h = w side.

    Args:
        memory: for each image the finished latents of its class, (C, h, w).
        scale: γ.
        window: indices k in the respaced chain of the cleanest and of the noisiest step that it guides.
        device: of the latents to be guided.
    """

    name = "deviation"

    def __init__(
        self,
        memory: Sequence[Sequence[Tensor]],
        *,
        scale: float,
        window: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        stacked = [torch.stack(list(latents)).flatten(1) if latents else None for latents in memory]
        self.memory = [None if latents is None else send(latents, torch.device(device)) for latents in stacked]
        self.scale, self.window = scale, window

    def shift(self, state: State) -> Tensor | None:
        first, last = self.window
        if not first <= state.step.k <= last or all(latents is None for latents in self.memory):
            return None
        rows = zip(state.z.flatten(1), self.memory, strict=True)
        gradients = [torch.zeros_like(z) if m is None else nearest_gradient(z, m) for z, m in rows]
        return -self.scale * torch.stack(gradients).view_as(state.z)


def nearest_gradient(z: Tensor, memory: Tensor) -> Tensor:
    """(D,) and (M, D) -> (D,): ∇_z cos(z, m*) = (m*/‖m*‖ - cos(z, m*)·z/‖z‖)/‖z‖."""
    cosines = cosine_similarity(z[None], memory)
    nearest = cosines.argmax(0, keepdim=True)  # of one dimension: an index without any is read, which waits for a GPU
    m, norm = memory[nearest][0], z.norm()
    return (m / m.norm() - cosines[nearest] * z / norm) / norm
