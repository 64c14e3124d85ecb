"""Images decoded once, at one size, and read from disk afterwards: only what is asked for, through a memory map.

    <folder>/<part>.npy    (n, S, S, 3) uint8
    <folder>/<part>.json   which images these are, and what was seen while decoding

A *part* (the training images of one class, say) is the unit of commit: its two files appear by renaming when all of it
is decoded, so that a killed preparation goes on with the parts that are missing.

How an image becomes S×S, in RGB:

- `bilinear`: torchvision's `Resize(S)` and `CenterCrop(S)` on a PIL image: shorter side resized to S with Pillow's
  bilinear filter, which antialiases, then the centre. It is the test transform of the papers' programs, so at a
  protocol's own side an image reaches the student as it did theirs, without a second resize.
- `adm`: the crop that ADM and DiT were trained on: halved with a box filter while the shorter side is at least 2·S,
  then the shorter side to S, bicubic, then the centre. What a latent prior's autoencoder is to see.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.sharing.holder import own_name
from ddbench.benchmark.core.sharing.lease import require_mine, swept_once_lost
from ddbench.datasets.base import ImageSource, Resize

if TYPE_CHECKING:
    from PIL import Image

PREPROCESSING: Mapping[Resize, str] = {"bilinear": "bilinear-crop-3", "adm": "adm-crop-3"}
"""Names of the transforms above in the cache; another transform is another name. 2: caches of 1 may hold images of
more than 8 bits a channel, cut off at 255. 3: those of 2 may hold what lay hidden behind transparency, and the first of
several frames."""
CHUNK = 16
"""Images that a thread decodes before it asks for more."""
MAX_THREADS = 16


@dataclass(frozen=True)
class Part:
    """Images that are decoded and kept together."""

    name: str
    """Stem of its files in the cache."""
    count: int
    files: Callable[[], Sequence[Path]]
    """The images' files, in the order of the part."""
    identity: str
    """Text that changes when the images do: what is kept under another identity is decoded anew."""


@dataclass(frozen=True)
class Decoded:
    """A part in the cache."""

    path: Path
    count: int
    enlarged: int
    """Number of images whose shorter side was below S."""
    median_shorter_side: int
    sha256: str
    """SHA-256 of its array's file."""
    files_stamp: str = ""
    """`files_stamp` of its images' files before they were decoded; empty in notes of before there was one."""


def files_stamp(files: Sequence[Path]) -> str:
    """Digest of sizes and times of change: another once a file was written to, which its folder's time does not tell.

    Raises:
        OSError: a file that is gone.
    """
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def fit_image(image: Image.Image, side: int, resize: Resize = "bilinear") -> np.ndarray:
    """(S, S, 3) uint8 of side S = `side`, by one of the transforms above."""
    from PIL import Image

    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if resize == "adm":
        while min(rgb.size) >= 2 * side:
            rgb = rgb.resize((rgb.width // 2, rgb.height // 2), Image.Resampling.BOX)
        scale = side / min(rgb.size)
        rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BICUBIC)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        return np.asarray(rgb.crop((left, top, left + side, top + side)))
    width, height = rgb.size
    if min(width, height) != side:
        scaled = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
        rgb = rgb.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2.0) for length in rgb.size)
    return np.asarray(rgb.crop((left, top, left + side, top + side)))


