"""Datasets of 10, 100 and 1000 classes of noise, as files of which cells read what they need: what `class_scaling.py`
runs on. Load with `--plugin`; `--data` names the folder that `write` has filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ddbench.benchmark.core.files import write_json
from ddbench.datasets.base import Dataset, Headline, ImageSource, SplitData
from ddbench.datasets.cache import read_json
from ddbench.datasets.hashing import content_hash, split_hash

SIDE = 16
TRAIN, TEST = 300, 10
"""Images per class."""


class Names(Sequence[str]):
    """Names that are made when they are read."""

    def __init__(self, part: str, class_ids: tuple[str, ...], per_class: int) -> None:
        self.part, self.class_ids, self.per_class = part, class_ids, per_class

    def __len__(self) -> int:
        return len(self.class_ids) * self.per_class

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        if item >= len(self):
            raise IndexError(item)
        class_index, index = divmod(item, self.per_class)
        return f"{self.class_ids[class_index]}/{self.part}-{index:04d}.png"


class FileSource(ImageSource):
    """Images in one file of bytes, read row by row."""

    def __init__(self, file: Path, class_ids: tuple[str, ...], per_class: int) -> None:
        self.file, self.per_class = file, per_class
        self.labels = np.repeat(np.arange(len(class_ids)), per_class)
        self.names = Names(file.stem, class_ids, per_class)

    def read(self, indices: Any) -> np.ndarray:
        # Mapped for this read only: pages of a map that stays open would count as the process's memory.
        return np.load(self.file, mmap_mode="r")[np.asarray(indices, np.int64)]


class Noise(Dataset):
    resolution, resolutions = SIDE, (SIDE,)
    splits = ("default",)
    headline = Headline(protocol="quick", student="convnet3", ipc=(10,), sets=1, students=1)
    size: ClassVar[int]

    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        assert data_dir is not None
        folder = data_dir / self.name
        train = FileSource(folder / "train.npy", self.class_ids, TRAIN)
        test = FileSource(folder / "test.npy", self.class_ids, TEST)
        hashes = read_json(folder / "hashes.json")
        return SplitData(split, train, test, hashes["split_hash"], hashes["content_hash"])

    def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
        return dict.fromkeys(self.class_ids, TRAIN)

    def split_hash(self, split: str, data_dir: Path | None) -> str:
        assert data_dir is not None
        return str(read_json(data_dir / self.name / "hashes.json")["split_hash"])

    def write(self, data_dir: Path) -> None:
        """Make the files."""
        folder = data_dir / self.name
        folder.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for part, per_class in (("train", TRAIN), ("test", TEST)):
            shape = (per_class * len(self.class_ids), SIDE, SIDE, 3)
            images = np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)
            for start in range(0, len(images), 10_000):
                block = images[start : start + 10_000]
                block[:] = generator.integers(0, 256, block.shape, np.uint8)
        train, test = (
            FileSource(folder / f"{part}.npy", self.class_ids, n) for part, n in (("train", TRAIN), ("test", TEST))
        )
        write_json(
            folder / "hashes.json",
            {"split_hash": split_hash(train.names, test.names), "content_hash": content_hash(train, test)},
        )


def _ids(size: int) -> tuple[str, ...]:
    return tuple(f"c{index:04d}" for index in range(size))


class Noise10(Noise):
    name, class_ids, class_names = "noise-10", _ids(10), _ids(10)


class Noise100(Noise):
    name, class_ids, class_names = "noise-100", _ids(100), _ids(100)


class Noise1000(Noise):
    name, class_ids, class_names = "noise-1000", _ids(1000), _ids(1000)
