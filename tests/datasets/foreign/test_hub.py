"""Sets on the hub, from a cache of it that the test makes: no way to the hub, and what is said of that."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.foreign import hub
from ddbench.datasets.foreign.hub import Address, fetch, known_order, parse, published_sets
from ddbench.datasets.image_files import list_images

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def repository(root: Path, repo: str = "someone/set", kind: str = "datasets") -> Path:
    """The snapshot's folder of a repository in the hub's cache."""
    own = root / "hub" / f"{kind}--{repo.replace('/', '--')}"
    (own / "refs").mkdir(parents=True)
    (own / "refs" / "main").write_text(COMMIT)
    snapshot = own / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["datasets", "models"])
def test_a_folder_of_a_commit_is_found(tmp_path: Path, kind: str) -> None:
    (repository(tmp_path, kind=kind) / "sub" / "0").mkdir(parents=True)
    found = fetch(parse("hf:someone/set"))
    assert (found.commit, found.folder.name) == (COMMIT, COMMIT)
    assert "the hub was not asked" in found.note
    assert fetch(parse(f"hf:someone/set@{COMMIT}:sub")).folder.name == "sub"
    with pytest.raises(UsageError, match="there is no elsewhere in it; it holds sub"):
        fetch(parse("hf:someone/set:elsewhere"))


def test_what_is_not_in_the_cache_is_one_message(tmp_path: Path) -> None:
    for address in ("hf:no/such", f"hf:no/such@{COMMIT}"):
        with pytest.raises(UsageError, match="cannot be had from the hub, nor is it whole in the hub's cache") as error:
            fetch(parse(address))
        assert "\n" not in str(error.value)
        assert "hf download no/such" in str(error.value)
    repository(tmp_path)
    with pytest.raises(UsageError, match="cannot be had"):
        fetch(parse("hf:someone/set@v2"))


@pytest.mark.parametrize("wrong", ["hf:set", "hf:a/b/c", "hf:a/b:../c", "hf:a/b@", "hf:a b/c", "hf:a/b:/etc/x:y"])
def test_addresses_that_are_none(wrong: str) -> None:
    with pytest.raises(UsageError, match="expected hf:OWNER/NAME|must lie in the repository"):
        parse(wrong)
    assert str(parse("hf:a/b@v1:x/y.zip")) == "hf:a/b@v1:x/y.zip"


def test_parquet_rows_become_folders_of_their_class_numbers(tmp_path: Path) -> None:
    data = repository(tmp_path) / "data"
    data.mkdir()
    for part, numbers in enumerate(([1, 0, 1], [0])):
        images = [{"bytes": jpeg(100 * part + number), "path": "x"} for number in numbers]
        table = pyarrow.table({"image": images, "class_id": numbers})
        pyarrow.parquet.write_table(table, data / f"train-{part:05d}-of-00002.parquet")
    folder = fetch(parse("hf:someone/set")).folder
    assert {c: [f.name for f in list_images(folder / c).files] for c in ("00000", "00001")} == {
        "00000": ["00000.jpg", "00001.jpg"],
        "00001": ["00000.jpg", "00001.jpg"],
    }
    assert (folder / "00000" / "00001.jpg").read_bytes() == jpeg(100)
    pyarrow.parquet.write_table(pyarrow.table({"picture": [1]}), data / "train-00000-of-00002.parquet")
    (tmp_path / "cache" / "hub-sets").rename(tmp_path / "old")
    with pytest.raises(UsageError, match="expected the columns image and class_id or label, got picture"):
        fetch(parse("hf:someone/set"))


def test_tables_that_come_later_belong_to_the_set(tmp_path: Path) -> None:
    """Without a way to the hub, a commit's folder has the tables that were asked for before; with one, all."""
    data = repository(tmp_path) / "data"
    data.mkdir()
    for number in (0, 1):
        table = pyarrow.table({"image": [{"bytes": jpeg(number), "path": "x"}], "label": [number]})
        pyarrow.parquet.write_table(table, data / f"train-{number:05d}-of-00002.parquet")
        classes = sorted(folder.name for folder in fetch(parse("hf:someone/set")).folder.iterdir())
        assert classes == ["00000", "00001"][: number + 1]


