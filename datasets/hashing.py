"""What identifies data: a hash of the names in a split, and hashes of the decoded pixels behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np

from ddbench.datasets.base import ImageSource

BLOCK = 256
"""Images decoded at once while hashing; it bounds memory and does not change a hash."""


def split_hash(train_names: Iterable[str], test_names: Iterable[str]) -> str:
    """SHA-256 (hex) of the lines `train/<name>` and `test/<name>`, sorted: which image is on which side.

    Raises:
        ValueError: a name stands twice, on one side or on both.
    """
    train, test = list(train_names), list(test_names)
    repeated = len(train) + len(test) - len({*train, *test})
    if repeated:
        raise ValueError(f"expected every image name once in train and test together, got {repeated} repeated")
    lines = sorted([f"train/{name}" for name in train] + [f"test/{name}" for name in test])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def source_hash(source: ImageSource) -> str:
    """SHA-256 (hex) of one source: its names, labels, image shape and pixels, in the source's order."""
    digest = hashlib.sha256(b"[")
    _add_json(digest, source.names)
    digest.update(b", ")
    _add_json(digest, source.labels.tolist())
    digest.update(b"]")
    for start in range(0, len(source), BLOCK):
        block = source.read(np.arange(start, min(start + BLOCK, len(source))))
        if start == 0:
            digest.update(json.dumps([len(source), *block.shape[1:], str(block.dtype)]).encode())
        digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def _add_json(digest: hashlib._Hash, items: Sequence[str | int]) -> None:
    """Add a list as `json.dumps` writes it, without holding the text of a million names."""
    digest.update(b"[")
    for start in range(0, len(items), BLOCK):
        separator = ", " if start else ""
        digest.update(f"{separator}{json.dumps(list(items[start : start + BLOCK]))[1:-1]}".encode())
    digest.update(b"]")


def content_hash(train: ImageSource, test: ImageSource) -> str:
    """SHA-256 (hex) over the decoded pixels of both sides of a split."""
    return hashlib.sha256(f"train {source_hash(train)}\ntest {source_hash(test)}".encode()).hexdigest()
