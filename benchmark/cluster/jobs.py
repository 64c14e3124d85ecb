"""What was queued for a results folder and what became of it, in files that pilots and people read. Imports no torch.

    <out>/jobs/<n>/  request.json            what was asked for
                     distill.sbatch, evaluate.sbatch
                     arrays/<array>.json     what the scheduler was given: a number of tasks of one stage
                     starts/<task>.<restart>.json    a pilot's own account of one start of its task
                     ended/<task>            the pilot's exit status, where it is not queued again, or why the
                                             task was cancelled
                     held/<task>             the task waits in the queue until somebody releases it
                     orders/<task>           what the task's shell is to tell the scheduler
                     logs/

A task is named as the scheduler does: `<array>_<index>`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import read_regular, write_atomically, write_json
from ddbench.benchmark.core.result import TIME, utc_now
from ddbench.benchmark.core.store import Store

JOBS = "jobs"
CANCELLED = "cancelled"
SILENT_SECONDS = 600.0
"""A pilot writes of itself every half minute; one that has not for so long is told as lost."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Request(_Record):
    """What one `bench submit` asked for; its pilots plan it anew, each on its node."""

    key: str
    """Of what was asked for and where; the same command has the same one."""
    given: dict[str, Any]
    """Options under the names of `RunSpec`."""
    config: str | None
    study: str | None
    gpus: dict[str, int]
    """Stage -> GPUs of each of its pilots."""
    idle_seconds: float


class Array(_Record):
    """An array of pilots that the scheduler has taken."""

    array: str
    stage: str
    tasks: int
    gpus: int
    """Of each."""
    seconds: int
    """Of its time limit."""
    at: str
    """UTC, ISO 8601."""


class Start(_Record):
    """One start of a task, as its pilot tells it."""

    task: str
    restart: int
    stage: str
    host: str
    began: str
    gpus: int
    seconds: float = 0.0
    """That it has lasted."""
    busy_seconds: float = 0.0
    """The same, by the share of its slots in which cells ran."""
    made: int = 0
    """Cells that it ended."""
    moved: bool = False
    """Whether it got anything further."""
    ended: str | None = None
    """Why it ended: done, failed, interrupted, time, still, idle; None while it runs, and where it was lost."""
    at: str | None = None
    """Of the last change."""


@dataclass(frozen=True)
class Submission:
    """The folder of one `bench submit`."""

    folder: Path

    def request(self) -> Request:
        """Raises RunError if it is missing or damaged."""
        try:
            return Request.model_validate_json(read_regular(self.folder / "request.json"))
        except (OSError, ValidationError) as error:
            raise RunError(f"{self.folder / 'request.json'} is not what `bench submit` writes: {error}") from error

    def create(self, request: Request) -> None:
        """Raises FileExistsError if there is such a folder."""
        self.folder.mkdir()
        for name in ("arrays", "starts", "ended", "held", "orders", "logs"):
            (self.folder / name).mkdir()
        write_json(self.folder / "request.json", request.model_dump(mode="json"))

    def arrays(self) -> list[Array]:
        return sorted(_read(self.folder / "arrays", Array), key=lambda array: (len(array.array), array.array))

    def add(self, array: Array) -> None:
        write_json(self.folder / "arrays" / f"{array.array}.json", array.model_dump(mode="json"))

    def starts(self) -> list[Start]:
        """Sorted by task and restart."""
        return sorted(_read(self.folder / "starts", Start), key=lambda start: (start.task, start.restart))

    def note(self, start: Start) -> None:
        start.at = utc_now()
        write_json(self.folder / "starts" / f"{start.task}.{start.restart}.json", start.model_dump(mode="json"))

    def ended(self) -> dict[str, str]:
        """Task -> exit status of its pilot, or why it was cancelled, of those that have ended for good."""
        return {task: text.strip() for task, text in _texts(self.folder / "ended").items()}

    def cancelled(self, task: str) -> None:
        """Note that a task that did not run was taken from the queue."""
        (self.folder / "ended" / task).write_text(CANCELLED)

    # Held tasks. Whoever removes a task's file is the one that tells the scheduler.

    def hold(self, task: str) -> None:
        (self.folder / "held" / task).write_text(utc_now())

    def held(self) -> dict[str, str]:
        """Task -> since when."""
        return _texts(self.folder / "held")

    def claim(self, task: str) -> bool:
        """Whether it was held, and it is this process that may release or cancel it now."""
        try:
            (self.folder / "held" / task).unlink()
        except FileNotFoundError:
            return False
        return True

    def order(self, by: str, verb: str, tasks: Sequence[str]) -> None:
        """Have the shell of the task `by` `release` or `cancel` others."""
        if tasks:
            file = self.folder / "orders" / by
            with contextlib.suppress(FileNotFoundError):
                earlier = file.read_text()
                return write_atomically(file, f"{earlier}{verb} {','.join(tasks)}\n")
            write_atomically(file, f"{verb} {','.join(tasks)}\n")
        return None


