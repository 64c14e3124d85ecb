"""The index of a source: which images of a dataset's classes it holds and where. Made once, kept beside what it is of.

<cache of the source>/index/<dataset>/index.json   stamps of what was listed, so that a changed source is listed anew
                                      <array>.npy  classes, names, locations, sides: one entry per image
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import whole_folder, write_json
from ddbench.benchmark.core.sharing.locks import made_once
from ddbench.datasets.imagenet.sources import Found, Source

FORMAT = 3
"""2: an index of 1 lacks images with rarer endings. 3: one of 2 has the names of validation images in another case."""
BLOCK = 65_536
"""Images listed before they are packed into arrays: it bounds memory."""
ARRAYS = ("classes", "names", "locations", "sides")


@dataclass(frozen=True)
class Index:
    """Images in the order of the contract: by class in label order, then by file name. N of them."""

    classes: np.ndarray
    """Positions in the class list, (N,) int32."""
    names: np.ndarray
    """File names, (N,) bytes: `n02096294_123.JPEG`."""
    locations: np.ndarray
    """Paths below the source's root, (N,) bytes."""
    sides: np.ndarray
    """Whether the file lies in the source's validation folder, (N,) bool; that is not what says what it is."""
    stamps: dict[str, list[int]]
    unknown: tuple[str, ...]
    """Image files with names that are not ImageNet's, left out; the first few."""

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def validation_images(self) -> np.ndarray:
        """(N,) bool: ImageNet's validation images and Tiny-ImageNet's, wherever they lie."""
        return np.char.startswith(self.names, b"ILSVRC2012_val_") | np.char.startswith(self.names, b"val_")


def read_index(source: Source, dataset: str, class_ids: Sequence[str]) -> Index:
    """The index of a dataset's classes in a source, from the cache if the source has not changed since.

    Raises:
        UsageError: files in wrong folders, an image that is there twice, validation images of unknown class.
    """
    folder = source.cache / "index" / dataset
    folder.parent.mkdir(parents=True, exist_ok=True)

    def find() -> Index | None:
        found = _load(folder, class_ids)
        return found if found is not None and source.unchanged(found.stamps) else None

    def make() -> Index:
        made = _make(source, class_ids)
        _save(folder, made, class_ids)
        return made

    return made_once(folder.with_suffix(".lease"), find, make)


def _make(source: Source, class_ids: Sequence[str]) -> Index:
    label_of = {class_id: label for label, class_id in enumerate(class_ids)}
    listing = source.list_images(class_ids)
    blocks = [_pack(block, label_of) for block in _blocks(listing.images)] or [_pack([], label_of)]
    classes, names, locations, sides = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    order = np.lexsort((names, classes))
    classes, names, locations, sides = classes[order], names[order], locations[order], sides[order]
    twice = np.flatnonzero((names[1:] == names[:-1]) & (classes[1:] == classes[:-1]))
    if len(twice):
        first, second = (locations[twice[0] + i].decode() for i in (0, 1))
        raise UsageError(f"{source} holds {len(twice)} images twice: {first} and {second} are one; remove the copies")
    return Index(classes, names, locations, sides, listing.stamps, tuple(listing.unknown[:10]))


def _blocks(images: Iterable[Found]) -> Iterable[list[Found]]:
    rest = iter(images)
    while block := list(islice(rest, BLOCK)):
        yield block


def _pack(block: Sequence[Found], label_of: dict[str, int]) -> tuple[np.ndarray, ...]:
    return (
        np.array([label_of[image.wnid] for image in block], np.int32),
        np.array([image.name.encode() for image in block], "S"),
        np.array([os.fsencode(image.location) for image in block], "S"),
        np.array([image.in_validation_folder for image in block], bool),
    )


def _load(folder: Path, class_ids: Sequence[str]) -> Index | None:
    try:
        noted = json.loads((folder / "index.json").read_bytes())
        if noted["format"] != FORMAT or noted["class_ids"] != list(class_ids):
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    except (OSError, ValueError, KeyError):
        return None
    return Index(**arrays, stamps=noted["stamps"], unknown=tuple(noted["unknown"]))


def _save(folder: Path, index: Index, class_ids: Sequence[str]) -> None:
    with whole_folder(folder, existing="replace", lease=folder.with_suffix(".lease")) as partial:
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", getattr(index, name), allow_pickle=False)
        noted = {
            "format": FORMAT,
            "class_ids": list(class_ids),
            "stamps": index.stamps,
            "unknown": list(index.unknown),
        }
        write_json(partial / "index.json", noted)
