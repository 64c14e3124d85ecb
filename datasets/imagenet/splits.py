"""Which of a source's images train and which test, and whether the source holds all of them.

- `imagenet`: train = the classes' ImageNet-1K training images, test = their validation images (50 each), by file name
  and wherever they lie: the split of the papers.
- `fastai`: the folders of fast.ai's imagewoof2 and imagenette2 as they are.
- `imagenet-first100`: as `imagenet`, but train = the first 100 training images of each class by sorted file name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddbench.datasets.imagenet.classes import LISTS
from ddbench.datasets.imagenet.index import Index

IMAGENET, FASTAI, FIRST_100 = "imagenet", "fastai", "imagenet-first100"
WARNINGS: Mapping[str, str] = {
    FASTAI: "split fastai is fast.ai's own: about 96 % of its test images are ImageNet training images, which priors "
    "and teachers trained on ImageNet have seen. The papers use split imagenet.",
    FIRST_100: "split imagenet-first100 keeps only the first 100 training images of each class by file name: random, "
    "full and every method that looks at the training images differ from the papers'.",
}
VALIDATION_PER_CLASS = 50
VALIDATION_SHARE = 10
"""The validation part takes at most one in this many of a class's training images."""
TRAIN_PER_CLASS = (732, 1300)
"""Least and most training images of any class of ImageNet-1K."""


@dataclass(frozen=True)
class Expected:
    """What a whole split holds, as far as it is known."""

    test: Mapping[str, int]
    train: Mapping[str, int] | None = None
    """Training images: class id -> number; None: not known class by class, only that each has `TRAIN_PER_CLASS`."""
    n_train: int | None = None
    split_hash: str | None = None
    warning: str | None = None
    """Shown wherever a number from this split is; None: that of `WARNINGS`, if there is one."""


def expected_of(dataset: str) -> dict[str, Expected]:
    """Split -> what it holds, for the datasets of `class_lists/imagenet_splits.json` (woof, nette)."""
    noted: dict[str, Any] = json.loads((LISTS / "imagenet_splits.json").read_text(encoding="utf-8"))[dataset]
    return {
        split: Expected(known["test"], known["train"], sum(known["train"].values()), known["split_hash"])
        for split, known in noted.items()
    }


class Names(Sequence[str]):
    """`<wnid>/<file name>` of some rows of an index, made when they are read: a million names cost no memory."""

    def __init__(self, index: Index, rows: np.ndarray, class_ids: Sequence[str]) -> None:
        self._names, self._classes, self._rows, self._class_ids = index.names, index.classes, rows, tuple(class_ids)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        row = self._rows[item]
        return f"{self._class_ids[self._classes[row]]}/{self._names[row].decode()}"


def choose_rows(index: Index, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of an index that a split trains on, and those that it tests on, in the index's order."""
    test = np.array(index.sides) if split == FASTAI else index.validation_images
    train = np.flatnonzero(~test)
    if split == FIRST_100:
        train = train[_rank_in_class(index.classes[train]) < 100]
    return train, np.flatnonzero(test)


def _rank_in_class(classes: np.ndarray) -> np.ndarray:
    """(n,) sorted classes -> how many of the same class come before each."""
    starts = np.flatnonzero(np.r_[True, classes[1:] != classes[:-1]])
    lengths = np.diff(np.r_[starts, len(classes)])
    return np.arange(len(classes)) - np.repeat(starts, lengths)


def count_images(index: Index, rows: np.ndarray, class_ids: Sequence[str]) -> dict[str, int]:
    """Class id -> number of images among the rows."""
    found = np.bincount(index.classes[rows], minlength=len(class_ids))
    return dict(zip(class_ids, found.tolist(), strict=True))


def shortfalls(
    expected: Expected, train: Mapping[str, int], test: Mapping[str, int], found_hash: str
) -> tuple[str, ...]:
    """Why images with these numbers and names are not the whole split; empty if they are."""
    problems = []
    least, most = TRAIN_PER_CLASS
    if expected.train is None:
        odd = {wnid: f"{n}, expected {least} to {most}" for wnid, n in train.items() if not least <= n <= most}
    else:
        odd = {wnid: f"{n} of {expected.train[wnid]}" for wnid, n in train.items() if n != expected.train[wnid]}
    problems += _listed("training", odd, len(train))
    wrong = {wnid: f"{n} of {expected.test[wnid]}" for wnid, n in test.items() if n != expected.test[wnid]}
    problems += _listed("test", wrong, len(test))
    n_train = sum(train.values())
    if not problems and expected.n_train is not None and n_train != expected.n_train:
        problems.append(f"it holds {n_train:,} training images, expected {expected.n_train:,}")
    if not problems and expected.split_hash is not None and found_hash != expected.split_hash:
        problems.append(
            f"the numbers are right, but not the file names: split hash {found_hash[:12]}…, "
            f"expected {expected.split_hash[:12]}…"
        )
    return tuple(problems)


def _listed(part: str, odd: Mapping[str, str], classes: int) -> list[str]:
    if not odd:
        return []
    shown = ", ".join(f"{wnid}: {text}" for wnid, text in list(odd.items())[:3])
    more = ", …" if len(odd) > 3 else ""
    return [f"{len(odd)} of {classes} classes have another number of {part} images ({shown}{more})"]


def validation_part(names: Sequence[str], labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Indices of the validation part: of each class's training images the 50 (at most a tenth of them) whose names
    hash lowest (the first eight bytes of the SHA-256 of `validation part/<name>`). It depends on names alone, so every
    source has the same."""
    chosen = []
    for label in range(num_classes):
        start, end = np.searchsorted(labels, [label, label + 1])
        digests = (hashlib.sha256(f"validation part/{name}".encode()).digest()[:8] for name in names[start:end])
        keys = np.frombuffer(b"".join(digests), ">u8")
        size = min(VALIDATION_PER_CLASS, (end - start) // VALIDATION_SHARE)
        chosen.append(start + np.argsort(keys, kind="stable")[:size])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
