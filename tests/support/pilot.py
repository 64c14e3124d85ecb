"""`bench run` in small, for tests of many runs on one results folder: forks cells of some milliseconds, without torch.

    python -P pilot.py OUT SETS STUDENTS CELL_SECONDS [id of a cell that kills itself]

Prints `went`, and then how each of its cells fared; its exit status is 1 where one failed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import fake_results

from ddbench.benchmark.cells import cell as cell_module
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import runner as runner_module
from ddbench.benchmark.running.runner import Fate, Item, Observer, Runner


class Forked(Handle):
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def exit_status(self) -> int | None:
        if self.status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if ended else None
        return self.status

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Forks(Engine):
    def __init__(self, seconds: float, suicide: str | None) -> None:
        self.seconds, self.suicide = seconds, suicide

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(index, "cpu") for index in range(jobs)]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        pid = os.fork()
        if pid:
            return Forked(pid)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        status = 70
        try:
            cell_module._run = self._run  # type: ignore[assignment]
            status = cell_module.run_cell(cell, launch=launch)
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            os._exit(status)

    def _run(self, cell: CellDir, *_: Any, **__: Any) -> Any:
        if cell.id == self.suicide:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return fake_results.of(cell)

    def close(self) -> None:
        pass


class Told(Observer):
    def changed(self, item: Item) -> None:
        if item.began is not None and item.fate in (Fate.DONE, Fate.FAILED, Fate.LOST):
            print(item.fate, item.cell.id, item.reason or "", flush=True)


def plan(n_sets: int, n_students: int) -> Plan:
    given = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": f"0-{n_sets - 1}", "repeats": n_students}
    return plan_run(run_spec({}, {**given, "device": "cpu"}))[0]


def main() -> None:
    out, n_sets, n_students, seconds, *suicide = sys.argv[1:]
    store = Store(Path(out))
    store.create()
    runner_module.POLL_SECONDS, runner_module.ELSEWHERE_SECONDS = 0.01, 0.05
    engine = Forks(float(seconds), suicide[0] if suicide else None)
    runner = Runner(store, plan(int(n_sets), int(n_students)), engine)
    with store.at_work(f"{os.uname().nodename}-{time.time_ns()}"):
        runner.shuffle(os.uname().nodename)
        runner.settle()
        print("went", flush=True)
        runner.run(engine.open(jobs=1, device="cpu"), Told())
    sys.exit(any(item.fate not in (Fate.DONE, Fate.REUSED) for item in runner.items))


if __name__ == "__main__":
    main()
