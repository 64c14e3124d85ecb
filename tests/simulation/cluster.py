"""How long a study takes on a cluster and how many GPU hours stand idle, by the rules of `bench submit`.

    python -P tests/simulation/cluster.py --gpus 64 --sets 200 --students 4

Sets and students take lognormal times (assumed; their sum does not depend on the rules). Measured on Slurm 22.05: a
task's first line after 0.6 s, a pilot's first cell 10 s later, a release 1.5 s, a second start 9 s. Queue waits beyond
that, for other people's jobs, are exponential with a mean that is assumed, and so are preemptions. A stopped cell loses
up to a minute. docs/clusters.md has what came of it.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

TO_FIRST_CELL, RELEASE, SECOND_START = 10.6, 1.5, 9.0
IDLE, WARNING, LOST_AT_MOST = 300.0, 180.0, 60.0


@dataclass(frozen=True)
class Study:
    gpus: int
    sets: int
    students: int
    """Of each set."""
    set_minutes: float = 30.0
    student_minutes: float = 20.0
    """Medians."""
    spread: float = 0.5
    """Standard deviation of the logarithm."""
    preempted_an_hour: float = 0.05
    """Share of the pilots."""
    queue_minutes: float = 5.0
    """Mean wait of a task that starts again."""
    limit_hours: float = 4.0


@dataclass(eq=False)
class Task:
    """A task of an array; `stage` 0 distills, 1 trains."""

    stage: int
    held: bool = False
    starts: int = 0
    began: float = 0.0
    cell: int | None = None
    cell_began: float = 0.0
    idle_since: float | None = None
    epoch: int = 0
    """Of what is to happen to it; older events are void."""


@dataclass
class Outcome:
    hours: float
    bound_hours: float
    had: float = 0.0
    """GPU hours."""
    used: float = 0.0
    starts: int = 0


@dataclass
class Cluster:
    """One run of a study."""

    study: Study
    random: np.random.Generator
    now: float = 0.0
    had: float = 0.0
    used: float = 0.0
    starts: int = 0
    free: int = 0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    number: count[int] = field(default_factory=count)
    queue: deque[Task] = field(default_factory=deque)
    ready: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    waiting: list[Task] = field(default_factory=list)
    """Pilots with an allocation and nothing to do."""
    held: list[Task] = field(default_factory=list)

    def run(self) -> Outcome:
        study, total = self.study, self.study.sets * self.study.students
        times = [
            60 * minutes * np.exp(self.random.normal(0, study.spread, size))
            for minutes, size in ((study.set_minutes, study.sets), (study.student_minutes, total))
        ]
        self.left = [list(map(float, one)) for one in times]
        self.open = [study.sets, total]
        longest = max(
            times[0][s] + times[1][s * study.students : (s + 1) * study.students].max() for s in range(study.sets)
        )
        bound = max((times[0].sum() + times[1].sum()) / study.gpus, longest)
        self.ready[0].extend(range(study.sets))
        self.free = study.gpus
        for stage, size in ((0, study.sets), (1, total)):
            for _ in range(min(study.gpus, size)):
                task = Task(stage, held=stage == 1)
                (self.held if task.held else self.queue).append(task)
        self._schedule()
        while self.events and any(self.open):
            self.now, _, happen = heapq.heappop(self.events)
            happen()
        for task in self.running():
            self.had += self.now - task.began
        return Outcome(self.now / 3600, bound / 3600, self.had / 3600, self.used / 3600, self.starts)

    def running(self) -> set[Task]:
        return self._allocated

    _allocated: set[Task] = field(default_factory=set)
    left: list[list[float]] = field(default_factory=list)
    """Stage -> seconds that each cell still needs."""
    open: list[int] = field(default_factory=list)
    """Stage -> cells that are not made."""

    def _at(self, seconds: float, task: Task, do: Callable[[Task], None]) -> None:
        epoch = task.epoch

        def happen() -> None:
            if task.epoch == epoch:
                do(task)

        heapq.heappush(self.events, (self.now + seconds, next(self.number), happen))

    def _schedule(self) -> None:
        while self.free and self.queue:
            task = self.queue.popleft()
            self.free -= 1
            self.starts += 1
            task.began, task.starts, task.epoch = self.now, task.starts + 1, task.epoch + 1
            self._allocated.add(task)
            self._at(TO_FIRST_CELL, task, self._next)
            if self.study.preempted_an_hour:
                self._at(self.random.exponential(3600 / self.study.preempted_an_hour), task, self._stop)
            self._at(3600 * self.study.limit_hours - WARNING, task, self._stop)

    def _next(self, task: Task) -> None:
        """Take a ready cell, or wait for one."""
        ready = self.ready[task.stage]
        if ready:
            task.idle_since = None
            place = int(self.random.integers(len(ready)))  # in an order of its own
            ready[place], ready[-1] = ready[-1], ready[place]
            task.cell, task.cell_began = ready.pop(), self.now
            self._at(self.left[task.stage][task.cell], task, self._made)
        else:
            task.idle_since = self.now
            self.waiting.append(task)
            self._at(IDLE, task, self._give_back)

    def _made(self, task: Task) -> None:
        cell, stage = task.cell, task.stage
        if cell is None or self.now + 1e-6 < task.cell_began + self.left[stage][cell]:
            return  # of a cell that it was stopped at
        self.used += self.left[stage][cell]
        self.open[stage] -= 1
        task.cell = None
        if stage == 0:
            students = self.study.students
            self.ready[1].extend(range(cell * students, (cell + 1) * students))
            for _ in range(students):
                if self.held:
                    woken = self.held.pop()
                    self._at(RELEASE, woken, self._queued)
            for other in [one for one in self.waiting if one.stage == 1]:
                if self.ready[1]:
                    self.waiting.remove(other)
                    self._next(other)
        self._next(task)

    def _queued(self, task: Task) -> None:
        self.queue.append(task)
        self._schedule()

    def _off(self, task: Task) -> None:
        self.had += self.now - task.began
        self._allocated.discard(task)
        task.epoch += 1
        self.free += 1

    def _give_back(self, task: Task) -> None:
        if task.idle_since is None or self.now - task.idle_since < IDLE - 1e-6:
            return
        self.waiting.remove(task)
        task.idle_since = None
        self._off(task)
        if task.stage == 1 and self.open[0]:
            self.held.append(task)
        self._schedule()

    def _stop(self, task: Task) -> None:
        """Before the limit, or preempted: what it was at keeps nearly all."""
        if task.cell is not None:
            spent = self.now - task.cell_began
            kept = max(0.0, spent - self.random.uniform(0, LOST_AT_MOST))
            self.used += kept
            self.left[task.stage][task.cell] -= kept
            self.ready[task.stage].append(task.cell)
            task.cell = None
        elif task in self.waiting:
            self.waiting.remove(task)
            task.idle_since = None
        self._off(task)
        for other in [one for one in self.waiting if one.stage == task.stage][:1]:
            if self.ready[task.stage]:
                self.waiting.remove(other)
                self._next(other)
        self._at(SECOND_START + self.random.exponential(60 * self.study.queue_minutes), task, self._queued)
        self._schedule()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("gpus", 64), ("sets", 200), ("students", 4), ("runs", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("preempted_an_hour", "queue_minutes", "limit_hours", "set_minutes", "student_minutes", "spread"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Study, name))
    asked = vars(parser.parse_args())
    runs, study = asked.pop("runs"), Study(**asked)
    found = [Cluster(study, np.random.default_rng([0, seed])).run() for seed in range(runs)]

    def span(values: list[float]) -> str:
        return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    by_bound = [one.hours / one.bound_hours for one in found]
    idle = [one.had - one.used for one in found]
    print(f"{study}, {runs} runs: mean (least to most)")
    print(f"makespan {span([one.hours for one in found])} h, by the bound {span(by_bound)}")
    print(f"GPU hours: {span([one.had for one in found])} had, {span(idle)} of them idle")
    print(f"share of them idle {span([100 * hours / one.had for hours, one in zip(idle, found, strict=True)])} %")
    print(f"starts of pilots {span([float(one.starts) for one in found])}")


if __name__ == "__main__":
    main()
