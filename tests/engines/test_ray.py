"""`bench run --engine ray` on a real Ray of two nodes, with cells that compute nothing: nothing is lost, nothing made
twice. `make test-ray` runs this; without the extra `ray` it skips."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster import wait_for
from ran import ids, notes, ran, starts, states
from ray_cluster import RayBench, RayCluster

from ddbench.benchmark.core.store import CellDir, State, Store

pytest.importorskip("ray", reason="the extra `ray` is not installed: make test-ray")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Skips with the reason where there can be none; where CI is set, that is a failure."""
    # Ray's sockets lie under its folder and have a name of at most 107 characters.
    folder = Path(f"/tmp/ddbench-ray-{os.getpid()}")
    (folder / "blind").mkdir(parents=True)
    try:
        started = RayCluster.start(folder, folder / "blind")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bench(cluster: RayCluster, tmp_path: Path) -> Iterator[RayBench]:
    made = RayBench(cluster, tmp_path / "runs", {"FAKE_SECONDS": 0.2})
    yield made
    for run in made.runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def ours(said: str) -> str:
    """Without what Ray writes to the terminal by itself."""
    return "\n".join(line for line in said.splitlines() if line.startswith(("[0", "[1", "[2", "[3", "failed")))


def running(out: Path) -> int:
    return states(out)[State.RUNNING] if (out / "cells").exists() else 0


def test_each_cell_is_made_once_on_a_gpu_of_its_own(bench: RayBench) -> None:
    """Also: blanks and quotes in the folder's name; the same command again makes nothing."""
    bench.out = bench.out / 'it\'s "my" runs'
    said = bench.run(4, 4)
    assert "Ray: 4 slots on n1, n2" in said, said
    assert "DDBENCH_LEASE_SECONDS" in said, "variables that matter are named"
    assert set(starts(bench.out).values()) == {1}
    assert states(bench.out) == {State.OK: 20}
    assert {cell.id for cell in Store(bench.out).cell_dirs()} == {cell for one in ids(4, 4) for cell in one}
    made = notes(bench.out)
    assert {note["gpus"] for note in made} == {"0", "1"}
    assert {note["host"] for note in made} == {"n1", "n2"}
    assert {note["device"] for note in made} == {"cuda:0"}
    for one, other in itertools.combinations(made, 2):
        same = (one["host"], one["gpus"]) == (other["host"], other["gpus"])
        assert not same or one["ended"] <= other["began"] or other["ended"] <= one["began"], "one GPU, one cell"
    assert "20 reused" in bench.run(4, 4)
    assert set(starts(bench.out).values()) == {1}


def test_students_share_a_gpu_where_they_are_told_to(bench: RayBench) -> None:
    bench.fake["FAKE_SECONDS"] = 1.0
    bench.run(1, 8, "--per-gpu", "2", "--jobs", "1")
    made = [note for cell in Store(bench.out).cell_dirs() if cell.id.startswith("evaluate") for note in ran(cell)]
    assert len({(note["host"], note["gpus"]) for note in made}) == 1
    pairs = itertools.combinations(made, 2)
    together = sum(one["began"] < other["ended"] and other["began"] < one["ended"] for one, other in pairs)
    assert together >= 4


def test_a_cell_that_kills_itself_is_tried_three_times_and_others_go_on(bench: RayBench) -> None:
    cells = ids(2, 2)
    bench.fake["FAKE_RULES"] = f"kill {cells[0][1]}"
    said = bench.run(2, 2, status=1)
    assert "ended by SIGKILL, the last of 3 attempts" in said, said
    assert states(bench.out) == {State.OK: 5, State.KILLED: 1}
    assert Counter(starts(bench.out).values()) == {1: 5, 3: 1}


def test_a_cell_has_its_own_time_limit(bench: RayBench) -> None:
    bench.fake["FAKE_RULES"] = f"long {ids(1, 3)[0][1]} 60"
    said = bench.run(1, 3, "--timeout", "2", status=1)
    assert "took longer than the --timeout of 2 s" in said, said
    assert states(bench.out) == {State.OK: 3, State.TIMEOUT: 1}