def test_an_archive_is_unpacked_and_a_hostile_one_refused(tmp_path: Path) -> None:
    snapshot = repository(tmp_path)
    with zipfile.ZipFile(snapshot / "set.zip", "w") as archive:
        archive.writestr("top/new000/a.jpg", jpeg(3))
        archive.writestr("__MACOSX/top/._a.jpg", b"x")
    folder = fetch(parse("hf:someone/set:set.zip")).folder
    assert (folder / "new000" / "a.jpg").read_bytes() == jpeg(3)
    with zipfile.ZipFile(snapshot / "bad.zip", "w") as archive:
        archive.writestr("../../outside.jpg", b"x")
    with pytest.raises(UsageError, match="not safe to unpack: it holds the path '../../outside.jpg'"):
        fetch(parse("hf:someone/set:bad.zip"))
    (snapshot / "torn.zip").write_bytes((snapshot / "set.zip").read_bytes()[:100])
    with pytest.raises(UsageError, match="damaged or not a zip archive"):
        fetch(parse("hf:someone/set:torn.zip"))
    assert not list(tmp_path.rglob("outside.jpg"))


def parquet(file: Path, values: list[int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = {"image": [jpeg(value) for value in values], "label": list(range(len(values)))}
    pyarrow.parquet.write_table(pyarrow.table(rows), file)


def values_of(folder: Path) -> list[int]:
    files = [file for inner in sorted(folder.iterdir()) for file in list_images(inner).files]
    return [int(np.asarray(Image.open(file)).mean().round()) for file in files]


def test_splits_of_parquet_files_are_never_put_together(tmp_path: Path) -> None:
    snapshot = repository(tmp_path)
    parquet(snapshot / "data" / "train-00000-of-00002.parquet", [10, 20])
    parquet(snapshot / "data" / "train-00001-of-00002.parquet", [30, 40])
    assert values_of(fetch(parse("hf:someone/set")).folder) == [10, 30, 20, 40]
    parquet(snapshot / "data" / "test-00000-of-00001.parquet", [50, 60])
    several = r"several splits \(data/test.*, data/train.*\).* such as hf:someone/set:data/train\*\.parquet$"
    with pytest.raises(UsageError, match=several):
        fetch(parse("hf:someone/set"))
    assert values_of(fetch(parse("hf:someone/set:data/train*.parquet")).folder) == [10, 30, 20, 40]
    assert values_of(fetch(parse("hf:someone/set:data/test-00000-of-00001.parquet")).folder) == [50, 60]
    with pytest.raises(UsageError, match="there is no data/none.parquet in it; it holds data"):
        fetch(parse("hf:someone/set:data/none.parquet"))


def test_an_archive_is_named_or_asked_for(tmp_path: Path) -> None:
    snapshot = repository(tmp_path)
    (snapshot / "README.md").write_text("x")
    with zipfile.ZipFile(snapshot / "set.ZIP", "w") as archive:
        archive.writestr("top/README.md", "x")
        archive.writestr("top/inner/0/0.jpg", jpeg(1))
        archive.writestr("notes.txt", "x")
    with pytest.raises(UsageError, match=r"holds README.md, set.ZIP; name the archive, such as hf:someone/set:set.ZIP"):
        fetch(parse("hf:someone/set"))
    assert fetch(parse("hf:someone/set:set.ZIP")).folder.name == "inner"


@pytest.mark.parametrize("name", ["0/" + "n" * 300 + ".png", "0", "1/0.jpg/x.jpg"])
def test_names_that_cannot_be_unpacked(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(repository(tmp_path) / "set.zip", "w") as archive:
        for file in ("0/0.jpg", "1/0.jpg", name):
            archive.writestr(file, jpeg(1))
    with pytest.raises(UsageError, match="cannot be unpacked beside the others: ") as error:
        fetch(parse("hf:someone/set:set.zip"))
    assert len(str(error.value)) < 300


def test_what_is_known_of_published_sets() -> None:
    sets = published_sets()
    assert len({one.name for one in sets}) == len(sets)
    for one in sets:
        assert [str(parse(address)) for address in one.addresses] == one.addresses
        assert (len(one.addresses) == len(one.ipc)) == ("{ipc}" in one.address or len(one.ipc) == 1)
    assert known_order(parse("hf:he-yang/2025-rethinkdc-imagenet-cda-ipc-50@abc")) == "imagenet"
    assert known_order(Address("someone/set")) is None
    assert hub.PREFIX == "hf:"
