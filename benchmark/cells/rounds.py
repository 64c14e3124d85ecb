"""The commits of a distill cell: a round of images becomes visible whole, by one rename, with its latents and marker.

    <cell>/rounds/<000000>/  <class index>-<image index>.png …  latents.safetensors  round.json

A round whose files are not the ones that its marker names (a power cut, a full disk) is thrown away and made again.
What a round costs does not depend on how many there are, and nothing but hashes and guidance is kept in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import whole_folder, write_json
from ddbench.benchmark.core.sharing.lease import require_mine
from ddbench.benchmark.core.store import LEASE
from ddbench.datasets.image_sets import pixels_sha256, png, read_image
from ddbench.methods.base import DistilledImage

LATENTS = "latents.safetensors"
Key = tuple[int, int]
"""(class index, image index)."""


@dataclass(frozen=True, slots=True)
class _Committed:
    """An image on disk; the round's images share `folder` and `terms`."""

    folder: Path
    pixels_sha256: bytes
    has_latent: bool
    terms: tuple[str, ...]
    nats: tuple[float, ...]


class Rounds(Mapping[Key, DistilledImage]):
    """The committed images of one cell: (class index, image index) -> image, read from its files when asked for.

    Args:
        folder: `<cell>/rounds`.
        n_classes, ipc: the grid of images that may be committed; ipc None: any number per class.
        channels: of the dataset's images.
        classes: the class indices of a shard; None: all of them.
        adopted: the `rounds` folders of finished shards, whose images count as this cell's own; they stay as they are.
        threads: that encode a round's images side by side.
    """

    def __init__(
        self,
        folder: Path,
        n_classes: int,
        ipc: int | None,
        channels: int,
        *,
        classes: range | None = None,
        adopted: Sequence[Path] = (),
        threads: int = 1,
    ) -> None:
        self.folder, self.ipc, self.channels = folder, ipc, channels
        self.classes = range(n_classes) if classes is None else classes
        self._map = map if threads == 1 else ThreadPoolExecutor(threads).map
        self._images: dict[Key, _Committed] = {}
        self._known_terms: dict[tuple[str, ...], tuple[str, ...]] = {}
        for shard in adopted:
            for path in _folders(shard):
                self._open_round(path)
        folder.mkdir(parents=True, exist_ok=True)
        for path in _folders(folder):
            if path.name.startswith(".") or not self._open_round(path):
                shutil.rmtree(path)
        self._next = max((int(path.name) for path in folder.iterdir()), default=-1) + 1

    def commit(self, images: Iterable[DistilledImage]) -> None:
        """Check a round and make it visible, before it returns: what a method yielded is on disk when it goes on.

        Raises:
            RunError: an image outside the grid, one that was already committed, or pixels of the wrong kind: a defect
                of the method, named as such.
        """
        images = [_plain(image) for image in _listed(images)]
        for image in images:
            self._check(image)
        if len({(i.class_index, i.image_index) for i in images}) != len(images):
            raise RunError("the method yielded the same image twice in one round")
        target = self.folder / f"{self._next:06d}"
        require_mine(self.folder.parent / LEASE)
        with whole_folder(target, existing="refuse", flushed=False) as partial:  # checksums tell what a power cut left
            noted = self._write(images, partial)
        self._next += 1
        self._keep(target, noted)

    def _write(self, images: Sequence[DistilledImage], folder: Path) -> list[dict[str, Any]]:
        """Write a round's files and its marker, of which this returns what is noted of the images."""
        noted = []
        for image, file, sha256, file_sha256 in self._map(_encoded, images):
            (folder / f"{_name(image.class_index, image.image_index)}.png").write_bytes(file)
            noted.append(
                {
                    "class_index": image.class_index,
                    "image_index": image.image_index,
                    "pixels_sha256": sha256,
                    "file_sha256": file_sha256,
                    "has_latent": image.latent is not None,
                    "guidance_nats": dict(image.guidance_nats),
                }
            )
        latents = {
            _name(i.class_index, i.image_index): np.ascontiguousarray(i.latent, np.float32)
            for i in images
            if i.latent is not None
        }
        latents_sha256 = None
        if latents:
            file = save(latents)  # save_file hides the system's error number
            (folder / LATENTS).write_bytes(file)
            latents_sha256 = hashlib.sha256(file).hexdigest()
        write_json(folder / "round.json", {"latents_sha256": latents_sha256, "images": noted})
        return noted

    def __getitem__(self, key: Key) -> DistilledImage:
        noted, name = self._images[key], _name(*key)
        try:
            pixels = read_image(noted.folder / f"{name}.png", self.channels)
            latent = None
            if noted.has_latent:
                with safe_open(noted.folder / LATENTS, framework="np") as latents:
                    latent = latents.get_tensor(name)
            intact = pixels_sha256(pixels) == noted.pixels_sha256.hex()
        except (OSError, SafetensorError, UsageError):
            intact = False
        if not intact:
            raise RunError(f"{noted.folder} has changed since it was committed; remove it and run again")
        return DistilledImage(*key, pixels, latent, dict(zip(noted.terms, noted.nats, strict=True)))

    def __contains__(self, key: object) -> bool:
        return key in self._images  # Mapping's own would read the image

    def __iter__(self) -> Iterator[Key]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def digests(self) -> Iterator[tuple[Key, str]]:
        """Each image's `pixels_sha256`, by class and then by index."""
        return ((key, self._images[key].pixels_sha256.hex()) for key in sorted(self._images))

    def files(self) -> Iterator[tuple[Key, Path]]:
        """Each image's PNG file, by class and then by index."""
        return ((key, self._images[key].folder / f"{_name(*key)}.png") for key in sorted(self._images))

    def guidance_nats(self) -> Iterator[tuple[Key, dict[str, float]]]:
        """Each image's path KL by guidance term, by class and then by index."""
        for key in sorted(self._images):
            noted = self._images[key]
            yield key, dict(zip(noted.terms, noted.nats, strict=True))

    def _check(self, image: DistilledImage) -> None:
        key, pixels = (image.class_index, image.image_index), image.pixels
        if key in self:
            raise RunError(f"the method made image {key[1]} of class {key[0]} again, although task.done holds it")
        if not self._expects(key):
            raise RunError(
                f"the method yielded image {key[1]} of class {key[0]}; expected classes {self.classes.start} … "
                f"{self.classes.stop - 1}" + ("" if self.ipc is None else f" and images 0 … {self.ipc - 1}")
            )
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != self.channels:
            raise RunError(
                f"the method yielded pixels of shape {pixels.shape} and type {pixels.dtype}; "
                f"expected (H, W, {self.channels}) uint8"
            )

    def _expects(self, key: Key) -> bool:
        return key[0] in self.classes and key[1] >= 0 and (self.ipc is None or key[1] < self.ipc)

    def _keep(self, folder: Path, noted: Sequence[Mapping[str, Any]]) -> None:
        for image in noted:
            key, nats = (image["class_index"], image["image_index"]), image["guidance_nats"]
            if key in self or not self._expects(key):
                continue  # an image of a shard that an attempt at the whole set had made before
            terms = self._known_terms.setdefault(tuple(nats), tuple(nats))
            sha256 = bytes.fromhex(image["pixels_sha256"])
            self._images[key] = _Committed(folder, sha256, image["has_latent"], terms, tuple(nats.values()))

    def _open_round(self, folder: Path) -> bool:
        """Take a round in, if its files are the ones that its marker names; images are not decoded for that."""
        try:
            marker = json.loads((folder / "round.json").read_bytes())
            files = {f"{_name(i['class_index'], i['image_index'])}.png": i["file_sha256"] for i in marker["images"]}
            if marker["latents_sha256"] is not None:
                files[LATENTS] = marker["latents_sha256"]
            if any(hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha for name, sha in files.items()):
                return False
            self._keep(folder, marker["images"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True


def _listed(images: object) -> list[DistilledImage]:
    """A round as a list.

    Raises:
        RunError: it is none, or something else is in it.
    """
    found = list(images) if isinstance(images, Iterable) else None
    if found is None or not all(isinstance(image, DistilledImage) for image in found):
        inside = "" if found is None else " of " + ", ".join(sorted({type(image).__name__ for image in found}))
        raise RunError(
            f"the method yielded a {type(images).__name__}{inside}; expected rounds: lists of DistilledImage, of all "
            "images that are finished together"
        )
    return found


def _plain(image: DistilledImage) -> DistilledImage:
    """The image with Python's own numbers for NumPy's and torch's, which a marker cannot hold.

    Raises:
        RunError: an index that is no whole number, pixels that are no array, or path KL that is no number.
    """
    try:
        class_index, image_index = operator.index(image.class_index), operator.index(image.image_index)
        nats = {str(term): float(value) for term, value in image.guidance_nats.items()}
    except (TypeError, ValueError) as error:
        raise RunError(
            f"the method yielded an image with class index {image.class_index!r}, image index {image.image_index!r} "
            f"and path KL {image.guidance_nats!r}; expected whole numbers, and a number for each term ({error})"
        ) from error
    if not isinstance(image.pixels, np.ndarray):
        raise RunError(f"the method yielded pixels that are a {type(image.pixels).__name__}; expected a NumPy array")
    if not all(map(math.isfinite, nats.values())):
        raise RunError(f"the method yielded an image with path KL {nats}; expected finite numbers of nats")
    return replace(image, class_index=class_index, image_index=image_index, guidance_nats=nats)


def _encoded(image: DistilledImage) -> tuple[DistilledImage, bytes, str, str]:
    """An image, its PNG file, and the hashes of its pixels and of that file."""
    file = png(image.pixels)
    return image, file, pixels_sha256(image.pixels), hashlib.sha256(file).hexdigest()


def _folders(rounds: Path) -> list[Path]:
    return sorted(rounds.iterdir()) if rounds.is_dir() else []


def _name(class_index: int, image_index: int) -> str:
    return f"{class_index}-{image_index}"
