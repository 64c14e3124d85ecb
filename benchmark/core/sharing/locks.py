"""Blocks of code that one process at a time may be in, on all machines that share a folder. Imports no torch.

A lock lies in a folder of its own, beside what it is for (`<name>.lease`); see `lease.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.sharing.lease import Lease, LeaseLost, holder_of

SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two looks at what another process holds."""


T = TypeVar("T")


class Busy(RunError):
    """Another process holds it."""


@contextlib.contextmanager
def lock(folder: Path, *, waiting: Callable[[], AbstractContextManager[object]] = nullcontext) -> Iterator[Lease]:
    """Hold a lock, after waiting for whoever holds it; one whose holder died is free, however it died.

    Args:
        folder: of the lock; its parent must be there.
        waiting: called where another process holds it; what it returns is entered for as long as that takes.
    """
    lease = Lease(folder)
    if not lease.take():
        with waiting():
            _wait(lease, None)
    try:
        yield lease
    finally:
        lease.release()


@contextlib.contextmanager
def lock_or_refuse(
    folder: Path,
    who: str,
    advice: str,
    *,
    timeout_seconds: float = 0,
    on_lost: Callable[[], None] = lambda: None,
) -> Iterator[Lease]:
    """Hold a lock.

    Raises:
        Busy: another process holds it: `<who> (process <pid>)<advice>`, with its machine if it is not this one.
    """
    lease = Lease(folder, on_lost)
    if not lease.take() and not _wait(lease, timeout_seconds):
        holder = holder_of(folder)
        raise Busy(f"{who} ({'unknown process' if holder is None else holder.name}){advice}")
    try:
        yield lease
    finally:
        lease.release()


@contextlib.contextmanager
def giving_way(lease: Lease) -> Iterator[None]:
    """A block that ends without a word where the lease was lost in it: its new holder does the same work, so whoever
    needs that looks again. LeaseLost of another lease is no concern of it."""
    try:
        yield
    except LeaseLost:
        if lease.mine():
            raise


def made_once(
    folder: Path,
    find: Callable[[], T | None],
    make: Callable[[], T],
    *,
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> T:
    """What is found, made first where nothing is: by one process at a time, under the lock in `folder`.

    Args:
        make: asks `require_mine(folder)` last before others see what it made.
    """
    while True:
        with lock(folder, waiting=waiting) as lease:
            if (found := find()) is not None:
                return found
            with giving_way(lease):
                return make()


def is_locked(folder: Path) -> bool:
    """Whether a living process holds a lock."""
    return holder_of(folder) is not None


def _wait(lease: Lease, seconds: float | None) -> bool:
    """Take a lease as soon as it is free; False once the seconds have passed."""
    began, pause = time.monotonic(), SHORTEST_PAUSE
    while not lease.take():
        if seconds is not None and time.monotonic() - began > seconds:
            return False
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return True
