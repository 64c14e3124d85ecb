"""A lease: the right of one process at a time to work on something, on any file system and from any machine.

    <folder>/000007         held: its holder, and a count that moves while the holder lives
    <folder>/000007.free    given back

Nothing here trusts locks of files, which a shared file system may lack or keep to one machine, nor clocks or times of
files. A lease is taken by an exclusive link of the next number, which a file server decides. Numbers only grow and the
highest one counts: a holder that was taken for dead and wakes up finds a higher one, and must not commit (`mine`).

A holder is dead if it was a process of this machine and is gone, or, of another machine, if its count stood still for
`DEAD_SECONDS` of the observer's own clock. Imports no torch.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.sharing.holder import Holder, own_name, this_process

DEAD_SECONDS = float(os.environ.get("DDBENCH_LEASE_SECONDS", "300"))
"""How long the count of a living holder may stand still. For tests: the variable is no setting for people."""
RENEW_SECONDS = DEAD_SECONDS / 10
NAME = re.compile(r"(\d{6,})(\.free)?")
COUNT_DIGITS = 12
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EINVAL}
"""How a file system says that it has no hard links (exFAT, some CIFS and FUSE)."""

_held: dict[Path, Lease] = {}
"""Folder -> the lease on it that this process holds."""
_watched: dict[tuple[Path, int], tuple[bytes, float]] = {}
"""(Folder, number) -> what another machine's holder wrote last, and since when this process has seen that."""


class LeaseLost(RunError):
    """This process was taken for dead, and what it held is another's."""


class Lease:
    """One process's lease on a folder's behalf.

    Args:
        folder: made where it is missing; its parent must be there.
        on_lost: called, from another thread, where the lease turns out to be another's.
    """

    def __init__(self, folder: Path, on_lost: Callable[[], None] = lambda: None) -> None:
        self.folder, self.on_lost = folder, on_lost
        self.number, self.holder = 0, this_process()
        self._text = b""
        self._given_back = threading.Event()

    def take(self) -> bool:
        """Take the lease unless a living process has it; returns whether it is taken now.

        Raises:
            OSError: the folder's parent is not there, or cannot be written to.
        """
        self.folder.mkdir(exist_ok=True)
        # The number after the one that was judged, of one look: had another process taken that meanwhile, a second look
        # would give the number after its own, and both would hold the lease.
        number, holder = _judged(self.folder)
        if holder is not None:
            return False
        self.number, self.holder = number + 1, this_process()
        self._text = self.holder.model_dump_json().encode() + b"\n"
        if not create_whole(self._file, self._text + _count(0)):
            return False
        if _newest(self.folder) != (self.number, False):  # this machine had not heard of higher numbers
            self._file.unlink(missing_ok=True)
            return False
        self._sweep()
        _held[self.folder] = self
        self._given_back.clear()
        threading.Thread(target=self._renew, daemon=True, name=f"lease on {self.folder}").start()
        return True

    def mine(self) -> bool:
        """Whether it still is this holder's: asked before anything is committed.

        Raises:
            OSError: that cannot be found out.
        """
        try:
            return _newest(self.folder) == (self.number, False) and self._file.read_bytes().startswith(self._text)
        except FileNotFoundError:
            return False

    def require(self) -> None:
        """Raises LeaseLost where it is another's by now: asked last before anything that others see is changed."""
        if not self.mine():
            raise LeaseLost(
                f"{self.folder.parent}: this process was taken for dead, and another one goes on with its work; "
                "nothing more is written here"
            )

    def release(self) -> None:
        """Give it back; the next one need not wait."""
        self._given_back.set()
        _held.pop(self.folder, None)
        with contextlib.suppress(OSError):  # another's by now, or gone with its folder
            self._file.rename(self._file.with_name(f"{self._file.name}.free"))

    def moved(self, folder: Path) -> None:
        """Note that the folder was renamed, by this holder."""
        _held.pop(self.folder, None)
        self.folder = folder
        _held[folder] = self

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.number:06d}"

    def _sweep(self) -> None:
        """Remove lower numbers, and what killed takers left. The highest number alone says who holds it."""
        for path in self.folder.iterdir():
            matched = NAME.fullmatch(path.name)
            if (matched and int(matched[1]) < self.number) or path.name.startswith("."):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _renew(self) -> None:
        count = 0
        while not self._given_back.wait(RENEW_SECONDS):
            count += 1
            try:
                with contextlib.suppress(FileNotFoundError), self._file.open("r+b") as file:
                    file.seek(len(self._text))
                    file.write(_count(count))  # in place: that needs no room on a full disk
                lost = not self.mine()
            except OSError:
                continue  # a server that is away for a while
            if lost and not self._given_back.is_set():
                self.on_lost()
                return


