"""Bundles that were made to do harm: each is refused in one line, and nothing of it is merged."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.transfer import texts
from ddbench.benchmark.transfer.merge import merge
from ddbench.benchmark.transfer.unpack import Limits, unpack

Files = dict[str, bytes]


def refused(bundle: Path, why: str, kind: type[Exception] = UsageError, **limits: int) -> None:
    out = bundle.parent / "target"
    with pytest.raises(kind, match=why) as caught:
        merge(bundle, Store(out), limits=Limits(**limits))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 or kind is RunError, lines
    assert all(line.isprintable() and len(line) < 600 for line in lines)
    assert not out.exists()
    left = {path.name for path in bundle.parent.iterdir()} - {bundle.name}
    assert not [name for name in left if name.startswith(".ddbench")], left


def a(files: Files, ending: str) -> str:
    return next(name for name in sorted(files) if name.endswith(ending))


def header(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, linkname
    return found


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.DIRTYPE, "a directory"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "a special member"),
    ],
)
def test_nothing_but_plain_files(members: Files, pack: Callable[..., Path], kind: bytes, said: str) -> None:
    refused(pack(members, (header("sets/0123456789abcdef/x", kind, "/etc/passwd"), b"")), said)


def test_long_names_are_not_read(members: Files, pack: Callable[..., Path]) -> None:
    """tarfile would read a name of any length into memory."""
    refused(pack({**members, "cells/" + "x" * 300: b"x"}), "no bundle has a file|a special member")


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "cells/../../x/result.json",
        "cells/evaluate-0123456789abcdef/../x.json",
        "cells/evaluate-0123456789abcdef/log.txt",
        "cells/evaluate-0123456789abcdef/checkpoint.pt",
        "sets/0123456789abcdef/../00000.png",
        "sets/0123456789abcdef/.hidden/00000.png",
        "sets/0123456789abcdef/a\x1b[31m/00000.png",
        "sets/0123456789abcdef/a\u202e/00000.png",
        "sets/0123456789abcdef/<img src=x>/00000.png",
        "sets/0123456789abcdef/a/00000.svg",
        "plugins/evil.py",
    ],
)
def test_names_that_no_bundle_has(members: Files, pack: Callable[..., Path], name: str) -> None:
    refused(pack({**members, name: b"x"}), "no bundle has a file|HTML|control characters")


def test_what_the_index_does_not_list(members: Files, pack: Callable[..., Path]) -> None:
    first = a(members, "spec.json")
    extra = tarfile.TarInfo(first)
    extra.size = 1
    refused(pack(members, (extra, b"x")), "not in the index, or there twice")
    missing = json.loads(pack_index(pack, members))
    missing["members"]["sets/0123456789abcdef/1/00000.png"] = {"size": 1, "sha256": "0" * 64}
    refused(pack(members, index=json.dumps(missing).encode()), "1 of .* files are missing")


def pack_index(pack: Callable[..., Path], members: Files) -> bytes:
    import io

    plain = zstandard.ZstdDecompressor().stream_reader(pack(members).open("rb")).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        found = tar.extractfile("bundle.json")
        assert found is not None
        return found.read()


def test_other_bytes_than_the_index_says(members: Files, pack: Callable[..., Path]) -> None:
    index = json.loads(pack_index(pack, members))
    name = a(members, "result.json")
    index["members"][name]["sha256"] = "0" * 64
    refused(pack(members, index=json.dumps(index).encode()), "its SHA-256 is not the index's")
    index["members"][name]["size"] += 1
    refused(pack(members, index=json.dumps(index).encode()), "bytes, and the index says")


def test_limits(members: Files, pack: Callable[..., Path]) -> None:
    refused(pack(members), "files, more than 3", members=3)
    refused(pack(members), "MiB unpacked, more than 0", total_mib=0)
    name = a(members, "predictions.npy")
    bomb = {**members, name: bytes(40 * 2**20)}
    refused(pack(bomb), "a decompression bomb", free_mib=0)
    index = json.loads(pack_index(pack, bomb))
    index["members"][name]["size"] = 5
    refused(pack(bomb, index=json.dumps(index).encode()), "bytes, and the index says 5")
    refused(pack({**members, a(members, "spec.json"): b" " * (2 * 2**20)}), "bytes, more than")


def test_an_index_without_end(members: Files, pack: Callable[..., Path]) -> None:
    refused(pack({}, index=b" " * (3 * 2**20)), "larger than 1 MiB|decompression bomb", index_mib=1)


@pytest.mark.parametrize("content", [b"", b"no bundle", zstandard.compress(b"no tar"), zstandard.compress(b"")])
def test_no_bundle_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar.zst").write_bytes(content)
    refused(tmp_path / "x.tar.zst", "not a bundle")


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "x.tar.zst", "no such file; expected a bundle")
    (tmp_path / "x.tar.zst").mkdir()
    refused(tmp_path / "x.tar.zst", "no regular file; expected a bundle")


def test_half_a_bundle(members: Files, pack: Callable[..., Path]) -> None:
    path = pack(members)
    for part in (0.3, 0.6, 0.95):
        path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * part)])
        refused(path, "not a bundle|files are missing")


@pytest.mark.parametrize(
    ("index", "why"),
    [
        (b"[]", "bundle.json: "),
        (b'{"format": 2}', "a bundle of format 2"),
        (b'{"format": 1, "format": 1}', "a key stands twice"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"format": 1, "ddbench": "0", "members": {}, "by": "\\u001b[2J"}', "control characters"),
        (b'{"format": 1, "ddbench": "0", "members": {}, "extra": 1}', "extra"),
    ],
)
def test_indices_that_are_none(pack: Callable[..., Path], index: bytes, why: str) -> None:
    refused(pack({}, index=index), why)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"label": "<script>alert(1)</script>"}, "HTML"),
        ({"label": "random<b>"}, "angle brackets"),
        ({"reason": "<img src=x onerror=alert(1)>"}, "HTML"),
        ({"reason": "\x1b]0;owned\x07"}, "control characters"),
        ({"environment": {"javascript:alert(1)": 1}}, "HTML"),
        ({"environment": nested(60)}, "levels deep"),
        ({"status": "splendid"}, "status"),
        ({"unheard_of": 1}, "Extra inputs"),
        ({"schema_version": 3}, "schema_version"),
    ],
)
def test_texts_and_types_of_results(
    members: Files, pack: Callable[..., Path], change: dict[str, Any], why: str
) -> None:
    name = a(members, "result.json")
    members[name] = json.dumps(json.loads(members[name]) | change).encode()
    refused(pack(members), why)


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999", b"9" * 5000])
def test_numbers_that_are_none(members: Files, pack: Callable[..., Path], number: bytes) -> None:
    name = a(members, "result.json")
    members[name] = members[name].replace(b'"seconds": ', b'"seconds": ' + number + b', "was": ', 1)
    refused(pack(members), "not JSON|seconds|was")


def test_files_of_the_readers_machine_are_not_named(members: Files, pack: Callable[..., Path]) -> None:
    """A launch file says which folder is read and which plugin is run when the cell is run again."""
    for key, value in (("plugins", ["/tmp/evil.py"]), ("images", "/etc"), ("data_dir", "/etc")):
        name = a(members, "launch.json")
        changed = {**members, name: json.dumps(json.loads(members[name]) | {key: value}).encode()}
        refused(pack(changed), "names files of another machine")


@pytest.mark.parametrize("path", ["plans", "spec"])
def test_edited_plans_and_specifications(members: Files, pack: Callable[..., Path], path: str) -> None:
    if path == "plans":
        name = next(name for name in members if name.startswith("plans/"))
        members[name] = members[name].replace(b'"seed": 0', b'"seed": 7', 1)
        refused(pack(members), "its name is not its hash")
    else:
        name = a(members, "spec.json")
        members[name] = json.dumps(json.loads(members[name]) | {"seed": 77}).encode()
        refused(pack(members), "id wrong: its specification is that of", RunError)


def test_a_forged_accuracy(members: Files, pack: Callable[..., Path]) -> None:
    name = next(name for name in members if "evaluate-" in name and name.endswith("result.json"))
    result = json.loads(members[name])
    look = {"epoch": 1, "accuracy": 99.5, "train_loss": 0.1}
    result["metrics"] |= {"acc_last": 99.5, "acc_best": 99.5, "top5_last": 100.0, "curve": [look]}
    members[name] = json.dumps(result).encode()
    refused(pack(members), "accuracy wrong: its predictions are right .* and acc_last is 99.5000", RunError)


def test_forged_labels(members: Files, pack: Callable[..., Path], tmp_path: Path) -> None:
    """Labels that make predictions right are no help where the dataset itself is at hand."""
    predictions = next(name for name in members if name.endswith("predictions.npy"))
    (labels,) = (name for name in members if "test-labels" in name)
    (tmp_path / "p.npy").write_bytes(members[predictions])
    np.save(tmp_path / "l.npy", np.load(tmp_path / "p.npy").astype(np.int64))
    members[labels] = (tmp_path / "l.npy").read_bytes()
    name = predictions.replace("predictions.npy", "result.json")
    result = json.loads(members[name])
    look = {"epoch": 1, "accuracy": 100.0, "train_loss": 0.1}
    result["metrics"] |= {"acc_last": 100.0, "acc_best": 100.0, "top5_last": 100.0, "curve": [look]}
    members[name] = json.dumps(result).encode()
    refused(pack(members), "accuracy wrong", RunError)


def test_other_images_under_a_sets_hash(members: Files, pack: Callable[..., Path]) -> None:
    one, other = [name for name in sorted(members) if name.endswith("/00000.png")][:2]
    members[one] = members[other]
    with pytest.raises(RunError, match="images wrong: .* have the hash"):
        merge(pack(members), Store(pack(members).parent / "target"))


def test_pickles_are_not_loaded(members: Files, pack: Callable[..., Path], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    name = a(members, "predictions.npy")
    members[name] = (tmp_path / "evil.npy").read_bytes()
    refused(pack(members), "predictions.npy is no array of numbers", RunError)
    assert not (tmp_path / "owned").exists()


def test_an_array_whose_head_promises_more_than_there_is(members: Files, pack: Callable[..., Path]) -> None:
    """NumPy would ask for the memory first."""
    name = a(members, "predictions.npy")
    members[name] = members[name].replace(b"(719,), }           ", b"(71900000000,), }   ", 1)
    assert b"71900000000" in members[name]
    refused(pack(members), "predictions.npy is no array of numbers", RunError)


def test_names_without_end(members: Files, pack: Callable[..., Path]) -> None:
    name = a(members, "result.json")
    members[name] = json.dumps(json.loads(members[name]) | {"label": "x" * 5000}).encode()
    refused(pack(members), "a label with .* no end")
    refused(pack({}, changed={"by": "x" * 5000}), "at most 200 characters")


def test_strays_are_refused(members: Files, pack: Callable[..., Path]) -> None:
    png = members[a(members, "/00000.png")]
    refused(pack({**members, "sets/0123456789abcdef/1/00000.png": png}), "belongs to no cell", RunError)


def test_shown_texts_do_nothing_to_a_terminal() -> None:
    assert texts.shown("\x1b[2J\u202ehello" + "x" * 200).isprintable()


def test_unpacking_writes_nowhere_else(members: Files, pack: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    unpack(pack(members), tmp_path / "here")
    found = {path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*")}
    assert found >= members.keys()
    assert not any(path.is_symlink() for path in (tmp_path / "here").rglob("*"))
