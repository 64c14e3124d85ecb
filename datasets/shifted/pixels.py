"""The pixels of a shifted test set at one size: made once, kept in the cache, mapped from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import check_free, whole_file, write_json
from ddbench.benchmark.core.sharing.locks import giving_way, lock
from ddbench.datasets.base import ImageSource
from ddbench.datasets.cache import cache_dir, read_json
from ddbench.datasets.decoded_cache import PREPROCESSING, fit_image, identity
from ddbench.datasets.file_dataset import Progress, silent
from ddbench.datasets.hashing import source_hash
from ddbench.datasets.image_files import read_8bit
from ddbench.datasets.shifted import corruptions
from ddbench.datasets.shifted.files import ShiftedFiles

BLOCK = 64
"""Images made at once: what bounds memory."""
THREADS = 8
"""Files decoded at once."""


@dataclass(frozen=True)
class ShiftedImages:
    """The images of one condition. N images, S side in pixels."""

    pixels: np.ndarray
    """(N, S, S, 3) uint8, mapped from disk."""
    labels: np.ndarray
    """(N,) int64, in the dataset's label order."""
    sha256: str
    """Of pixels and labels."""


def from_files(files: ShiftedFiles, image_size: int, progress: Progress = silent) -> dict[str, ShiftedImages]:
    """The images of every condition: RGB, shorter side to S, centre crop, as a dataset's own.

    Raises:
        RunError: a file that is no whole image, or too little room in the cache.
    """

    def decode(path: Path) -> np.ndarray:
        try:
            return fit_image(read_8bit(path, "RGB"), image_size)
        except ValueError as error:
            raise RunError(f"{path}: {error}; a test set is never made smaller: get this file again") from error

    def blocks(condition: str) -> Iterator[np.ndarray]:
        paths = [path for _, path in files.images[condition]]
        with ThreadPoolExecutor(THREADS) as threads:
            for start in range(0, len(paths), BLOCK):
                yield np.stack(list(threads.map(decode, paths[start : start + BLOCK])))

    key = {"files": files.sha256, "stamps": files.stamps, "resize": PREPROCESSING["bilinear"]}
    labels = {condition: files.labels(condition) for condition in files.images}
    return _kept(key, labels, image_size, blocks, f"decoding {files.folder.name} at {image_size} px", progress)


def corrupted(
    test: ImageSource,
    conditions: Sequence[str],
    image_size: int,
    *,
    progress: Progress = silent,
    jobs: int = 1,
) -> dict[str, ShiftedImages]:
    """A dataset's test images under every condition.

    Args:
        test: they, at 224 px or more; what is larger is cut to its middle.
        conditions: `fog/3`, ….
        jobs: processes that corrupt side by side.

    Raises:
        UsageError: the package that corrupts is not there.
        RunError: too little room in the cache.
    """
    import joblib

    names, side = list(test.names), corruptions.IMAGE_SIZE

    def views(start: int) -> np.ndarray:
        images = test.read(np.arange(start, min(start + BLOCK, len(test))))
        top, left = ((length - side) // 2 for length in images.shape[1:3])
        return images[:, top : top + side, left : left + side]

    def blocks(condition: str) -> Iterator[np.ndarray]:
        corruption, severity = condition.split("/")
        made = joblib.Parallel(n_jobs=jobs, return_as="generator")(
            joblib.delayed(corruptions.corrupt_all)(
                views(start), names[start : start + BLOCK], corruption, int(severity), image_size
            )
            for start in range(0, len(test), BLOCK)
        )
        yield from made

    key = {
        "images": source_hash(test),
        "versions": corruptions.versions(),
        "corrupted_at": side,
        "quality": corruptions.JPEG_QUALITY,
        "seed": corruptions.SEED,
    }
    labels = dict.fromkeys(conditions, np.asarray(test.labels))
    return _kept(key, labels, image_size, blocks, f"corrupting test images for {image_size} px", progress)


def _kept(
    key: Mapping[str, Any],
    labels: Mapping[str, np.ndarray],
    image_size: int,
    blocks: Callable[[str], Iterator[np.ndarray]],
    what: str,
    progress: Progress,
) -> dict[str, ShiftedImages]:
    """What is kept under a key; what is missing is made, a condition at a time: a killed run goes on with the rest."""
    folder = cache_dir() / "shifted" / identity(dict(key), image_size)[:16]
    stems = {condition: folder / (condition.replace("/", "-") or "images") for condition in labels}

    def missing() -> list[str]:
        return [condition for condition, stem in stems.items() if not stem.with_suffix(".json").exists()]

    def waiting() -> AbstractContextManager[object]:
        progress("waiting for another process that makes these test images", 0, 0)
        return nullcontext()

    while missing():
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder.with_suffix(".lease"), waiting=waiting) as lease, giving_way(lease):
            left = missing()
            total, done = sum(len(labels[condition]) for condition in left), 0
            check_free(folder, total * image_size**2 * 3, what)
            for condition in left:
                progress(what, done, total)
                digest = hashlib.sha256(labels[condition].tobytes())
                with whole_file(stems[condition].with_suffix(".npy"), lease=lease.folder) as out:
                    shape = (len(labels[condition]), image_size, image_size, 3)
                    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
                    for block in blocks(condition):
                        out.write(block.tobytes())
                        digest.update(block.tobytes())
                        done += len(block)
                        progress(what, done, total)
                noted = {"key": dict(key), "sha256": digest.hexdigest()}
                write_json(stems[condition].with_suffix(".json"), noted, lease=lease.folder)
    return {
        condition: ShiftedImages(
            np.load(stem.with_suffix(".npy"), mmap_mode="r"),
            labels[condition],
            str(read_json(stem.with_suffix(".json"))["sha256"]),
        )
        for condition, stem in stems.items()
    }
