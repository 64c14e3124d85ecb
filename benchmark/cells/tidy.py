"""What a finished cell no longer needs, and what killed attempts and runs leave. Imports no torch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence

from ddbench.benchmark.core.files import STRAY, remove_strays
from ddbench.benchmark.core.sharing.locks import Busy
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import CellDir

CHECKPOINT, SCRATCH, ROUNDS = "checkpoint.pt", "scratch", "rounds"


def tidy(cell: CellDir, spec: DistillSpec | EvaluateSpec, shards: Iterable[CellDir]) -> None:
    """Free what a finished cell no longer needs, under its lease. A set's files are links to the same data, in the
    rounds of its shards too; a shard's rounds are what the set is merged from, so they stay until it is."""
    cell.require_lease()  # else these are what another process goes on with
    (cell.path / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(cell.path / SCRATCH, ignore_errors=True)
    if _is_whole(spec):
        for owner in (cell, *shards):
            shutil.rmtree(owner.path / ROUNDS, ignore_errors=True)


def is_tidy(cell: CellDir) -> bool:
    """Whether nothing is left of what an attempt could go on with."""
    return not any((cell.path / name).exists() for name in (CHECKPOINT, ROUNDS))


def tidy_after_kill(
    cell: CellDir, spec: DistillSpec | EvaluateSpec, shards: Sequence[CellDir], *, done: bool, alone: bool
) -> None:
    """Remove what an attempt left that ended without a word, unless a process is at the cell.

    Args:
        done: it has a result that is `ok`, so that nothing is to be resumed.
        alone: no other run is at work in the results folder: of the files that runs write, too.
    """
    try:
        names = {path.name for path in cell.path.iterdir()}
    except FileNotFoundError:
        return
    needless = {CHECKPOINT, SCRATCH, ROUNDS} if _is_whole(spec) else {CHECKPOINT, SCRATCH}
    left = done and (names & needless or any((shard.path / ROUNDS).exists() for shard in shards))
    if left or any(STRAY.fullmatch(name) for name in names):
        with contextlib.suppress(Busy), cell.lock():
            remove_strays(cell.path) if alone else cell.sweep()
            if done:
                tidy(cell, spec, shards)


def _is_whole(spec: DistillSpec | EvaluateSpec) -> bool:
    """Whether it makes a set in one piece, or merges its shards."""
    return isinstance(spec, DistillSpec) and spec.shard is None
