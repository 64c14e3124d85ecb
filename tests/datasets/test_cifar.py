"""CIFAR from small files of the published form: labels, order, names, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.datasets import cifar
from ddbench.datasets.cifar import Cifar10, Cifar100


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a folder of CIFAR's form with three training and two test images a class, and its checksums."""
    cifar._parts.cache_clear()

    def write(declared: type[Cifar10] | type[Cifar100]) -> Path:
        kind = getattr(torchvision.datasets, declared.reader)
        folder, classes = tmp_path / "data" / kind.base_folder, len(declared.class_ids)
        folder.mkdir(parents=True)
        fine, rng = declared is Cifar100, np.random.default_rng(0)

        def dump(name: str, content: dict[str, Any]) -> list[str]:
            (folder / name).write_bytes(pickle.dumps(content))
            return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

        def batch(name: str, each: int) -> list[str]:
            labels = rng.permutation(np.repeat(np.arange(classes), each)).tolist()
            data = np.zeros((len(labels), 3, 32, 32), np.uint8)
            data[:, 0], data[:, 1] = np.array(labels)[:, None, None], np.arange(len(labels))[:, None, None] % 256
            key = "fine_labels" if fine else "labels"
            return dump(name, {"data": data.reshape(len(labels), -1), key: labels})

        monkeypatch.setattr(kind, "train_list", [batch("train" if fine else "data_batch_1", 3)])
        monkeypatch.setattr(kind, "test_list", [batch("test" if fine else "test_batch", 2)])
        key = "fine_label_names" if fine else "label_names"
        name, md5 = dump("meta" if fine else "batches.meta", {key: list(declared.class_ids)})
        monkeypatch.setattr(kind, "meta", {"filename": name, "key": key, "md5": md5})
        monkeypatch.setattr(declared, "counts", (3, 2))
        return tmp_path / "data"

    yield write
    cifar._parts.cache_clear()


@pytest.mark.parametrize("declared", [Cifar10, Cifar100])
def test_images_lie_by_class_in_the_published_order(small: Any, declared: type[Cifar10]) -> None:
    data = declared().load("default", small(declared), 32)
    for source, each, part in ((data.train, 3, "train"), (data.test, 2, "test")):
        assert np.bincount(source.labels).tolist() == [each] * len(declared.class_ids)
        assert (np.diff(source.labels) >= 0).all()
        pixels = source.read(np.arange(len(source)))
        assert pixels.shape[1:] == (32, 32, 3)
        assert pixels[:, 0, 0, 0].tolist() == source.labels.tolist(), "each image has its own label"
        for name, label, green in zip(source.names, source.labels, pixels[:, 0, 0, 1], strict=True):
            stem, _, position = name.removesuffix(".png").rpartition("-")
            assert stem == f"{declared.class_ids[label]}/{part}"
            assert int(position) % 256 == green
    assert len(data.validation) == 0, "a tenth of three images"


def test_an_archive_is_unpacked_once(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small(Cifar10)
    kind = torchvision.datasets.CIFAR10
    archive = tmp_path / "elsewhere" / kind.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder / kind.base_folder, arcname=kind.base_folder)
    with pytest.raises(RunError, match="is not the published archive"):
        Cifar10().load("default", archive.parent, 32)
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    packed_data = Cifar10().load("default", archive, 32)
    cifar._parts.cache_clear()
    assert packed_data.content_hash == Cifar10().load("default", folder, 32).content_hash


def test_what_is_not_cifar_is_refused(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    with pytest.raises(
        UsageError, match=r"no cifar-10-batches-py/ and no cifar-10-python.tar.gz \(no place was named\)"
    ):
        Cifar10().load("default", None, 32)
    folder = small(Cifar10)
    with pytest.raises(UsageError, match="images of 32 px, got --resolution 64"):
        Cifar10().load("default", folder, 64)
    batch = folder / torchvision.datasets.CIFAR10.base_folder / "data_batch_1"
    batch.write_bytes(batch.read_bytes() + b" ")
    with pytest.raises(RunError, match="does not hold the published files"):
        Cifar10().load("default", folder, 32)


def test_declarations() -> None:
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        declared = DATASETS.load(name)
        assert len(set(declared.class_ids)) == classes
        assert declared.counts[0] * classes == 50_000
        assert declared.counts[1] * classes == 10_000
    assert list(Cifar100.class_ids) == sorted(Cifar100.class_ids)
    assert list(Cifar10.class_ids) == sorted(Cifar10.class_ids)
