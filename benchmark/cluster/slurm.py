"""The scheduler's commands, as few as will do. One that fails says nothing about jobs, and nothing follows from it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddbench.benchmark.core.errors import RunError, UsageError

TIMEOUT_SECONDS = 60
QUEUED, HELD, RUNNING = "queued", "held", "running"
WAITING_STATES = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED")
GONE_STATES = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "REVOKED",
)  # fmt: skip


class CallFailed(RunError):
    """A command of the scheduler's did not answer, or refused."""


@dataclass(frozen=True)
class Queued:
    """Tasks of one array that the scheduler has, in one state."""

    array: str
    indices: tuple[int, ...]
    state: str
    """queued, held or running."""
    reason: str
    """In the scheduler's own words."""


@dataclass(frozen=True)
class Limits:
    """What the scheduler lets a user queue; None: not known."""

    array_size: int | None
    """Tasks of one array."""
    submitted: int | None
    """Tasks of one user, queued and running."""


def submit(script: Path, tasks: int, *, held: bool) -> str:
    """Queue an array of tasks 0, 1, …; returns its number.

    Raises:
        CallFailed: the scheduler refused it, or did not answer.
    """
    hold = ["--hold"] if held else []
    place = ["--chdir", str(script.parent), f"--array=0-{tasks - 1}", "--export=ALL"]
    said = _call("sbatch", "--parsable", *place, *hold, str(script))
    number = said.strip().splitlines()[-1].partition(";")[0] if said.strip() else ""
    if not number.isdecimal():
        raise CallFailed(f"sbatch said {said.strip()[:200]!r}; expected the number of a job")
    return number


def queue(arrays: Sequence[str]) -> list[Queued]:
    """What the scheduler has of these arrays; one call.

    Raises:
        CallFailed: it did not answer. That says nothing about the jobs.
    """
    # Without -r and -p: arrays in one line each, wherever they were moved to. The length of their lists is not cut.
    said = _call("squeue", "--me", "--noheader", "--format=%i|%T|%r", SLURM_BITSTR_LEN="0")
    found = []
    for line in said.splitlines():
        name, state, reason = (*line.split("|", 2), "", "")[:3]
        array, _, indices = name.partition("_")
        if array in arrays and state not in GONE_STATES:
            held = state == "REQUEUE_HOLD" or "Held" in reason or "held" in reason
            where = (HELD if held else QUEUED) if state in WAITING_STATES else RUNNING
            found.append(Queued(array, indices_of(indices), where, reason))
    return found


def indices_of(text: str) -> tuple[int, ...]:
    """`[0-2,5%4]` → (0, 1, 2, 5)."""
    found: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        matched = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if matched:
            found += range(int(matched[1]), int(matched[2] or matched[1]) + 1, int(matched[3] or 1))
    return tuple(found)


def stop(arrays: Sequence[str]) -> None:
    """Cancel what is queued, and ask what runs to stop, resumably.

    Raises:
        CallFailed: the scheduler did not answer.
    """
    # Each to its own state: a signal to a task that is queued keeps scancel waiting for a minute and a half.
    _call("scancel", "--state=PENDING", *arrays, missing_is_fine=True)
    _call("scancel", "--full", "--signal=TERM", "--state=RUNNING", *arrays, missing_is_fine=True)


def release(tasks: Sequence[str]) -> None:
    """Raises CallFailed if the scheduler did not answer."""
    _call("scontrol", "release", ",".join(tasks), missing_is_fine=True)


def limits() -> Limits:
    """As far as the scheduler tells; its accounting is often closed to users, or not there."""
    return Limits(_array_size(), _submitted())


def _array_size() -> int | None:
    try:
        matched = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config"), re.MULTILINE)
    except (CallFailed, UsageError):
        return None
    return int(matched[1]) if matched else None


def _submitted() -> int | None:
    where = ["where", f"user={os.environ.get('USER', '')}"] if os.environ.get("USER") else []
    try:
        said = _call("sacctmgr", "--noheader", "--parsable2", "show", "assoc", *where, "format=MaxSubmitJobs")
    except (CallFailed, UsageError):
        return None
    return min((int(line) for line in said.split() if line.isdecimal()), default=None)


def _call(program: str, *arguments: str, missing_is_fine: bool = False, **environment: str) -> str:
    """Raises CallFailed, or UsageError where there is no such program."""
    command = [program, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env={**os.environ, **environment}
        )
    except FileNotFoundError:
        raise UsageError(
            f"{program}: not found. `bench submit` and `bench stop` are to be run where Slurm's commands are"
        ) from None
    except subprocess.TimeoutExpired:
        raise CallFailed(f"{program} has not answered within {TIMEOUT_SECONDS} s; try again later") from None
    said = (done.stderr or done.stdout).strip()
    if done.returncode and not (missing_is_fine and re.search(r"[Ii]nvalid job id|already completing", said)):
        raise CallFailed(f"{program} failed with {done.returncode}: {said[:500] or 'without a word'}")
    return done.stdout
