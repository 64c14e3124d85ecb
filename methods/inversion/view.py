"""What a teacher sees of a batch in one step: one crop, one flip and one shift for all of its images.

The programs hand a transform the whole batch as one tensor, so it draws once. Box and flip are drawn as torchvision's
`RandomResizedCrop` and `RandomHorizontalFlip` draw them.

Legend: B images, C channels, S side in pixels, s side of the crop's result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

RATIOS = (3 / 4, 4 / 3)
TRIES = 10


@dataclass(frozen=True)
class View:
    """A crop box in pixels, whether it is mirrored, and by how many pixels the result is rolled."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool
    down: int
    right: int

    def of(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C, S, S); differentiable."""
        size = list(images.shape[-2:])
        seen = vision.resized_crop(images, self.top, self.left, self.height, self.width, size, antialias=True)
        seen = seen.flip(-1) if self.mirrored else seen
        return seen.roll((self.down, self.right), (2, 3))


def draw(side: int, min_scale: float, jitter: int, flip: bool, generator: torch.Generator) -> View:
    """A random view of images of `side` pixels.

    Args:
        min_scale: least area of the crop, as a fraction of the image; the most is 1.
        jitter: the most pixels of the roll, each from 0 to it equally likely.
    """

    def whole(most: int) -> int:
        return int(torch.randint(most + 1, (), generator=generator))

    u = torch.rand(TRIES, 2, generator=generator, dtype=torch.float64).tolist()
    low, high = map(math.log, RATIOS)
    height = width = side  # where no try fits; with a square image torchvision then takes all of it
    for area, ratio in u:
        pixels = side * side * (min_scale + (1 - min_scale) * area)
        aspect = math.exp(low + (high - low) * ratio)
        h, w = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 0 < h <= side and 0 < w <= side:
            height, width = h, w
            break
    top, left = whole(side - height), whole(side - width)
    mirrored = flip and bool(torch.rand((), generator=generator) < 0.5)
    return View(top, left, height, width, mirrored, whole(jitter), whole(jitter))
