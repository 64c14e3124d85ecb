"""ImageNet in folders: ILSVRC's own, fast.ai's, Kaggle's, with one folder per wnid or the files themselves in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.ground_truth import find_ground_truth
from ddbench.datasets.imagenet.sources import Found, Listing, Source, identify, is_image, stamp

TRAIN_FOLDERS = ("train", "train_images*")
VALIDATION_FOLDERS = ("val", "validation", "val_images*")
BELOW = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "data")
"""Where those folders may lie, seen from the folder that a user names: itself, Kaggle's archive, Hugging Face's."""


class FolderSource(Source):
    """`train/` and `val/` folders, with one folder per wnid or the files themselves in them."""

    kind = "folder"

    def __init__(self, path: Path, below: str, train: Sequence[str], validation: Sequence[str]) -> None:
        self.path = path
        self.below, self.train, self.validation = below, tuple(train), tuple(validation)

    @classmethod
    def at(cls, path: Path) -> FolderSource | None:
        """The source in a folder, or None if it holds no training folder."""
        for below in BELOW:
            base = path / below
            train = _matching(base, TRAIN_FOLDERS)
            if train:
                return cls(path, below, train, _matching(base, VALIDATION_FOLDERS))
        return None

    def list_images(self, class_ids: Sequence[str]) -> Listing:
        stamps: dict[str, list[int]] = {}
        unknown: list[str] = []
        return Listing(self._walk(class_ids, stamps, unknown), stamps, unknown)

    def _walk(self, class_ids: Sequence[str], stamps: dict[str, list[int]], unknown: list[str]) -> Iterator[Found]:
        wanted = frozenset(class_ids)
        for part, folders in ((False, self.train), (True, self.validation)):
            for folder in folders:
                inside = PurePosixPath(self.below) / folder
                # Files that lie in the folder itself come first, then the classes' folders.
                for wnid in (None, *class_ids):
                    location = inside / wnid if wnid else inside
                    place = self.path / location
                    if not place.is_dir():
                        continue
                    stamps[str(location)] = stamp(place)
                    names = sorted(entry.name for entry in os.scandir(place) if entry.is_file())
                    yield from self._identify(names, location, wnid, wanted, part, stamps, unknown)

    def _identify(
        self,
        names: Sequence[str],
        location: PurePosixPath,
        folder_wnid: str | None,
        wanted: frozenset[str],
        part: bool,
        stamps: dict[str, list[int]],
        unknown: list[str],
    ) -> Iterator[Found]:
        ground_truth: Mapping[str, str] | None = None
        for name in names:
            found = identify(name, f"{location}/{name}", folder_wnid, part)
            if found is None:
                if is_image(name):
                    unknown.append(f"{location}/{name}")
                continue
            if not found.wnid:
                if ground_truth is None:
                    file, ground_truth = find_ground_truth(self._list_places())
                    stamps[os.path.relpath(file, self.path)] = stamp(file)
                stem = found.name.removesuffix(".JPEG")
                if stem not in ground_truth:
                    raise UsageError(f"{self.path / found.location}: {file} does not say its class")
                found = found._replace(wnid=ground_truth[stem])
            if found.wnid in wanted:
                yield found

    def _list_places(self) -> list[Path]:
        base = self.path / self.below
        return [base, *(parent for parent in base.parents if parent.is_relative_to(self.path)), *(
            base / folder for folder in self.validation
        )]  # fmt: skip

    def root(self, class_ids: Sequence[str]) -> Path:
        return self.path


def _matching(base: Path, patterns: Sequence[str]) -> list[str]:
    if not base.is_dir():
        return []
    return sorted({child.name for pattern in patterns for child in base.glob(pattern) if child.is_dir()})
