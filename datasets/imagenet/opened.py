"""A split of a dataset in one source: its rows of the index, checked against the whole split, and decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import check_free, write_json
from ddbench.benchmark.core.sharing.lease import Lease
from ddbench.benchmark.core.sharing.locks import giving_way, lock
from ddbench.datasets.base import ImageSource, Resize, SplitData
from ddbench.datasets.cache import read_json
from ddbench.datasets.decoded_cache import (
    MAX_THREADS,
    PREPROCESSING,
    Decoded,
    DecodedCache,
    DecodedImages,
    Part,
    enlargement_warning,
    files_stamp,
    identity,
)
from ddbench.datasets.file_dataset import Progress, silent
from ddbench.datasets.hashing import content_hash, split_hash
from ddbench.datasets.imagenet.index import Index, read_index
from ddbench.datasets.imagenet.sources import Source
from ddbench.datasets.imagenet.splits import (
    WARNINGS,
    Expected,
    Names,
    choose_rows,
    count_images,
    shortfalls,
    validation_part,
)

SKIPPED = "skipped.json"
"""File in a source's cache: location of each image that the user chose to do without -> what is wrong, and its
stamp."""


def read_skipped(source: Source) -> dict[str, str]:
    """Location -> what is wrong, of images to be left out. A file that has changed since is given another chance."""
    noted = read_json(source.cache / SKIPPED)
    return {place: str(why) for place, (why, was) in noted.items() if source.file_stamp(place) == was}


@dataclass(frozen=True)
class OpenedSplit:
    """A split of a dataset in one source."""

    dataset: str
    class_ids: tuple[str, ...]
    expected: Expected
    source: Source
    split: str
    index: Index
    skipped: Mapping[str, str]

    @classmethod
    def of(
        cls, dataset: str, class_ids: tuple[str, ...], expected: Expected, source: Source, split: str
    ) -> OpenedSplit:
        """Raises UsageError: a source that cannot be listed (`read_index`)."""
        index = read_index(source, dataset, class_ids)
        return cls(dataset, class_ids, expected, source, split, index, read_skipped(source))

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """Why the source does not hold the whole split. Training images skipped by choice do not count as missing."""
        train, test = self._whole
        found = shortfalls(
            self.expected,
            count_images(self.index, train, self.class_ids),
            count_images(self.index, test, self.class_ids),
            self._hash(train, test),
        )
        lost = int(self._left_out[test].sum())
        return (*found, f"{lost} of its test images are corrupt") if lost else found

    @cached_property
    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        return choose_rows(self.index, self.split)

    @cached_property
    def train(self) -> np.ndarray:
        """Rows of the index."""
        return self._whole[0][~self._left_out[self._whole[0]]]

    @cached_property
    def test(self) -> np.ndarray:
        return self._whole[1][~self._left_out[self._whole[1]]]

    @cached_property
    def split_hash(self) -> str:
        return self._hash(self.train, self.test)

    def _hash(self, train: np.ndarray, test: np.ndarray) -> str:
        """Of the names on both sides; kept beside the index, since a million names take seconds."""
        key = identity(self.index.stamps, self.split, len(train), len(test), sorted(self.skipped))
        file = self.source.cache / "index" / self.dataset / f"split-{key[:16]}.json"
        kept = read_json(file).get("split_hash")
        if isinstance(kept, str):
            return kept
        found = split_hash(*(Names(self.index, rows, self.class_ids) for rows in (train, test)))
        write_json(file, {"split": self.split, "split_hash": found})
        return found

    @cached_property
    def _left_out(self) -> np.ndarray:
        """(N,) bool."""
        if not self.skipped:
            return np.zeros(len(self.index), bool)
        return np.isin(self.index.locations, np.array([os.fsencode(place) for place in self.skipped], "S"))

    def split_warning(self) -> str | None:
        """What results say of the split whatever the source; None if there is nothing."""
        return self.expected.warning or WARNINGS.get(self.split)

    def skipped_warning(self) -> str | None:
        """What results say of training images that are left out; None if there are none."""
        rows = self._whole[0][self._left_out[self._whole[0]]]
        names = ", ".join(name.decode() for name in self.index.names[rows[:5]].tolist())
        return (
            f"{len(rows)} corrupt training images are left out ({names}{', …' * (len(rows) > 5)})."
            if len(rows)
            else None
        )

    def at(self, resolution: int, progress: Progress) -> SplitData:
        """The split at a resolution, decoded if it was not."""
        self.decode(resolution, progress, skip_corrupt=False)
        decoded = self._decoded(resolution)
        train, test = (self._images(rows, resolution, self._parts, decoded) for rows in (self.train, self.test))
        warnings = (
            self.split_warning(),
            self.skipped_warning(),
            enlargement_warning(decoded, resolution),
        )
        return SplitData(
            name=self.split,
            train=train,
            test=test,
            split_hash=self.split_hash,
            content_hash=self._content_hash(train, test, decoded, self._cache(resolution), progress),
            validation=validation_part(train.names, train.labels, len(self.class_ids)),
            warning=" ".join(warning for warning in warnings if warning) or None,
        )

    def content_hash(self, resolution: int) -> str | None:
        """`SplitData.content_hash` at a resolution; None if the images are not decoded."""
        decoded = self._decoded(resolution)
        if len(decoded) < len(self._parts):
            return None
        train, test = (self._images(rows, resolution, self._parts, decoded) for rows in (self.train, self.test))
        return self._content_hash(train, test, decoded, self._cache(resolution), silent)

    def _decoded(self, resolution: int, resize: Resize = "bilinear") -> dict[str, Decoded]:
        """The parts that lie in the cache."""
        cache = self._cache(resolution, resize)
        return {name: found for name, part in self._parts.items() if (found := cache.find(part.part)) is not None}

    def train_at(self, image_size: int, resize: Resize, progress: Progress) -> ImageSource:
        """The training images alone at one side, decoded if they were not."""
        return self._at(self.train, image_size, resize, progress)

    def test_at(self, image_size: int, progress: Progress) -> ImageSource:
        """The test images alone at one side, decoded if they were not."""
        return self._at(self.test, image_size, "bilinear", progress)

    def _at(self, rows: np.ndarray, image_size: int, resize: Resize, progress: Progress) -> ImageSource:
        cache = self._cache(image_size, resize)
        wanted = {name: part for name, part in self._parts.items() if np.isin(part.rows, rows).any()}

        def missing() -> list[Part]:
            return [part.part for part in wanted.values() if cache.find(part.part) is None]

        while missing():
            with self._lock(progress) as lease, giving_way(lease):
                corrupt = self._decode(missing(), cache, progress)  # another process may have decoded some meanwhile
                if corrupt:
                    self._leave_out(corrupt, skip_corrupt=False)
        return self._images(rows, image_size, wanted, self._decoded(image_size, resize))

    def decode(self, resolution: int, progress: Progress, *, skip_corrupt: bool) -> int:
        """Decode what is missing from the cache; returns the number of images decoded.

        Raises:
            RunError: corrupt images that are not to be skipped, or too little free disk.
        """
        opened, decoded = self, 0
        while opened._missing_parts(resolution):
            with self._lock(progress) as lease, giving_way(lease):
                # With the corrupt ones left out, their classes are decoded again; nothing else is.
                while missing := opened._missing_parts(resolution):
                    corrupt = opened._decode(missing, opened._cache(resolution), progress)
                    decoded += sum(part.count for part in missing)
                    if corrupt:
                        opened._leave_out(corrupt, skip_corrupt=skip_corrupt)
                        opened = replace(self, skipped=read_skipped(self.source))
        return decoded

    def forget_edited(self, progress: Progress) -> None:
        """Have images decoded anew, at every side, whose files were written to since: the listing goes by the times of
        folders. Asked once for a run and not by its cells: there may be a million files.

        Raises:
            OSError: a file that is gone.
        """
        caches = list(self._caches()) if self.source.users_own else []
        parts = {
            name: part.part for name, part in self._parts.items() if any(cache.find(part.part) for cache in caches)
        }
        if not parts:
            return
        progress(f"looking whether images of {self.dataset} have changed", 0, 0)
        with ThreadPoolExecutor(MAX_THREADS) as threads:  # waiting for a file system of other machines
            stamps = dict(zip(parts, threads.map(lambda part: files_stamp(part.files()), parts.values()), strict=True))

        def edited() -> list[tuple[DecodedCache, Part]]:
            kept = [(cache, part, cache.find(part)) for cache in caches for part in parts.values()]
            return [(cache, part) for cache, part, one in kept if one and one.files_stamp != stamps[part.name]]

        if edited():
            with self._lock(progress):
                for cache, part in edited():  # another process may have decoded some anew meanwhile
                    cache.forget(part)

    def _decode(self, missing: Sequence[Part], cache: DecodedCache, progress: Progress) -> dict[str, str]:
        """Returns location -> what is wrong, of the images that are no whole images."""
        total, done = sum(part.count for part in missing), 0
        what = f"decoding {self.dataset} at {cache.image_size} px{' for its prior' * (cache.resize == 'adm')}"
        self.source.cache.mkdir(parents=True, exist_ok=True)
        check_free(self.source.cache, sum(cache.bytes_of(part) for part in missing), what)
        if self.source.packed(self.class_ids):
            progress(f"unpacking {self.source.path.name}", 0, 0)
        root = self.source.root(self.class_ids)

        def advance(images: int) -> None:
            nonlocal done
            done += images
            progress(what, done, total)

        progress(what, 0, total)
        corrupt = cache.decode(missing, advance, lease=self.source.decoding)
        return {str(file.relative_to(root)): why for file, why in corrupt.items()}

    def _leave_out(self, corrupt: Mapping[str, str], *, skip_corrupt: bool) -> None:
        """Note images as skipped.

        Raises:
            RunError: that was not asked for, or would change a test set.
        """
        listed = "\n".join(f"  {location}: {why}" for location, why in list(corrupt.items())[:20])
        more = f"\n  and {len(corrupt) - 20} more" if len(corrupt) > 20 else ""
        said = f"{len(corrupt)} corrupt images in {self.source}:\n{listed}{more}\n"
        if not skip_corrupt:
            raise RunError(
                f"{said}Get these files again, or convert them; or leave them out, which every result will say: "
                f"bench prepare {self.dataset} --from {self.source.path} --resolution N --skip-corrupt"
            )
        of_test = set(self.index.locations[self.test].tolist())
        if any(os.fsencode(location) in of_test for location in corrupt):
            raise RunError(f"{said}Some are test images. A test set is never made smaller: get these files again.")
        noted = {place: [why, self.source.file_stamp(place)] for place, why in {**self.skipped, **corrupt}.items()}
        write_json(self.source.cache / SKIPPED, noted, lease=self.source.decoding)

    def _lock(self, progress: Progress) -> AbstractContextManager[Lease]:
        def waiting() -> AbstractContextManager[object]:
            progress("waiting for another process that decodes this source", 0, 0)
            return nullcontext()

        self.source.cache.mkdir(parents=True, exist_ok=True)
        return lock(self.source.decoding, waiting=waiting)

    def _cache(self, resolution: int, resize: Resize = "bilinear") -> DecodedCache:
        return DecodedCache(self.source.cache / "decoded", resolution, resize)

    def _caches(self) -> Iterator[DecodedCache]:
        """One for each side and each way to get there that anything was decoded at."""
        for resize, transform in PREPROCESSING.items():
            for folder in (self.source.cache / "decoded").glob(f"{transform}-*"):
                yield self._cache(int(folder.name.removeprefix(f"{transform}-")), resize)

    def _missing_parts(self, resolution: int) -> list[Part]:
        cache = self._cache(resolution)
        return [part.part for part in self._parts.values() if cache.find(part.part) is None]

    @cached_property
    def _parts(self) -> dict[str, _PartRows]:
        """The parts that the split needs: of each class, ImageNet's training and its validation images apart, so that
        splits, and datasets that share classes, share what is decoded."""
        needed = np.zeros(len(self.index), bool)
        needed[self.train] = needed[self.test] = True
        validation = self.index.validation_images
        kinds, found = {"train": ~validation & ~self._left_out, "val": validation & ~self._left_out}, {}
        for label, wnid in enumerate(self.class_ids):
            start, end = np.searchsorted(self.index.classes, [label, label + 1])
            for kind, of_kind in kinds.items():
                rows = np.flatnonzero(of_kind[start:end]) + start
                if needed[rows].any():
                    found[f"{wnid}-{kind}"] = self._part(f"{wnid}-{kind}", rows)
        return found

    def _part(self, name: str, rows: np.ndarray) -> _PartRows:
        locations = self.index.locations[rows].tolist()
        folders = {os.path.dirname(os.fsdecode(location)) for location in locations}  # noqa: PTH120 - of text
        stamps = {folder: self.index.stamps.get(folder) for folder in sorted(folders)}

        def files() -> list[Path]:
            root = self.source.root(self.class_ids)
            return [root / os.fsdecode(location) for location in self.index.locations[rows].tolist()]

        key = identity(hashlib.sha256(b"\0".join(locations)).hexdigest(), stamps)
        return _PartRows(Part(name, len(rows), files, key), rows)

    def _images(
        self, rows: np.ndarray, resolution: int, parts: Mapping[str, _PartRows], decoded: Mapping[str, Decoded]
    ) -> DecodedImages:
        part_of, row_of = np.full(len(self.index), -1, np.int32), np.zeros(len(self.index), np.int32)
        for number, part in enumerate(parts.values()):
            part_of[part.rows], row_of[part.rows] = number, np.arange(len(part.rows))
        return DecodedImages(
            [decoded[name].path for name in parts],
            part_of[rows],
            row_of[rows],
            self.index.classes[rows].astype(np.int64),
            Names(self.index, rows, self.class_ids),
            resolution,
            [decoded[name].sha256 for name in parts],
        )

    def _content_hash(
        self,
        train: ImageSource,
        test: ImageSource,
        decoded: Mapping[str, Decoded],
        cache: DecodedCache,
        progress: Progress,
    ) -> str:
        """Computed once for these parts, and kept beside them."""
        key = identity(self.split_hash, {name: part.sha256 for name, part in decoded.items()})
        file = cache.folder / f"content-{self.dataset}-{key[:16]}.json"
        kept = read_json(file).get("content_hash")
        if isinstance(kept, str):
            return kept
        progress(f"hashing {self.dataset}", 0, 0)
        found = content_hash(train, test)
        write_json(file, {"dataset": self.dataset, "split": self.split, "content_hash": found})
        return found

    def decoded_resolutions(self) -> tuple[int, ...]:
        """Resolutions at which all of the split lies in the cache."""
        prefix = f"{PREPROCESSING['bilinear']}-"
        folders = (self.source.cache / "decoded").glob(f"{prefix}*")
        sides = sorted(int(folder.name.removeprefix(prefix)) for folder in folders)
        return tuple(image_size for image_size in sides if not self._missing_parts(image_size))


@dataclass(frozen=True)
class _PartRows:
    """A part, and the rows of the index that it holds."""

    part: Part
    rows: np.ndarray