def holder_of(folder: Path) -> Holder | None:
    """The living holder of a lease, as far as can be told; None if there is none. Of another machine's, the first look
    begins to watch it."""
    try:
        return _judged(folder)[1]
    except PermissionError:
        return None  # on a copy that cannot even be read nothing runs


def _judged(folder: Path) -> tuple[int, Holder | None]:
    """(highest number, its living holder as far as can be told)"""
    while True:
        number, free = _newest(folder)
        if free:
            return number, None
        file = folder / f"{number:06d}"
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            if _newest(folder) != (number, False):
                continue  # given back or taken over in between
            text = b""  # a client that remembers the file's absence; it is there
        holder = _holder(text)
        return number, None if _is_dead(holder, (folder, number), text) else holder


def stood_still(folder: Path) -> str | None:
    """What another machine's holder wrote last, where this process has seen it stand still for so long: it is dead."""
    number = _newest(folder)[0]
    text, since = _watched.get((folder, number), (b"", math.inf))
    return text.decode(errors="replace") if time.monotonic() - since > DEAD_SECONDS else None


def believe_dead(folder: Path, text: str) -> None:
    """Take the holder for dead that wrote this last, as `stood_still` in another process said, unless it moves."""
    _watched[folder, _newest(folder)[0]] = text.encode(), -math.inf


def believe_ended(folder: Path, host: str) -> None:
    """Take the holder for dead if it is a process of that machine: whoever started it there has seen it end."""
    number, free = _newest(folder)
    with contextlib.suppress(OSError):
        text = (folder / f"{number:06d}").read_bytes()
        if not free and _holder(text).host == host:
            _watched[folder, number] = text, -math.inf


def require_mine(folder: Path) -> None:
    """Raises LeaseLost if this process took a lease on `folder` that is another's by now."""
    lease = _held.get(folder)
    if lease is not None:
        lease.require()


@contextlib.contextmanager
def swept_once_lost(folder: Path | None) -> Iterator[None]:
    """A block that fails where its unfinished files are gone: with LeaseLost where the lease on `folder` was another's
    by then, which sweeps them."""
    try:
        yield
    except OSError:
        if folder is not None:
            require_mine(folder)
        raise


def _is_dead(holder: Holder, key: tuple[Path, int], text: bytes) -> bool:
    if holder.is_here:
        return holder.is_gone
    now = time.monotonic()
    last, since = _watched.get(key, (None, now))
    if last != text:
        _watched[key] = text, now
        return False
    return now - since > DEAD_SECONDS


def _holder(text: bytes) -> Holder:
    try:
        return Holder.model_validate_json(text.partition(b"\n")[0])
    except ValidationError:  # just being written, where a file system has no links, or cut off by a power failure
        return Holder(token="", host="unknown", boot="", namespace="", pid=0, started=None, job=None, since="")


def _newest(folder: Path) -> tuple[int, bool]:
    """(highest number, whether it was given back); (0, True) where nobody ever held it."""
    try:
        found = [NAME.fullmatch(path.name) for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return 0, True
    return max(((int(one[1]), one[2] is not None) for one in found if one), default=(0, True))


def _count(count: int) -> bytes:
    return f"{count:0{COUNT_DIGITS}d}\n".encode()


def create_whole(file: Path, text: bytes) -> bool:
    """Create a file, whole, unless it is there; returns whether it was created."""
    temporary = file.with_name(f".{own_name()}.tmp")
    temporary.write_bytes(text)
    try:
        os.link(temporary, file)
    except OSError as error:
        if error.errno in NO_LINKS:
            return _create_in_place(file, text)
        # A file server's answer may be lost and its second one say "exists": the number of links tells.
        try:
            if temporary.stat().st_nlink == 2:
                return True
        except FileNotFoundError:  # swept by whoever took the lease in between (`_sweep`)
            return file.parent.is_dir() and _holds(file, text)
        if isinstance(error, FileExistsError):
            return False
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _holds(file: Path, text: bytes) -> bool:
    try:
        return file.read_bytes() == text
    except FileNotFoundError:
        return False


def _create_in_place(file: Path, text: bytes) -> bool:
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(text)
    return True
