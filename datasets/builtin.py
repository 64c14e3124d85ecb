"""The built-in datasets, as data: nothing is imported until one is used."""

from __future__ import annotations

from ddbench.benchmark.core.registry import Entry

_EDF = ("birds", "cars", "dogs", "fish", "insect", "music", "round", "snake")
PUBLISHED = {
    "imageidc": "ImageIDC, also called ImageNet-10 (IDC)",
    **{f"image-{letter}": f"GLaD's ImageNet-{letter.upper()}, no robustness set" for letter in "abcde"},
    **{f"image{name}": f"MTT's Image{name.title()}" for name in ("fruit", "yellow", "meow", "squawk")},
    **{f"image{name}": f"GLaD's Image{name.title()}" for name in ("blub", "geo", "food", "mammal", "marine")},
    **{f"comp-dd-{name}-{level}": f"EDF's Comp-DD {name}, {level}" for name in _EDF for level in ("easy", "hard")},
}
"""Names of the published lists (imagenet/published.py) and whose they are."""
del PUBLISHED["comp-dd-music-hard"]

ALIASES = {
    "imagewoof": "woof",
    "imagenette": "nette",
    "imagenet1k": "imagenet-1k",
    "imagenet100": "imagenet-100",
    "tinyimagenet": "tiny-imagenet",
    "tiny-imagenet-200": "tiny-imagenet",
}
"""Other names of the same classes in the same order."""
UNAVAILABLE = {
    "comp-dd-music-hard": "its list names one class twice (n02787622, banjo, labels 0 and 2), so it has nine classes "
    "and not ten; which tenth was meant is not known. The nine: "
    "--dataset subset:420+594+579+402+776+486+401+546+558",
}
"""Names that people know and that cannot be had, and why."""

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
    Entry(
        "cifar10",
        "ddbench.datasets.cifar:Cifar10",
        "CIFAR-10: 10 classes of 32 px, 50,000 training and 10,000 test images",
        tags=("files",),
    ),
    Entry(
        "cifar100",
        "ddbench.datasets.cifar:Cifar100",
        "CIFAR-100: 100 classes of 32 px, 50,000 training and 10,000 test images",
        tags=("files",),
    ),
    Entry(
        "tiny-imagenet",
        "ddbench.datasets.tiny_imagenet.dataset:TinyImageNet",
        "Tiny-ImageNet-200: 200 classes of ImageNet at 64 px, 100,000 training and 10,000 test images",
        tags=("files",),
    ),
    *(
        Entry(
            name,
            f"ddbench.datasets.imagenet.published:{name}",
            f"{origin}: 10 classes of ImageNet-1K, 500 test images",
            tags=("published", "files"),
        )
        for name, origin in PUBLISHED.items()
    ),
]
