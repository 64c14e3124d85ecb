"""Damaged archives and files of tensors, bundles too: taken, or refused in a line, and nothing lies elsewhere."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard
from fuzzing import changed_bytes, fuzzed, held
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save as save_safetensors

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.transfer.bundle import write_bundle
from ddbench.benchmark.transfer.merge import merge
from ddbench.datasets.foreign import hub
from ddbench.datasets.foreign.tensors import read_tensors
from ddbench.datasets.imagenet.archives import ArchiveSource

CLASSES = ("n02086240", "n02087394")


def _png() -> bytes:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


PNG = _png()
NAMES = [
    f"top/{part}/{wnid}/{wnid}_{number}.JPEG" for part in ("train", "val") for wnid in CLASSES for number in (1, 2)
]


def _tar(mode: str) -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode=mode) as archive:
        for name in NAMES:
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            archive.addfile(member, io.BytesIO(PNG))
    return file.getvalue()


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DDBENCH_CACHE", str(folder / "cache"))
    return folder


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@fuzzed(40)
@given(data=st.data(), kind=st.sampled_from(["w", "w:gz"]))
def test_archives_of_a_dataset(cache: Path, data: st.DataObject, kind: str) -> None:
    _empty(cache)
    file = cache / ("images.tar" if kind == "w" else "images.tgz")
    plain = data.draw(changed_bytes(_tar("w"))) if kind == "w" or data.draw(st.booleans()) else None
    file.write_bytes(data.draw(changed_bytes(_tar("w:gz"))) if plain is None else plain)
    with held("an archive of a dataset"):
        source = ArchiveSource(file)
        for found in source.list_images(CLASSES).images:
            assert found.wnid in CLASSES
        source.root(CLASSES)


def _zip() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"set/{number}/0.png", PNG)
    return file.getvalue()


def _parquet() -> bytes:
    table = pa.table({"image": [{"bytes": PNG, "path": "x"}] * 4, "label": [0, 0, 1, 1]})
    pq.write_table(table, file := io.BytesIO())
    return file.getvalue()


@fuzzed(60)
@given(data=st.data(), kind=st.sampled_from(["zip", "parquet"]))
def test_archives_of_the_hub(cache: Path, data: st.DataObject, kind: str) -> None:
    content, read = {
        "zip": (_zip(), hub._zip_members),
        "parquet": (_parquet(), lambda file: hub._parquet_images([file])),
    }[kind]
    _empty(cache)
    file = cache / f"set.{kind}"
    file.write_bytes(data.draw(changed_bytes(content)))
    target = cache / "unpacked"
    with held(f"a {kind} file of the hub"):
        hub._unpacked(target, read(file))  # type: ignore[operator]
        assert sorted(path.name for path in cache.iterdir() if path not in (file, target)) == []


@pytest.mark.parametrize(
    ("read", "content", "damaged"),
    [
        (hub._zip_members, _zip()[1:], "not a zip archive"),  # places before the beginning of the file
        (lambda file: hub._parquet_images([file]), _parquet().replace(b"\x04path", b"\x04\x80ath"), "damaged parquet"),
        (lambda file: hub._parquet_images([file]), b"PAR1" + b"\xff" * 200 + _parquet()[204:], "damaged parquet"),
    ],
    ids=["zip", "name", "page"],
)
def test_what_fuzzing_found_in_archives_of_the_hub(read: Any, content: bytes, damaged: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=damaged) as caught:
        list(read(file))
    assert len(str(caught.value).splitlines()) == 1


def _tensors() -> dict[str, bytes]:
    images = ((np.random.default_rng(0).random((4, 1, 8, 8)) - 0.5) / 0.25).astype(np.float32)
    labels = np.array([0, 0, 1, 1])
    torch.save({"data": [[torch.from_numpy(images), torch.from_numpy(labels)]]}, pickled := io.BytesIO())
    torch.save(
        {"data": [[torch.from_numpy(images), torch.from_numpy(labels)]]}, old := io.BytesIO(),
        _use_new_zipfile_serialization=False,
    )  # fmt: skip
    np.savez(zipped := io.BytesIO(), images=images, labels=labels)
    np.save(array := io.BytesIO(), images)
    named = {"images": images, "labels": labels}
    return {
        "a.pt": pickled.getvalue(), "b.pt": old.getvalue(), "c.npz": zipped.getvalue(), "d.npy": array.getvalue(),
        "e.safetensors": save_safetensors(named),
    }  # fmt: skip


TENSORS = _tensors()


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "d.npy"])
def test_whole_files_of_tensors_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(TENSORS[name])
    found = read_tensors(tmp_path / name, ["0", "1"], 1, normalisation="mean=0.5,std=0.25", order="dataset")
    assert found.labels.tolist() == [0, 0, 1, 1]


@fuzzed(100)
@given(data=st.data())
def test_files_of_tensors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TENSORS)))
    folder = tmp_path_factory.getbasetemp() / "tensors"
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_bytes(data.draw(changed_bytes(TENSORS[name])))
    with held("a file of tensors"):
        read_tensors(file, ["0", "1"], 1, normalisation="mean=0.5,std=0.25", order="dataset")
    file.unlink()


@pytest.fixture(scope="module")
def bundle(really_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bundle") / "lab.tar.zst"
    write_bundle(Store(really_run), file, by="Lab")
    return file


@fuzzed(40)
@given(data=st.data())
def test_bundles(cache: Path, bundle: Path, data: st.DataObject) -> None:
    packed = bundle.read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read()
    inside: Callable[[Any], bytes] = zstandard.ZstdCompressor().compress
    _empty(cache)
    file, target = cache / "lab.tar.zst", cache / "merged"
    file.write_bytes(
        data.draw(changed_bytes(packed))
        if data.draw(st.integers(0, 3)) == 0
        else inside(data.draw(changed_bytes(plain)))
    )
    with held("a bundle"):
        merge(file, Store(target))
    assert sorted(path.name for path in cache.iterdir() if path not in (file, target)) == []
