"""The contract of a dataset whose images the user provides as files: found, counted, decoded before they are read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddbench.datasets.base import Dataset, SplitData

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, how much there is)."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Inspection:
    """What a source holds of a split, beside what the whole split holds."""

    source: str
    """Kind and place of the source, in words."""
    split: str
    train: Mapping[str, int]
    """Training images: class id -> number."""
    test: Mapping[str, int]
    expected_train: Mapping[str, int] | None
    """Training images of a whole split: class id -> number; None: the numbers of the classes are not known one by
    one."""
    expected_test: Mapping[str, int]
    split_hash: str
    expected_split_hash: str | None
    """Hash of the whole split; None: not known."""
    problems: tuple[str, ...]
    """Why what was found is not the split; empty: it is."""
    notes: tuple[str, ...]
    decoded: tuple[int, ...]
    """Resolutions at which its images lie decoded in the cache."""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did."""

    source: str
    n_train: int
    n_test: int
    split_hash: str
    resolution: int | None
    """Size in pixels at which images were decoded; None: they were indexed only."""
    decoded: int
    """Number of images that were decoded now; the others were in the cache."""
    skipped: tuple[str, ...]
    """Corrupt images that are left out, with reasons."""
    folder: Path
    """Where the cache of this source lies."""
    warning: str | None


class FileDataset(Dataset):
    """A dataset whose images lie in files that the user provides.

    `data_dir` is such a source, or a folder of sources; None: the usual places, last of all what `prepare` remembered.
    `load` prepares by itself what is not prepared.
    """

    @abstractmethod
    def inspect(self, split: str, data_dir: Path | None) -> Inspection:
        """Count a split's images and compare names and numbers with the whole split, decoding none.

        Raises:
            UsageError: unknown split, or no source of this dataset.
        """

    @abstractmethod
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
        """Index a source and, given a resolution, decode its images into the cache; what is there already is kept,
        unless its files were written to since.

        Args:
            skip_corrupt: leave out training images that cannot be decoded, now and in later runs on this source.
            remember: later runs that name no source use this one.

        Raises:
            UsageError: unknown split, no source of this dataset, or one that does not hold the whole split.
            RunError: corrupt images, or too little free disk.
        """


def load_anew(dataset: Dataset, split: str, data_dir: Path | None, resolution: int) -> SplitData:
    """`Dataset.load` of images as their files are now. What has been prepared, as a run's cells find it, need not ask.

    Raises:
        UsageError, RunError: as `FileDataset.prepare` and `Dataset.load`.
    """
    if isinstance(dataset, FileDataset):
        dataset.prepare(split, data_dir, resolution)
    return dataset.load(split, data_dir, resolution)
