"""A small ImageNet: three of Woof's classes, four training and two validation images each, in any layout."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.datasets.base import Headline
from ddbench.datasets.imagenet.classes import CLASS_NAMES
from ddbench.datasets.imagenet.splits import FASTAI, IMAGENET, Expected
from ddbench.datasets.imagenet.subsets import ImageNetSubset

CLASSES = ("n02096294", "n02093754", "n02111889")
"""Woof's first three, in an order that is not that of their wnids."""
TRAIN_NUMBERS = (3, 20, 100, 1000)
"""As file names sort: 100, 1000, 20, 3."""
WHOLE = Expected(test=dict.fromkeys(CLASSES, 2), train=dict.fromkeys(CLASSES, 4), n_train=12)
FASTAI_WHOLE = Expected(test=dict.fromkeys(CLASSES, 3), train=dict.fromkeys(CLASSES, 3), n_train=9)

Place = Callable[[str, str, str, int], str]
"""(wnid, train or val, file name, number) -> where the file lies below the root."""


class TinyWoof(ImageNetSubset):
    """Stands in for Woof: the same code on three classes and few images."""

    name = "tiny-woof"
    class_ids = CLASSES
    class_names = tuple(CLASS_NAMES[wnid] for wnid in CLASSES)
    resolution = 16
    splits = (IMAGENET, FASTAI)
    headline = Headline(protocol="quick", student="convnet3", ipc=(1,), sets=1, students=1)
    expected = {IMAGENET: WHOLE, FASTAI: FASTAI_WHOLE}  # noqa: RUF012 - a declaration
    archive_stem = "imagewoof"


class Tiny:
    """The small ImageNet, to be written in some layout below a folder."""

    dataset = TinyWoof
    classes = CLASSES

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def ilsvrc(wnid: str, kind: str, name: str, number: int) -> str:
        return f"{kind}/{wnid}/{name}"

    @staticmethod
    def flat_val(wnid: str, kind: str, name: str, number: int) -> str:
        return f"val/{name}" if kind == "val" else f"train/{wnid}/{name}"

    @staticmethod
    def fastai(wnid: str, kind: str, name: str, number: int) -> str:
        """Re-split as fast.ai does: validation images train, training images test."""
        moved = number in (100, 1000) or (kind == "val" and number % 2 == 1)
        folder = {"train": "val", "val": "train"}[kind] if moved else kind
        return f"{folder}/{wnid}/{name}"

    @staticmethod
    def hugging_face(wnid: str, kind: str, name: str, number: int) -> str:
        folder = "val_images" if kind == "val" else f"train_images_{number % 2}"
        return f"data/{folder}/{name.removesuffix('.JPEG')}_{wnid}.JPEG"

    @staticmethod
    def kaggle(wnid: str, kind: str, name: str, number: int) -> str:
        return f"ILSVRC/Data/CLS-LOC/{Tiny.flat_val(wnid, kind, name, number)}"

    @staticmethod
    def picture(wnid: str, kind: str, number: int) -> Image.Image:
        """An image that no other has, 24 wide and 20 high."""
        generator = np.random.default_rng([int(wnid[1:]), number, kind == "val"])
        return Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8))

    def images(self) -> Iterator[tuple[str, str, str, int]]:
        """(wnid, train or val, ImageNet's file name, number)."""
        for position, wnid in enumerate(CLASSES):
            for number in TRAIN_NUMBERS:
                yield wnid, "train", f"{wnid}_{number}.JPEG", number
            for number in (2 * position + 1, 2 * position + 2):
                yield wnid, "val", f"ILSVRC2012_val_{number:08d}.JPEG", number

    def jpeg(self, wnid: str, kind: str, number: int) -> bytes:
        data = io.BytesIO()
        self.picture(wnid, kind, number).save(data, "JPEG", quality=95)
        return data.getvalue()

    def tree(self, place: Place = ilsvrc, name: str = "imagenet") -> Path:
        for wnid, kind, file, number in self.images():
            path = self.folder / name / place(wnid, kind, file, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.jpeg(wnid, kind, number))
        return self.folder / name

    def archive(
        self, name: str = "imagewoof2-16.tgz", place: Place = fastai, extra: tuple[tarfile.TarInfo, ...] = ()
    ) -> Path:
        with tarfile.open(self.folder / name, "w:gz" if name.endswith("gz") else "w") as archive:
            for wnid, kind, file, number in self.images():
                data = self.jpeg(wnid, kind, number)
                member = tarfile.TarInfo(f"{name.partition('.')[0]}/{place(wnid, kind, file, number)}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            for member in extra:
                archive.addfile(member, io.BytesIO(b"x" * member.size))
        return self.folder / name


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    return tmp_path / "cache"


SHARED_DATA = Path(os.environ.get("DDBENCH_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture
def shared_data() -> Path:
    """The folder of real archives; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no archives at {SHARED_DATA}; set DDBENCH_TEST_DATA")
    return SHARED_DATA
