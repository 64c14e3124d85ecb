"""The commits of a distil cell: a round of images becomes visible whole, by one rename, with its latents and marker.

    <cell>/rounds/<000000>/  <class index>-<image index>.png …  latents.safetensors  round.json

A round that does not decode to what its marker says (a power cut, a full disk) is thrown away and made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ddbench.benchmark.errors import RunError, UsageError
from ddbench.benchmark.image_sets import pixels_sha256, read_image, write_png
from ddbench.benchmark.store import write_json
from ddbench.methods.base import DistilledImage


class Rounds(Mapping[tuple[int, int], DistilledImage]):
    """The committed images of one cell: (class index, image index) -> image, read from its files when asked for, so
    that memory does not grow with the set.

    Args:
        folder: `<cell>/rounds`.
        n_classes, ipc: the grid of images that may be committed; ipc None: any number per class.
        channels: of the dataset's images.
    """

    def __init__(self, folder: Path, n_classes: int, ipc: int | None, channels: int) -> None:
        self.folder, self.n_classes, self.ipc, self.channels = folder, n_classes, ipc, channels
        self.files: dict[tuple[int, int], Path] = {}
        self.digests: dict[tuple[int, int], str] = {}
        self.guidance_nats: dict[tuple[int, int], dict[str, float]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            images = None if path.name.startswith(".") else self._read_round(path)
            if images is None:
                shutil.rmtree(path)
                continue
            for image in images:
                self._keep(image, path)
        taken = [int(path.name) for path in folder.iterdir()]
        self._next = max(taken, default=-1) + 1

    def commit(self, images: list[DistilledImage]) -> None:
        """Check a round and make it visible.

        Raises:
            RunError: an image outside the grid, one that was already committed, or pixels of the wrong kind: a defect
                of the method, named as such.
        """
        for image in images:
            self._check(image)
        if len({(i.class_index, i.image_index) for i in images}) != len(images):
            raise RunError("the method yielded the same image twice in one round")
        target = self.folder / f"{self._next:06d}"
        temporary = self.folder / f".{target.name}.{os.getpid()}.tmp"
        temporary.mkdir()
        marker = [
            {
                "class_index": image.class_index,
                "image_index": image.image_index,
                "pixels_sha256": pixels_sha256(image.pixels),
                "has_latent": image.latent is not None,
                "guidance_nats": dict(image.guidance_nats),
            }
            for image in images
        ]
        for image in images:
            write_png(temporary / f"{_name(image)}.png", image.pixels)
        latents = {_name(i): np.ascontiguousarray(i.latent, np.float32) for i in images if i.latent is not None}
        if latents:
            (temporary / "latents.safetensors").write_bytes(save(latents))  # save_file hides the system's error number
        write_json(temporary / "round.json", marker)
        temporary.rename(target)
        self._next += 1
        for image in images:
            self._keep(image, target)

    def __getitem__(self, key: tuple[int, int]) -> DistilledImage:
        path = self.files[key].parent
        images = self._read_round(path, only=key)
        if not images:
            raise RunError(f"{path} has changed since it was committed; remove it and run again")
        return images[0]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def _keep(self, image: DistilledImage, folder: Path) -> None:
        key = (image.class_index, image.image_index)
        self.files[key] = folder / f"{_name(image)}.png"
        self.digests[key] = pixels_sha256(image.pixels)
        self.guidance_nats[key] = dict(image.guidance_nats)

    def _check(self, image: DistilledImage) -> None:
        key, pixels = (image.class_index, image.image_index), image.pixels
        if key in self.files:
            raise RunError(f"the method made image {key[1]} of class {key[0]} again, although task.done holds it")
        inside = 0 <= key[0] < self.n_classes and key[1] >= 0 and (self.ipc is None or key[1] < self.ipc)
        if not inside:
            raise RunError(
                f"the method yielded image {key[1]} of class {key[0]}; expected classes 0 … {self.n_classes - 1}"
                + ("" if self.ipc is None else f" and images 0 … {self.ipc - 1}")
            )
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != self.channels:
            raise RunError(
                f"the method yielded pixels of shape {pixels.shape} and type {pixels.dtype}; "
                f"expected (H, W, {self.channels}) uint8"
            )

    def _read_round(self, path: Path, only: tuple[int, int] | None = None) -> list[DistilledImage] | None:
        """The images of a round (or one of them), or None if the files are not what the marker says."""
        images = []
        try:
            marker = json.loads((path / "round.json").read_bytes())
            if only is not None:
                marker = [noted for noted in marker if (noted["class_index"], noted["image_index"]) == only]
            latents = load_file(path / "latents.safetensors") if any(n["has_latent"] for n in marker) else {}
            for noted in marker:
                name = f"{noted['class_index']}-{noted['image_index']}"
                pixels = read_image(path / f"{name}.png", self.channels)
                if pixels_sha256(pixels) != noted["pixels_sha256"]:
                    return None
                latent = latents[name] if noted["has_latent"] else None
                images.append(
                    DistilledImage(noted["class_index"], noted["image_index"], pixels, latent, noted["guidance_nats"])
                )
        except (OSError, ValueError, KeyError, SafetensorError, UsageError):
            return None
        return images


def _name(image: DistilledImage) -> str:
    return f"{image.class_index}-{image.image_index}"
