"""Which image of many an image is a near copy of: compressed anew, resized, mirrored, squashed or slightly cropped.

Both are compared in grey at a small side. Candidates are the few images whose tiny pictures correlate most; each is
confirmed by the correlation of the image with every window of the candidate's larger picture, at several scales.
docs/foreign-sets.md says how often real images are confused and copies missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

LEAST_SIDE = 32
"""Side in pixels below which images are too small to be told apart so (digits of 8 px are all alike)."""
SIDE, TINY = 40, 16
"""Sides of the pictures that confirm, and that propose."""
CANDIDATES, LEAST_TINY = 6, 0.5
"""How many images are looked at closely, and the least correlation of their tiny pictures."""
SAME = 0.95
"""Correlation from which two images are near copies."""
SCALES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Parts of a side that a crop may have left."""
ASPECTS = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75))
"""Parts of width and height that are the square crop of an image that was squashed to a square: none, 4:3 and 3:4."""


class Match(NamedTuple):
    place: int
    """Among the pictures."""
    correlation: float


def picture(pixels: np.ndarray) -> np.ndarray:
    """The grey picture by which an image is compared, (S, S) uint8; (H, W, 1 or 3) uint8 pixels, H = W."""
    grey = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


class NearCopies:
    """Finds the image that another is a near copy of.

    Args:
        pictures: (N, S, S) uint8, S = `SIDE`, of the images that are looked for.
    """

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures
        self._tiny = _unit(np.array([_resized(one, TINY) for one in pictures]).reshape(len(pictures), TINY * TINY))

    def find(self, image: np.ndarray) -> Match | None:
        """The image that correlates most with a picture, if they are near copies."""
        views = list(_views(image))
        tiny = _unit(np.stack([_resized(view, TINY).ravel() for view in views]))
        likeness = tiny @ self._tiny.T
        most = likeness.max(0)
        nearest = np.argpartition(-most, CANDIDATES)[:CANDIDATES] if len(most) > CANDIDATES else np.arange(len(most))
        best = Match(-1, SAME)
        for index in nearest[most[nearest] >= LEAST_TINY].tolist():
            view = views[int(likeness[:, index].argmax())]
            best = max(best, Match(index, correlation(view, self.pictures[index])), key=lambda match: match.correlation)
        return None if best.place < 0 else best


def correlation(image: np.ndarray, whole: np.ndarray) -> float:
    """The largest correlation of a picture with a window of another, at all places and `SCALES`."""
    found = -1.0
    for scale in SCALES:
        side = round(SIDE * scale)
        windows = sliding_window_view(whole.astype(np.float32), (side, side)).reshape(-1, side * side)
        found = max(found, float((_unit(windows) @ _unit(_resized(image, side).reshape(1, -1))[0]).max()))
    return found


def _views(image: np.ndarray) -> Iterator[np.ndarray]:
    whole = Image.fromarray(image)
    for width, height in ASPECTS:
        left, top = SIDE * (1 - width) / 2, SIDE * (1 - height) / 2
        box = (left, top, SIDE - left, SIDE - top)
        view = np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
        yield view
        yield view[:, ::-1]


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """(N, D) with mean 0 and length 1; 0 where all values are equal."""
    centred = vectors - vectors.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
