"""Soft labels that come with a distilled set: one row of K values for each image, found beside it or in its file.

Beside the images of a folder they lie as one file an image, of the same stem (`00003.png`, `00003.pt`), or as one file
for the set in the folder itself (`labels.pt`): (N, K) in the order of classes and, in each, of file names as text; or a
mapping from file names to rows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.float_images import LABELS as CLASSES
from ddbench.datasets.float_images import FloatImages
from ddbench.datasets.foreign.class_folders import LABELS as FOLDERS
from ddbench.datasets.foreign.class_order import class_order
from ddbench.datasets.foreign.tensors import LABELS, SOFT, SUFFIXES, load, numbers

Kind = Literal["probabilities", "logits"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SUM_TOLERANCE = 1e-2
"""How far a row's sum may lie from 1: half precision over a thousand classes."""
CHANCE = 1.5
"""Labels are refused that are largest at an image's own class for no more than this share of 1/K of the images: their
rows or columns stand in another order."""


@dataclass(frozen=True)
class SoftLabels:
    """Labels of a set, rows in the set's order, columns in label order."""

    values: np.ndarray
    """(N, K) float32: probabilities, each row summing to 1, or logits."""
    kind: Kind
    label_bytes: int
    """What the values take as they are stored: N · K · bytes of a number."""
    source: str

    @property
    def sha256(self) -> str:
        """Of kind, shape and values."""
        head = f"{self.kind}\0{'x'.join(map(str, self.values.shape))}\0".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.values).tobytes()).hexdigest()

    def logits(self) -> np.ndarray:
        """(N, K) float64 of which softmax gives the probabilities."""
        with np.errstate(divide="ignore"):
            return self.values.astype(np.float64) if self.kind == "logits" else np.log(self.values.astype(np.float64))

    def rows(self, chosen: Sequence[int]) -> SoftLabels:
        """Of some of the images."""
        share = self.label_bytes // len(self.values)
        return SoftLabels(self.values[list(chosen)], self.kind, share * len(chosen), self.source)


@dataclass(frozen=True)
class Beside:
    """Files of soft labels that lie beside a folder's images; `read` opens them."""

    of_images: dict[Path, Path]
    """Image -> its file of labels, of the same stem."""
    of_set: tuple[Path, ...]
    """Files of the whole set."""
    of_crops: tuple[Path, ...] = ()
    """Folders of labels for each epoch and batch of crops (SRe2L's FKD), of which no image has one."""

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.of_images.values(), *self.of_set)

    @property
    def source(self) -> str:
        found = [f"a file beside each of {len(self.of_images)} images"] if self.of_images else []
        found += [path.name for path in self.of_set]
        return " and ".join([*found, *(f"labels of crops by epoch in {path.name}" for path in self.of_crops)])


