"""Files and folders that are whole or not there. Imports no torch.

What is written lies under a temporary name beside its target until it is whole and on the disk; a rename shows it.
Readers therefore need no lock. Names that begin with a dot are such unfinished work: readers pass them over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.sharing.holder import own_name
from ddbench.benchmark.core.sharing.lease import require_mine, swept_once_lost

Existing = Literal["keep", "replace", "refuse"]
"""What `whole_folder` does where its target is there already when the new folder is whole."""
MOST_BYTES = 256 * 2**20
"""Of a file of JSON: a curve and every number of ten thousand images take a hundredth of it."""
SPARE_BYTES = 64 * 2**20
"""Room on a disk that is left to others."""


def read_regular(path: Path | str) -> bytes:
    """What is in a file that may be anybody's.

    Raises:
        OSError: there is none; it is a named pipe, which would be waited on for ever, or a device; or it is larger than
            any file that is written here.
    """
    # Without a buffer, which takes as long to make as a small file to read, and a folder has tens of thousands of them.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        if found.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"{found.st_size:,} bytes; expected at most {MOST_BYTES:,}", str(path))
        whole = os.read(descriptor, found.st_size + 1)
        if len(whole) == found.st_size:
            return whole
        return whole + b"".join(iter(partial(os.read, descriptor, found.st_size + 1), b""))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path, *, lease: Path | None = None) -> Iterator[IO[bytes]]:
    """A file under a temporary name that is flushed to the disk, then renamed: readers see all of it or none.

    Args:
        lease: folder of a lease that the caller holds on the file.

    Raises:
        LeaseLost: it is another's by now; the file there stays.
    """
    temporary = path.with_name(f".{path.name}.{own_name()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with swept_once_lost(lease):
            if lease is not None:
                require_mine(lease)
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a failed write does not say which file
        raise


def write_atomically(path: Path, data: bytes | str, *, lease: Path | None = None) -> None:
    """Write a file whole or not at all; `lease` as `whole_file`."""
    with whole_file(path, lease=lease) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_unless(path: Path, value: Any, stays: Callable[[], bool]) -> bool:
    """Write a value as JSON, whole or not at all, unless the file that is there stays; returns whether it was written.

    Of two writers that find no file there, only one writes it, on any file system that has hard links.

    Args:
        stays: asked where there is a file, whether it does.
    """
    temporary = path.with_name(f".{path.name}.{own_name()}.tmp")
    try:
        write_json(temporary, value)
        try:
            os.link(temporary, path)
        except FileExistsError:
            if temporary.stat().st_nlink == 2:  # a file server's first answer was lost
                return True
            if stays():
                return False
            temporary.replace(path)
        except OSError:  # there are no hard links here
            if path.exists() and stays():
                return False
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def write_json(path: Path, value: Any, *, lease: Path | None = None) -> None:
    """Write a value as indented JSON, whole or not at all; `lease` as `whole_file`.

    Raises:
        ValueError: NaN or an infinity in it, which JSON has not.
    """
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", lease=lease)


@contextlib.contextmanager
def whole_folder(
    target: Path,
    *,
    existing: Existing,
    lease: Path | None = None,
    flushed: bool = True,
    made_in: Path | None = None,
) -> Iterator[Path]:
    """A folder that appears whole or not at all: fill the one that this gives, and it takes the target's name.

    Args:
        existing: `keep` the folder that another process has finished meanwhile and drop this one, `replace` it, or
            `refuse` to touch it, with an OSError.
        lease: folder of a lease that the caller holds on the target: what killed attempts have left is then removed,
            and the folder gets its name only while the lease is still the caller's.
        flushed: its files are on the disk before it appears, so that a power cut leaves none of them empty.
        made_in: a folder that the caller holds a lock on and sweeps (`remove_strays`), where it lies on the target's
            disk: what a killed attempt leaves in it does not stay. None: beside the target.

    Raises:
        LeaseLost: the lease is another's by now; the folder there stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    of_one_disk = made_in is not None and made_in.stat().st_dev == target.parent.stat().st_dev
    place = made_in if made_in is not None and of_one_disk else target.parent
    temporary = place / f".{target.name}.{own_name()}.tmp"
    if lease is not None:
        remove_strays(target.parent, of=target.name)
    temporary.mkdir()
    try:
        with swept_once_lost(lease):
            yield temporary
            if flushed:
                _flush(temporary)
            if lease is not None:
                require_mine(lease)
            _give_name(temporary, target, existing)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


STRAY = re.compile(r"\.(?P<name>.+)\.[^.]+\.(tmp|old)")


def remove_strays(folder: Path, *, of: str | None = None, but: Sequence[str] = ()) -> None:
    """Remove what killed writers of files and folders left in a folder. Only under a lock that living writers hold.

    Args:
        of: name of the only file or folder whose are removed.
        but: names of those whose are left.
    """
    for path in folder.iterdir():
        stray = STRAY.fullmatch(path.name)
        if stray is None or stray["name"] in but or (of is not None and stray["name"] != of):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _give_name(folder: Path, target: Path, existing: Existing) -> None:
    while True:
        try:
            folder.rename(target)  # takes the place of an empty folder, but of no other
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or existing == "refuse":
                raise
        if existing == "keep":
            return
        old = target.with_name(f".{target.name}.{own_name()}.old")
        with contextlib.suppress(FileNotFoundError):  # another writer has just put it aside, and its own comes next
            target.rename(old)
            shutil.rmtree(old, ignore_errors=True)


def check_free(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises RunError if a disk has less room than `what` needs (and a little to spare)."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise RunError(
            f"{what} needs {needed_bytes / 2**30:.2f} GiB in {folder}, where {free / 2**30:.2f} GiB are free; "
            "make room, or put the cache on another disk: export DDBENCH_CACHE=/path/with/room"
        )
