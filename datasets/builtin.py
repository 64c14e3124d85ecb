"""The built-in datasets, as data: nothing is imported until one is used."""

from __future__ import annotations

from ddbench.benchmark.registry import Entry

ENTRIES: list[Entry] = [
    Entry(
        "digits",
        "ddbench.datasets.digits:Digits",
        "1,797 handwritten digits, 8×8 greyscale, 10 classes; ships with scikit-learn",
        tags=("embedded",),
    ),
]
