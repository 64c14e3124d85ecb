"""ImageNet in parquet files: the same split, to the last pixel, as the image folder they were made from."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.classes import IMAGENET_1K

OTHER = "n01440764"
"""A class that is not of the small dataset."""


def rows(tiny: Any, kind: str) -> list[dict[str, Any]]:
    """Hugging Face's rows in no order, with a class that is not asked for."""
    found = [
        {
            "image": {"bytes": tiny.jpeg(wnid, part, number), "path": f"{file.removesuffix('.JPEG')}_{wnid}.JPEG"},
            "label": IMAGENET_1K.index(wnid),
        }
        for wnid, part, file, number in tiny.images()
        if part == kind
    ]
    other = f"{OTHER}_7_{OTHER}.JPEG" if kind == "train" else f"ILSVRC2012_val_00000777_{OTHER}.JPEG"
    found.append({"image": {"bytes": b"not asked for", "path": other}, "label": IMAGENET_1K.index(OTHER)})
    random.Random(0).shuffle(found)
    return found


def write(folder: Path, tiny: Any, names: tuple[str, str, str], change: Any = lambda row: row) -> Path:
    """Training rows in two files, validation rows in one."""
    train, validation = rows(tiny, "train"), rows(tiny, "val")
    for name, part in zip(names, (train[:5], train[5:], validation), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([change(row) for row in part]), folder / name, row_group_size=2)
    return folder


HUB = (
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/validation-00000-of-00001.parquet",
)
CONVERTED = ("default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet")


@pytest.mark.parametrize("names", [HUB, CONVERTED], ids=["hub", "converted"])
def test_the_split_is_that_of_the_image_folder(tiny: Any, names: tuple[str, str, str]) -> None:
    parquet = write(tiny.folder / "hub", tiny, names)
    found = tiny.dataset().load("imagenet", parquet, 16)
    expected = tiny.dataset().load("imagenet", tiny.tree(), 16)
    assert (found.split_hash, found.content_hash) == (expected.split_hash, expected.content_hash)
    assert list(found.train.names) == list(expected.train.names)
    everything = np.arange(len(expected.train))
    np.testing.assert_array_equal(found.train.read(everything), expected.train.read(everything))


def test_only_the_wanted_classes_are_written_out_and_only_once(tiny: Any, own_cache: Path) -> None:
    parquet = write(tiny.folder / "hub", tiny, HUB)
    tiny.dataset().load("imagenet", parquet, 16)
    written = {path.parent.name: path.stat().st_mtime_ns for path in own_cache.rglob("unpacked/*/*/*.JPEG")}
    assert set(written) == set(tiny.classes)
    tiny.dataset().load("imagenet", parquet, 8)
    again = {path.parent.name: path.stat().st_mtime_ns for path in own_cache.rglob("unpacked/*/*/*.JPEG")}
    assert again == written


def test_rows_without_names_are_refused(tiny: Any) -> None:
    def nameless(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "image": {**row["image"], "path": None}}

    parquet = write(tiny.folder / "hub", tiny, HUB, nameless)
    with pytest.raises(UsageError, match=r"row 0: image.path is empty.*splits cannot be told apart"):
        tiny.dataset().load("imagenet", parquet, 16)


def test_labels_that_are_not_imagenets_are_refused(tiny: Any) -> None:
    parquet = write(tiny.folder / "hub", tiny, HUB, lambda row: {**row, "label": (row["label"] + 1) % 1000})
    with pytest.raises(UsageError, match=r"says class n\d{8}, label \d+ says n\d{8}"):
        tiny.dataset().load("imagenet", parquet, 16)


@pytest.mark.parametrize("content", [b"PAR1", b""])
def test_a_damaged_file_is_named(tiny: Any, content: bytes) -> None:
    parquet = write(tiny.folder / "hub", tiny, HUB)
    (parquet / HUB[1]).write_bytes(content)
    with pytest.raises(UsageError, match=r"train-00001-of-00002.parquet does not hold ImageNet's images"):
        tiny.dataset().load("imagenet", parquet, 16)


def test_other_columns_are_named(tiny: Any) -> None:
    parquet = write(tiny.folder / "hub", tiny, HUB, lambda row: {"pixels": row["image"]["bytes"], "label": 0})
    with pytest.raises(UsageError, match=r"expected the columns image \(bytes, path\) and label"):
        tiny.dataset().load("imagenet", parquet, 16)
