"""The contract of a dataset: a class list in label order, fixed splits, and where its images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


class ImageSource(ABC):
    """Labelled images in a fixed order: by class in label order, then by sorted file name.

    Legend: N images, H = W = the resolution it was opened at, C channels.
    """

    labels: np.ndarray
    """(N,) int64 class indices, positions in the dataset's class list."""
    names: Sequence[str]
    """N stable names `<class id>/<file name>`; they, not folder positions, identify an image."""

    @abstractmethod
    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices`, in that order: (n, H, W, C) uint8."""

    def __len__(self) -> int:
        return len(self.labels)

    def of_class(self, class_index: int) -> np.ndarray:
        """(n,) the indices of one class's images, in sorted order of their names."""
        return np.flatnonzero(self.labels == class_index)


class ArraySource(ImageSource):
    """Images that lie in memory as one (N, H, W, C) uint8 array."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
        if not (len(images) == len(labels) == len(names)):
            raise ValueError(
                f"expected as many labels and names as images, got {len(images)} images, "
                f"{len(labels)} labels, {len(names)} names"
            )
        self.images, self.labels, self.names = images, np.asarray(labels, np.int64), list(names)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.images[np.asarray(indices, np.int64)]


class Subset(ImageSource):
    """Some of another source's images, in that source's order (a validation part, a shard of classes)."""

    def __init__(self, source: ImageSource, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.sort(np.asarray(indices, np.int64))
        self.labels = source.labels[self.indices]
        self.names = [source.names[i] for i in self.indices]

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.source.read(self.indices[np.asarray(indices, np.int64)])


@dataclass(frozen=True)
class Headline:
    """What a run uses when nothing is said: the dataset's declared headline."""

    protocol: str
    student: str
    ipc: tuple[int, ...]
    sets: int
    students: int


@dataclass(frozen=True)
class Default:
    """A method parameter that this dataset sets, and why the method's own default does not carry over."""

    value: Any
    reason: str


@dataclass(frozen=True)
class SplitData:
    """One split, opened: what a distil cell may see (`train`) and what only the referee sees (`test`)."""

    name: str
    train: ImageSource
    test: ImageSource
    split_hash: str
    """SHA-256 over the sorted names of train and test."""
    content_hash: str
    """SHA-256 over the decoded pixels of train and test."""
    validation: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Indices into `train` of the validation part; withheld from methods in tuning runs only."""
    warning: str | None = None
    """Shown wherever a number from this split is shown."""


class Dataset(ABC):
    """A dataset. Class attributes are its declaration (read while planning, without touching any file)."""

    name: ClassVar[str]
    class_ids: ClassVar[tuple[str, ...]]
    """Label order; a prior's label is looked up by class id, never by position."""
    class_names: ClassVar[tuple[str, ...]]
    resolution: ClassVar[int]
    """Side in pixels at which methods and students see it when nothing is said."""
    resolutions: ClassVar[tuple[int, ...] | None] = None
    """Every side it can be opened at; None: any."""
    useful_threads: ClassVar[int | None] = None
    """The most threads that make a cell faster on a CPU; None: as many as its share of the cores."""
    channels: ClassVar[int] = 3
    splits: ClassVar[tuple[str, ...]]
    """The first is the default."""
    headline: ClassVar[Headline]
    prior: ClassVar[str | None] = None
    """Name of the prior that diffusion methods use when nothing is said."""
    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {}
    """Base method name -> parameter -> value and reason."""

    @abstractmethod
    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        """Open one split.

        Raises:
            UsageError: unknown split, a resolution it cannot give, or data that is not where `data_dir` says.
        """

    @abstractmethod
    def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
        """Class id -> number of training images, without decoding any (planning checks IPC against it)."""

    @abstractmethod
    def split_hash(self, split: str, data_dir: Path | None) -> str:
        """`SplitData.split_hash` without decoding any image (planning checks a prior's training data against it)."""
