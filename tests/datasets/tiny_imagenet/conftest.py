"""A small Tiny-ImageNet: three of its classes, four training and two validation images each, in every layout."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from ddbench.datasets.imagenet.classes import CLASS_NAMES
from ddbench.datasets.imagenet.splits import Expected
from ddbench.datasets.tiny_imagenet.dataset import SPLIT, WARNING, TinyImageNet

CLASSES = ("n01443537", "n02124075", "n04067472")
TRAIN_NUMBERS = (0, 2, 10, 499)
"""As file names sort: 0, 10, 2, 499."""
VALIDATION = {0: "n04067472", 1: "n01443537", 2: "n02124075", 3: "n04067472", 10: "n01443537", 11: "n02124075"}
"""Number of a validation image -> its class: no order of folders."""
GREY = {("val", 2), ("train", 10)}

Place = Callable[[str, str], str]
"""(wnid, name) -> where a validation image lies."""


class SmallTiny(TinyImageNet):
    """The same code on three classes and few images."""

    name = "small-tiny"
    class_ids, class_names = CLASSES, tuple(CLASS_NAMES[wnid] for wnid in CLASSES)
    expected: ClassVar = {
        SPLIT: Expected(test=dict.fromkeys(CLASSES, 2), train=dict.fromkeys(CLASSES, 4), n_train=12, warning=WARNING)
    }


def original(wnid: str, name: str) -> str:
    return f"val/images/{name}"


def by_class(wnid: str, name: str) -> str:
    return f"val/{wnid}/{name}"


def by_class_with_images(wnid: str, name: str) -> str:
    return f"val/{wnid}/images/{name}"


def picture(part: str, wnid: str, number: int) -> Image.Image:
    """An image that no other has, 64 px; some are greyscale, as in the archive."""
    generator = np.random.default_rng([int(wnid[1:]), number, part == "val"])
    shape = (64, 64) if (part, number) in GREY else (64, 64, 3)
    return Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))


def jpeg(part: str, wnid: str, number: int) -> bytes:
    data = io.BytesIO()
    picture(part, wnid, number).save(data, "JPEG", quality=95)
    return data.getvalue()


class Tiny:
    """The small Tiny-ImageNet, to be written below a folder."""

    dataset = SmallTiny
    classes = CLASSES
    layouts = (original, by_class, by_class_with_images)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.annotations = "".join(f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n" for number, wnid in VALIDATION.items())

    def files(self, place: Place = original, annotated: bool = True) -> Iterator[tuple[str, bytes]]:
        """(path below the dataset's folder, contents), with all that the archive holds beside the images."""
        yield "wnids.txt", "".join(f"{wnid}\n" for wnid in reversed(CLASSES)).encode()
        yield "words.txt", b"n00001740\tentity\n"
        for wnid in CLASSES:
            for number in TRAIN_NUMBERS:
                yield f"train/{wnid}/images/{wnid}_{number}.JPEG", jpeg("train", wnid, number)
            yield f"train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t10\t63\t58\n".encode()
        for number, wnid in VALIDATION.items():
            yield place(wnid, f"val_{number}.JPEG"), jpeg("val", wnid, number)
        if annotated:
            yield "val/val_annotations.txt", self.annotations.encode()
        for number in range(3):
            yield f"test/images/test_{number}.JPEG", jpeg("test", CLASSES[0], number)

    def tree(self, place: Place = original, name: str = "tiny-imagenet-200", annotated: bool = True) -> Path:
        for path, data in self.files(place, annotated):
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return self.folder / name

    def archive(
        self,
        name: str = "tiny-imagenet-200.zip",
        place: Place = original,
        top: str = "tiny-imagenet-200/",
        extra: dict[str, bytes] | None = None,
        without: str = "",
    ) -> Path:
        with zipfile.ZipFile(self.folder / name, "w") as archive:
            for path, data in self.files(place):
                if path != without:
                    archive.writestr(f"{top}{path}", data)
            for path, data in (extra or {}).items():
                archive.writestr(path, data)
        return self.folder / name


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)


def names(part: str) -> list[str]:
    """What a part must hold, from the numbers alone: by class, then by name."""
    found = [(wnid, f"{wnid}_{number}.JPEG") for wnid in CLASSES for number in TRAIN_NUMBERS]
    if part == "test":
        found = [(wnid, f"val_{number}.JPEG") for number, wnid in VALIDATION.items()]
    return [f"{wnid}/{name}" for wnid, name in sorted(found)]


@pytest.fixture
def expected_names() -> dict[str, list[str]]:
    return {part: names(part) for part in ("train", "test")}


@pytest.fixture
def pixels_of() -> Callable[[str], np.ndarray]:
    """`<wnid>/<name>` -> the decoded image as RGB, by Pillow alone."""

    def read(name: str) -> np.ndarray:
        wnid, file = name.split("/")
        number = int(file.removesuffix(".JPEG").rpartition("_")[2])
        data = jpeg("val" if file.startswith("val_") else "train", wnid, number)
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    return read
