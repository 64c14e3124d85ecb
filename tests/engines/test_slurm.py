"""`bench submit` on a real Slurm, with cells that compute nothing: nothing is lost, nothing made twice."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cluster import Bench, Cluster, wait_for
from ran import ids, ran, starts, states

from ddbench.benchmark.cluster.jobs import tasks
from ddbench.benchmark.core.store import CellDir, State, Store


@pytest.fixture
def bench(slurm: Cluster, tmp_path: Path) -> Bench:
    return Bench(slurm, tmp_path / "b", tmp_path / "b" / "runs")


def finished(bench: Bench, count: int) -> bool:
    return states(bench.out)[State.OK] == count and not bench.cluster.states()


def test_each_cell_is_made_once_and_students_wait_for_sets_without_a_gpu(slurm: Cluster, tmp_path: Path) -> None:
    """Also: blanks and quotes in the folder's name; the scheduler is asked next to nothing."""
    bench = Bench(slurm, tmp_path / "b", tmp_path / "b" / 'it\'s "my" runs')
    bench.site(FAKE_SECONDS=0.2)
    told = bench.submit(2, 4)
    assert "held until the first sets are made" in told
    assert "DDBENCH_CACHE" in told, "variables that matter are named"
    wait_for(lambda: finished(bench, 10))
    assert set(starts(bench.out).values()) == {1}
    assert {cell.id for cell in Store(bench.out).cell_dirs()} == {cell for one in ids(2, 4) for cell in one}
    notes = [note for cell in Store(bench.out).cell_dirs() for note in ran(cell)]
    assert {note["gpus"] for note in notes} <= {"0", "1"}
    for one, other in itertools.combinations(notes, 2):
        same = (one["host"], one["gpus"]) == (other["host"], other["gpus"])
        assert not same or one["ended"] <= other["began"] or other["ended"] <= one["began"], "one GPU, one cell"
    last_set = max(ran(CellDir(bench.out / "cells" / one[0]))[0]["began"] for one in ids(2, 4))
    there = {task.task: task for task in tasks(bench.out)}
    assert {task.state for task in there.values()} == {"ended"}
    assert sum(task.made for task in there.values()) == 10
    assert all(task.starts <= 1 and task.used_hours <= task.held_hours for task in there.values())
    trained = [note for cell in Store(bench.out).cell_dirs() if cell.id.startswith("evaluate") for note in ran(cell)]
    assert max(note["began"] for note in trained) > last_set
    assert not bench.calls("squeue"), "pilots ask the scheduler nothing"
    assert len(bench.calls("scontrol")) + len(bench.calls("scancel")) < 8
    again = bench.submit(2, 4)
    assert "nothing to queue" in again
    assert len(bench.calls("sbatch")) == 2


def test_the_same_command_adopts_what_is_queued_and_stop_takes_it_back(bench: Bench) -> None:
    """Also: arrays larger than the cluster's are split; a scheduler that does not answer says nothing about jobs."""
    bench.site(pilots=6)
    bench.cluster.call("scontrol", "update", "partitionname=main", "state=down")
    try:
        dry = bench.submit(6, 1, "--dry-run")
        assert not bench.calls("sbatch")
        assert "6 pilots to queue in 2 arrays" in dry
        assert "MaxArraySize 4, MaxSubmitJobs not known" in dry
        bench.submit(6, 1)
        assert len(bench.calls("sbatch")) == 4
        for stage in ("distill", "evaluate"):
            assert subprocess.run(["bash", "-n", bench.out / "jobs" / "1" / f"{stage}.sbatch"]).returncode == 0
        queued = bench.cluster.states()
        assert len(queued) == 12
        assert Counter(state.startswith("PENDING JobHeldUser") for state in queued.values()) == {True: 6, False: 6}
        assert Counter(task.state for task in tasks(bench.out)) == {"queued": 6, "held": 6}
        shown = bench.run("status", "--runs", bench.out)
        assert "12 pilots: 6 held, 6 queued" in shown
        bench.fail("squeue", fails=True)
        told = bench.submit(6, 1, status=1)
        assert "squeue failed with 1: Unable to contact slurm controller" in told
        bench.fail("squeue", fails=False)
        assert "nothing to queue: the pilots that are needed are there" in bench.submit(6, 1)
        assert len(bench.calls("sbatch")) == 4
        assert len(bench.calls("squeue")) == 2, "one question for each command"
        began = time.monotonic()
        bench.run("stop", "--runs", bench.out)
        assert time.monotonic() - began < 20, "a signal to a queued task would take 95 s"
        assert not bench.cluster.states()
        assert {(task.state, task.ended) for task in tasks(bench.out)} == {("ended", "cancelled")}
        bench.fail("sbatch", fails=True)
        told = bench.submit(6, 1, status=1)
        assert "sbatch failed with 1" in told
        assert "the same command submits what is missing" in told
        bench.fail("sbatch", fails=False)
        bench.submit(6, 1)
        assert len(bench.cluster.states()) == 12
    finally:
        bench.cluster.settle()
        bench.cluster.call("scontrol", "update", "partitionname=main", "state=up")