def submissions(out: Path) -> list[Submission]:
    """Of a results folder, in their order."""
    folder = out / JOBS
    found = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return [Submission(path) for path in sorted(found, key=lambda path: int(path.name))]


def of_key(out: Path, key: str) -> list[Submission]:
    """The submissions that asked for the same thing."""
    return [one for one in submissions(out) if (one.folder / "request.json").exists() and one.request().key == key]


class Task(BaseModel):
    """Where one task stands, from files alone."""

    task: str
    stage: str
    submission: int
    state: str
    """queued, held, running, ended; lost: its pilot ended without a word and was not started again yet."""
    since: str | None
    host: str | None = None
    ended: str | None = None
    """Why its last start ended; `exit N` where its pilot could not say, `cancelled` of one that never began."""
    log: str
    """What its starts have said; a path within the results folder."""
    starts: int = 0
    made: int = 0
    gpus: int
    asked_hours: float
    """Of one start: GPU hours, or without GPUs hours, up to its time limit."""
    held_hours: float = 0.0
    """That it has had, in all starts."""
    used_hours: float = 0.0
    """Of these, with a cell in each of its places."""


def tasks(out: Path) -> Iterator[Task]:
    """Every task that was ever queued for a results folder."""
    alive = {run.holder.job for run in Store(out).runs_at_work()} if submissions(out) else set()
    for submission in submissions(out):
        starts: dict[str, list[Start]] = {}
        for start in submission.starts():
            starts.setdefault(start.task, []).append(start)
        held, exits = submission.held(), submission.ended()
        for array in submission.arrays():
            for index in range(array.tasks):
                name, weight = f"{array.array}_{index}", max(1, array.gpus) / 3600
                own = starts.get(name, [])
                last = own[-1] if own else None
                state, since = _state(array, last, held.get(name), name in exits, alive)
                said = None if last is None else last.ended
                why = exits.get(name) if said is None else said
                why = f"exit {why}" if why is not None and why.isdecimal() else why
                yield Task(
                    task=name, stage=array.stage, submission=int(submission.folder.name), state=state, since=since,
                    host=None if last is None else last.host, ended=why,
                    log=f"{JOBS}/{submission.folder.name}/logs/{name}.log",
                    starts=len(own), made=sum(one.made for one in own), gpus=array.gpus,
                    asked_hours=array.seconds * weight, held_hours=sum(one.seconds for one in own) * weight,
                    used_hours=sum(one.busy_seconds for one in own) * weight,
                )  # fmt: skip


def _state(
    array: Array, last: Start | None, held: str | None, over: bool, alive: set[str | None]
) -> tuple[str, str | None]:
    if over:
        return "ended", None if last is None else last.at
    if last is not None and last.ended is None:
        heard = last.task in alive and (last.at is None or _age_seconds(last.at) < SILENT_SECONDS)
        return ("running", last.began) if heard else ("lost", last.at)
    if held is not None:
        return "held", held
    if last is None:
        return "queued", array.at
    return ("queued" if last.ended in ("time", "idle") else "ended"), last.at


def _texts(folder: Path) -> dict[str, str]:
    """Task -> what its file in a folder says."""
    found = {}
    for path in sorted(folder.glob("*_*")):
        with contextlib.suppress(OSError):
            found[path.name] = read_regular(path).decode(errors="replace")
    return found


def _age_seconds(at: str) -> float:
    """By two machines' clocks: for people."""
    try:
        return (datetime.now(UTC) - datetime.strptime(at, TIME).replace(tzinfo=UTC)).total_seconds()
    except ValueError:  # of a damaged file
        return math.inf


def _read(folder: Path, kind: type[Any]) -> Iterator[Any]:
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValidationError, json.JSONDecodeError):  # just being written, or damaged
            yield kind.model_validate_json(read_regular(path))