def labels_beside(folder: Path, images: Sequence[Path]) -> Beside | None:
    """Soft labels that lie beside images, or None. Opens none."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    of_images = {
        image: found
        for image in images
        if (found := next((f for s in SUFFIXES if (f := image.with_suffix(s)).is_file()), None)) is not None
    }
    of_set = [
        entry
        for entry in there
        if entry.suffix.lower() in SUFFIXES and re.search("label|logit", entry.name, re.IGNORECASE) and entry.is_file()
        if entry.name != CLASSES or FloatImages.at(folder) is None
    ]
    of_crops = [entry for entry in there if FOLDERS.fullmatch(entry.name) and entry.is_dir()]
    return Beside(of_images, tuple(of_set), tuple(of_crops)) if of_images or of_set or of_crops else None


def read_beside(
    beside: Beside,
    images: Sequence[Path],
    labels: np.ndarray,
    class_ids: Sequence[str],
    *,
    order: str | None,
    kind: Kind | None,
) -> SoftLabels:
    """Read the labels of all images of a folder.

    Args:
        images: all of them, by class in label order and then by name.
        labels: their class indices.
        order: which class a column is (`class_order`); None: only where class ids are sorted in label order.
        kind: what the values are; None: probabilities, or it must be said.

    Raises:
        UsageError: labels that are missing, wrong, in an unknown order, or contradict each other.
    """
    if not beside.files:
        raise UsageError(f"{beside.source}: these are no labels of images, which can be trained with alone")
    indices = _order(order, class_ids, beside.source)
    found = []
    if beside.of_images:
        missing = [image for image in images if image not in beside.of_images]
        if missing:
            raise UsageError(
                f"soft labels lie beside {len(beside.of_images)} of {len(images)} images; {missing[0]} has none"
            )
        found.append(np.stack([_row(load(path), path, len(class_ids)) for path in beside.of_images.values()]))
    for path in beside.of_set:
        content = _unwrapped(load(path))
        if isinstance(content, Mapping):
            found.append(np.stack([_row(_of(content, image, path), path, len(class_ids)) for image in images]))
            continue
        if not isinstance(content, np.ndarray) or content.shape != (len(images), len(class_ids)):
            got = content.shape if isinstance(content, np.ndarray) else type(content).__name__
            raise UsageError(
                f"{path}: expected soft labels of shape ({len(images)}, {len(class_ids)}), a row for each image, got "
                f"{got}"
            )
        # Row i is the i-th image when classes come in the order of the columns.
        position = np.argsort(np.argsort(np.argsort(indices)[labels], kind="stable"))
        found.append(numbers(content, str(path))[position])
    if any(other.shape != found[0].shape or not np.allclose(other, found[0], atol=1e-6) for other in found[1:]):
        raise UsageError(f"soft labels contradict each other: {beside.source}; leave one of them")
    values = found[0][:, np.argsort(indices)]
    return checked(values, labels, kind, beside.source)


def checked(values: np.ndarray, labels: np.ndarray, kind: Kind | None, source: str) -> SoftLabels:
    """Labels as a training may use them.

    Args:
        values: (N, K), columns in label order.
        labels: the images' class indices.

    Raises:
        UsageError: values that are not what they are said to be, or not these images' labels.
    """
    floats = values.astype(np.float64)
    if not np.isfinite(floats).all():
        raise UsageError(f"{source}: soft labels that are not finite")
    sums = floats.sum(1)
    are_probabilities = bool(floats.min() >= -1e-6 and np.abs(sums - 1).max() <= SUM_TOLERANCE)
    if kind is None and not are_probabilities:
        raise UsageError(
            f"{source}: rows of soft labels sum to {sums.min():.4g} … {sums.max():.4g}, so they are no probabilities; "
            "if they are logits, of which softmax gives probabilities, say --labels logits"
        )
    if kind is not None and (kind == "probabilities") != are_probabilities:
        is_what = "are probabilities" if are_probabilities else f"sum to {sums.min():.4g} … {sums.max():.4g}"
        raise UsageError(f"--labels {kind}: {source}: rows of soft labels {is_what}")
    agree = float(np.mean(floats.argmax(1) == labels))
    if agree <= CHANCE / values.shape[1]:
        raise UsageError(
            f"{source}: soft labels are largest at an image's own class for {100 * agree:.0f} % of the images, no more "
            "than chance: their rows or columns are in another order (--class-order)"
        )
    if are_probabilities:
        floats = floats.clip(0) / floats.clip(0).sum(1, keepdims=True)
    return SoftLabels(
        floats.astype(np.float32), "probabilities" if are_probabilities else "logits", values.nbytes, source
    )


def _order(order: str | None, class_ids: Sequence[str], source: str) -> np.ndarray:
    """The class index of each column."""
    if order is None:
        if list(class_ids) != sorted(class_ids):
            raise UsageError(
                f"{source}: which class a column of the soft labels is, the program that wrote them knows; say it with "
                "--class-order sorted, dataset or a file"
            )
        return np.arange(len(class_ids))
    named = class_order(order, class_ids, range(len(class_ids)))
    return np.array([class_ids.index(named[column]) for column in range(len(class_ids))])


def _unwrapped(content: Any) -> Any:
    """An array of several values out of what a file wraps it in."""
    if isinstance(content, list) and len(content) == 1:
        return _unwrapped(content[0])
    if isinstance(content, Mapping):
        named = {str(key).lower(): value for key, value in content.items()}
        inner = next((named[key] for key in (*SOFT, *LABELS) if key in named), None)
        return content if inner is None else _unwrapped(inner)
    return content


def _row(content: Any, path: Path, n_classes: int) -> np.ndarray:
    row = _unwrapped(content)
    if isinstance(row, np.ndarray) and row.size == n_classes and max(row.shape) == n_classes:
        return numbers(row, str(path)).reshape(n_classes)
    got = f"an array of shape {row.shape}" if isinstance(row, np.ndarray) else type(row).__name__
    raise UsageError(f"{path}: expected one soft label of {n_classes} values, got {got}")


def _of(content: Mapping[Any, Any], image: Path, path: Path) -> Any:
    parent = image.parent.name
    for key in (f"{parent}/{image.name}", f"{parent}/{image.stem}", image.name, image.stem):
        if key in content:
            return content[key]
    raise UsageError(
        f"{path}: no soft label for {parent}/{image.name}; its keys begin with {next(iter(content), None)!r}"
    )
