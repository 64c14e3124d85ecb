"""How many cells run at once: the cores decide, memory bounds it, and no cell gets other threads for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.spec import EvaluateSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.protocols import memory, networks
from ddbench.benchmark.running import at_once
from ddbench.benchmark.running.runner import Item, Runner
from ddbench.datasets.digits import Digits


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("ddbench.benchmark.planning.planned_sets.available_cores", lambda: 8)
    monkeypatch.setattr(at_once, "available_cores", lambda: 8)
    monkeypatch.setattr(at_once, "_free_host_mib", lambda: 1e6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = Store(tmp_path / "runs")
    made.create()
    return made


def found(store: Store, device: str = "cpu", **options: Any) -> tuple[at_once.AtOnce, list[Item]]:
    asked = {"methods": "random,dit", "datasets": "digits", "ipc": "1", "seeds": "0-2", "repeats": 2, "device": "cpu"}
    run = run_spec({}, {**asked, **options})
    runner = Runner(store, plan_run(run)[0], engine=None)  # type: ignore[arg-type] # starts nothing
    for item in runner.items:
        item.planned.launch.__dict__["device"] = device  # planning for a GPU asks whether there is one
    return at_once.cells_at_once(run.model_copy(update={"device": device}), runner.waiting(), store), runner.items


def took(store: Store, item: Item, **peaks: float) -> None:
    cell = store.add(item.spec, item.planned.launch)
    cost: dict[str, Any] = {
        "phases": [], "seconds": 1.0, "cold_seconds": 1.0, "gpu_peak_allocated_mib": None,
        "gpu_peak_reserved_mib": None, "host_peak_mib": 1.0, "gpu_seconds": None, "energy_joules": None,
        "batch_size": 1, "threads": 1, "exclusive_gpu": None, "attempts": 1, **peaks,
    }  # fmt: skip
    common = {
        "cell": cell.id, "status": "ok", "label": "x", "dataset": None, "ipc": 1, "distill_seed": 0,
        "image_set_sha256": "ab" * 32, "cost": cost,
    }  # fmt: skip
    result: DistillResult | EvaluateResult
    if isinstance(item.spec, EvaluateSpec):
        metrics = {"acc_last": 1.0, "acc_best": 1.0, "top5_last": None, "curve": []}
        more = {"protocol": item.spec.protocol, "protocol_label": "x", "modified_protocol": False, "metrics": metrics}
        result = EvaluateResult.model_validate(
            {**common, "method": None, "distill_cell": None, "student": "x", "evaluate_seed": 0, **more}
        )
    else:
        result = DistillResult.model_validate({**common, "method": item.spec.method, "n_images": 10})
    write_json(cell.path / "result.json", result.model_dump(mode="json"))


def test_cells_fill_the_cores_with_the_threads_of_one_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled, items = found(store)
    assert filled == (8, 1, None)
    one, alone = found(store, jobs=1)
    assert one.jobs == 1
    assert {item.planned.launch.threads for item in (*items, *alone)} == {1}
    for most, jobs in ((3, 2), (None, 1)):
        monkeypatch.setattr(Digits, "useful_threads", most)
        filled, items = found(store)
        assert filled.jobs == jobs
        assert {item.planned.launch.threads for item in items} == {most or 8}
    assert found(store, jobs=4)[0].jobs == 4


def test_no_more_than_can_run_side_by_side(store: Store) -> None:
    assert found(store, methods="random", seeds="0", repeats=1)[0].jobs == 1
    assert found(store, methods="random", seeds="0", repeats=3)[0].jobs == 3
    assert found(store, methods="dit", seeds="0", repeats=1, shards=5)[0].jobs == 5


def test_memory_bounds_it_as_measured_and_the_run_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, items = found(store)
    took(store, items[0], host_peak_mib=2000 - at_once.BESIDE_MIB)
    monkeypatch.setattr(at_once, "_free_host_mib", lambda: 7000.0)
    assert found(store)[0] == (
        3, 1, "3 of 8 cells at once that the cores hold: one may need 2,000 MiB of the 7,000 MiB of free memory; "
        "--jobs N starts N all the same",
    )  # fmt: skip
    assert found(store, jobs=8)[0] == (8, 1, None)


def test_no_more_places_than_cells(store: Store) -> None:
    """Each place was an object: a number with a few digits too many took all memory."""
    atonce, items = found(store, jobs=99999999999)
    assert atonce.jobs == len(items)


def test_students_of_large_images_are_no_small_cells(store: Store) -> None:
    _, items = found(store, protocol="hard-minimax-sgd[image_size=224]", student="resnet_ap10", repeats=1)
    (student,) = {at_once._bound_mib(item) for item in items if isinstance(item.spec, EvaluateSpec)}
    counted = memory.step_bytes(
        networks.build("resnet_ap10", 10, 224, 1, None, seeds.stream(0, "x")).to("meta"), (10, 1, 224, 224)
    )
    assert counted / at_once.MIB < student < 5 * counted / at_once.MIB


def test_students_at_once_on_a_gpu_are_as_many_as_its_memory_holds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, items = found(store)
    took(store, items[1], gpu_peak_reserved_mib=4000 - at_once.BESIDE_MIB)
    free = {"cuda:0": 24_000, "cuda:1": 9000}

    def nvml(question: str, device: str) -> Any:
        assert question == "nvmlDeviceGetMemoryInfo"
        return None if free[device] is None else SimpleNamespace(free=free[device] * at_once.MIB)

    monkeypatch.setattr(at_once, "ask_nvml", nvml)
    assert found(store, "cuda")[0] == (1, 1, None)  # one GPU, unless --jobs says more
    assert found(store, "cuda", per_gpu=4)[0] == (1, 4, None)
    assert found(store, "cuda", per_gpu=4, jobs=2)[0] == (
        2, 2, "2 of 4 students at once on a GPU: a student may need 4,000 MiB of the 9,000 MiB of free GPU memory"
    )  # fmt: skip
    assert found(store, "cuda:1", per_gpu=4)[0].per_gpu == 2
    free["cuda:0"] = None  # type: ignore[assignment]
    unknown = found(store, "cuda", per_gpu=4)[0]
    assert unknown.per_gpu == 1
    assert "NVML does not tell" in (unknown.note or "")
    assert found(store, per_gpu=4)[0].note == "--per-gpu 4 has no effect on a CPU"


def test_a_containers_bound_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8388608 kB\n"}
    monkeypatch.setattr(Path, "read_text", lambda self: files[str(self)] if str(self) in files else absent())

    def absent() -> str:
        raise FileNotFoundError

    assert at_once._free_host_mib() == 8192
    files |= {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "1048576\n"}
    assert at_once._free_host_mib() == 8192
    files["/sys/fs/cgroup/memory.max"] = f"{3 << 30}\n"
    assert at_once._free_host_mib() == 3071
