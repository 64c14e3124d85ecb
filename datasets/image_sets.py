"""Distilled sets on disk: plain image folders `<class id>/<00000>.png` that any other program can read.

A set is named by the SHA-256 of its decoded pixels, class ids and image indices, not of its files: PNG bytes change
with the compressor, the images do not.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.files import Existing, whole_folder, write_json
from ddbench.benchmark.core.reading import AS_IT_IS, Reading
from ddbench.benchmark.core.subsets import SubsetOf
from ddbench.datasets.float_images import FloatImages
from ddbench.datasets.image_files import read_8bit
from ddbench.datasets.set_layout import first_of, layout_of

PNG_LEVEL = 1
"""Compression level of zlib: 4.6 ms for a natural image of 256 px, where the usual level 6 takes 16 ms to save 1.4 %
(docs/performance.md)."""

BLACK = 1
"""The most that floats in 0…1 become when cast to 8 bits without scaling: students train on it without complaint."""


@dataclass(frozen=True)
class SetRecord:
    """What a distilled set is; its images are ordered by class in label order, then by image index."""

    labels: np.ndarray
    """Class indices, (N,) int64."""
    sha256: str
    ipc: int
    """The largest number of images of a class."""
    skipped: Mapping[str, int]
    """Kind -> how many things in its folders are no images of it."""
    image_bytes: int
    """What the images take as they are stored, those that count; without labels."""


@dataclass(frozen=True)
class ImageSet(SetRecord):
    """A distilled set in memory."""

    pixels: Sequence[np.ndarray]
    """Images: N arrays (H, W, C) uint8, whose sizes may differ in sets made elsewhere; fitted: one (N, S, S, C)
    array. Of a set of floats (`float_images.py`): float32, 0 black and 1 white."""


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


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 1 or 3) uint8 pixels as a PNG file."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(buffer, format="PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 1 or 3) uint8 pixels losslessly.

    Raises:
        OSError: with the system's error number, which Pillow's own writing to a file does not tell.
    """
    path.write_bytes(png(pixels))


def read_image(path: Path, channels: int, flatten: str | None = None) -> np.ndarray:
    """Decode one file to (H, W, channels) uint8.

    Args:
        flatten: what lies behind transparent pixels; None: such an image is refused.

    Raises:
        UsageError: not an image, a truncated one, or one that 8 opaque bits a channel do not hold (`read_8bit`).
    """
    try:
        pixels = np.array(read_8bit(path, "L" if channels == 1 else "RGB", flatten))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return pixels[..., None] if channels == 1 else pixels


def all_black(where: object) -> UsageError:
    """What is said of a set in which no pixel is above `BLACK`."""
    return UsageError(
        f"{where}: no pixel of its images is above {BLACK}, which is black of 0…255; if floats in 0…1 were cast to 8 "
        "bits, write 255 times their values"
    )


def store_set(
    sets: Path,
    files: Iterable[tuple[tuple[int, int], Path]],
    class_ids: Sequence[str],
    sha256: str,
    manifest: Mapping[str, Any],
    made_in: Path | None = None,
) -> Path:
    """Put finished PNG files together as `sets/<hash>` in one rename; a set that is already there stays as it is.

    Args:
        files: ((class index, image index), PNG file on the same file system); they stay where they are.
        manifest: what made the set; written as `manifest.json` with the hash and the class ids added.
        made_in: as `whole_folder`.
    """
    target = sets / sha256[:16]
    if (target / "manifest.json").exists():
        return target
    without_manifest = target.exists()
    existing: Existing = "replace" if without_manifest else "keep"
    with whole_folder(target, existing=existing, made_in=made_in) as temporary:
        folders: dict[int, Path] = {}
        for (class_index, image_index), source in files:
            if class_index not in folders:
                folders[class_index] = temporary / class_ids[class_index]
                folders[class_index].mkdir(parents=True)
            _link_or_copy(source, folders[class_index] / image_name(image_index))
        write_json(temporary / "manifest.json", {"image_set_sha256": sha256, **manifest, "class_ids": list(class_ids)})
    return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def describe_set(
    folder: Path,
    class_ids: Sequence[str],
    channels: int,
    *,
    subset: SubsetOf | None = None,
    reading: Reading | None = None,
    look: Callable[[Path, np.ndarray], None] = lambda path, pixels: None,
) -> SetRecord:
    """Check and hash a distilled set, one image at a time.

    Args:
        subset: which images count; None: all.
        reading: how its folder is read; None: as it stands.
        look: called with each image, so that whoever wants more of it decodes nothing twice.

    Raises:
        Problems: as `read_set`.
    """
    return _read(folder, class_ids, channels, subset, reading, lambda row, paths, pixels: look(paths[row], pixels))


