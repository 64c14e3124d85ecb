"""The contract of datasets whose images are of ImageNet's classes: found in a source, indexed, checked, decoded.

Labels go by wnid, and what an image is by its file name: neither the order of folders nor the folder a file lies in
changes a split.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import ImageSource, Resize, SplitData
from ddbench.datasets.cache import remember_source, remembered_sources
from ddbench.datasets.file_dataset import FileDataset, Inspection, Prepared, Progress, silent
from ddbench.datasets.imagenet.opened import OpenedSplit
from ddbench.datasets.imagenet.sources import Source
from ddbench.datasets.imagenet.splits import Expected, count_images

DATA_VARIABLE = "DDBENCH_DATA"


class WnidDataset(FileDataset):
    """Images of ImageNet's classes in sources of one kind; which kind, a subclass says."""

    expected: ClassVar[Mapping[str, Expected]]
    """What each split holds when whole."""
    names_said: ClassVar[str]
    """Whose file names those are that make a file one of its images, for people."""

    @abstractmethod
    def sources_at(self, path: Path) -> list[Source]:
        """The sources in a place that a user names; empty if there is none.

        Raises:
            UsageError: no such place, or a file that is no archive.
        """

    @abstractmethod
    def where_to_get(self) -> list[str]:
        """Lines for people: the tree that is expected, and what makes it."""

    @abstractmethod
    def named_in_commands(self) -> str:
        """What stands for a source in the commands that people are shown."""

    def hints(self, split: str) -> list[str]:
        """Lines for people on where a split that is not whole can be had; here none."""
        return []

    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        """Open a split; what is not decoded yet at this resolution is decoded first.

        Raises:
            UsageError: unknown split, no source, or a source that does not hold the whole split.
            RunError: corrupt images, or too little free disk.
        """
        return self._open(split, data_dir).at(resolution, silent)

    def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
        opened = self._open(split, data_dir)
        return count_images(opened.index, opened.train, self.class_ids)

    def split_hash(self, split: str, data_dir: Path | None) -> str:
        return self._open(split, data_dir).split_hash

    def content_hash(self, split: str, data_dir: Path | None, resolution: int) -> str | None:
        return self._open(split, data_dir).content_hash(resolution)

    def train_at(
        self, split: str, data_dir: Path | None, image_size: int, resize: Resize, progress: Progress = silent
    ) -> ImageSource:
        """The training images at any side, from the files: what is not decoded yet is decoded first.

        Raises:
            UsageError: as `load`.
            RunError: as `load`.
        """
        return self._open(split, data_dir).train_at(image_size, resize, progress)

    def test_at(self, split: str, data_dir: Path | None, image_size: int, progress: Progress = silent) -> ImageSource:
        return self._open(split, data_dir).test_at(image_size, progress)

    def inspect(self, split: str, data_dir: Path | None) -> Inspection:
        self._check_split(split)
        found = self._sources(split, data_dir)
        # The one that a run would open; if there is none, the first: its table says what is missing.
        opened = next((one for one in found if not one.problems), found[0])
        expected = self.expected[split]
        notes = [warning for warning in (opened.split_warning(), opened.skipped_warning()) if warning]
        if (unconfirmed := opened.source.unconfirmed()) is not None:
            notes.append(unconfirmed)
        if opened.index.unknown:
            notes.append(
                f"files with other names than {self.names_said} are left out, such as {opened.index.unknown[0]}"
            )
        if opened.problems:
            other = [name for name in self.splits if name != split and not self._on(opened.source, name).problems]
            notes += [f"it holds all of split {name}" for name in other]
        return Inspection(
            source=str(opened.source),
            split=split,
            train=count_images(opened.index, opened.train, self.class_ids),
            test=count_images(opened.index, opened.test, self.class_ids),
            expected_train=expected.train,
            expected_test=expected.test,
            split_hash=opened.split_hash,
            expected_split_hash=expected.split_hash,
            problems=opened.problems,
            notes=tuple(notes),
            decoded=() if opened.problems else opened.decoded_resolutions(),
        )

    def prepare(
        self,
        split: str,
        data_dir: Path | None,
        resolution: int | None,
        *,
        skip_corrupt: bool = False,
        remember: bool = False,
        progress: Progress = silent,
    ) -> Prepared:
        opened = self._open(split, data_dir)
        opened.forget_edited(progress)
        decoded, warning = 0, None
        if resolution is not None:
            decoded = opened.decode(resolution, progress, skip_corrupt=skip_corrupt)
            opened = self._on(opened.source, split)
            warning = opened.at(resolution, progress).warning
        if remember:
            remember_source(self.name, split, opened.source.path.resolve())
        return Prepared(
            source=str(opened.source),
            n_train=len(opened.train),
            n_test=len(opened.test),
            split_hash=opened.split_hash,
            resolution=resolution,
            decoded=decoded,
            skipped=tuple(f"{location}: {why}" for location, why in opened.skipped.items()),
            folder=opened.source.cache,
            warning=warning,
        )

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise UsageError(f"{self.name} has no split {split!r}; known: {', '.join(self.splits)}")

    def _open(self, split: str, data_dir: Path | None) -> OpenedSplit:
        """The one source that holds the whole split.

        Raises:
            UsageError: none does, or several do.
        """
        self._check_split(split)
        found = self._sources(split, data_dir)
        whole = [one for one in found if not one.problems]
        if len(whole) == 1:
            return whole[0]
        if whole:
            listed = "\n".join(f"  {one.source}" for one in whole)
            raise UsageError(
                f"several sources hold {self.name}, split {split}:\n{listed}\nName one of them with --data."
            )
        lines = []
        for one in found:
            lines.append(f"{one.source} does not hold {self.name}, split {split}:")
            lines += [f"  {problem}" for problem in one.problems]
            others = [name for name in self.splits if name != split and not self._on(one.source, name).problems]
            lines += [f"  It holds all of split {name}: use --split {name}" for name in others]
        lines += self.hints(split)
        lines.append(f"`bench verify {self.name} --data {found[0].source.path}` shows every class.")
        raise UsageError("\n".join(lines))

    def _sources(self, split: str, data_dir: Path | None) -> list[OpenedSplit]:
        """Every source at the first usual place that has one, indexed.

        Raises:
            UsageError: there is none.
        """
        looked, problems = [], list[str]()
        for what, path in self._places(split, data_dir):
            looked.append(f"{what} {path}")
            found = []
            try:
                for source in self.sources_at(path):
                    opened = self._on(source, split)
                    if len(opened.index):
                        found.append(opened)
            except UsageError as error:
                if data_dir is not None:
                    raise
                problems.append(str(error))
            if found:
                return found
        raise UsageError("\n".join([*problems, *self._missing(looked)]))

    def _places(self, split: str, data_dir: Path | None) -> Iterator[tuple[str, Path]]:
        if data_dir is not None:
            yield "--data", data_dir
            return
        if os.environ.get(DATA_VARIABLE):
            yield f"${DATA_VARIABLE}", Path(os.environ[DATA_VARIABLE]).expanduser()
        for path in remembered_sources(self.name, split):
            yield "prepared", path

    def _on(self, source: Source, split: str) -> OpenedSplit:
        return OpenedSplit.of(self.name, self.class_ids, self.expected[split], source, split)

    def _missing(self, looked: Sequence[str]) -> list[str]:
        """What is said where no images of this dataset were found."""
        return [
            f"{self.name}: found no images of its {len(self.class_ids)} classes "
            f"({'looked at ' + ', '.join(looked) if looked else 'no place was named'}).",
            *self.where_to_get(),
            "Then name it once, or for one run, or for all datasets:",
            f"  bench prepare {self.name} --from {self.named_in_commands()}",
            f"  bench run --dataset {self.name} --data DIR …",
            f"  export {DATA_VARIABLE}=DIR",
        ]
