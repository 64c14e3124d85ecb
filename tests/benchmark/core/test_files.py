"""Files and folders are whole or not there, whatever happens while they are written."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddbench.benchmark.core import files
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import (
    Existing,
    check_free,
    whole_file,
    whole_folder,
    write_atomically,
    write_json,
    write_unless,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@contextlib.contextmanager
def process(code: str, *arguments: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has run `code` up to its first line of output."""
    code = f"import sys, time; from pathlib import Path\nfrom ddbench.benchmark.core.files import *\n{code}"
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"there\n"
        yield started
        os.kill(started.pid, signal.SIGKILL)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "old")
    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"], "no temporary file is left behind"


def test_threads_do_not_write_under_one_name(tmp_path: Path) -> None:
    first, second = whole_file(tmp_path / "x"), whole_file(tmp_path / "x")
    one, two = first.__enter__(), second.__enter__()
    one.write(b"one")
    two.write(b"two!")
    first.__exit__(None, None, None)
    assert (tmp_path / "x").read_bytes() == b"one"
    second.__exit__(None, None, None)
    assert (tmp_path / "x").read_bytes() == b"two!"
    assert names(tmp_path) == ["x"]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"acc": float("nan")})


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "set"
    with whole_folder(target, existing="refuse") as partial:
        (partial / "a").write_text("a")
        assert not target.exists()
        (partial / "deeper").mkdir()
        (partial / "deeper" / "b").write_text("b")
    assert names(target) == ["a", "deeper"]
    assert (target / "deeper" / "b").read_text() == "b"
    assert names(target.parent) == ["set"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(partial: Path) -> None:
        (partial / "a").write_text("a")
        raise error

    with pytest.raises(error), whole_folder(tmp_path / "set", existing="replace") as partial:
        fail(partial)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_flushed_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"), whole_folder(tmp_path / "set", existing="replace") as partial:
        (partial / "a").write_text("a")
    assert names(tmp_path) == []
    with whole_folder(tmp_path / "set", existing="replace", flushed=False) as partial:
        (partial / "a").write_text("a")
    assert names(tmp_path) == ["set"]


def test_every_file_and_folder_is_flushed_before_the_name_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, target = set(), tmp_path / "set"

    def note(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        assert not target.exists()

    monkeypatch.setattr(files.os, "fsync", note)
    with whole_folder(target, existing="refuse") as partial:
        (partial / "class").mkdir()
        (partial / "class" / "0.png").write_text("image")
        (partial / "manifest.json").write_text("{}")
    assert flushed == {path.stat().st_ino for path in (target, *target.rglob("*"))}


@pytest.mark.parametrize(("existing", "kept"), [("keep", "theirs"), ("replace", "mine"), ("refuse", "theirs")])
def test_a_folder_that_another_has_finished_meanwhile(tmp_path: Path, existing: Existing, kept: str) -> None:
    target = tmp_path / "set"
    refused = pytest.raises(OSError, match="not empty") if existing == "refuse" else contextlib.nullcontext()
    with refused, whole_folder(target, existing=existing) as partial:
        (partial / "mine").write_text("")
        target.mkdir()
        (target / "theirs").write_text("")
    assert names(target) == [kept]
    assert names(tmp_path) == ["set"]


def test_a_disk_keeps_64_mib_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 2**20
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=2048 * mib))
    check_free(tmp_path, 1984 * mib, "decoding")
    with pytest.raises(RunError, match=r"decoding needs 1\.94 GiB in .*, where 2\.00 GiB are free; make room"):
        check_free(tmp_path, 1984 * mib + 1, "decoding")


def test_what_a_killed_attempt_left_is_removed_by_the_next_under_the_lock(tmp_path: Path) -> None:
    target = tmp_path / "prior-1.2"
    code = (
        "with whole_folder(Path(sys.argv[1]), existing='refuse', lease=Path('no.lease')) as partial:\n"
        "    (partial / 'half').write_text(''); print('there', flush=True); time.sleep(60)"
    )
    with process(code, target):
        pass
    assert not target.exists()
    assert len(names(tmp_path)) == 1
    with whole_folder(target, existing="refuse", lease=tmp_path / "no.lease") as partial:
        (partial / "whole").write_text("")
    assert names(target) == ["whole"]
    assert names(tmp_path) == ["prior-1.2"]


def test_what_a_killed_writer_left_lies_where_it_is_swept(tmp_path: Path) -> None:
    cell, sets = tmp_path / "cells" / "one", tmp_path / "sets"
    cell.mkdir(parents=True)
    pid = os.fork()
    if not pid:
        with whole_folder(sets / "abc", existing="keep", made_in=cell) as folder:
            (folder / "0.png").write_bytes(b"x")
            os._exit(0)  # as by a kill: nothing is tidied up
    os.waitpid(pid, 0)
    assert list(sets.iterdir()) == []
    assert len(list(cell.iterdir())) == 1
    files.remove_strays(cell)
    assert list(cell.iterdir()) == []
    with whole_folder(sets / "abc", existing="keep", made_in=cell) as folder:
        (folder / "0.png").write_bytes(b"x")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0.png"]


def test_two_writers_replace_one_folder_at_once(tmp_path: Path) -> None:
    """Whoever puts the old one aside may find that another has just done so, and that a third is there already."""
    target = tmp_path / "artefact"
    (target / "damaged").mkdir(parents=True)

    def write(number: int) -> None:
        for _ in range(30):
            with whole_folder(target, existing="replace", flushed=False) as partial:
                (partial / str(number)).write_text("")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert len(names(target)) == 1
    assert names(tmp_path) == ["artefact"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_a_value_is_written_unless_what_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(files.os, "link", refuse)
    path = tmp_path / "result.json"
    assert write_unless(path, 1, lambda: True), "there was none"
    assert not write_unless(path, 2, lambda: True)
    assert path.read_text() == "1\n"
    assert write_unless(path, 3, lambda: False)
    assert path.read_text() == "3\n"
    assert names(tmp_path) == ["result.json"]
