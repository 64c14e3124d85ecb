"""The runner's decisions where cells run on other machines: slots come and go, and cells may be left there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import fake_results
import pytest

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import runner as runner_module
from ddbench.benchmark.running.runner import Fate, Item, Observer, Runner

NODES = [Slot(0, "cpu", node="n1", cores=2), Slot(1, "cpu", node="n1", cores=2), Slot(2, "cpu", node="n2", cores=2)]


class There(Handle):
    def __init__(self, cell: CellDir, polls: int | None, lost: str | None = None) -> None:
        self.cell, self.polls, self.told = cell, polls, list[str]()
        self._lost = lost
        self.status: int | None = None

    def exit_status(self) -> int | None:
        if self.status is None and self.polls is not None:
            self.polls -= 1
            if self.polls < 0:
                self.status = -signal.SIGKILL if self._lost else 0
                if not self._lost:
                    write_json(self.cell.path / "result.json", fake_results.of(self.cell).model_dump(mode="json"))
        return self.status

    @property
    def lost(self) -> str | None:
        return self._lost

    def terminate(self) -> None:
        self.told.append("terminate")
        self.status = 143

    def kill(self) -> None:
        self.told.append("kill")


class Machines(Engine):
    """Three slots on two nodes, of which `now` says which are there at each look; cells last `polls` looks, or, with
    None, until they are told to end."""

    here, detaches = False, True

    def __init__(self, polls: int | None = 2) -> None:
        self.polls, self.now = polls, [NODES]
        self.handles: list[There] = []
        self.launched: list[tuple[Launch, Slot]] = []
        self.said: list[str] = []
        self.lose: list[str] = []

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return self.now[0]

    def slots(self, opened: list[Slot]) -> list[Slot]:
        return self.now.pop(0) if len(self.now) > 1 else self.now[0]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        why = self.lose.pop() if self.lose else None
        self.handles.append(There(CellDir(cell), self.polls, why))
        self.launched.append((launch, slot))
        return self.handles[-1]

    def detach(self) -> None:
        self.said.append("detach")

    def stop_left(self) -> None:
        self.said.append("stop left")

    def close(self) -> None: ...


class Presses(Observer):
    """Ctrl-C at these ticks, once all slots are taken."""

    def __init__(self, *at: int) -> None:
        self.at, self.ticks = at, 0

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks in self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(runner_module, "LEAVE_SECONDS", 0.3)
    made = Store(tmp_path / "runs")
    made.create()
    return made


def run(store: Store, engine: Machines, observer: Observer, threads: int = 8) -> tuple[Runner, list[str]]:
    given = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0-3", "repeats": 1, "device": "cpu"}
    plan = plan_run(run_spec({}, given))[0]
    sets = [one.model_copy(update={"launch": one.launch.model_copy(update={"threads": threads})}) for one in plan.sets]
    runner = Runner(store, plan.model_copy(update={"sets": tuple(sets)}), engine)
    said: list[str] = []
    runner.tell = said.append
    runner.settle()
    runner.run(engine.open(jobs=3, device="cpu"), observer)
    return runner, said


def fates(items: list[Item]) -> list[Fate]:
    return sorted(item.fate for item in items)


def test_a_cell_gets_its_nodes_cores_and_is_told_who_is_beside_it(store: Store) -> None:
    engine = Machines()
    runner, said = run(store, engine, Observer())
    assert fates(runner.items) == [Fate.DONE] * 8
    assert {(launch.threads, launch.cells_at_once, slot.node) for launch, slot in engine.launched} == {
        (2, 2, "n1"),
        (2, 1, "n2"),
    }
    assert not said


def test_a_run_waits_for_machines_and_uses_those_that_come(store: Store) -> None:
    engine = Machines()
    engine.now = [NODES[:1], *[[]] * 20, NODES[2:]]
    runner, said = run(store, engine, Observer())
    assert fates(runner.items) == [Fate.DONE] * 8
    assert said == ["no machine is there at present that can run cells; this run waits for one"]
    assert {slot.node for _, slot in engine.launched[1:]} == {"n2"}


def test_a_cell_that_is_gone_with_its_machine_is_made_again(store: Store) -> None:
    engine = Machines()
    engine.lose = ["its pilot on n1 is gone, or its node"]
    changes: list[tuple[str, str | None]] = []

    class Told(Observer):
        def changed(self, item: Item) -> None:
            changes.append((item.fate, item.reason))

    runner, _ = run(store, engine, Told())
    assert fates(runner.items) == [Fate.DONE] * 8
    assert ("lost", "its pilot on n1 is gone, or its node; attempt 2 of 3 follows") in changes
    assert len(engine.launched) == 9


def test_ctrl_c_leaves_the_cells_where_they_are(store: Store) -> None:
    engine = Machines(polls=None)
    before = signal.getsignal(signal.SIGINT)
    runner, said = run(store, engine, Presses(3))
    assert engine.said == ["detach"]
    assert runner.left == 3
    assert not runner.interrupted
    assert said == ["3 cells go on without this run; Ctrl-C once more, now, stops them"]
    assert [handle.told for handle in engine.handles] == [[], [], []]
    assert fates(runner.items) == [Fate.ELSEWHERE] * 3 + [Fate.INTERRUPTED] * 5
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_stops_them_and_those_that_an_earlier_run_left(store: Store) -> None:
    engine = Machines(polls=None)
    runner, _ = run(store, engine, Presses(3, 5))
    assert engine.said == ["stop left"]
    assert runner.interrupted
    assert runner.left == 0
    assert [handle.told for handle in engine.handles] == [["terminate"]] * 3
    assert set(fates(runner.items)) == {Fate.INTERRUPTED}
