"""Distilled sets on disk: plain image folders `<class id>/<00000>.png` that any other program can read.

A set is named by the SHA-256 of its decoded pixels, class ids and image indices, not of its files: PNG bytes change
with the compressor, the images do not.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ddbench.benchmark.errors import Problems, UsageError
from ddbench.benchmark.store import write_json

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class ImageSet:
    """A distilled set in memory, ordered by class in label order, then by image index."""

    pixels: list[np.ndarray]
    """N arrays (H, W, C) uint8; sides may differ in sets made elsewhere."""
    labels: np.ndarray
    """(N,) int64 class indices."""
    sha256: str
    ipc: int
    """The largest number of images of a class."""


def pixels_sha256(pixels: np.ndarray) -> str:
    """SHA-256 over the shape and the values of one decoded image."""
    shape = "x".join(map(str, pixels.shape))
    return hashlib.sha256(f"{shape}\0".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def set_sha256(images: Iterable[tuple[str, int, str]]) -> str:
    """The hash of a set: over (class id, image index, `pixels_sha256`) of its images, by class in label order and then
    by index. It needs no pixels, so a large set is hashed as its images are made."""
    set_hash = hashlib.sha256()
    for class_id, image_index, pixels in images:
        set_hash.update(f"{class_id}/{image_index}/{pixels}\n".encode())
    return set_hash.hexdigest()


def image_name(image_index: int) -> str:
    """Zero-padded, because other programs sort file names as text."""
    return f"{image_index:05d}.png"


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 1 or 3) uint8 pixels losslessly.

    Raises:
        OSError: with the system's error number, which Pillow's own writing to a file does not tell.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG")
    path.write_bytes(buffer.getbuffer())


def read_image(path: Path, channels: int) -> np.ndarray:
    """Decode one file to (H, W, channels) uint8.

    Raises:
        UsageError: not an image, or a truncated one.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as an image ({error})") from error
    return pixels[..., None] if channels == 1 else pixels


def store_set(
    sets: Path,
    files: Mapping[tuple[int, int], Path],
    class_ids: Sequence[str],
    sha256: str,
    manifest: Mapping[str, Any],
) -> Path:
    """Put finished PNG files together as `sets/<hash>` in one rename; a set that is already there stays as it is.

    Args:
        files: (class index, image index) -> PNG file on the same file system; they stay where they are.
        manifest: what made the set; written as `manifest.json` with the hash and the class ids added.
    """
    target = sets / sha256[:16]
    if (target / "manifest.json").exists():
        return target
    temporary = sets / f".{sha256[:16]}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for class_index in sorted({c for c, _ in files}):
            (temporary / class_ids[class_index]).mkdir(parents=True)
        for (class_index, image_index), source in files.items():
            _link_or_copy(source, temporary / class_ids[class_index] / image_name(image_index))
        write_json(temporary / "manifest.json", {"image_set_sha256": sha256, **manifest, "class_ids": list(class_ids)})
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def read_set(folder: Path, class_ids: Sequence[str], channels: int) -> ImageSet:
    """Read and hash a distilled set.

    Raises:
        Problems: all that is wrong with the layout or the files, at once.
    """
    problems: list[str] = []
    files: list[tuple[int, Path]] = []
    counts: dict[str, int] = {}
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one sub-folder per class, named by class id")
    folders = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    for unknown in sorted(folders - set(class_ids)):
        problems.append(f"{folder / unknown}: no class has this id")
    for class_index, class_id in enumerate(class_ids):
        here = sorted(_images(folder / class_id)) if class_id in folders else []
        counts[class_id] = len(here)
        files += [(class_index, path) for path in here]
    missing = [class_id for class_id, count in counts.items() if not count]
    if missing:
        problems.append(f"{folder}: no images for {len(missing)} of {len(class_ids)} classes: {_some(missing)}")
    if problems:
        expected = f"expected one folder per class id: {_some(list(class_ids))}"
        raise Problems([*_first(problems), expected])

    pixels: list[np.ndarray] = []
    labels: list[int] = []
    digests: list[tuple[str, int, str]] = []
    index_in_class = dict.fromkeys(class_ids, 0)
    for class_index, path in files:
        try:
            image = read_image(path, channels)
        except UsageError as error:
            problems.append(str(error))
            continue
        class_id = class_ids[class_index]
        digests.append((class_id, index_in_class[class_id], pixels_sha256(image)))
        index_in_class[class_id] += 1
        pixels.append(image)
        labels.append(class_index)
    if problems:
        raise Problems([*_first(problems), "remove or replace these files"])
    return ImageSet(pixels, np.asarray(labels, np.int64), set_sha256(digests), max(counts.values()))


def _images(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")


def _first(problems: list[str], most: int = 10) -> list[str]:
    rest = len(problems) - most
    return problems[:most] + ([f"… and {rest} more such problems"] if rest > 0 else [])
