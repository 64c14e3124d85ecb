"""The attempts at a cell, of all runs together: `attempts.jsonl`, written by whoever holds the cell's lease.

One line says that an attempt began, and where; another one how it ended. An attempt without such an end was lost with
its process, wherever that was. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.result import utc_now
from ddbench.benchmark.core.sharing.holder import Holder, job_id

ATTEMPTS = "attempts.jsonl"
MOST_ATTEMPTS = 3
"""Attempts that may be lost before a cell counts as killed."""


class Cause(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    """It has a result, of whatever kind."""
    INTERRUPTED = "interrupted"
    """It was asked to stop, and can be resumed."""
    PREEMPTED = "preempted"
    """The same, where a scheduler runs it."""
    LOST = "lost"
    """Its process ended without a word."""


@dataclass
class Attempt:
    """One start of a cell."""

    host: str | None = None
    job: str | None = None
    began: str | None = None
    """UTC, ISO 8601."""
    cause: Cause | None = None
    """None while it runs, and where nobody has noted its end."""


@dataclass(frozen=True)
class Attempts:
    """The attempts at one cell."""

    folder: Path

    def all(self) -> list[Attempt]:
        """In their order; lines that a killed writer left unfinished are passed over."""
        try:
            lines = read_regular(self.folder / ATTEMPTS).splitlines()
        except OSError:
            return []
        attempts: list[Attempt] = []
        for line in lines:
            noted = _object(line)
            if noted.get("event") == "began":
                host, job, began = (_text(noted, key) for key in ("host", "job", "at"))
                attempts.append(Attempt(host, job, began))
            elif noted.get("event") == "ended" and noted.get("cause") in list(Cause):
                # One may be lost before it noted that it began, and be given a result after it was lost.
                if not attempts or (attempts[-1].cause is not None and noted["cause"] != Cause.DONE):
                    attempts.append(Attempt())
                attempts[-1].cause = Cause(noted["cause"])
        return attempts

    def begin(self, holder: Holder) -> None:
        self._add({"event": "began", "host": holder.host, "pid": holder.pid, "job": holder.job, "at": utc_now()})

    def end(self, cause: Cause) -> None:
        """Note how the last attempt ended. Where that cannot be written, on a full disk, it counts as lost."""
        with contextlib.suppress(OSError):
            self._add({"event": "ended", "cause": cause, "at": utc_now()})

    def lost(self) -> int:
        """How many were lost since the cell last had a result. Those that were asked to stop do not count."""
        count = 0
        for attempt in reversed(self.all()):
            if attempt.cause is Cause.DONE:
                break
            count += attempt.cause in (None, Cause.LOST)
        return count

    def _add(self, noted: dict[str, Any]) -> None:
        with (self.folder / ATTEMPTS).open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                cut = file.read(1) != b"\n"  # by a kill or a full disk
            else:
                cut = False
            file.write(b"\n" * cut + json.dumps(noted).encode() + b"\n")


def stopped() -> Cause:
    """Why this process was asked to stop, as far as it can tell."""
    return Cause.INTERRUPTED if job_id() is None else Cause.PREEMPTED


def _object(line: bytes) -> dict[str, Any]:
    try:
        noted = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _text(noted: dict[str, Any], key: str) -> str | None:
    value = noted.get(key)
    return value if isinstance(value, str) else None
