"""Which test images a finished student got right: predictions that lie beside its result, against the labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.store import Store
from ddbench.reports.results.rows import Student

MAGIC = np.lib.format.magic(1, 0)
"""How a `.npy` file begins; the length of the rest of its head follows."""
HEAD_LENGTH_BYTES = 2
ROUNDING = 0.006
"""Percent points: recorded accuracies may have been rounded to two decimals."""


Labels = Callable[[str | None], np.ndarray | None]
"""Content hash of a dataset -> the classes of its test images, as `labels_of_test`."""


def labels_read_once(store: Store) -> Labels:
    """For whoever asks for the students of one row after another."""
    return cache(partial(labels_of_test, store))


def correct(store: Store, student: Student, labels_of: Labels | None = None) -> np.ndarray | None:
    """(n_test,) bool: which test images a finished student got right; None where that is not known.

    Predictions lie beside the result; labels in `artefacts/test-labels/<content_hash[:16]>.npy`, (n_test,) int64. Both
    must have the recorded length and give the recorded accuracy: arrays that do not are not this result's.

    Args:
        labels_of: where labels are had from (`labels_read_once`); None: read here.
    """
    name, data = student.result.predictions, student.data
    # Both names come from a file of unknown origin and must not lead out of their folders.
    if not name or "/" in name:
        return None
    labels = labels_of_test(store, data.content_hash) if labels_of is None else labels_of(data.content_hash)
    predicted = _array(f"{store.cells}/{student.cell.id}/{name}")
    if labels is None or predicted is None or predicted.shape != (data.n_test,) or labels.shape != predicted.shape:
        return None
    right = predicted.astype(np.int64) == labels
    agrees = abs(100 * np.count_nonzero(right) / max(1, len(right)) - student.metrics.acc_last) < ROUNDING
    return right if agrees else None


def labels_of_test(store: Store, content_hash: str | None) -> np.ndarray | None:
    """(n_test,) int64 classes of a dataset's test images; None where the folder does not hold them."""
    if content_hash is None or not content_hash.isalnum():
        return None
    return _array(store.artefacts / "test-labels" / f"{content_hash[:16]}.npy")


def _array(file: Path | str) -> np.ndarray | None:
    """What a `.npy` file holds, not to be written to; None for one that cannot be read or is cut off."""
    try:
        written = read_regular(file)
        start = len(MAGIC) + HEAD_LENGTH_BYTES
        start += int.from_bytes(written[len(MAGIC) : start], "little")
        shape, fortran_order, dtype = _layout(written[:start])
        # The head of a file of unknown origin may promise more than there is: numpy looks before it takes anything.
        flat = np.frombuffer(written, dtype, math.prod(shape), start)
        return flat.reshape(shape, order="F" if fortran_order else "C")
    except (OSError, ValueError, EOFError):
        return None


@lru_cache(maxsize=64)
def _layout(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether the first index runs fastest, type of the numbers) from the head of a `.npy` file. Thousands of
    files have the same, and numpy reads each as a Python expression, which takes longer than all the rest.

    Raises:
        ValueError: no such head, one of a later version than arrays of numbers have, or objects in place of numbers.
    """
    stream = BytesIO(head)
    if (version := np.lib.format.read_magic(stream)) != (1, 0):
        raise ValueError(f"expected version 1.0 of the format, got {version}")
    try:
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # whatever Python says of a text that is none of its own
        raise ValueError(f"expected the head of an array: {error}") from error
    if dtype.kind not in "biuf" or any(length < 0 for length in shape):
        raise ValueError(f"expected real numbers in some shape, got {dtype} in {shape}")
    return shape, fortran_order, dtype
