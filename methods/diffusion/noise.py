"""Where a sampler's random numbers come from: one stream for each image and purpose.

An image's draws therefore depend neither on the batch it is sampled in, nor on the device, nor on the order of
classes; and two methods with the same seed start from the same noise, so their images can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor


class ImageKey(NamedTuple):
    """Which image of a distilled set: its class's id (wnid) and its index within the class."""

    class_id: str
    image_index: int


class NoiseSource(Protocol):
    """The draws of one batch. Legend: B images, S steps, D embedding width. All tensors on the CPU, float32."""

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) standard normal: the latents at the noisiest step."""

    def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) standard normal, added after the n-th executed step; called for n = 0, 1, … in order."""

    def labels(self, steps: int, width: int, distribution: Literal["uniform", "normal"]) -> Tensor:
        """(S, B, 2, D): what perturbs the pair [class; null] embedding at the n-th executed step."""

    def choice(self, n: int) -> Tensor:
        """(B,) int64, uniform on 0 … n-1."""


class StreamNoise:
    """The noise of real runs: CPU generators from named streams (`DistillTask.stream`), one per image and purpose."""

    def __init__(self, stream: Callable[..., torch.Generator], images: Sequence[ImageKey]) -> None:
        self._stream, self._images = stream, images
        self._step_generators = self._generators("step noise")

    def _generators(self, purpose: str) -> list[torch.Generator]:
        return [self._stream(purpose, *image) for image in self._images]

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        return _normal(self._generators("initial noise"), shape)

    def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return _normal(self._step_generators, shape)

    def labels(self, steps: int, width: int, distribution: Literal["uniform", "normal"]) -> Tensor:
        # All steps at once, so that the n-th step gets the n-th draw wherever the label's windows lie.
        noise = torch.empty(len(self._images), steps, 2, width)
        for row, generator in zip(noise, self._generators("label noise"), strict=True):
            row.uniform_(generator=generator) if distribution == "uniform" else row.normal_(generator=generator)
        return noise.transpose(0, 1)

    def choice(self, n: int) -> Tensor:
        draws = [torch.randint(n, (1,), generator=generator) for generator in self._generators("other class")]
        return torch.cat(draws)


def _normal(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    noise = torch.empty(len(generators), *shape)
    for row, generator in zip(noise, generators, strict=True):
        row.normal_(generator=generator)
    return noise
