"""Differentiable siamese augmentation (Zhao & Bilen, ICML 2021, section 3.3): one operation, drawn once, for real and
synthetic images alike, and differentiable with respect to both.

The operations and their ranges are those that DM's released program uses. They work on normalised images, clamp
nothing, and fill what they uncover with 0, the normalised mean. On a GPU, PyTorch sums the gradient of `scale` and
`rotate` in no fixed order, so two runs agree up to float error there. Images are (B, C, S, S) throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ddbench.benchmark.core.transfers import send

Augmentation = Callable[[Tensor], Tensor]

CROP_PADDING = 0.125
CUTOUT = 0.5
"""Side of the crop's padding and of the cutout's square, as fractions of the image's."""
SCALE = 1.2
ROTATION_DEGREES = 15.0
FLIP_PROBABILITY = 0.5


def draw(operations: tuple[str, ...], side: int, generator: torch.Generator) -> Augmentation:
    """One of `operations` with its parameters, all uniform; none given: the identity.

    Args:
        operations: names among color, crop, cutout, flip, scale, rotate.
        side: S.
    """
    if not operations:
        return lambda images: images
    chosen = operations[int(torch.randint(len(operations), (), generator=generator))]
    u = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    match chosen:
        case "color":
            return partial(colour, brightness=u[0] - 0.5, saturation=2 * u[1], contrast=0.5 + u[2])
        case "crop":
            furthest = int(CROP_PADDING * side + 0.5)
            down, right = (math.floor((2 * furthest + 1) * draw) - furthest for draw in u[:2])
            return partial(shift, down=down, right=right)
        case "cutout":
            size = int(CUTOUT * side + 0.5)
            # The centre lies on a pixel for an odd size, between two (or on the border) for an even one.
            row, column = (math.floor((side + 1 - size % 2) * draw) for draw in u[:2])
            return partial(cutout, size=size, row=row, column=column)
        case "flip":
            return partial(torch.flip, dims=(3,)) if u[0] < FLIP_PROBABILITY else (lambda images: images)
        case "scale":
            horizontal, vertical = (1 / SCALE + (SCALE - 1 / SCALE) * draw for draw in u[:2])
            return partial(resample, matrix=((horizontal, 0.0), (0.0, vertical)))
        case "rotate":
            angle = math.radians(ROTATION_DEGREES * (2 * u[0] - 1))
            return partial(resample, matrix=((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))
    raise ValueError(f"unknown operation {chosen!r}")


def colour(images: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
    """x + b; then away from the pixel's mean over channels by s; then away from the image's mean by c."""
    bright = images + brightness
    grey = bright.mean(1, keepdim=True)
    saturated = (bright - grey) * saturation + grey
    mean = saturated.mean((1, 2, 3), keepdim=True)
    return (saturated - mean) * contrast + mean


def shift(images: Tensor, down: int, right: int) -> Tensor:
    """The content moved by whole pixels: a crop of the image padded with 0."""
    return F.pad(images, (right, -right, down, -down))


def cutout(images: Tensor, size: int, row: int, column: int) -> Tensor:
    """0 in a square of `size` pixels whose centre is (row, column), as far as it lies in the image."""
    kept = torch.ones_like(images[0, 0])
    top, left = row - size // 2, column - size // 2
    kept[max(top, 0) : top + size, max(left, 0) : left + size] = 0
    return images * kept


def resample(images: Tensor, matrix: tuple[tuple[float, float], tuple[float, float]]) -> Tensor:
    """Bilinear samples at `matrix` · (x, y), where x and y run from -1 to 1 across the image; 0 outside.

    A factor above 1 shrinks the content.
    """
    (xx, xy), (yx, yy) = matrix
    theta = send(torch.tensor([[xx, xy, 0], [yx, yy, 0]], dtype=images.dtype), images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
