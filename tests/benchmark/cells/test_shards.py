"""A set made of shards is the set made in one piece: the same images, one hash; and what it cost adds up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from ddbench.benchmark.cells.cell import run_cell
from ddbench.benchmark.cells.shards import merged_cost, merged_records
from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.result import WAITING, Cost, DistillResult, Phase
from ddbench.benchmark.core.sharing.attempts import MOST_ATTEMPTS
from ddbench.benchmark.core.spec import CELL_SPEC, DistillSpec, Shard, cell_id
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import runner as runner_module
from ddbench.benchmark.running.runner import Fate, Item, Runner

BENCH = Path(sys.executable).with_name("bench")
METHODS = "random,dmgd[steps=5]"


def plan(shards: int = 1, **options: object) -> Plan:
    given = {"methods": METHODS, "datasets": "digits", "ipc": "2", "seeds": "0", "device": "cpu", "shards": shards}
    return plan_run(run_spec({}, {**given, **options}), students=False)[0]


class Ended(Handle):
    def __init__(self, status: int) -> None:
        self.status = status

    def exit_status(self) -> int:
        return self.status

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        pass


class Here(Engine):
    """Runs cells in this process, one after the other."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(index, "cpu") for index in range(jobs)]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        self.started.append(cell.name)
        return Ended(run_cell(cell, launch=launch))

    def close(self) -> None:
        pass


class Silent:
    def changed(self, item: Item) -> None:
        pass

    def tick(self) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def this_process() -> Iterator[None]:
    """Keeps what `run_cell` sets for the process."""
    import torch

    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def run(out: Path, planned: Plan) -> tuple[Runner, list[str]]:
    store, engine = Store(out), Here()
    store.create()
    runner = Runner(store, planned, engine)
    runner.settle()
    runner.run(engine.open(jobs=1, device="cpu"), Silent())
    return runner, engine.started


def result_of(out: Path, spec: DistillSpec | None) -> DistillResult:
    assert spec is not None
    result = Store(out).cell(cell_id(spec)).result()
    assert isinstance(result, DistillResult)
    return result


@pytest.fixture(scope="module")
def in_one_piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "runs"
    run(out, plan())
    return out


# Specification and plan -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_classes", "count"), [(10, 3), (10, 10), (1000, 7), (1000, 8), (11, 2)])
def test_shards_are_contiguous_cover_every_class_once_and_differ_by_one_at_most(n_classes: int, count: int) -> None:
    parts = [Shard(index=index, count=count).classes(n_classes) for index in range(count)]
    assert [c for part in parts for c in part] == list(range(n_classes))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_is_another_cell_and_a_whole_set_has_the_id_it_always_had() -> None:
    (whole,) = (planned.spec for planned in plan(methods="random").sets)
    assert whole is not None
    assert "shard" not in whole.model_dump(mode="json")
    shards = whole.shards(3)
    assert len({cell_id(whole), *map(cell_id, shards)}) == 4
    assert all(shard.whole == whole for shard in shards)
    assert CELL_SPEC.validate_json(shards[1].model_dump_json()) == shards[1]
    for wrong in ({"index": 3, "count": 3}, {"index": -1, "count": 3}, {"index": 0, "count": 1}):
        with pytest.raises(ValidationError):
            Shard(**wrong)


def test_a_sharded_plan_asks_for_the_shards_and_then_the_same_set() -> None:
    (planned,) = plan(3, methods="random").sets
    ids = [cell_id(spec) for _, spec in plan(3, methods="random").cells()]
    assert planned.spec is not None
    assert ids == [*map(cell_id, planned.spec.shards(3)), planned.id]
    assert plan(methods="random").sets[0].id == planned.id
    assert "shards" not in plan(methods="random").sets[0].model_dump(mode="json"), "old plans keep their names"
    with pytest.raises(Problems, match="--shards 11: digits has 10 classes to share out"):
        plan(11)


# Cells ----------------------------------------------------------------------------------------------------------------


def test_a_set_of_three_shards_is_the_set_made_in_one_piece(tmp_path: Path, in_one_piece: Path) -> None:
    out = tmp_path / "runs"
    runner, started = run(out, plan(3))
    assert {item.fate for item in runner.items} == {Fate.DONE}
    assert len(started) == 2 * (3 + 1)
    for planned in plan().sets:
        assert planned.spec is not None
        made, whole = result_of(out, planned.spec), result_of(in_one_piece, planned.spec)
        assert made.image_set_sha256 == whole.image_set_sha256
        assert made.n_images == whole.n_images == 20
        stored = Store(out).set_dir(made.image_set_sha256 or "").glob("*/*.png")
        assert made.image_bytes == whole.image_bytes == sum(path.stat().st_size for path in stored)
        assert made.guidance.keys() == whole.guidance.keys()
        for term, nats in made.guidance.items():
            assert nats == pytest.approx(whole.guidance[term], rel=1e-4)
        shards = [result_of(out, shard) for shard in planned.spec.shards(3)]
        assert [(s.first_class, s.n_classes, s.n_images) for s in made.shards] == [(0, 3, 6), (3, 3, 6), (6, 4, 8)]
        assert [s.cell for s in made.shards] == [shard.cell for shard in shards]
        assert made.cost is not None
        spent = [shard.cost for shard in shards if shard.cost is not None]
        assert len(spent) == 3
        assert made.cost.seconds >= sum(cost.seconds for cost in spent)
        assert made.cost.host_peak_mib >= max(cost.host_peak_mib for cost in spent)
        assert not list((out / "cells").glob("*/rounds")), "merged, the shards keep no images of their own"
        assert len(list(Store(out).sets.iterdir())) == 2, "a shard is no distilled set"

    # With or without shards, the set is there; and what shards need is not done again for it.
    for again in (plan(), plan(3), plan(5)):
        runner, started = run(out, again)
        assert started == []
        assert [item.fate for item in runner.items] == [Fate.REUSED] * 2


