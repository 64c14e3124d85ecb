"""A cell whose machine is gone is taken over by a run's new processes, which have not watched it themselves."""

from __future__ import annotations

import threading
from pathlib import Path

import pilot
import pytest

from ddbench.benchmark.core.sharing import lease as lease_module
from ddbench.benchmark.core.sharing.holder import Holder
from ddbench.benchmark.core.sharing.lease import Lease, believe_dead, believe_ended, holder_of, stood_still
from ddbench.benchmark.core.store import LEASE, CellDir, Launch, Store
from ddbench.benchmark.engines.base import Handle, Slot
from ddbench.benchmark.running import runner as runner_module
from ddbench.benchmark.running.runner import Fate, Observer, Runner

ELSEWHERE = Holder(
    token="t", host="lost", boot="b", namespace="n", pid=1, started=1, job=None, since="2026-01-01T00:00:00Z"
)


class FromServer(pilot.Forks):
    """Its processes know nothing of what this one has seen, as those that a fork server forks."""

    def start(self, cell: Path, launch: Launch, slot: object) -> pilot.Forked:
        seen = dict(lease_module._watched)
        lease_module._watched.clear()
        try:
            return super().start(cell, launch, slot)  # type: ignore[arg-type, return-value]
        finally:
            lease_module._watched.update(seen)


def hold_elsewhere(cell: CellDir, count: int = 7) -> Path:
    file = cell.path / LEASE / "000001"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{ELSEWHERE.model_dump_json()}\n{count:012d}\n")
    return file


def test_a_lost_machines_cell_is_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, seconds in (
        (lease_module, "DEAD_SECONDS", 0.5),
        (runner_module, "POLL_SECONDS", 0.01),
        (runner_module, "ELSEWHERE_SECONDS", 0.05),
    ):
        monkeypatch.setattr(module, name, seconds)
    store = Store(tmp_path)
    store.create()
    runner = Runner(store, pilot.plan(1, 1), FromServer(0.0, None))
    runner.settle()
    hold_elsewhere(runner.items[0].cell)
    giving_up = threading.Timer(15, runner._interrupt)
    giving_up.start()
    runner.run(runner.engine.open(jobs=1, device="cpu"), Observer())
    giving_up.cancel()
    assert [item.fate for item in runner.items] == [Fate.DONE, Fate.DONE]
    assert len(runner.items[0].cell.attempts.all()) == 1, "one process was started for it, and that made it"


def test_what_another_process_has_seen_dead_is_alive_if_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "DEAD_SECONDS", 0.0)
    cell = CellDir(tmp_path)
    file = hold_elsewhere(cell)
    assert holder_of(file.parent) == ELSEWHERE, "the first look begins to watch"
    assert holder_of(file.parent) is None
    said = stood_still(file.parent)
    assert said == file.read_text()
    monkeypatch.setattr(lease_module, "DEAD_SECONDS", 300.0)
    lease_module._watched.clear()
    assert stood_still(file.parent) is None
    assert not Lease(file.parent).take()
    believe_dead(file.parent, said)
    hold_elsewhere(cell, count=8)
    assert not Lease(file.parent).take()
    hold_elsewhere(cell, count=7)
    lease_module._watched.clear()
    believe_dead(file.parent, said)
    lease = Lease(file.parent)
    assert lease.take()
    lease.release()


def test_what_was_seen_to_end_on_its_machine_need_not_stand_still(tmp_path: Path) -> None:
    cell = CellDir(tmp_path)
    file = hold_elsewhere(cell)
    believe_ended(file.parent, "another")
    assert holder_of(file.parent) == ELSEWHERE
    believe_ended(file.parent, ELSEWHERE.host)
    assert holder_of(file.parent) is None
    assert cell.stood_still() == file.read_text(), "which its next process is told"
    hold_elsewhere(cell, count=8)
    assert holder_of(file.parent) == ELSEWHERE, "it moves after all"
    believe_ended(tmp_path / "none", ELSEWHERE.host)


class Killed(Handle):
    """A process of another machine that did not stop when it was asked to."""

    def exit_status(self) -> int | None:
        return -9

    def terminate(self) -> None:
        raise AssertionError

    kill = terminate


def test_a_cell_that_was_killed_elsewhere_after_its_time_has_timed_out(tmp_path: Path) -> None:
    """Its lease has not been given back, and its machine is not this one."""
    store = Store(tmp_path)
    store.create()
    runner = Runner(store, pilot.plan(1, 1), pilot.Forks(0.0, None), timeout_seconds=1.0)
    runner.settle()
    item = runner.items[0]
    store.add(item.spec, item.planned.launch)
    hold_elsewhere(item.cell)
    live = runner_module._Running(item, Killed(), Slot(0, "cpu", node=ELSEWHERE.host), timed_out=True)
    assert runner._ended(live)
    assert item.result is not None, item.reason
    assert item.result.status == "timeout"
    assert item.cell.attempts.lost() == 0
