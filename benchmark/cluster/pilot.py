"""A pilot: a run on a node of a cluster that takes on one stage of a plan, gives its allocation back where it finds
nothing to do, and goes back to the queue before its time is over, unless it gets nowhere.

It calls no scheduler: its exit status and its orders say what the shell around it is to do (`pilot.sbatch`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from ddbench.benchmark.cluster.jobs import Request, Start, Submission, of_key, tasks
from ddbench.benchmark.cluster.script import AGAIN, HELD
from ddbench.benchmark.cluster.site import Stage
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.result import utc_now
from ddbench.benchmark.core.sharing.holder import job_id
from ddbench.benchmark.core.spec import DistillSpec, cell_id
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.planner import plan_request
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.running.live import OwnCells
from ddbench.benchmark.running.reporter import ConsoleReporter
from ddbench.benchmark.running.run_plan import RunOutcome, run_plan
from ddbench.benchmark.running.runner import MADE, Fate, Item, Observer, Part

MOST_RESTARTS, MOST_STILL = 50, 3
"""Restarts of one task in all, and starts in a row that may get nothing further."""
NOTE_SECONDS = 30.0
"""Between two accounts of itself."""
ENDED_BY_REQUEST = 130
OPEN = (Fate.WAITING, Fate.RUNNING, Fate.ELSEWHERE, Fate.INTERRUPTED, Fate.LOST)


class _Stopped(BaseException):
    """Asked to stop before any cell ran."""


def plan_of(request: Request, stage: Stage) -> tuple[RunSpec, Planned]:
    """What a submission asked for, planned here.

    Raises:
        Problems: as `plan_request`.
    """
    given = dict(request.given)
    if request.gpus[stage]:
        given.setdefault("jobs", request.gpus[stage])
    config = None if request.config is None else Path(request.config)
    return plan_request(given, config=config, study=request.study)


class Pilot:
    """One start of a task.

    Raises:
        UsageError: this process is no task of an array.
    """

    def __init__(self, submission: Submission, stage: Stage) -> None:
        task = job_id()
        if task is None or "_" not in task:
            raise UsageError("`bench pilot` is what the tasks of `bench submit` run; by hand, use `bench run`")
        self.submission, self.stage, self.task = submission, stage, task
        self.request = submission.request()
        self.start = Start(
            task=task, restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")), stage=stage,
            host=os.uname().nodename, began=utc_now(), gpus=self.request.gpus[stage],
        )  # fmt: skip
        self.began, self.warned = time.monotonic(), False

    def run(self) -> int:
        """Take part; returns the exit status, in which the shell reads what comes next."""
        self.submission.claim(self.task)  # whoever released it
        self.note(None)
        try:
            with self._signals():
                spec, planned = plan_of(self.request, self.stage)
                ended, status = self._take_part(spec, planned)
        except _Stopped:
            ended, status = self._stopped()
        except BaseException:
            self.note("failed")
            raise
        self.note(ended)
        return status

    def _take_part(self, spec: RunSpec, planned: Planned) -> tuple[str, int]:
        """(why it ended, exit status)"""
        reporter = _PilotReporter(self)
        while True:
            part = Part(self.stage, self.request.idle_seconds)
            outcome = run_plan(spec, planned, reporter, part=part)
            if outcome.interrupted:
                return self._stopped()
            if not outcome.idle:
                break
            coming = [item for item in outcome.cells if item.fate is Fate.INTERRUPTED and _unmade(item)]
            if self.stage == "distill" or not coming:  # others are at all that is left
                break
            if not self._makers(spec.out, coming):
                reporter.warn(
                    f"{len(coming)} students wait for sets that nobody makes any more; the same `bench submit` goes on"
                )
                return "failed", 1
            self.submission.hold(self.task)
            # Whoever finishes a set looks for such notes afterwards: so a last look at the sets comes after the note.
            if all(_unmade(item) for item in coming):
                return "idle", HELD
            self.submission.claim(self.task)
        self._end(spec.out, outcome)
        failed = [item for item in outcome.cells if item.fate in (Fate.FAILED, Fate.BLOCKED)]
        return ("failed", 1) if failed else ("done", 0)

    def _stopped(self) -> tuple[str, int]:
        """On request; before the end of its time it goes back to the queue, if that is of any use."""
        if not self.warned:
            return "interrupted", ENDED_BY_REQUEST
        earlier = [
            one for one in self.submission.starts() if one.task == self.task and one.restart < self.start.restart
        ]
        latest = [*earlier, self.start][-MOST_STILL:]
        if len(latest) == MOST_STILL and all(one.ended in ("time", None) and not one.moved for one in latest):
            print(f"stops: {MOST_STILL} starts in a row have got nothing further", flush=True)
            return "still", ENDED_BY_REQUEST
        if self.start.restart >= MOST_RESTARTS:
            print(f"stops: that was restart {MOST_RESTARTS}", flush=True)
            return "still", ENDED_BY_REQUEST
        return "time", AGAIN

    def _makers(self, out: Path, students: Sequence[Item]) -> bool:
        """Whether somebody makes the sets of these students, or may go on doing so."""
        if any(source.cell.running() for student in students for source in student.sources):
            return True
        of_ours = {int(one.folder.name) for one in of_key(out, self.request.key)}
        there = (task for task in tasks(out) if task.submission in of_ours and task.stage == "distill")
        # An interrupted one may have been preempted, and be in the queue again.
        return any(task.state != "ended" or task.ended == "interrupted" for task in there)

    # Pilots of students wait in the queue until there is a set for them.

    def set_made(self, item: Item) -> None:
        """Have as many of them released as the set has students."""
        self._wake(len(item.planned.students))

    def _end(self, out: Path, outcome: RunOutcome) -> None:
        """See that nobody waits in vain: neither students for a pilot, nor a pilot for students."""
        if self.stage == "evaluate":
            if not any(item.fate in OPEN for item in outcome.cells):
                self._cancel_held(out)
            return
        sets = [item for item in outcome.cells if isinstance(item.spec, DistillSpec) and item.spec.shard is None]
        made = [item for item in sets if item.fate in MADE]
        store, retry_failed = Store(out), bool(self.request.given.get("retry_failed"))
        students = [store.cell(cell_id(student)) for item in made for student in item.planned.students]
        ready = sum(not student.finished(retry_failed=retry_failed) for student in students)
        if ready:
            self._wake(ready)
        elif not any(item.fate in OPEN for item in sets):
            self._cancel_held(out)

    def _wake(self, most: int) -> None:
        left = most
        for submission in of_key(self.submission.folder.parents[1], self.request.key):
            woken = list[str]()
            for task in submission.held():
                if len(woken) < left and submission.claim(task):
                    woken.append(task)
            left -= len(woken)
            self.submission.order(self.task, "release", woken)

    def _cancel_held(self, out: Path) -> None:
        for submission in of_key(out, self.request.key):
            gone = [task for task in submission.held() if submission.claim(task)]
            for task in gone:
                submission.cancelled(task)
            self.submission.order(self.task, "cancel", gone)

    def note(self, ended: str | None) -> None:
        """Write what it has to tell of itself."""
        self.start.seconds, self.start.ended = round(time.monotonic() - self.began, 1), ended
        self.submission.note(self.start)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """USR1: the end of its time is near; that stops the run as TERM does."""

        def warn(_signal: int, _frame: FrameType | None) -> None:
            self.warned = True
            os.kill(os.getpid(), signal.SIGTERM)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            raise _Stopped

        before = {
            number: signal.signal(number, how) for number, how in ((signal.SIGUSR1, warn), (signal.SIGTERM, stop))
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _unmade(student: Item) -> bool:
    return any(source.cell.result_seen() is None for source in student.sources)


class _PilotReporter(ConsoleReporter):
    def __init__(self, pilot: Pilot) -> None:
        super().__init__(
            Console(emoji=False, soft_wrap=True), Console(emoji=False, stderr=True, soft_wrap=True), quiet=True
        )
        self.pilot = pilot

    def view(self, items: list[Item]) -> AbstractContextManager[Observer]:
        return nullcontext(_Watch(self.out, self.pilot))


class _Watch(OwnCells):
    """Tells of the cells, keeps account of the pilot's time, and sees whether it gets anything further."""

    def __init__(self, console: Console, pilot: Pilot) -> None:
        super().__init__(console)
        self.pilot, self.running = pilot, dict[Item, tuple[float, Any]]()
        """Running cells -> when they began, and what they had then."""
        self.ended_seconds, self.noted = pilot.start.busy_seconds, time.monotonic()
        self.places = max(1, pilot.start.gpus)

    def changed(self, item: Item) -> None:
        super().changed(item)
        if item.fate is Fate.RUNNING:
            self.running[item] = time.monotonic(), _look(item.cell)
        elif item in self.running:
            (began, seen), start = self.running.pop(item), self.pilot.start
            self.ended_seconds += (time.monotonic() - began) / self.places
            self._account()
            ended = item.fate in (Fate.DONE, Fate.FAILED)
            start.made += ended
            start.moved = start.moved or ended or _look(item.cell) != seen
            if item.fate is Fate.DONE and item.stage == "distilled sets":
                self.pilot.set_made(item)

    def tick(self) -> None:
        if time.monotonic() - self.noted > NOTE_SECONDS:
            self.noted = time.monotonic()
            self._account()
            self.pilot.note(None)

    def _account(self) -> None:
        """Cells' time by the pilot's places; where several share one, it cannot be used more than whole."""
        now, start = time.monotonic(), self.pilot.start
        running = sum(now - began for began, _ in self.running.values()) / self.places
        start.busy_seconds = round(min(self.ended_seconds + running, now - self.pilot.began), 1)


def _look(cell: CellDir) -> tuple[list[str], int | None]:
    """What changes when a cell gets further: its rounds and its checkpoint."""
    rounds, checkpoint = cell.path / "rounds", cell.path / "checkpoint.pt"
    names = sorted(path.name for path in rounds.iterdir() if not path.name.startswith(".")) if rounds.is_dir() else []
    return names, checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
