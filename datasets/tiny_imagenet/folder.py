"""Tiny-ImageNet in a folder: unpacked as it is, or with its validation images moved into folders of classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from ddbench.datasets.imagenet.sources import Found, Listing, Source, stamp
from ddbench.datasets.tiny_imagenet.annotations import NO_LIST, PLACE, Annotations, read_annotations
from ddbench.datasets.tiny_imagenet.layout import IMAGES, PARTS, WNID, labelled


class TinyFolder(Source):
    """A folder with `train/` and `val/` in it."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def at(cls, path: Path) -> TinyFolder | None:
        """The source in a folder, or None if it holds no training folder."""
        return cls(path) if (path / "train").is_dir() else None

    @classmethod
    def recognised(cls, path: Path, class_ids: Collection[str]) -> TinyFolder | None:
        """The source in a folder that nobody named, by what only Tiny-ImageNet has; ImageNet's folder has `train/` too,
        with a million files in it."""
        found = cls.at(path)
        if found is None or (path / "wnids.txt").is_file() or (path / PLACE).is_file():
            return found
        names = (child.name for child in (path / "train").iterdir() if not child.name.startswith("."))
        # The first other name ends the look: a stranger's folder may hold a million files.
        first = next(names, None)
        return found if first in class_ids and all(name in class_ids for name in names) else None

    def list_images(self, class_ids: Sequence[str]) -> Listing:
        stamps: dict[str, list[int]] = {}
        unknown: list[str] = []
        return Listing(self._listed(class_ids, stamps, unknown), stamps, unknown)

    def _listed(self, class_ids: Sequence[str], stamps: dict[str, list[int]], unknown: list[str]) -> Iterator[Found]:
        annotations = self._annotations(class_ids, stamps)
        yield from labelled(self._locations(stamps), annotations, frozenset(class_ids), str(self), unknown)

    def _annotations(self, class_ids: Sequence[str], stamps: dict[str, list[int]]) -> Annotations | None:
        file = self.path / PLACE
        if not file.is_file():
            return None
        stamps[PLACE] = stamp(file)
        return read_annotations(file.read_bytes(), str(file), frozenset(class_ids))

    def _locations(self, stamps: dict[str, list[int]]) -> Iterator[str]:
        """The files of every folder that may hold images, by name."""
        for part in PARTS:
            yield from self._files(part, stamps, lambda name: name == IMAGES or WNID.fullmatch(name) is not None)

    def _files(self, location: str, stamps: dict[str, list[int]], enters: Callable[[str], bool]) -> Iterator[str]:
        """The files in a folder, and those in the folders in it that `enters` names and in their `images/`."""
        place = self.path / location
        if not place.is_dir():
            return
        stamps[location] = stamp(place)
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if entry.is_file():
                yield f"{location}/{entry.name}"
            elif enters(entry.name):
                yield from self._files(f"{location}/{entry.name}", stamps, lambda name: name == IMAGES)

    def unconfirmed(self) -> str | None:
        return None if (self.path / PLACE).is_file() else NO_LIST

    def root(self, class_ids: Sequence[str]) -> Path:
        return self.path
