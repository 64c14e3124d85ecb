"""ZCA whitening (Bell and Sejnowski, 1997) by a dataset's training images, made once and kept in the cache.

With x an image flattened, of pixels in 0…1, m and Σ mean and covariance (over n − 1) of the training images, and
Σ = U diag(λ) Uᵀ:

    whitened x = (x − m) W,   W = U diag(1 / √(λ + ε)) Uᵀ

as kornia's `ZCAWhitening` has it, with which MTT's program whitens. Shapes: n images of side S with C channels,
D = C · S · S values of an image, channels first.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.files import write_atomically
from ddbench.benchmark.core.sharing.locks import made_once
from ddbench.benchmark.core.spec import digest
from ddbench.datasets.base import ImageSource
from ddbench.datasets.cache import cache_dir

BLOCK = 1024
"""Images read at once."""


@dataclass(frozen=True)
class Zca:
    """The whitening of one dataset's images."""

    mean: np.ndarray
    """m, (D,) float32."""
    matrix: np.ndarray
    """W, (D, D) float32, symmetric."""

    def whiten(self, images: np.ndarray) -> np.ndarray:
        """(N, S, S, C), 0 black and 1 white, to (N, S, S, C) float64."""
        return self._mapped(images, -self.mean, self.matrix, 0)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """What was whitened, (N, S, S, C), back to pixels where 0 is black and 1 white, float64."""
        return self._mapped(values, 0, np.linalg.inv(self.matrix.astype(np.float64)), self.mean)

    def _mapped(
        self, images: np.ndarray, before: np.ndarray | int, matrix: np.ndarray, after: np.ndarray | int
    ) -> np.ndarray:
        n, height, width, channels = images.shape
        flat = images.transpose(0, 3, 1, 2).reshape(n, -1).astype(np.float64)
        mapped = (flat + before) @ matrix.astype(np.float64) + after
        return np.ascontiguousarray(mapped.reshape(n, channels, height, width).transpose(0, 2, 3, 1))


def fit(train: ImageSource, epsilon: float, prepare: Callable[[np.ndarray], np.ndarray] = lambda images: images) -> Zca:
    """The whitening of training images, computed in float64.

    Args:
        epsilon: ε, added to every variance.
        prepare: (n, H, W, C) uint8 as they lie -> (n, S, S, C) uint8 as students see them.
    """
    n, total, products = len(train), np.zeros(1), np.zeros((1, 1))
    for start in range(0, n, BLOCK):
        images = prepare(train.read(np.arange(start, min(start + BLOCK, n))))
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1) / 255
        total, products = total + flat.sum(0), products + flat.T @ flat
    mean = total / n
    covariance = (products - n * np.outer(mean, mean)) / (n - 1)
    variances, directions = np.linalg.eigh(covariance)
    matrix = (directions / np.sqrt(variances.clip(min=0) + epsilon)) @ directions.T
    return Zca(mean.astype(np.float32), matrix.astype(np.float32))


def of_dataset(
    train: ImageSource,
    content_hash: str,
    image_size: int,
    epsilon: float,
    prepare: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> Zca:
    """`fit` of a dataset's training images, from the cache where it is there.

    Args:
        content_hash: `SplitData.content_hash` of the images before `prepare`.
        image_size: their side after it.
    """
    channels = prepare(train.read(np.zeros(1, np.int64))).shape[-1]
    key = {"content": content_hash, "images": len(train), "image_size": image_size, "channels": channels}
    file = cache_dir() / "whitening" / f"zca-{digest({**key, 'epsilon': epsilon})[:16]}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    lease = file.with_suffix(".lease")

    def make() -> Zca:
        made, buffer = fit(train, epsilon, prepare), io.BytesIO()
        np.savez(buffer, mean=made.mean, matrix=made.matrix)
        write_atomically(file, buffer.getvalue(), lease=lease)
        return made

    return made_once(lease, lambda: _read(file), make)  # a set's students need the same


def _read(file: Path) -> Zca | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Zca(arrays["mean"], arrays["matrix"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
