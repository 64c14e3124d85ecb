"""SHA-256 of large files, computed once for as long as they do not change: every cell asks, and 3.4 GB take seconds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from functools import lru_cache
from pathlib import Path

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.sharing.lease import LeaseLost
from ddbench.benchmark.core.sharing.locks import lock
from ddbench.datasets.cache import cache_dir, read_json

REMEMBERED_BYTES = 16 * 2**20
"""Smaller files are hashed anew in every process: that takes milliseconds."""
SETTLED_NS = 2 * 10**9
"""A file that changed less long ago may change again within one tick of its file system's clock, unseen."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; of a large one it is remembered between runs by its place, size, times and inode.

    Raises:
        OSError: a file that cannot be read.
    """
    path = path.resolve()
    return _file_sha256(path, _identity(path.stat()))


@lru_cache
def _file_sha256(path: Path, identity: tuple[int, ...]) -> str:
    memory = cache_dir() / "priors-sha256.json"
    known = read_json(memory).get(str(path))
    if isinstance(known, dict) and known.get("identity") == list(identity) and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    settled = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > SETTLED_NS
    if after.st_size >= REMEMBERED_BYTES and settled and _identity(after) == identity:
        with contextlib.suppress(OSError, LeaseLost):  # a cache that cannot be written costs time only
            memory.parent.mkdir(parents=True, exist_ok=True)
            with lock(memory.with_suffix(".lease")) as lease:
                known_by_now = {**read_json(memory), str(path): {"identity": list(identity), "sha256": sha256}}
                write_json(memory, known_by_now, lease=lease.folder)
    return sha256


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What differs once a file was written to or another put in its place; the time of change of the inode cannot be
    set back, as `cp -p` and `touch` set the other."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
