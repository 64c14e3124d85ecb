"""The nearest real image of every distilled one, in pixels: memorisation as a number and as a sheet to look at.

Distances are exact: pixels are whole numbers, and float64 holds their products without rounding.

Legend: N real images, Q queries, H × W × C an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ddbench.datasets.base import ImageSource
from ddbench.datasets.image_sets import png

BLOCK_BYTES = 256 << 20
"""Bytes of queries, and of real images, that are on the device as float64 at once."""
TILE = 64
COLUMNS, ROWS = 10, 100


@dataclass(frozen=True)
class Nearest:
    """What was found for Q queries."""

    distance: np.ndarray
    """(Q,) Euclidean, of pixels in 0 … 1."""
    row: np.ndarray
    """(Q,) which of the real images; at a tie the first."""


def nearest(
    queries: np.ndarray,
    source: ImageSource,
    rows: np.ndarray,
    device: torch.device,
    *,
    own: np.ndarray | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Nearest:
    """The nearest of the real images at `rows` of `source`, for each query, of any class.

    Args:
        queries: (Q, H, W, C) uint8.
        rows: (N,) indices into `source`.
        own: (Q,) position in `rows` of a query that is itself one of them, and not its own neighbour.
        progress: called with (pairs of images done, pairs in all).
    """
    values = int(np.prod(queries.shape[1:]))
    at_once = max(1, BLOCK_BYTES // (8 * values))
    best = np.full(len(queries), np.inf)
    found = np.zeros(len(queries), np.int64)
    done, pairs = 0, len(queries) * len(rows)
    for first in range(0, len(queries), at_once):
        asked = _flat(queries[first : first + at_once], device)
        span = slice(first, first + len(asked))
        lengths = (asked**2).sum(1, keepdim=True)
        for start in range(0, len(rows), at_once):
            real = _flat(source.read(rows[start : start + at_once]), device)
            squared = lengths + (real**2).sum(1) - 2 * asked @ real.T  # whole numbers below 2^53
            if own is not None:
                here = np.flatnonzero((own[span] >= start) & (own[span] < start + len(real)))
                squared[here, own[span][here] - start] = torch.inf
            least, which = (part.cpu().numpy() for part in squared.min(1))
            nearer = least < best[span]
            best[span] = np.where(nearer, least, best[span])
            found[span] = np.where(nearer, which + start, found[span])
            done += len(asked) * len(real)
            progress(done, pairs)
    return Nearest(np.sqrt(best) / 255, found)


def _flat(images: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).flatten(1).double()


@dataclass(frozen=True)
class SheetImage:
    """The sheet as a file's content, and its grid."""

    png: bytes
    image_size: int
    columns: int
    rows: int


def sheet(source: ImageSource, rows: np.ndarray, labels: np.ndarray, image_size: int, num_classes: int) -> SheetImage:
    """Real images as a grid: one row per class, of each class the first images in the set's order.

    Args:
        rows: (S,) for each distilled image, which image of `source` to show.
        labels: (S,) the distilled images' classes, in label order.
        image_size: of the distilled images, pixels; tiles are at most 64.
    """
    tile = min(image_size, TILE)
    classes = min(num_classes, ROWS)
    columns = min(COLUMNS, int(np.bincount(labels).max()))
    channels = source.read(rows[:1]).shape[-1]
    canvas = np.zeros((classes * tile, columns * tile, channels), np.uint8)
    for label in range(classes):
        for column, row in enumerate(rows[labels == label][:columns]):
            top, left = label * tile, column * tile
            canvas[top : top + tile, left : left + tile] = _tile(source.read([row])[0], tile)
    return SheetImage(png(canvas), tile, columns, classes)


def _tile(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """(H, W, C) uint8 -> (S, S, C)."""
    if pixels.shape[:2] == (image_size, image_size):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    resized = np.asarray(image.resize((image_size, image_size), Image.Resampling.LANCZOS))
    return resized[..., None] if pixels.shape[-1] == 1 else resized
