"""A large file is hashed once for as long as it stays, and anew when it changed, however that was done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddbench.methods.diffusion.priors import hashes
from ddbench.methods.diffusion.priors.hashes import file_sha256

BEFORE, AFTER = b"weights", b"WEIGHTS"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "REMEMBERED_BYTES", len(BEFORE))
    monkeypatch.setattr(hashes, "SETTLED_NS", -1)
    return tmp_path / "cache" / "priors-sha256.json"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each file that was read to its end; each question is asked as a process of its own would."""
    read: list[int] = []

    def file_digest(file: Any, name: str) -> Any:
        read.append(1)
        return hashlib.file_digest(file, name)

    monkeypatch.setattr(hashes, "hashlib", SimpleNamespace(file_digest=file_digest))
    return read


def asked(path: Path) -> str:
    hashes._file_sha256.cache_clear()
    return file_sha256(path)


def test_a_file_that_stays_is_read_once(tmp_path: Path, cache: Path, hashed: list[int]) -> None:
    file = tmp_path / "weights"
    file.write_bytes(BEFORE)
    assert [asked(file), asked(file)] == [hashlib.sha256(BEFORE).hexdigest()] * 2
    (tmp_path / "link").symlink_to(file)
    assert asked(tmp_path / "link") == asked(file)
    assert len(hashed) == 1
    assert cache.exists()


def written_into(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(AFTER)


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(AFTER)
    other.replace(file)


@pytest.mark.parametrize("change", [written_into, replaced])
@pytest.mark.parametrize("times_kept", [False, True])
def test_a_changed_file_is_noticed(
    tmp_path: Path, cache: Path, hashed: list[int], change: Callable[[Path], None], times_kept: bool
) -> None:
    """Of the same length; and with the time of the old one, as `cp -p` leaves it."""
    file = tmp_path / "weights"
    file.write_bytes(BEFORE)
    before = file.stat()
    assert asked(file) == hashlib.sha256(BEFORE).hexdigest()
    while (tmp_path / "tick").touch() or (tmp_path / "tick").stat().st_mtime_ns == before.st_ctime_ns:
        pass  # the file system's clock has coarse ticks
    change(file)
    if times_kept:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert asked(file) == hashlib.sha256(AFTER).hexdigest()
    assert len(hashed) == 2


def test_small_and_fresh_files_are_not_remembered(
    tmp_path: Path, cache: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(BEFORE[:-1])
    asked(file)
    assert not cache.exists()
    file.write_bytes(BEFORE)
    monkeypatch.setattr(hashes, "SETTLED_NS", 10**18)
    asked(file)
    assert not cache.exists()
    assert len(hashed) == 2


@pytest.mark.parametrize("said", ["", "[]", '{"FILE": 3}', '{"FILE": {"identity": [], "sha256": "0"}}'])
def test_a_damaged_memory_costs_time_only(tmp_path: Path, cache: Path, hashed: list[int], said: str) -> None:
    file = tmp_path / "weights"
    file.write_bytes(BEFORE)
    cache.parent.mkdir()
    cache.write_text(said.replace("FILE", str(file)))
    assert [asked(file), asked(file)] == [hashlib.sha256(BEFORE).hexdigest()] * 2
    assert len(hashed) == 1


def test_a_memory_that_cannot_be_written_costs_time_only(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "file" / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(BEFORE)
    assert asked(file) == hashlib.sha256(BEFORE).hexdigest()
