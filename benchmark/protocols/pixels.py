"""Images as a training or a test reads them: uint8 batches on the device, from wherever they lie.

Shapes: N images, B of a batch, S side in pixels, C channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ddbench.benchmark.core.transfers import send
from ddbench.datasets.base import ImageSource

SHARE_OF_FREE = 0.5
"""Share of a GPU's free memory that images may take; the rest is for the network."""
HOST_BYTES = 1 << 30
"""Bytes of images up to which they are held in host memory, where the device is the CPU."""
BLOCK = 256
"""Images read at once while they are gathered or looked at in order."""


class Pixels(ABC):
    """N images (S, S, C), read in batches."""

    shape: tuple[int, int, int, int]
    """Shape of all images, (N, S, S, C)."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def image_size(self) -> int:
        return self.shape[1]

    @property
    def channels(self) -> int:
        return self.shape[3]

    @abstractmethod
    def batches(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """(B, C, S, S) uint8 contiguous on the device, in the order of the (n,) CPU indices `order`; the last batch
        may be smaller."""


class Resident(Pixels):
    """Images that lie on the device as a whole: (N, S, S, C) uint8."""

    def __init__(self, images: Tensor) -> None:
        count, height, width, channels = images.shape
        self.shape = count, height, width, channels
        self._images = images

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        for batch in send(order, self._images.device).split(batch_size):
            yield self._images[batch].permute(0, 3, 1, 2).contiguous()


class Streamed(Pixels):
    """Images that are read batch by batch, one batch ahead of its use: for sets larger than memory.

    Args:
        source: where they lie; mapped from disk, where it is large.
        fit: (n, H, W, C) uint8 as read -> (n, S, S, C) uint8; None: they are right as they lie.
    """

    def __init__(
        self, source: ImageSource, device: torch.device, fit: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self._source, self._device, self._fit = source, device, fit
        _, height, width, channels = self.read(np.zeros(1, np.int64)).shape
        self.shape = len(source), height, width, channels

    def read(self, indices: np.ndarray) -> np.ndarray:
        """(n, S, S, C) uint8."""
        images = self._source.read(indices)
        return images if self._fit is None else self._fit(images)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        wanted = [batch.numpy() for batch in order.split(batch_size)]
        with ThreadPoolExecutor(1) as ahead:
            reading = ahead.submit(self.read, wanted[0])
            for following in [*wanted[1:], None]:
                images = torch.from_numpy(np.ascontiguousarray(reading.result().transpose(0, 3, 1, 2)))
                if following is not None:
                    reading = ahead.submit(self.read, following)
                yield send(images, self._device)


def hold(
    source: ImageSource,
    device: torch.device,
    fit: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    fits: Callable[[int], bool] | None = None,
) -> Pixels:
    """A source's images, held on the device where they fit, else read batch by batch; the values are the same.

    Args:
        fit: as `Streamed` takes it.
        fits: whether so many bytes fit on the device; None: `room` says.
    """
    streamed = Streamed(source, device, fit)
    size = math.prod(streamed.shape)
    if not (size <= room(device) if fits is None else fits(size)):
        return streamed
    images = torch.empty(streamed.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(streamed), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(streamed)))
        images[start : start + len(block)] = torch.from_numpy(streamed.read(block))
    return Resident(images)


def room(device: torch.device) -> int:
    """Bytes that images may take on the device."""
    if device.type == "cuda":
        return int(SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0])
    return HOST_BYTES