class DecodedCache:
    """The decoded parts of one source at one size. Whoever decodes must be alone: callers hold a lock."""

    def __init__(self, folder: Path, image_size: int, resize: Resize = "bilinear") -> None:
        self.folder, self.image_size, self.resize = folder / f"{PREPROCESSING[resize]}-{image_size}", image_size, resize

    def find(self, part: Part) -> Decoded | None:
        """The part, if it is there and still of the same images."""
        try:
            noted = json.loads((self.folder / f"{part.name}.json").read_bytes())
            if noted.pop("identity") != part.identity:
                return None
            path = self.folder / f"{part.name}.npy"
            return Decoded(path, **noted) if path.exists() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget(self, part: Part) -> None:
        """Have a part decoded anew."""
        (self.folder / f"{part.name}.json").unlink(missing_ok=True)

    def bytes_of(self, part: Part) -> int:
        return part.count * self.image_size**2 * 3

    def decode(
        self, parts: Sequence[Part], done: Callable[[int], None], *, lease: Path | None = None
    ) -> dict[Path, str]:
        """Decode parts, in their order; one with files that are no whole 8-bit images is not kept.

        Args:
            done: called with the number of images decoded since the last call.
            lease: folder of the lease that the caller holds on the source's cache.

        Returns:
            file -> what is wrong with it.

        Raises:
            OSError: a file that cannot be read, or a full disk.
            LeaseLost: the lease is another's by now.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for abandoned in self.folder.glob(".*.npy.*.tmp"):  # other files here may be in the making
            abandoned.unlink()
        corrupt: dict[Path, str] = {}
        threads = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MAX_THREADS))
        try:
            for part in parts:
                corrupt |= self._decode(part, threads, done, lease)
        finally:
            threads.shutdown(cancel_futures=True)
        return corrupt

    def _decode(
        self, part: Part, threads: ThreadPoolExecutor, done: Callable[[int], None], lease: Path | None
    ) -> dict[Path, str]:
        target = self.folder / f"{part.name}.npy"
        partial = target.with_name(f".{target.name}.{own_name()}.tmp")
        files, corrupt = part.files(), dict[Path, str]()
        before = files_stamp(files)  # of a file that is written to meanwhile, the next run sees it
        sides = np.zeros(len(files), np.int64)
        try:
            with partial.open("wb") as out:
                shape = (len(files), self.image_size, self.image_size, 3)
                np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
                out.flush()
                header_bytes, starts = out.tell(), range(0, len(files), CHUNK)
                work = [
                    threads.submit(self._decode_chunk, out.fileno(), header_bytes, files, start, sides)
                    for start in starts
                ]
                try:
                    for start, chunk in zip(starts, work, strict=True):
                        corrupt |= chunk.result()
                        done(min(CHUNK, len(files) - start))
                finally:
                    # No thread may be writing to the descriptor when the file is closed.
                    for chunk in work:
                        chunk.cancel()
                    wait(work)
                os.fsync(out.fileno())
            if not corrupt:
                with swept_once_lost(lease), partial.open("rb") as written:
                    sha256 = hashlib.file_digest(written, "sha256").hexdigest()
                with swept_once_lost(lease):
                    if lease is not None:
                        require_mine(lease)
                    # Killed between the two writes, the old note would vouch for the new images if the old came back.
                    self.forget(part)
                    partial.replace(target)
                write_json(
                    self.folder / f"{part.name}.json",
                    {
                        "identity": part.identity,
                        "count": len(files),
                        "enlarged": int((sides < self.image_size).sum()),
                        "median_shorter_side": int(np.median(sides)) if len(files) else self.image_size,
                        "sha256": sha256,
                        "files_stamp": before,
                    },
                    lease=lease,
                )
        finally:
            partial.unlink(missing_ok=True)
        return corrupt

    def _decode_chunk(
        self, out: int, header_bytes: int, files: Sequence[Path], start: int, sides: np.ndarray
    ) -> dict[Path, str]:
        from ddbench.datasets.image_files import read_8bit

        corrupt = {}
        for row in range(start, min(start + CHUNK, len(files))):
            try:
                image = read_8bit(files[row], "RGB")
            except ValueError as error:
                corrupt[files[row]] = str(error)
                continue
            sides[row] = min(image.size)
            pixels = fit_image(image, self.image_size, self.resize)
            # Not through a memory map: writing past a full disk would end the process by a signal.
            _write_at(out, pixels.tobytes(), header_bytes + row * pixels.size)
        return corrupt


def _write_at(out: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(out, view, offset)
        view, offset = view[written:], offset + written


class DecodedImages(ImageSource):
    """Images of several parts in one order; each `read` maps the parts it needs and lets go of them.

    Args:
        parts: paths of (n, S, S, 3) arrays.
        part_of: (N,) which part each image lies in.
        row_of: (N,) its row there.
        labels: (N,) int64, sorted.
        names: (N,).
        side: S.
        sha256s: of the parts' files, in the order of `parts`; empty: not known.
    """

    def __init__(
        self,
        parts: Sequence[Path],
        part_of: np.ndarray,
        row_of: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        image_size: int,
        sha256s: Sequence[str] = (),
    ) -> None:
        self.parts, self.part_of, self.row_of, self.image_size = tuple(parts), part_of, row_of, image_size
        self.sha256s = tuple(sha256s)
        self.labels, self.names = labels, names

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(indices, np.int64)
        parts, rows = self.part_of[wanted], self.row_of[wanted]
        images = np.empty((len(wanted), self.image_size, self.image_size, 3), np.uint8)
        for part in np.unique(parts):
            here = np.flatnonzero(parts == part)
            images[here] = np.load(self.parts[part], mmap_mode="r")[rows[here]]
        return images

    def of_class(self, class_index: int) -> np.ndarray:
        start, end = np.searchsorted(self.labels, [class_index, class_index + 1])
        return np.arange(start, end)

    def class_sha256(self, class_index: int) -> str | None:
        """Of the class's parts and rows, so it is the same in every dataset and split with these images."""
        if not self.sha256s:
            return None
        here = self.of_class(class_index)
        numbers, parts = np.unique(self.part_of[here], return_inverse=True)
        return identity([self.sha256s[number] for number in numbers], parts.tolist(), self.row_of[here].tolist())


def identity(*described: Any) -> str:
    """SHA-256 of what identifies a part, as JSON data."""
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def enlargement_warning(parts: Mapping[str, Decoded], image_size: int) -> str | None:
    """A warning where most images were smaller than what they were decoded at."""
    total = sum(part.count for part in parts.values())
    enlarged = sum(part.enlarged for part in parts.values())
    if 2 * enlarged <= total:
        return None
    median = int(np.median([part.median_shorter_side for part in parts.values()]))
    return (
        f"the source's images have a shorter side of about {median} px and were enlarged to {image_size} px: "
        "accuracies are not those of full-size images."
    )
