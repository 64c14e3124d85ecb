"""The built-in datasets, as data: nothing is imported until one is used."""

from __future__ import annotations

from ddbench.benchmark.core.registry import Entry

ENTRIES: list[Entry] = [
    Entry(
        "digits",
        "ddbench.datasets.digits:Digits",
        "1,797 handwritten digits, 8×8 greyscale, 10 classes; ships with scikit-learn",
        tags=("embedded",),
    ),
    Entry(
        "woof",
        "ddbench.datasets.imagenet.subsets:Woof",
        "ImageNet-Woof: 10 dog breeds, 12,454 training and 500 test images of ImageNet-1K",
        tags=("paper", "files"),
    ),
    Entry(
        "nette",
        "ddbench.datasets.imagenet.subsets:Nette",
        "ImageNette: 10 easy classes, 12,894 training and 500 test images of ImageNet-1K",
        tags=("paper", "files"),
    ),
    Entry(
        "imagenet-100",
        "ddbench.datasets.imagenet.subsets:ImageNet100",
        "the distillation papers' 100 classes of ImageNet-1K, 5,000 test images",
        tags=("paper", "files"),
    ),
    Entry(
        "imagenet-1k",
        "ddbench.datasets.imagenet.subsets:ImageNet1K",
        "ILSVRC 2012: 1,000 classes, 1,281,167 training and 50,000 test images",
        tags=("paper", "files"),
    ),
]
