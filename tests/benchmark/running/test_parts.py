"""Runs that take on one stage of a plan each."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pilot
import pytest

from ddbench.benchmark.core.store import Store
from ddbench.benchmark.running import runner as runner_module
from ddbench.benchmark.running.runner import Fate, Observer, Part, Runner


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(runner_module, "ELSEWHERE_SECONDS", 0.02)


def part(out: Path, stage: str, idle_seconds: float) -> Runner:
    store = Store(out)
    store.create()
    chosen = Part("distill" if stage == "distill" else "evaluate", idle_seconds)
    made = Runner(store, pilot.plan(2, 2), pilot.Forks(0.05, None), part=chosen)
    made.settle()
    return made


def go(runner: Runner) -> dict[str, list[Fate]]:
    runner.run(runner.engine.open(jobs=1, device="cpu"), Observer())
    return {kind: [item.fate for item in runner.items if item.spec.kind == kind] for kind in ("distill", "evaluate")}


def test_students_are_trained_as_soon_as_others_have_made_their_sets(tmp_path: Path) -> None:
    students = part(tmp_path, "evaluate", 60)
    fates: list[dict[str, list[Fate]]] = []
    waits = threading.Thread(target=lambda: fates.append(go(students)))
    waits.start()
    until = time.monotonic() + 60
    while {item.fate for item in students.items} != {Fate.ELSEWHERE, Fate.WAITING} and time.monotonic() < until:
        time.sleep(0.01)
    assert {item.fate for item in students.items} == {Fate.ELSEWHERE, Fate.WAITING}
    assert len(students.waiting()) == 4, "sets are none of its work"
    assert go(part(tmp_path, "distill", 60)) == {"distill": [Fate.DONE] * 2, "evaluate": []}
    waits.join(60)
    assert fates == [{"distill": [Fate.REUSED] * 2, "evaluate": [Fate.DONE] * 4}]
    assert not students.idle


def test_a_part_ends_once_it_has_found_nothing_to_do_for_long(tmp_path: Path) -> None:
    students = part(tmp_path, "evaluate", 0.2)
    began = time.monotonic()
    assert go(students)["evaluate"] == [Fate.INTERRUPTED] * 4
    assert 0.2 <= time.monotonic() - began < 10
    assert students.idle
    assert not any(cell.result() for cell in Store(tmp_path).cell_dirs()), "it has made no set itself"


def test_sets_that_are_there_are_no_reason_to_wait(tmp_path: Path) -> None:
    go(part(tmp_path, "distill", 60))
    students = part(tmp_path, "evaluate", 60)
    assert go(students) == {"distill": [Fate.REUSED] * 2, "evaluate": [Fate.DONE] * 4}


def test_students_of_a_set_that_failed_are_blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("no set")

    monkeypatch.setattr(pilot.Forks, "_run", fails)
    assert go(part(tmp_path, "distill", 60))["distill"] == [Fate.FAILED] * 2
    students = part(tmp_path, "evaluate", 60)
    assert go(students) == {"distill": [Fate.FAILED] * 2, "evaluate": [Fate.BLOCKED] * 4}
