"""Which runs are at work in a results folder: each holds a lease of its own, `<folder>/<run>/`. Imports no torch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ddbench.benchmark.core.sharing.holder import Holder
from ddbench.benchmark.core.sharing.lease import Lease, holder_of


@dataclass(frozen=True)
class AtWork:
    """A run that is at work, as far as can be told."""

    holder: Holder
    folder: Path
    """Of its lease."""


def runs_at_work(folder: Path, *, sweep: bool = False) -> list[AtWork]:
    """The runs that are at work.

    Args:
        sweep: remove what those of this machine left that were killed. Only under a lock under which runs begin: a
            folder in which no lease lies yet may be that of a run that is just taking its own.
    """
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        holder = holder_of(path)
        if holder is not None:
            found.append(AtWork(holder, path))
        elif sweep:
            shutil.rmtree(path, ignore_errors=True)
    return found


@contextlib.contextmanager
def at_work(folder: Path, run: str) -> Iterator[None]:
    """Be at work while the block runs.

    Args:
        run: names the run; no other has that name.
    """
    folder.mkdir(exist_ok=True)
    lease = Lease(folder / run)
    assert lease.take(), f"{lease.folder} is another run's, or was: its name is not its own"
    try:
        yield
    finally:
        lease.release()
        shutil.rmtree(lease.folder, ignore_errors=True)
