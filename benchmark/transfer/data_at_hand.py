"""What this machine has of the datasets that results name: what a result says of its data is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.result import DatasetRecord
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.transfer.registered import Unknown
from ddbench.datasets.base import Dataset, SplitData
from ddbench.datasets.image_sets import pixels_sha256, set_sha256

MOST_HASHED = 100_000
"""Images of a training set up to which its hash as a distilled set is computed anew."""


@dataclass(frozen=True)
class AtHand:
    """A registered dataset, and its split where its files are here."""

    dataset: Dataset
    split: SplitData | None
    why_not: str
    """Why the split is not here; empty where it is."""


class DataAtHand:
    """Opens each split once.

    Args:
        folder: where the files of datasets lie; None: wherever `bench prepare` found them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._opened: dict[DatasetSpec, AtHand | str] = {}

    def __getitem__(self, spec: DatasetSpec) -> AtHand | str:
        """The dataset, or why nothing is known of it."""
        spec = DatasetSpec(name=spec.name, split=spec.split, resolution=spec.resolution)
        if spec not in self._opened:
            self._opened[spec] = self._open(spec)
        return self._opened[spec]

    def _open(self, spec: DatasetSpec) -> AtHand | str:
        try:
            dataset: Dataset = DATASETS.load(spec.name)()
        except UsageError as error:
            return f"its dataset is not known here: {error}"
        try:
            if dataset.content_hash(spec.split, self.folder, spec.resolution) is None:
                why = f"{spec.name} is not decoded at {spec.resolution} px here; `bench prepare` does that"
                return AtHand(dataset, None, why)
            return AtHand(dataset, dataset.load(spec.split, self.folder, spec.resolution), "")
        except (UsageError, RunError, OSError) as error:
            return AtHand(dataset, None, f"{spec.name} is not here: {str(error).partition(chr(10))[0]}")


def test_labels_file(store: Store, content_hash: str) -> Path:
    """Where a results folder keeps the classes of a dataset's test images: (n_test,) int64."""
    return store.artefacts / "test-labels" / f"{content_hash[:16]}.npy"


def array(file: Path) -> np.ndarray | None:
    """An array that lies in a file; None where there is none, or where its head promises more than the file has."""
    if not file.is_file():  # no named pipe, which would be waited on for ever
        return None
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return np.array(found) if isinstance(found, np.ndarray) else None


def same_arrays(a: Path, b: Path) -> bool:
    """Whether two files hold the same array."""
    first, second = array(a), array(b)
    return first is not None and second is not None and np.array_equal(first, second)


def labels_of(store: Store, record: DatasetRecord, at_hand: AtHand | str) -> tuple[np.ndarray | None, str]:
    """((n_test,) classes of a result's test images, why they prove nothing): the dataset's own where it is here with
    the images that the result names, else those of the results folder, which whoever made the result has written."""
    if isinstance(at_hand, AtHand) and at_hand.split is not None and at_hand.split.content_hash == record.content_hash:
        return np.asarray(at_hand.split.test.labels), ""
    if isinstance(at_hand, str):
        why = at_hand
    elif at_hand.split is None:
        why = at_hand.why_not
    else:
        why = f"{record.name} has other images here (content hash {at_hand.split.content_hash[:8]})"
    return array(test_labels_file(store, record.content_hash)), f"by the labels that came with it: {why}"


def whole_training_set(at_hand: AtHand) -> str:
    """The hash of the set that `full` makes of a split.

    Raises:
        Unknown: the split is not here, or too large to be hashed again by the way.
    """
    if at_hand.split is None:
        raise Unknown(at_hand.why_not)
    train, class_ids = at_hand.split.train, at_hand.dataset.class_ids
    if len(train) > MOST_HASHED:
        raise Unknown(f"the whole training set has more than {MOST_HASHED:,} images")
    return set_sha256(
        (class_id, index, pixels_sha256(train.read([row])[0]))
        for label, class_id in enumerate(class_ids)
        for index, row in enumerate(train.of_class(label).tolist())
    )
