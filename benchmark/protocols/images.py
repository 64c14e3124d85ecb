"""Images on their way in: from any size to a protocol's side, in the 0 … 255 of uint8."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols.base import Protocol

CHUNK = 64
"""Images resized at once: what bounds the memory of the float copies."""


def fit(protocol: Protocol, images: np.ndarray, resolution: int, *, test: bool = False) -> np.ndarray:
    """Images as `protocol` trains or tests on them: shorter side resized to the protocol's, then the centre crop.

    The resize is done in float32 and rounded back to uint8, since torchvision's uint8 kernel is another one on other
    processors. Images whose shorter side is right keep their pixels.

    Args:
        images: (H, W, C) or (N, H, W, C) uint8, C = 1 or 3; or float32, 0 black and 1 white, which is neither rounded
            nor clipped.
        resolution: the dataset's, which a protocol without a side of its own uses.
        test: they are test images, whose shorter side some protocols leave larger than the crop.

    Returns:
        (S, S, C') or (N, S, S, C'), uint8, or float32 where 255 is white; S is the protocol's side; C' = 3 where the
        protocol is for RGB, else C.

    Raises:
        UsageError: an array that is not such images.
    """
    right_shape = images.ndim in (3, 4) and images.shape[-1] in (1, 3) and 0 not in images.shape
    if images.dtype not in (np.uint8, np.float32) or not right_shape:
        raise UsageError(
            "expected images as uint8 or float32 arrays of shape (H, W, C) or (N, H, W, C) with 1 or 3 channels, "
            f"got {images.dtype} of shape {images.shape}"
        )
    if images.ndim == 3:
        return fit(protocol, images[None], resolution, test=test)[0]
    image_size = protocol.image_size_for(resolution)
    shorter = protocol.test_image_size_for(resolution) if test else image_size
    return np.concatenate(
        [_fit(protocol, images[i : i + CHUNK], shorter, image_size) for i in range(0, len(images), CHUNK)]
    )


def _fit(protocol: Protocol, images: np.ndarray, shorter: int, image_size: int) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))  # (n, C, H, W)
    if images.dtype == np.float32:
        pixels = pixels * 255
    if min(pixels.shape[-2:]) != shorter:
        resized = F.resize(
            pixels.float(),
            [shorter],
            interpolation=InterpolationMode(protocol.interpolation),
            antialias=protocol.antialias,
        )
        pixels = resized.round_().clamp_(0, 255).to(torch.uint8) if images.dtype == np.uint8 else resized
    pixels = F.center_crop(pixels, [image_size, image_size])
    if protocol.channels is not None and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, protocol.channels, -1, -1)
    return pixels.permute(0, 2, 3, 1).numpy()
