"""The contract of a dataset: a class list in label order, fixed splits, and where its images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from ddbench.benchmark.core.errors import UsageError

Resize = Literal["bilinear", "adm"]
"""How an image becomes a square: as the papers' students see it, or as latent priors were trained on it
(`decoded_cache.py`)."""
RESIZES: tuple[Resize, ...] = get_args(Resize)


class ImageSource(ABC):
    """Labelled images in a fixed order: by class in label order, then by sorted file name.

    Legend: N images, H = W = the resolution it was opened at, C channels.
    """

    labels: np.ndarray
    """Class indices, (N,) int64: positions in the dataset's class list."""
    names: Sequence[str]
    """Stable names of the N images, `<class id>/<file name>`; they, not folder positions, identify an image."""

    @abstractmethod
    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices`, in that order: (n, H, W, C) uint8."""

    def __len__(self) -> int:
        return len(self.labels)

    def of_class(self, class_index: int) -> np.ndarray:
        """(n,) the indices of one class's images, in sorted order of their names."""
        order, labels = self._by_class
        start, end = np.searchsorted(labels, [class_index, class_index + 1])
        return order[start:end].copy()

    def class_sha256(self, class_index: int) -> str | None:
        """Names the pixels of one class's images and their order; None where that is not known without reading them."""
        return None

    @cached_property
    def _by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) indices ordered by class, (N,) their labels: found once, since a thousand classes ask."""
        order = np.argsort(self.labels, kind="stable")
        return order, np.asarray(self.labels)[order]


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
    on_validation: bool = False
    """Whether it was chosen among several by students tested on the dataset's validation part."""


@dataclass(frozen=True)
class SplitData:
    """One split, opened: what a distill cell may see (`train`) and what only the referee sees (`test`)."""

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
    """Warning shown wherever a number from this split is shown."""


class Dataset(ABC):
    """A dataset. Class attributes are its declaration (read while planning, without touching any file)."""

    name: ClassVar[str]
    class_ids: ClassVar[tuple[str, ...]]
    """Class ids in label order; a prior's label is looked up by class id, never by position."""
    class_names: ClassVar[tuple[str, ...]]
    resolution: ClassVar[int]
    """Size in pixels at which methods and students see it when nothing is said."""
    resolutions: ClassVar[tuple[int, ...] | None] = None
    """Every size in pixels that it can be opened at; None: any."""
    useful_threads: ClassVar[int | None] = None
    """The most threads that make a cell faster on a CPU; None: as many as its share of the cores."""
    channels: ClassVar[int] = 3
    splits: ClassVar[tuple[str, ...]]
    """Names of its splits; the first is the default."""
    headline: ClassVar[Headline]
    prior: ClassVar[str | None] = None
    """Name of the prior that diffusion methods use when nothing is said."""
    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {}
    """This dataset's defaults: method name -> parameter -> value and reason. A base method's hold for its variants too,
    where those say nothing else; a variant's own replace what it is registered with."""

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

    def content_hash(self, split: str, data_dir: Path | None, resolution: int) -> str | None:
        """`SplitData.content_hash`, or None where images would have to be decoded for it (results of other images are
        told from it before a run)."""
        return self.load(split, data_dir, resolution).content_hash

    def train_at(
        self,
        split: str,
        data_dir: Path | None,
        image_size: int,
        resize: Resize,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> ImageSource:
        """The training images at another side, in the order of `load`: made from the files, once.

        Here, for datasets whose images lie in no files: at the sides at which it can be opened, where nothing is
        resized.

        Raises:
            UsageError: a side that it cannot give.
        """
        allowed = self.resolutions or (self.resolution,)
        if image_size not in allowed:
            raise UsageError(
                f"{self.name}'s images are {' or '.join(map(str, allowed))} px and lie in no files that could be read "
                f"at {image_size} px; choose a prior or a recipe for that side, or a dataset with files"
            )
        return self.load(split, data_dir, image_size).train

    def test_at(
        self,
        split: str,
        data_dir: Path | None,
        image_size: int,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> ImageSource | None:
        """The test images at another side, in the order of `load`, made from the files; None for datasets whose images
        lie in no files, where the pixels of `load` are all there is. For protocols that crop test images."""
        return None

    def test_names(self, split: str, data_dir: Path | None) -> Sequence[str]:
        """Names of the test images, as in `load` and without decoding any, where a file of such a name is that image
        wherever it lies (ILSVRC's). Empty, as here, where names are numbers that any program may write."""
        return ()