def read_set(
    folder: Path,
    class_ids: Sequence[str],
    channels: int,
    *,
    fit: Callable[[np.ndarray], np.ndarray] | None = None,
    subset: SubsetOf | None = None,
    reading: Reading | None = None,
) -> ImageSet:
    """Read and hash a distilled set.

    Args:
        fit: brings one image to the common side; the images then come as one array, and are in memory once.
        subset: which images count; None: all.
        reading: how its folder is read; None: as it stands.

    Raises:
        Problems: all that is wrong with the layout or the files, at once.
    """
    listed: list[np.ndarray] = []
    fitted: list[np.ndarray] = []

    def take(row: int, paths: Sequence[Path], pixels: np.ndarray) -> None:
        if fit is None:
            listed.append(pixels)
            return
        image = fit(pixels)
        if not fitted:
            fitted.append(np.empty((len(paths), *image.shape), image.dtype))
        fitted[0][row] = image

    record = _read(folder, class_ids, channels, subset, reading, take)
    pixels: Any = listed if fit is None else fitted[0]
    return ImageSet(record.labels, record.sha256, record.ipc, record.skipped, record.image_bytes, pixels)


def _once(files: Sequence[tuple[Path, str]]) -> str:
    """What is wrong with several files alike, said of the first."""
    (_, said), *others = files
    names = [f"{path.parent.name}/{path.name}" for path, _ in others]
    return said + (f" (so with {len(others)} more: {', '.join(first_of(names, 5))})" if others else "")


def _read(
    folder: Path,
    class_ids: Sequence[str],
    channels: int,
    subset: SubsetOf | None,
    reading: Reading | None,
    take: Callable[[int, Sequence[Path], np.ndarray], None],
) -> SetRecord:
    """Decode each image of a set and hand it to `take`, with its row among the files of all."""
    layout = layout_of(folder, class_ids, subset, reading)
    files = list(enumerate(layout.files))
    rows = [(class_index, path) for class_index, here in files for path in here]
    floats = FloatImages.at(folder)
    flatten = (reading or AS_IT_IS).flatten

    def read(path: Path, channels: int) -> np.ndarray:
        return read_image(path, channels, flatten) if floats is None else floats.read(path, channels)

    paths = [path for _, path in rows]
    problems: dict[str, list[tuple[Path, str]]] = {}
    index_in_class = [0] * len(class_ids)

    def digests() -> Iterator[tuple[str, int, str]]:
        for row, (class_index, path) in enumerate(rows):
            try:
                image = read(path, channels)
            except UsageError as error:
                problems.setdefault(str(error).replace(str(path), ""), []).append((path, str(error)))
                continue
            take(row, paths, image)
            yield class_ids[class_index], index_in_class[class_index], pixels_sha256(image)
            index_in_class[class_index] += 1

    sha256 = set_sha256(digests())
    if problems:
        transparent = any("transparent: " in reason for reason in problems)
        way = "; or say what lies behind transparent pixels: --flatten white|black|R,G,B" if transparent else ""
        raise Problems([*first_of(list(map(_once, problems.values()))), f"convert, replace or remove these files{way}"])
    labels = np.array([label for label, _ in rows], np.int64)
    stored = sum(path.stat().st_size for path in paths) if floats is None else floats.stored_bytes(paths)
    return SetRecord(labels, sha256, max(len(here) for _, here in files), layout.skipped, stored)
