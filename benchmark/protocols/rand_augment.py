"""RandAugment (Cubuk et al., NeurIPS 2020) as timm draws and does it, every image from a seed of its own.

timm works on one Pillow image at a time and draws from the global generators of `random` and NumPy. Here both are
seeded for each image and put back behind a batch, so what an image becomes hangs on its seed alone.

Shapes: n images of an epoch, B of a batch, S the side in pixels.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.seeds import global_generators_kept
from ddbench.benchmark.protocols import base

BITS = 24
"""Of each of a seed's two numbers: what float32 holds exactly."""


class RandAugment:
    """The operations of `base.RandAugment` on whole batches, on the host."""

    def __init__(self, settings: base.RandAugment) -> None:
        from timm.data.auto_augment import rand_augment_transform

        self._transform = rand_augment_transform(settings.config, {"img_mean": settings.fill})

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 2) a seed for each image, as two whole numbers."""
        return torch.randint(1 << BITS, (n, 2), generator=generator)

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 and their (B, 2) seeds to (B, 3, S, S) uint8, all on the CPU.

        Raises:
            UsageError: images of another type: the operations are those of 8-bit colours.
        """
        if images.dtype != torch.uint8:
            raise UsageError(
                f"RandAugment works on 8-bit images, and those of this set are {images.dtype}; save it with 8 bits, "
                "which is another set, or choose another protocol"
            )
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        with global_generators_kept():
            made = [self._one(*each) for each in zip(pixels, seeds.long().tolist(), strict=True)]
        return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()

    def _one(self, pixels: np.ndarray, seed: list[int]) -> np.ndarray:
        random.seed(seed[0] << BITS | seed[1])
        np.random.seed(seed)  # noqa: NPY002 - what timm draws from
        return np.asarray(self._transform(Image.fromarray(pixels)))