def test_a_shard_whose_files_are_damaged_is_made_good_by_the_merge(tmp_path: Path, in_one_piece: Path) -> None:
    out, planned = tmp_path / "runs", plan(3, methods="random").sets[0]
    assert planned.spec is not None
    store = Store(out)
    store.create()
    cells = [store.add(shard, planned.launch) for shard in planned.spec.shards(3)]
    for cell in cells:
        run_cell(cell.path)
    hurt = next((cells[1].path / "rounds").glob("*/*.png"))
    hurt.write_bytes(hurt.read_bytes()[:-20])
    launch = planned.launch.model_copy(update={"shards": tuple(cell.id for cell in cells)})
    merged = store.add(planned.spec, launch)
    assert run_cell(merged.path) == 0
    expected = result_of(in_one_piece, planned.spec).image_set_sha256
    assert result_of(out, planned.spec).image_set_sha256 == expected


def test_a_killed_shard_blocks_the_merge_and_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    options = ["--method", "dmgd[steps=20]", "--dataset", "digits", "--ipc", "6", "--seeds", "0", "--device", "cpu"]
    command = [BENCH, "distill", *options, "--shards", "2", "--jobs", "2", "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    (planned,) = plan(2, methods="dmgd[steps=20]", ipc="6").sets
    assert planned.spec is not None
    store, shards = Store(out), planned.spec.shards(2)
    victim = store.cell(cell_id(shards[1]))

    def committed() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in victim.path.glob("rounds/0*/*.png")}

    deadline = time.monotonic() + 120
    while len(committed()) < 10:  # two of six rounds
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    killed: list[int] = []
    for _ in range(MOST_ATTEMPTS):
        while (pid := victim.progress().get("pid")) in (None, *killed):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.005)
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 1, output
    assert f"its shard 2 of 2 ({victim.id}) failed" in output
    assert "Traceback" not in output
    kept = committed()
    other = (store.cell(cell_id(shards[0])).path / "result.json").read_bytes()
    status = subprocess.run([BENCH, "status", "--runs", out], env=environment, text=True, capture_output=True)
    assert "blocked" in status.stdout, status.stdout + status.stderr
    assert "shard 2 of 2" in status.stdout

    again = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (store.cell(cell_id(shards[0])).path / "result.json").read_bytes() == other, "the other shard was left alone"
    merged = result_of(out, planned.spec)
    assert merged.image_set_sha256 is not None
    files = store.set_dir(merged.image_set_sha256).glob("*/*.png")
    inodes = {f"{int(path.parent.name)}-{int(path.stem)}.png": path.stat().st_ino for path in files}
    assert kept.items() <= inodes.items(), "no committed image was made again"
    assert merged.shards[0].attempts == 1
    assert merged.shards[1].attempts > 1
    whole = tmp_path / "whole"
    run(whole, plan(methods="dmgd[steps=20]", ipc="6"))
    assert merged.image_set_sha256 == result_of(whole, planned.spec).image_set_sha256


def test_a_shard_of_other_images_is_not_merged(tmp_path: Path, in_one_piece: Path) -> None:
    out, planned = tmp_path / "runs", plan(2, methods="random").sets[0]
    assert planned.spec is not None
    store = Store(out)
    store.create()
    cells = [store.add(shard, planned.launch) for shard in planned.spec.shards(2)]
    launch = planned.launch.model_copy(update={"shards": tuple(cell.id for cell in cells)})
    merged = store.add(planned.spec, launch)
    run_cell(cells[0].path)
    assert run_cell(merged.path) == 1
    assert f"shard {cells[1].id} of this set is not finished" in (result_of(out, planned.spec).reason or "")
    run_cell(cells[1].path)
    noted = cells[1].path / "dataset.json"
    noted.write_text(noted.read_text().replace(str(cells[1].content_hash()), "00" * 32))
    assert run_cell(merged.path) == 1
    assert "the dataset has changed since" in (result_of(out, planned.spec).reason or "")


# Cost -----------------------------------------------------------------------------------------------------------------


