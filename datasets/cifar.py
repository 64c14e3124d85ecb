"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from files that people have: torchvision's folders, or the archives.

torchvision checks each file's MD5 before it reads the pickle in it, and reads nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import whole_folder
from ddbench.datasets.base import ArraySource, Dataset, Headline, SplitData
from ddbench.datasets.cache import cache_dir
from ddbench.datasets.hashing import content_hash, split_hash
from ddbench.datasets.imagenet.splits import validation_part
from ddbench.datasets.imagenet.wnid_dataset import DATA_VARIABLE

SPLIT = "default"


class Cifar(Dataset):
    """50,000 training and 10,000 test images of 32 px. A subclass is a declaration.

    Image i of torchvision's order, of class c, is called `<class id>/<train or test>-<i>.png`.
    """

    resolution = 32
    resolutions = (32,)
    splits = (SPLIT,)
    headline = Headline(protocol="quick", student="convnet3", ipc=(1, 10, 50), sets=3, students=3)
    reader: ClassVar[str]
    """Name of torchvision's class."""
    counts: ClassVar[tuple[int, int]]
    """Training and test images of each class."""

    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        """Open the split.

        Raises:
            UsageError: unknown split, another side than 32 px, or no files.
            RunError: files that are not the published ones.
        """
        self._check_split(split)
        if resolution != self.resolution:
            raise UsageError(f"{self.name} has images of {self.resolution} px, got --resolution {resolution}")
        train, test = _parts(type(self), str(self._root(data_dir)))
        return SplitData(
            name=split,
            train=train,
            test=test,
            split_hash=split_hash(train.names, test.names),
            content_hash=content_hash(train, test),
            validation=validation_part(train.names, train.labels, len(self.class_ids)),
        )

    def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
        self._check_split(split)
        self._root(data_dir)
        return dict.fromkeys(self.class_ids, self.counts[0])

    def split_hash(self, split: str, data_dir: Path | None) -> str:
        return self.load(split, data_dir, self.resolution).split_hash

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise UsageError(f"{self.name} has no split {split!r}; known: {', '.join(self.splits)}")

    def _root(self, data_dir: Path | None) -> Path:
        """The folder that has torchvision's folder or archive in it.

        Raises:
            UsageError: there is none.
        """
        kind = _reader(self.reader)
        named = data_dir or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
        places = [] if named is None else [named.expanduser(), named.expanduser().parent]
        for place in places:
            if (place / kind.base_folder).is_dir() or (place / kind.filename).is_file():
                return place
        looked = f"looked in {places[0]}" if places else "no place was named"
        raise UsageError(
            f"{self.name}: found no {kind.base_folder}/ and no {kind.filename} ({looked}). Name the folder that has "
            "one of them with --data DIR or $DDBENCH_DATA; on a machine that reaches the internet, torchvision fetches "
            "it:\n"
            f"  python -c \"import torchvision; torchvision.datasets.{self.reader}('DIR', download=True)\""
        )


def _reader(name: str) -> Any:
    import torchvision

    return getattr(torchvision.datasets, name)


@lru_cache(maxsize=2)
def _parts(declared: type[Cifar], root: str) -> tuple[ArraySource, ArraySource]:
    """Training and test images, by class and then in torchvision's order."""
    kind, folder = _reader(declared.reader), Path(root)
    if not (folder / kind.base_folder).is_dir():
        unpacked = cache_dir() / "datasets" / declared.name
        if not unpacked.is_dir():
            _unpack(folder / kind.filename, kind.tgz_md5, unpacked)
        folder = unpacked
    return _part(declared, kind, folder, "train"), _part(declared, kind, folder, "test")


def _unpack(archive: Path, md5: str, target: Path) -> None:
    from torchvision.datasets.utils import check_integrity, extract_archive

    if not check_integrity(str(archive), md5):
        raise RunError(f"{archive} is not the published archive (its MD5 is not {md5}); copy it again")
    with whole_folder(target, existing="keep") as partial:
        extract_archive(str(archive), str(partial))


def _part(declared: type[Cifar], kind: Any, folder: Path, part: str) -> ArraySource:
    try:
        images = kind(str(folder), train=part == "train")
    except RuntimeError as error:
        raise RunError(
            f"{folder / kind.base_folder} does not hold the published files ({' '.join(str(error).split())}); copy or "
            "unpack them again"
        ) from None
    if tuple(images.classes) != declared.class_ids:
        raise RunError(f"{folder / kind.base_folder} names other classes than {declared.name}'s")
    labels = np.asarray(images.targets, np.int64)
    found = np.bincount(labels, minlength=len(declared.class_ids))
    expected = declared.counts[part == "test"]
    if (found != expected).any():
        raise RunError(f"{declared.name}, {part}: expected {expected} images of each class, found {found.tolist()}")
    order = np.argsort(labels, kind="stable")
    names = [f"{declared.class_ids[labels[i]]}/{part}-{i:05d}.png" for i in order]
    return ArraySource(images.data[order], labels[order], names)


class Cifar10(Cifar):
    """CIFAR-10: ten classes."""

    name = "cifar10"
    reader, counts = "CIFAR10", (5000, 1000)
    class_ids = class_names = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip


class Cifar100(Cifar):
    """CIFAR-100: a hundred classes, by their fine labels."""

    name = "cifar100"
    reader, counts = "CIFAR100", (500, 100)
    class_ids = class_names = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    )  # fmt: skip
