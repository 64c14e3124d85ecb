"""A dataset's validation part in the place of its test images: what methods are tuned on.

`<dataset>:validation` names it wherever a dataset is named. Methods see the training images without the validation
part, students are tested on it, and there is no way from it to a test image. Leaderboards leave its results out.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import Dataset, ImageSource, Resize, SplitData, Subset

SUFFIX = ":validation"
WARNING = "tuning: tested on the validation part of the training images; such numbers choose parameters, no more"


@functools.cache
def validation_of(whole: type[Dataset]) -> type[Dataset]:
    """The dataset `<name>:validation` of a dataset."""

    class Validation(whole):  # type: ignore[misc, valid-type]
        name = whole.name + SUFFIX

        def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
            opened = whole().load(split, data_dir, resolution)
            if not len(opened.validation):
                raise UsageError(f"{whole.name}, split {split}, has no validation part, so nothing is tuned on it")
            return replace(
                opened,
                train=Subset(opened.train, _rest(opened)),
                test=Subset(opened.train, opened.validation),
                split_hash=of_validation(opened.split_hash),
                content_hash=of_validation(opened.content_hash),
                validation=np.empty(0, np.int64),
                warning="; ".join(filter(None, (WARNING, opened.warning))),
            )

        def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
            """Of the whole training part: which of its images are for validation is known once they are opened."""
            return whole().train_counts(split, data_dir)

        def split_hash(self, split: str, data_dir: Path | None) -> str:
            return of_validation(whole().split_hash(split, data_dir))

        def content_hash(self, split: str, data_dir: Path | None, resolution: int) -> str | None:
            found = whole().content_hash(split, data_dir, resolution)
            return None if found is None else of_validation(found)

        def train_at(
            self,
            split: str,
            data_dir: Path | None,
            image_size: int,
            resize: Resize,
            progress: Callable[[str, int, int], None] = lambda what, done, total: None,
        ) -> ImageSource:
            images = whole().train_at(split, data_dir, image_size, resize, progress)
            return Subset(images, _rest(whole().load(split, data_dir, whole.resolution)))

        def test_at(
            self,
            split: str,
            data_dir: Path | None,
            image_size: int,
            progress: Callable[[str, int, int], None] = lambda what, done, total: None,
        ) -> ImageSource | None:
            if whole.test_at is Dataset.test_at:
                return None
            images = whole().train_at(split, data_dir, image_size, "bilinear", progress)
            return Subset(images, whole().load(split, data_dir, whole.resolution).validation)

        def test_names(self, split: str, data_dir: Path | None) -> Sequence[str]:
            """None: the names of the whole dataset's are of its test images, to which there is no way from here."""
            return ()

    Validation.__name__ = Validation.__qualname__ = f"{whole.__name__}Validation"
    Validation.__doc__ = f"The validation part of {whole.name} for a test set."
    return Validation


def _rest(opened: SplitData) -> np.ndarray:
    return np.setdiff1d(np.arange(len(opened.train)), opened.validation)


def of_validation(sha256: str) -> str:
    """The split or content hash of a validation part, from that of its dataset."""
    return hashlib.sha256(f"{sha256}{SUFFIX}".encode()).hexdigest()


def is_tuning(dataset: str) -> bool:
    """Whether a dataset's name is that of a validation part."""
    return dataset.endswith(SUFFIX)