def cost(phases: list[Phase], **changed: object) -> Cost:
    given = {
        "phases": phases, "seconds": sum(p.seconds for p in phases), "cold_seconds": 0.0,
        "gpu_peak_allocated_mib": None, "gpu_peak_reserved_mib": None, "host_peak_mib": 1.0, "gpu_seconds": None,
        "energy_joules": None, "batch_size": 32, "threads": 1, "exclusive_gpu": None, "attempts": 1,
    }  # fmt: skip
    return Cost.model_validate({**given, **changed})


def found(name: str, artefact: str, seconds: float) -> Phase:
    return Phase(name=name, seconds=0, cached_from=artefact, cold_seconds=seconds)


def test_what_shards_cost_adds_up() -> None:
    """Shard 1 tuned the prior, while shard 2 waited for it; both found latents of an earlier run."""
    one = cost(
        [Phase(name="tune", seconds=100), Phase(name="sample", seconds=10), found("latents", "latents/a", 7)],
        gpu_peak_allocated_mib=500, gpu_seconds=110, energy_joules=1000, exclusive_gpu=True, host_peak_mib=300,
    )  # fmt: skip
    two = cost(
        [Phase(name=WAITING, seconds=90), Phase(name="sample", seconds=12), found("tune", "tune/x", 100),
         found("latents", "latents/a", 7), found("latents", "latents/b", 3)],
        gpu_peak_allocated_mib=700, gpu_seconds=102, energy_joules=900, exclusive_gpu=True, host_peak_mib=200,
        batch_size=16, oom_batch_sizes=[32],
    )  # fmt: skip
    merging = cost([Phase(name="write", seconds=2)], gpu_peak_allocated_mib=1, gpu_seconds=2, energy_joules=10,
                   exclusive_gpu=True, attempts=3)  # fmt: skip
    merged = merged_cost(merging, [one, two], {"tune/x"})
    assert {p.name: p.seconds for p in merged.phases if p.cached_from is None} == {
        "tune": 100, "sample": 22, WAITING: 90, "write": 2
    }  # fmt: skip
    assert {p.cached_from: p.cold_seconds for p in merged.phases if p.cached_from} == {"latents/a": 7, "latents/b": 3}
    assert merged.seconds == 100 + 22 + 90 + 2
    assert merged.cold_seconds == 100 + 22 + 2 + 7 + 3, "what a first user pays is neither paid twice nor waited for"
    assert (merged.gpu_seconds, merged.energy_joules) == (214, 1910)
    assert (merged.gpu_peak_allocated_mib, merged.host_peak_mib) == (700, 300)
    assert (merged.batch_size, merged.oom_batch_sizes, merged.attempts) == (16, [32], 3)
    assert merged.exclusive_gpu is True
    shared = merged_cost(merging, [one, two.model_copy(update={"exclusive_gpu": False, "energy_joules": None})], set())
    assert shared.exclusive_gpu is False
    # Of the third nothing is known; that one shared its GPU is.
    unknown = merging.model_copy(update={"exclusive_gpu": None})
    assert merged_cost(unknown, [one, two.model_copy(update={"exclusive_gpu": False})], set()).exclusive_gpu is False
    assert merged_cost(unknown, [one, two], set()).exclusive_gpu is None
    assert shared.energy_joules is None, "a sum of what is known would be too little"


def test_what_shards_recorded_and_measured_is_kept() -> None:
    assert merged_records([{"a": 1, "b": [2]}, {"a": 1, "b": [3], "c": "x"}, {}]) == {"a": 1, "b": [[2], [3]], "c": "x"}
    costs = [cost([], measured=numbers) for numbers in ({"error": 0.1}, {"error": 0.3, "rms": 0.2}, {})]
    assert merged_cost(costs[2], costs[:2], set()).measured == {"error": 0.3, "rms": 0.2}


# Runner ---------------------------------------------------------------------------------------------------------------


def test_the_runner_gives_each_shard_a_slot_and_merges_when_all_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.001)

    class Queue(Here):
        """Cells end in the order in which the test says."""

        def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
            self.started.append(cell.name)
            spec = CellDir(cell).spec()
            assert isinstance(spec, DistillSpec)
            waiting = [spec.shard is not None and spec.shard.index == 0] * 20

            class Slow(Ended):
                def exit_status(self) -> int | None:  # type: ignore[override]
                    if waiting:
                        waiting.pop()
                        return None
                    return run_cell(cell)

            return Slow(0)

    (planned,) = plan(3, methods="random").sets
    assert planned.spec is not None
    store, engine = Store(tmp_path / "runs"), Queue()
    store.create()
    runner = Runner(store, plan(3, methods="random"), engine)
    runner.settle()
    runner.run(engine.open(jobs=3, device="cpu"), Silent())
    assert engine.started == [*map(cell_id, planned.spec.shards(3)), planned.id]
    merged = store.cell(cell_id(planned.spec))
    assert merged.launch().shards == tuple(map(cell_id, planned.spec.shards(3)))
    assert [item.title.rpartition(" · ")[2] for item in runner.items] == [
        "shard 1 of 3", "shard 2 of 3", "shard 3 of 3", "merge of 3 shards",
    ]  # fmt: skip