def test_a_run_that_is_killed_leaves_its_cells_running_and_the_next_finds_them(bench: RayBench) -> None:
    bench.fake["FAKE_SECONDS"] = 8
    run = bench.start(4, 1)
    wait_for(lambda: running(bench.out) == 4, 120)
    bench.driver(run).kill()
    run.wait()
    again = bench.start(4, 1)
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert states(bench.out) == {State.OK: 8}
    assert set(starts(bench.out).values()) == {1}, "each was made once"


def test_ctrl_c_leaves_the_cells_running_and_twice_stops_them(bench: RayBench) -> None:
    bench.fake["FAKE_SECONDS"] = 12
    run = bench.start(4, 1)
    wait_for(lambda: running(bench.out) == 4, 120)
    bench.interrupt(run)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert "4 cells go on" in said
    assert running(bench.out) == 4
    wait_for(lambda: states(bench.out)[State.OK] == 4)
    run = bench.start(4, 1)
    wait_for(lambda: running(bench.out) >= 1, 120)
    began = time.monotonic()
    bench.interrupt(run)
    time.sleep(0.5)
    bench.interrupt(run)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert time.monotonic() - began < 12, "they did not run to their end"
    assert states(bench.out)[State.INTERRUPTED] >= 1
    assert running(bench.out) == 0


def test_a_pilot_that_is_killed_loses_its_cell_which_is_made_elsewhere(bench: RayBench) -> None:
    bench.fake["FAKE_SECONDS"] = 4
    run = bench.start(4, 1)
    wait_for(lambda: running(bench.out) == 4, 120)
    inside = psutil.Process(bench.cluster.process.pid).children(recursive=True)
    pilots = [one for one in inside if any("Pilot" in word for word in one.cmdline())]
    victim = next(one for one in pilots if one.children())
    for process in (*victim.children(recursive=True), victim):
        process.kill()
    said, _ = run.communicate(timeout=240)
    assert run.returncode == 0, said
    assert states(bench.out) == {State.OK: 8}
    assert sum(starts(bench.out).values()) == 9, "one cell was begun twice"
    assert "memory" not in ours(said)


def test_two_runs_share_the_cells(bench: RayBench) -> None:
    bench.fake["FAKE_SECONDS"] = 0.5
    runs = [bench.start(6, 3, "--jobs", "2") for _ in range(2)]
    for run in runs:
        said, _ = run.communicate(timeout=240)
        assert run.returncode == 0, said
    assert states(bench.out) == {State.OK: 24}
    assert set(starts(bench.out).values()) == {1}


def test_a_node_that_does_not_see_the_folder_is_named_and_not_used(bench: RayBench) -> None:
    bench.out = bench.cluster.folder.parent / "blind" / "runs"
    said = bench.run(3, 1)
    assert f"node n2 does not see {bench.out}: cells need a folder that all nodes share" in said, said
    assert {note["host"] for note in notes(bench.out)} == {"n1"}


def test_on_cpus_slots_are_cores(bench: RayBench) -> None:
    bench.device = "cpu"
    said = bench.run(6, 1)
    assert "Ray: 6 slots on n1, n2" in said, said
    assert {note["device"] for note in notes(bench.out)} == {"cpu"}


def test_no_cluster_is_one_sentence(bench: RayBench) -> None:
    bench.cluster.environment, kept = (
        bench.cluster.environment | {"RAY_ADDRESS": "127.0.0.1:1"},
        (bench.cluster.environment),
    )
    try:
        said = bench.run(1, 1, status=2)
    finally:
        bench.cluster.environment = kept
    assert "--engine ray: no Ray cluster at 127.0.0.1:1" in said
    assert "Traceback" not in said


def test_a_lost_node_s_cells_are_made_elsewhere_and_a_new_node_is_used(bench: RayBench) -> None:
    """The last test: it replaces the second node."""
    bench.fake["FAKE_SECONDS"] = 3
    run = bench.start(10, 2)
    wait_for(lambda: running(bench.out) == 4, 120)
    bench.cluster.lose("n2")
    second = bench.cluster.start_second()
    try:
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0, said
    finally:
        second.terminate()
    assert states(bench.out) == {State.OK: 30}
    assert 31 <= sum(starts(bench.out).values()) <= 34
    assert "memory" not in ours(said)
    lost = [cell for cell, count in starts(bench.out).items() if count > 1]
    assert lost
    attempts = [CellDir(bench.out / "cells" / cell).attempts.all() for cell in lost]
    assert all([one.cause for one in tried] == [None, "done"] for tried in attempts), "begun, never ended; then made"
