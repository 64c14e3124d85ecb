"""Pixels as files hold them, and as networks take them.

Legend: N images, C channels, S side in pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddbench.benchmark.core.transfers import send
from ddbench.methods.pretrained import PRETRAINED

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STATISTICS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5,), (0.5,)),
    **{known.normalisation: (known.mean, known.std) for known in PRETRAINED.values()},
}


class Normalisation:
    """(pixels / 255 − mean) / std and back, by one of `STATISTICS`."""

    def __init__(self, name: Literal["imagenet", "half", "efficientnet-lite"], device: torch.device) -> None:
        mean, std = STATISTICS[name]
        self.mean, self.std = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
        self.device = device

    def from_pixels(self, images: np.ndarray) -> Tensor:
        """(N, S, S, C) uint8 -> (N, C, S, S) float32, normalised, on the device."""
        return self(unit_range(images, self.device))

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] -> normalised."""
        return (images - self.mean) / self.std

    def to_pixels(self, images: Tensor) -> np.ndarray:
        """(N, C, S, S) normalised -> (N, S, S, C) uint8: clamped to [0, 1], then rounded to the nearest level."""
        return to_levels(images * self.std + self.mean)


def unit_range(images: np.ndarray, device: torch.device) -> Tensor:
    """(N, S, S, C) uint8 -> (N, C, S, S) float32 in [0, 1] on the device."""
    pixels = send(torch.from_numpy(np.ascontiguousarray(images)), device)
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 255


def to_levels(images: Tensor) -> np.ndarray:
    """(N, C, S, S), 0 black and 1 white -> (N, S, S, C) uint8: clamped, then rounded to the nearest level."""
    levels = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
