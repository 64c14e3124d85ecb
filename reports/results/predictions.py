"""Which test images a finished student got right: predictions that lie beside its result, against the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddbench.benchmark.core.store import Store
from ddbench.reports.results.rows import Student

ROUNDING = 0.006
"""Percent points: recorded accuracies may have been rounded to two decimals."""


def correct(store: Store, student: Student) -> np.ndarray | None:
    """(n_test,) bool: which test images a finished student got right; None where that is not known.

    Predictions lie beside the result; labels in `artefacts/test-labels/<content_hash[:16]>.npy`, (n_test,) int64. Both
    must have the recorded length and give the recorded accuracy: arrays that do not are not this result's.
    """
    name, data = student.result.predictions, student.data
    # Both names come from a file of unknown origin and must not lead out of their folders.
    if not name or Path(name).name != name:
        return None
    labels = labels_of_test(store, data.content_hash)
    predicted = _array(store.cell(student.cell.id).path / name)
    if labels is None or predicted is None or predicted.shape != (data.n_test,) or labels.shape != predicted.shape:
        return None
    right = predicted.astype(np.int64) == labels
    agrees = abs(100 * float(right.mean()) - student.metrics.acc_last) < ROUNDING
    return right if agrees else None


def labels_of_test(store: Store, content_hash: str | None) -> np.ndarray | None:
    """(n_test,) int64 classes of a dataset's test images; None where the folder does not hold them."""
    if content_hash is None or not content_hash.isalnum():
        return None
    return _array(store.artefacts / "test-labels" / f"{content_hash[:16]}.npy")


def _array(file: Path) -> np.ndarray | None:
    try:
        # Mapped first: the head of a file of unknown origin may promise more than any memory holds.
        return np.array(np.load(file, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