def test_a_lost_node_and_a_cell_that_kills_itself(bench: Bench) -> None:
    """The lost node's cell is made elsewhere; the other one starts three times in all, and no more is blamed on it."""
    first, second = ids(2, 1)
    slow, bad = first[0], second[1]
    bench.site(cpus=2, FAKE_SECONDS=0.1, FAKE_RULES=f"once {slow} 60\nkill {bad}")
    bench.submit(2, 1)
    slow_cell = CellDir(bench.out / "cells" / slow)
    wait_for(slow_cell.running)
    holder = slow_cell.holder()
    assert holder is not None
    bench.cluster.node("lose", holder.host)
    bench.cluster.call("scontrol", "update", f"nodename={holder.host}", "state=down", "reason=lost")
    try:
        wait_for(lambda: states(bench.out)[State.OK] == 3 and states(bench.out)[State.KILLED] == 1)
    finally:
        bench.cluster.node("up", holder.host)
        bench.cluster.settle()
    assert starts(bench.out) == {first[0]: 2, first[1]: 1, second[0]: 1, second[1]: 3}
    assert ran(slow_cell)[-1]["host"] != holder.host
    assert "memory" not in bench.logs()


def test_a_pilot_goes_back_to_the_queue_and_one_with_nothing_to_do_waits_there(bench: Bench) -> None:
    """A warning before the end of its time, as Slurm sends it; an idle pilot of students, released by the next set."""
    first, second = ids(2, 1)
    bench.site(pilots=1, idle_seconds=1, FAKE_SECONDS=0.1, FAKE_RULES=f"once {second[0]} 60")
    bench.submit(2, 1)
    distill, evaluate = (array.array for array in _arrays(bench.out))
    student = CellDir(bench.out / "cells" / first[1])
    wait_for(lambda: student.state() is State.OK)
    wait_for(lambda: "Held" in bench.cluster.states().get(f"{evaluate}_0", "").replace("held", "Held"))
    assert {task.task: task.state for task in tasks(bench.out)}[f"{evaluate}_0"] == "held"
    bench.cluster.call("scancel", "--batch", "--signal=USR1", f"{distill}_0")
    wait_for(lambda: finished(bench, 4))
    assert {task.task: task.starts for task in tasks(bench.out)} == {f"{distill}_0": 2, f"{evaluate}_0": 2}
    assert starts(bench.out) == {first[0]: 1, first[1]: 1, second[0]: 2, second[1]: 1}
    causes = [attempt.cause for attempt in CellDir(bench.out / "cells" / second[0]).attempts.all()]
    assert causes == ["preempted", "done"], "no attempt is lost by being stopped"


def _arrays(out: Path) -> list[Any]:
    from ddbench.benchmark.cluster.jobs import submissions

    return [array for one in submissions(out) for array in one.arrays()]


def test_preemption_and_a_node_that_is_only_cut_off(bench: Bench) -> None:
    """The cut-off node's pilot goes on, and Slurm starts a second one elsewhere: that waits; nothing is made twice."""
    ((made, student),) = ids(1, 1)
    bench.site(pilots=1, FAKE_SECONDS=0.1, FAKE_RULES=f"long {made} 12")
    bench.submit(1, 1)
    cell = CellDir(bench.out / "cells" / made)
    wait_for(cell.running)
    bench.cluster.call(
        "sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--mem=0", "--output=/dev/null", "--wrap=sleep 1"
    )
    wait_for(lambda: cell.state() is State.PREEMPTED)
    wait_for(cell.running)
    holder = cell.holder()
    assert holder is not None
    bench.cluster.node("mute", holder.host)
    bench.cluster.call("scontrol", "update", f"nodename={holder.host}", "state=down", "reason=cut")
    try:
        wait_for(lambda: finished(bench, 2))
    finally:
        bench.cluster.node("unmute", holder.host)
        bench.cluster.settle()
    assert [attempt.cause for attempt in cell.attempts.all()] == ["preempted", "done"]
    assert [note["host"] for note in ran(cell)] == [holder.host]
    task = next(task for task in tasks(bench.out) if task.stage == "distill")
    assert (task.starts, task.made) == (3, 1)
    assert starts(bench.out)[student] == 1


def test_stop_reaches_running_pilots_and_the_same_command_goes_on(bench: Bench) -> None:
    ((made, student),) = ids(1, 1)
    bench.site(pilots=1, FAKE_SECONDS=30)
    bench.submit(1, 1)
    cell = CellDir(bench.out / "cells" / made)
    wait_for(cell.running)
    bench.run("stop", "--runs", bench.out)
    wait_for(lambda: not bench.cluster.states())
    assert cell.state() is State.PREEMPTED
    assert [task.ended for task in tasks(bench.out) if task.starts] == ["interrupted"]
    bench.site(pilots=1, FAKE_SECONDS=0.1)
    assert "queued: array" in bench.submit(1, 1)
    wait_for(lambda: finished(bench, 2))
    assert starts(bench.out) == {made: 2, student: 1}
