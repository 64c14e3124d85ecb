"""Files and folders that are whole or not there, and locks that die with their process. Imports no torch.

What is written lies under a temporary name beside its target until it is whole and on the disk; a rename shows it.
Readers therefore need no lock. Names that begin with a dot are such unfinished work: readers pass them over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, Literal
from uuid import uuid4

from filelock import FileLock, Timeout

from ddbench.benchmark.core.errors import RunError

Existing = Literal["keep", "replace", "refuse"]
"""What `whole_folder` does where its target is there already when the new folder is whole."""
SPARE_BYTES = 64 * 2**20
"""Room on a disk that is left to others."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file under a temporary name that is flushed to the disk, then renamed: readers see all of it or none."""
    temporary = path.with_name(f".{path.name}.{_own()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a failed write does not say which file
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all.

    Raises:
        ValueError: NaN or an infinity in it, which JSON has not.
    """
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(target: Path, *, existing: Existing, locked: bool = False, flushed: bool = True) -> Iterator[Path]:
    """A folder that appears whole or not at all: fill the one that this gives, and it takes the target's name.

    Args:
        existing: `keep` the folder that another process has finished meanwhile and drop this one, `replace` it, or
            `refuse` to touch it, with an OSError.
        locked: the caller holds a lock on the target: what killed attempts have left is then removed.
        flushed: its files are on the disk before it appears, so that a power cut leaves none of them empty.
    """
    temporary = target.with_name(f".{target.name}.{'partial' if locked else f'{_own()}.tmp'}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if flushed:
            _flush(temporary)
        _give_name(temporary, target, existing)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _own() -> str:
    """A part of names that no other process, thread or machine writes under."""
    return uuid4().hex[:12]


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _give_name(folder: Path, target: Path, existing: Existing) -> None:
    try:
        folder.rename(target)  # takes the place of an empty folder, but of no other
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or existing == "refuse":
            raise
        if existing == "replace":
            old = folder.with_name(f"{folder.name}.old")
            target.rename(old)
            folder.rename(target)
            shutil.rmtree(old, ignore_errors=True)


def check_free(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises RunError if a disk has less room than `what` needs (and a little to spare)."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise RunError(
            f"{what} needs {needed_bytes / 2**30:.2f} GiB in {folder}, where {free / 2**30:.2f} GiB are free; "
            "make room, or put the cache on another disk: export DDBENCH_CACHE=/path/with/room"
        )


@contextlib.contextmanager
def lock(file: Path, *, waiting: Callable[[], AbstractContextManager[object]] = nullcontext) -> Iterator[None]:
    """Hold a lock file, after waiting for whoever holds it; the kernel releases it when a process dies, however.

    Args:
        waiting: called where another process holds it; what it returns is entered for as long as that takes.
    """
    lock_file = FileLock(file)
    try:
        held = lock_file.acquire(timeout=0)
    except Timeout:
        with waiting():
            held = lock_file.acquire()
    with held:
        yield


@contextlib.contextmanager
def lock_or_refuse(file: Path, who: str, advice: str, *, timeout_seconds: float = 0) -> Iterator[None]:
    """Hold a lock file, and note this process beside it.

    Raises:
        RunError: another process holds it: `<who> (process <pid>)<advice>`.
    """
    owner = file.with_name(f"{file.stem}.pid")
    try:
        held = FileLock(file).acquire(timeout=timeout_seconds)
    except Timeout as error:
        pid = ""
        with contextlib.suppress(OSError):
            pid = owner.read_text().strip()
        raise RunError(f"{who} (process {pid or 'unknown'}){advice}") from error
    with held:
        try:
            with contextlib.suppress(OSError):  # a full disk: whoever is refused reads "unknown"
                owner.write_text(f"{os.getpid()}\n")
            yield
        finally:
            owner.unlink(missing_ok=True)


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock file."""
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # on a read-only copy of a folder nothing runs
