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
from ddbench.benchmark.core.files import whole_folder, write_json
from ddbench.benchmark.core.subsets import How, SubsetOf
from ddbench.datasets.float_images import FloatImages
from ddbench.datasets.image_files import read_8bit

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
PNG_LEVEL = 1
"""Compression level of zlib: 4.6 ms for a natural image of 256 px, where the usual level 6 takes 16 ms to save 1.4 %
(docs/performance.md)."""


@dataclass(frozen=True)
class SetRecord:
    """What a distilled set is; its images are ordered by class in label order, then by image index."""

    labels: np.ndarray
    """Class indices, (N,) int64."""
    sha256: str
    ipc: int
    """The largest number of images of a class."""


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


def read_image(path: Path, channels: int) -> np.ndarray:
    """Decode one file to (H, W, channels) uint8.

    Raises:
        UsageError: not an image, a truncated one, or one of more than 8 bits a channel.
    """
    try:
        pixels = np.array(read_8bit(path, "L" if channels == 1 else "RGB"))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path}: {error}") from error
    return pixels[..., None] if channels == 1 else pixels


def store_set(
    sets: Path,
    files: Iterable[tuple[tuple[int, int], Path]],
    class_ids: Sequence[str],
    sha256: str,
    manifest: Mapping[str, Any],
) -> Path:
    """Put finished PNG files together as `sets/<hash>` in one rename; a set that is already there stays as it is.

    Args:
        files: ((class index, image index), PNG file on the same file system); they stay where they are.
        manifest: what made the set; written as `manifest.json` with the hash and the class ids added.
    """
    target = sets / sha256[:16]
    if (target / "manifest.json").exists():
        return target
    without_manifest = target.exists()
    with whole_folder(target, existing="replace" if without_manifest else "keep") as temporary:
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
    look: Callable[[Path, np.ndarray], None] = lambda path, pixels: None,
) -> SetRecord:
    """Check and hash a distilled set, one image at a time.

    Args:
        look: called with each image, so that whoever wants more of it decodes nothing twice.

    Raises:
        Problems: as `read_set`.
    """
    return _read(folder, class_ids, channels, subset, lambda row, paths, pixels: look(paths[row], pixels))


def read_set(
    folder: Path,
    class_ids: Sequence[str],
    channels: int,
    *,
    fit: Callable[[np.ndarray], np.ndarray] | None = None,
    subset: SubsetOf | None = None,
) -> ImageSet:
    """Read and hash a distilled set.

    Args:
        fit: brings one image to the common side; the images then come as one array, and are in memory once.
        subset: which images count; None: all.

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

    record = _read(folder, class_ids, channels, subset, take)
    pixels: Any = listed if fit is None else fitted[0]
    return ImageSet(record.labels, record.sha256, record.ipc, pixels)


def _read(
    folder: Path,
    class_ids: Sequence[str],
    channels: int,
    subset: SubsetOf | None,
    take: Callable[[int, Sequence[Path], np.ndarray], None],
) -> SetRecord:
    """Decode each image of a set and hand it to `take`, with its row among the files of all."""
    files = list(enumerate(_files(folder, class_ids, subset)))
    rows = [(class_index, path) for class_index, here in files for path in here]
    floats = FloatImages.at(folder)
    read = read_image if floats is None else floats.read
    paths = [path for _, path in rows]
    problems: list[str] = []
    index_in_class = [0] * len(class_ids)

    def digests() -> Iterator[tuple[str, int, str]]:
        for row, (class_index, path) in enumerate(rows):
            try:
                image = read(path, channels)
            except UsageError as error:
                problems.append(str(error))
                continue
            take(row, paths, image)
            yield class_ids[class_index], index_in_class[class_index], pixels_sha256(image)
            index_in_class[class_index] += 1

    sha256 = set_sha256(digests())
    if problems:
        raise Problems([*first_of(problems), "convert, replace or remove these files"])
    return SetRecord(np.array([label for label, _ in rows], np.int64), sha256, max(len(here) for _, here in files))


def choose_subset(
    folder: Path, class_ids: Sequence[str], ipc: int | None, how: How | None, seed: int
) -> SubsetOf | None:
    """The subset that a request means; None where every image counts. Decodes nothing.

    Raises:
        Problems: all that is wrong with the layout.
        UsageError: fewer images than `ipc` of some class; more, without a word on which; `how` without `ipc`.
    """
    if ipc is None:
        if how is not None:
            raise UsageError(f"--subset {how}: of how many images? Say it with --ipc")
        return None
    counts = [len(here) for here in _files(folder, class_ids, None)]
    if max(counts) == ipc == min(counts):
        return None
    if max(counts) > ipc and how is None:
        raise UsageError(
            f"{folder} holds up to {max(counts)} images of a class, more than --ipc {ipc}; say which count with "
            "--subset first (by number), lexicographic (by file name as text, as published loaders do) or random"
        )
    return SubsetOf(how=how or "first", ipc=ipc, seed=seed if how == "random" else 0)


def _files(folder: Path, class_ids: Sequence[str], subset: SubsetOf | None) -> list[list[Path]]:
    """The image files that count, sorted, for each class in label order.

    Raises:
        Problems: all that is wrong with the layout.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one sub-folder per class, named by class id")
    problems: list[str] = []
    floats = FloatImages.at(folder)
    if floats is None:
        folders = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    else:
        folders = floats.class_ids
    for unknown in sorted(folders - set(class_ids)):
        problems.append(f"{folder / unknown}: no class has this id")
    of_class = floats.files if floats is not None else lambda class_id: image_files(folder / class_id)
    files = [of_class(class_id) if class_id in folders else [] for class_id in class_ids]
    missing = [class_id for class_id, here in zip(class_ids, files, strict=True) if not here]
    if missing:
        problems.append(f"{folder}: no images for {len(missing)} of {len(class_ids)} classes: {_some(missing)}")
    if problems:
        expected = f"expected one folder per class id: {_some(list(class_ids))}"
        raise Problems([*first_of(problems), *_layout_hints(folder, folders, class_ids), expected])
    if subset is None:
        return files
    few = [f"{class_ids[c]} ({len(here)})" for c, here in enumerate(files) if len(here) < subset.ipc]
    if few:
        raise UsageError(f"{folder}: {len(few)} classes have fewer than {subset.ipc} images: {_some(few)}")
    return [subset.pick(here, class_id) for class_id, here in zip(class_ids, files, strict=True)]


def _layout_hints(folder: Path, folders: set[str], class_ids: Sequence[str]) -> list[str]:
    """What the folder seems to be instead."""
    hints = []
    deeper = [name for name in sorted(folders) if any((folder / name / class_id).is_dir() for class_id in class_ids)]
    if deeper:
        hints.append(f"the class folders seem to lie one level deeper; try --images {folder / deeper[0]}")
    loose = sum(1 for _ in _images(folder))
    if loose:
        hints.append(f"{loose} images lie in {folder} itself; sort them into folders named by class id")
    if folders and folders.isdisjoint(class_ids) and all(name.isdigit() for name in folders):
        hints.append(
            "the folders are numbered; which number is which class is known to the program that wrote them alone: "
            "rename them by its class list (the method `external` does so with class_order)"
        )
    return hints


def image_files(folder: Path) -> list[Path]:
    """Its image files, sorted as text."""
    return sorted(_images(folder))


def _images(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")


def first_of(problems: list[str], most: int = 10) -> list[str]:
    """What is shown of a long list, and how many more there are."""
    rest = len(problems) - most
    return problems[:most] + ([f"… and {rest} more such problems"] if rest > 0 else [])
