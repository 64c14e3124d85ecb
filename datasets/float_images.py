"""Distilled sets whose values are floats: what a program learnt, neither clipped to 0…1 nor rounded to 8 bits.

Such a set is a folder with `images.npy`, (N, C, H, W) float32 where 0 is black and 1 white; `labels.npy`, (N,) int64;
and `manifest.json`, whose `class_ids` say which class a label is. Any program reads the arrays; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import whole_folder, write_json

IMAGES, LABELS, MANIFEST = "images.npy", "labels.npy", "manifest.json"


class FloatImages:
    """The images of one such folder, read one at a time under the names that files would have."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError if arrays or manifest are missing, damaged or do not fit each other."""
        self.folder = folder
        try:
            self._images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / LABELS, allow_pickle=False)
            class_ids = json.loads((folder / MANIFEST).read_bytes())["class_ids"]
            names = [str(class_ids[label]) for label in labels.tolist()]
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
            raise UsageError(
                f"{folder}: expected {IMAGES}, {LABELS} and {MANIFEST} of a set of floats ({error or 'damaged'})"
            ) from error
        if self._images.dtype != np.float32 or self._images.ndim != 4 or len(names) != len(self._images):
            raise UsageError(
                f"{folder}: expected (N, C, H, W) float32 in {IMAGES} and N labels, got {self._images.dtype} of shape "
                f"{self._images.shape} and {len(names)} labels"
            )
        self._rows: dict[Path, int] = {}
        self._of_class: dict[str, list[Path]] = {}
        for row, name in enumerate(names):
            here = self._of_class.setdefault(name, [])
            here.append(folder / name / f"{len(here):05d}")
            self._rows[here[-1]] = row

    @classmethod
    def at(cls, folder: Path) -> FloatImages | None:
        """The images of a folder, or None where it is none of this kind."""
        return cls(folder) if (folder / IMAGES).is_file() and (folder / MANIFEST).is_file() else None

    @property
    def class_ids(self) -> set[str]:
        """Classes that have images."""
        return set(self._of_class)

    def files(self, class_id: str) -> list[Path]:
        """Names of a class's images, `<class id>/<00000>`; no such files are there."""
        return list(self._of_class.get(class_id, ()))

    def read(self, name: Path, channels: int) -> np.ndarray:
        """(H, W, channels) float32.

        Raises:
            UsageError: another number of channels.
        """
        image = np.array(self._images[self._rows[name]].transpose(1, 2, 0), order="C")
        if image.shape[-1] != channels:
            raise UsageError(f"{name}: expected {channels} channels, got {image.shape[-1]}")
        return image

    def stored_bytes(self, names: Sequence[Path]) -> int:
        """Bytes that these images take."""
        return len(names) * self._images[0].nbytes


def as_uint8(pixels: np.ndarray) -> np.ndarray:
    """Float images, 0 black and 1 white, clipped and rounded: to be looked at or compared with 8-bit ones, not trained
    on. Those of 8 bits stay as they are."""
    return pixels if pixels.dtype == np.uint8 else (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def store_floats(
    target: Path, pixels: np.ndarray, labels: np.ndarray, class_ids: Sequence[str], manifest: Mapping[str, Any]
) -> None:
    """Write such a folder, whole or not at all; one that is there stays.

    Args:
        pixels: (N, H, W, C) float32.
        labels: (N,) indices into `class_ids`.
    """
    with whole_folder(target, existing="keep") as folder:
        np.save(folder / IMAGES, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        np.save(folder / LABELS, labels.astype(np.int64))
        write_json(folder / MANIFEST, {**manifest, "class_ids": list(class_ids)})
