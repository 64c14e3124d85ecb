"""Any number of runs share the cells of one results folder, from machines that come and go."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nodes
import pilot
import pytest

from ddbench.benchmark.core.spec import cell_id
from ddbench.benchmark.core.store import CellDir, State, Store

QUICK = {"DDBENCH_LEASE_SECONDS": "2", "PYTHONPATH": str(Path(__file__).parents[2] / "support")}


def start(host: str, out: Path, *arguments: object) -> subprocess.Popen[str]:
    command = nodes.command(host, sys.executable, pilot.__file__, out, *map(str, arguments))
    return subprocess.Popen(
        command, env=os.environ | QUICK, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def went(run: subprocess.Popen[str]) -> None:
    assert run.stdout is not None
    assert run.stdout.readline() == "went\n"


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def starts(out: Path) -> dict[str, int]:
    return {cell.id: len(cell.attempts.all()) for cell in Store(out).cell_dirs()}


def states(out: Path) -> collections.Counter[str]:
    return collections.Counter(cell.state() for cell in Store(out).cell_dirs())


def test_two_machines_make_each_cell_once(tmp_path: Path) -> None:
    """2 sets and 28 students of 0.05 s; all machines count their processes alike."""
    out = tmp_path / "runs"
    runs = [start(f"n{number}", out, 2, 14, 0.05) for number in range(2)]
    told = [run.communicate(timeout=100)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert states(out) == {State.OK: 30}
    assert set(starts(out).values()) == {1}
    done = [line.split()[1] for lines in told for line in lines.splitlines() if line.startswith("done")]
    assert sorted(done) == sorted(starts(out)), "each run told what it made, and only that"
    assert not list((out / "at-work").iterdir())
    assert not list(out.rglob(".*")), "nothing unfinished is left"


def test_what_a_lost_machine_was_at_is_made_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    first = start("n1", out, 1, 3, 60)
    went(first)
    wait_for(lambda: any(cell.attempts.all() for cell in Store(out).cell_dirs()))
    (cell,) = [cell for cell in Store(out).cell_dirs() if cell.running()]
    holder = cell.holder()
    assert holder is not None
    assert holder.host == "n1"
    second = start("n2", out, 1, 3, 0.05)
    went(second)
    first.send_signal(signal.SIGKILL)  # and with its first process all of that machine
    first.wait()
    told, _ = second.communicate(timeout=60)
    assert second.returncode == 0, told
    assert states(out) == {State.OK: 4}
    assert starts(out).pop(cell.id) == 2
    assert "memory" not in told


def test_a_cell_that_kills_itself_starts_three_times_in_all_runs(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    bad = cell_id(pilot.plan(2, 2).sets[0].students[0])
    runs = [start(f"n{number}", out, 2, 2, 0.05, bad) for number in range(2)]
    told = [run.communicate(timeout=100)[0] for run in runs]
    assert [run.returncode for run in runs] == [1, 1], told
    assert states(out) == {State.OK: 5, State.KILLED: 1}
    assert starts(out)[bad] == 3
    assert {count for cell, count in starts(out).items() if cell != bad} == {1}
    result = CellDir(out / "cells" / bad).result()
    assert result is not None
    assert "SIGKILL" in (result.reason or "")
    again = start("n3", out, 2, 2, 0.05)
    assert again.wait(60) == 0, "the next command tries again"
    assert states(out) == {State.OK: 6}


def test_a_killed_run_and_its_cell_are_taken_over_at_once_on_one_machine(tmp_path: Path) -> None:
    out, environment = tmp_path / "runs", {**os.environ, **QUICK, "DDBENCH_LEASE_SECONDS": "600"}
    command = [sys.executable, pilot.__file__, out, "1", "1"]
    first = subprocess.Popen(
        [*command, "60"], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    went(first)
    wait_for(lambda: any(cell.attempts.all() for cell in Store(out).cell_dirs()))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: not any(cell.running() for cell in Store(out).cell_dirs()))
    assert states(out) == {State.LOST: 1}
    done = subprocess.run([*command, "0.01"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(out) == {State.OK: 2}
    assert len(list((out / "at-work").iterdir())) == 1, "of the run that was killed"
    assert Store(out).runs_at_work(sweep=True) == []
    assert not list((out / "at-work").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_its_cell_ready_for_others(tmp_path: Path, number: signal.Signals) -> None:
    out, environment = tmp_path / "runs", {**os.environ, **QUICK, "SLURM_JOB_ID": "77"}
    command = [sys.executable, pilot.__file__, out, "1", "1", "60"]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    went(first)
    wait_for(lambda: any(cell.attempts.all() for cell in Store(out).cell_dirs()))
    (cell,) = Store(out).cell_dirs()
    first.send_signal(number)
    first.communicate(timeout=60)
    assert cell.state() is State.PREEMPTED
    assert cell.attempts.lost() == 0, "being stopped counts for nothing"
    assert cell.attempts.all()[0].job == "77"
