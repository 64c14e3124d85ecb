"""Cost: phases add up, caches are told from work, earlier attempts count."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pretend
import pynvml
import pytest
import torch

from ddbench.benchmark.cells import evaluate
from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.result import Cost, mean_guidance
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.protocols.trainer import EpochReport

CPU = torch.device("cpu")


def cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, list[CellDir]]:
    """A results folder with a set of `random` and a student of it, neither begun."""
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    asked = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0", "repeats": 1, "device": "cpu"}
    store, plan = Store(folder), plan_run(run_spec({}, asked))[0]
    store.create()
    return store, [store.add(spec, planned.launch) for planned, spec in plan.cells()]


def cost(meter: Meter) -> Cost:
    return meter.cost(batch_size=1, threads=1)


def seconds(meter: Meter) -> dict[str, float]:
    return {phase.name: phase.seconds for phase in cost(meter).phases}


def test_an_inner_phase_stops_the_outer_ones_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 1))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)) ** 2)
    meter = Meter(CPU, tmp_path / "spent.json")
    with meter.phase("outer"):  # 0
        with meter.phase("inner"):  # 1 … 4
            pass
        with meter.phase("inner"):  # 9 … 16
            pass
    # 25
    assert seconds(meter) == {"outer": 1 + 5 + 9, "inner": 3 + 7}
    assert cost(meter).seconds == 25


def test_a_phase_that_fails_is_counted(tmp_path: Path) -> None:
    meter = Meter(CPU, tmp_path / "spent.json")
    with pytest.raises(ValueError, match="no"), meter.phase("train"):
        raise ValueError("no")
    assert "train" in seconds(meter)


def test_earlier_attempts_count(tmp_path: Path) -> None:
    record = tmp_path / "spent.json"
    first = Meter(CPU, record)
    with first.phase("train"):
        time.sleep(0.02)
        first.save()
    spent = json.loads(record.read_text())["seconds"]["train"]
    assert spent >= 0.02
    second = Meter(CPU, record)
    with second.phase("train"):
        pass
    assert cost(second).attempts == 2
    assert seconds(second)["train"] >= round(spent, 4)


def test_what_a_method_records_is_plain_data_or_refused_at_once(tmp_path: Path) -> None:
    """At the end of the cell, where it was written down, all its work was lost."""
    meter = Meter(CPU, tmp_path / "spent.json")
    meter.note("loss", {"last": np.float32(0.5), "all": [np.int64(1), 2.0], "by": None})
    assert meter.recorded == {"loss": {"last": 0.5, "all": [1, 2.0], "by": None}}
    for value in (float("nan"), np.float64("inf"), object(), np.zeros(2), {"a": {1, 2}}):
        with pytest.raises(RunError, match=r"recorded 'loss': expected finite numbers"):
            meter.note("loss", value)
    meter.save()
    assert Meter(CPU, tmp_path / "spent.json").recorded == meter.recorded


def test_artefacts_are_made_once_and_tell_their_original_cost(tmp_path: Path) -> None:
    calls = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        time.sleep(0.02)
        return {"points": np.arange(6.0).reshape(2, 3), "masses": np.array([0.25, 0.75])}

    def cell(name: str) -> tuple[Meter, dict[str, np.ndarray]]:
        meter = Meter(CPU, tmp_path / f"{name}.json")
        return meter, dict(DiskArtefacts(tmp_path / "artefacts", meter).arrays("support", {"class": "a", "K": 2}, make))

    cold, made = cell("cold")
    warm, found = cell("warm")
    assert calls == [1]
    assert made.keys() == found.keys()
    assert all(np.array_equal(made[k], found[k]) and made[k].dtype == found[k].dtype for k in made)
    (phase,) = cost(cold).phases
    assert (phase.name, phase.cached_from) == ("support", None)
    (phase,) = cost(warm).phases
    assert phase.name == "support"
    assert phase.seconds == 0
    assert phase.cached_from is not None
    assert phase.cold_seconds is not None
    assert phase.cold_seconds >= 0.02
    assert cost(warm).cold_seconds == phase.cold_seconds
    assert cost(warm).seconds == 0


def test_another_key_is_another_artefact_and_a_torn_one_is_made_again(tmp_path: Path) -> None:
    artefacts = DiskArtefacts(tmp_path, Meter(CPU, tmp_path / "spent.json"))
    one = artefacts.arrays("latents", {"class": "a"}, lambda: {"x": np.zeros(3)})
    other = artefacts.arrays("latents", {"class": "b"}, lambda: {"x": np.ones(3)})
    assert not np.array_equal(one["x"], other["x"])
    for path in tmp_path.glob("latents/*/x.npy"):
        path.write_bytes(path.read_bytes()[:-8])
    again = artefacts.arrays("latents", {"class": "b"}, lambda: {"x": np.full(3, 2.0)})
    assert again["x"].tolist() == [2, 2, 2]


def test_what_a_resumed_cell_made_itself_is_no_saving(tmp_path: Path) -> None:
    for attempt in range(2):
        meter = Meter(CPU, tmp_path / "spent.json")
        DiskArtefacts(tmp_path / "artefacts", meter).arrays("latents", {}, lambda: {"x": np.zeros(3)})
        meter.save()
        assert cost(meter).attempts == attempt + 1
        assert [phase.cached_from for phase in cost(meter).phases] == [None]


def test_no_gpu_no_gpu_numbers(tmp_path: Path) -> None:
    measured = cost(Meter(CPU, tmp_path / "spent.json"))
    assert measured.gpu_peak_allocated_mib is None
    assert measured.energy_joules is None
    assert measured.exclusive_gpu is None
    assert measured.host_peak_mib > 10


def test_a_forked_cells_memory_is_its_own(tmp_path: Path) -> None:
    meter = Meter(CPU, tmp_path / "spent.json", forked=True)
    before = cost(meter).host_peak_mib
    block = np.ones(200 * 1024 * 1024 // 8)
    grown = cost(meter).host_peak_mib
    del block
    # The high-water mark of this test process may lie above its memory at the start already.
    assert grown >= before
    assert grown >= 0


class Allocator:
    """Stands for PyTorch's: what tensors take now, and the most that they took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak_mib = 0
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak_mib << 20)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: (self.peak_mib + 10) << 20)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: setattr(self, "peak_mib", 0))

    def take(self, mib: int) -> None:
        self.peak_mib = max(mib, self.peak_mib)


def peaks(meter: Meter) -> tuple[float | None, float | None]:
    measured = cost(meter)
    return measured.gpu_peak_allocated_mib, measured.gpu_peak_reserved_mib


def test_peaks_are_those_of_what_fitted_and_of_every_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend.gpu():
        allocator = Allocator(monkeypatch)
        meter = Meter(torch.device("cuda:0"), tmp_path / "spent.json")
        with meter.phase("distill"):
            with meter.phase("write"):  # a round at the full batch
                allocator.take(300)
            allocator.take(500)
            with pytest.raises(torch.OutOfMemoryError), meter.phase("transport"):
                raise torch.OutOfMemoryError
            meter.ran_out_of_memory()
            allocator.take(200)
        assert peaks(meter) == (300, 310)
        with meter.phase("distill"):
            allocator.take(400)
            meter.save()  # and killed

        resumed = Meter(torch.device("cuda:0"), tmp_path / "spent.json")
        allocator.take(50)
        assert peaks(resumed) == (400, 410)
        allocator.take(700)
        assert peaks(resumed) == (700, 710)


MINE = os.getpid()


@pytest.mark.parametrize(
    ("seen", "alone"),
    [
        pytest.param([[], [MINE], [MINE]], True, id="alone"),
        pytest.param([[7], [7, MINE], [MINE]], False, id="a neighbour that left"),
        pytest.param([[7], [MINE], [MINE]], False, id="a neighbour that left as this one came"),
        pytest.param([[], [MINE], [MINE, 7]], False, id="a neighbour that came"),
        pytest.param([[], [90001], [90001]], True, id="alone in a container, under the host's id"),
        pytest.param([[7], [7, 90001], [90001, 7]], False, id="with a neighbour in a container"),
        pytest.param([[], [90001], [90001, 7]], False, id="a neighbour that came, in a container"),
        pytest.param([[], [90001, 7], [90001]], False, id="two came, in a container"),
        pytest.param([[], [], []], None, id="in a container that shows no process"),
        pytest.param([[90001], [90001], [90001]], None, id="this one was there before, under the host's id"),
    ],
)
def test_who_else_is_on_the_gpu(
    seen: list[list[int]], alone: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What NVML lists before this process is on the GPU, after, and at the end."""
    answers = iter(seen)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: 0)
    monkeypatch.setattr(
        pynvml,
        "nvmlDeviceGetComputeRunningProcesses",
        lambda handle: [SimpleNamespace(pid=pid) for pid in next(answers)],
    )
    with pretend.gpu():
        meter = Meter(torch.device("cuda:0"), tmp_path / "spent.json")
        assert cost(meter).exclusive_gpu is alone


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What NVML says: the processes on the GPU, and the energy it has used in all, mJ (None: not told)."""
    told: dict[str, Any] = {"processes": [MINE], "energy": 0}

    def energy(_: object) -> int:
        if told["energy"] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(told["energy"])

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", energy)
    monkeypatch.setattr(
        pynvml,
        "nvmlDeviceGetComputeRunningProcesses",
        lambda handle: [SimpleNamespace(pid=pid) for pid in told["processes"]],
    )
    return told


def on_gpu(record: Path, cells_at_once: int = 1) -> Meter:
    return Meter(torch.device("cuda:0"), record, cells_at_once=cells_at_once)


def test_cells_of_one_run_share_its_gpu(tmp_path: Path, nvml: dict[str, Any]) -> None:
    """A neighbour of the same run may come and go between two looks."""
    with pretend.gpu():
        shared = cost(on_gpu(tmp_path / "spent.json", cells_at_once=3))
    assert (shared.exclusive_gpu, shared.cells_at_once) == (False, 3)


def test_a_cost_is_a_shared_ones_where_one_attempt_shared_the_gpu(tmp_path: Path, nvml: dict[str, Any]) -> None:
    """Costs of shared GPUs are left out of tables: the seconds of all attempts are in it."""
    with pretend.gpu():
        on_gpu(tmp_path / "four.json", cells_at_once=4).save()  # and killed
        resumed = cost(on_gpu(tmp_path / "four.json"))
        assert (resumed.exclusive_gpu, resumed.cells_at_once) == (False, 4)

        nvml["processes"] = [MINE, 7]
        on_gpu(tmp_path / "stranger.json").save()
        nvml["processes"] = [MINE]
        assert cost(on_gpu(tmp_path / "stranger.json")).exclusive_gpu is False

        nvml["processes"] = []  # a container that shows none
        on_gpu(tmp_path / "unseen.json").save()
        nvml["processes"] = [MINE]
        assert cost(on_gpu(tmp_path / "unseen.json")).exclusive_gpu is None

        on_gpu(tmp_path / "alone.json").save()
        assert cost(on_gpu(tmp_path / "alone.json")).exclusive_gpu is True


def test_energy_is_that_of_all_attempts_or_not_known(tmp_path: Path, nvml: dict[str, Any]) -> None:
    with pretend.gpu():
        first = on_gpu(tmp_path / "both.json")
        nvml["energy"] = 5000
        first.save()
        second = on_gpu(tmp_path / "both.json")
        nvml["energy"] = 7000
        assert cost(second).energy_joules == 7.0

        nvml["energy"] = None
        on_gpu(tmp_path / "one.json").save()
        nvml["energy"] = 7000
        assert cost(on_gpu(tmp_path / "one.json")).energy_joules is None


def test_a_cell_is_measured_before_it_is_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take itself for a neighbour."""
    calls: list[str] = []
    plan, _, _ = plan_run(
        run_spec({}, {"methods": "random", "datasets": "digits", "ipc": 1, "seeds": 0, "device": "cuda:0"})
    )
    store = Store(tmp_path)
    store.create()
    (planned,) = plan.sets
    assert planned.spec is not None
    cell = store.add(planned.spec, planned.launch)
    with pretend.gpu(), monkeypatch.context() as patched:
        patched.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
        patched.setattr(pynvml, "nvmlInit", lambda: None)
        patched.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
        patched.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: calls.append("look") or [])
        patched.setattr(torch.cuda, "set_device", lambda device: calls.append("set_device"))
        patched.setattr(torch.cuda, "synchronize", lambda device: calls.append("synchronize"))
        assert run_cell(cell.path) == EXIT_OK
    assert calls[:4] == ["look", "synchronize", "look", "set_device"]


def test_a_resumed_cells_host_memory_is_the_highest_of_its_attempts(tmp_path: Path) -> None:
    first = Meter(CPU, tmp_path / "spent.json")
    first.save()
    spent = json.loads(first.record.read_text())
    spent["peaks_mib"]["host"] = 1e6
    first.record.write_text(json.dumps(spent))
    assert cost(Meter(CPU, first.record)).host_peak_mib == 1e6


def test_mean_guidance() -> None:
    per_image = {(0, 0): {"ot": 1.0}, (1, 0): {"ot": 3.0}, (0, 1): {"ot": 0.5}, (1, 1): {"ot": 0.5, "other": 2.0}}
    assert mean_guidance(per_image.items()) == {"ot": [2.0, 0.5], "other": [2.0]}


def test_a_student_killed_between_two_looks_has_spent_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it trained is in its checkpoint, of each minute, whenever the next look is."""
    _, (made, student) = cells(tmp_path, monkeypatch)
    assert run_cell(made.path) == EXIT_OK

    def killed_after_an_epoch(*_: Any, on_epoch: Callable[[EpochReport], None], **__: Any) -> None:
        time.sleep(0.02)
        on_epoch(EpochReport(1, 300, 2.0, None))
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "SAVE_SECONDS", 0.0, raising=False)
    monkeypatch.setattr(evaluate, "train_student", killed_after_an_epoch)
    run_cell(student.path)
    assert json.loads((student.path / "spent.json").read_text())["seconds"]["train"] >= 0.02


def test_a_set_that_was_lost_is_made_anew_and_its_cost_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its finished cell's work was freed: what is done again is not to be added to what the old result tells."""
    store, (cell, _) = cells(tmp_path, monkeypatch)
    assert run_cell(cell.path) == EXIT_OK
    spent = json.loads((cell.path / "spent.json").read_text())
    (cell.path / "spent.json").write_text(json.dumps(spent | {"seconds": {"distill": 1000.0}}))
    shutil.rmtree(store.sets)
    assert run_cell(cell.path) == EXIT_OK
    result = cell.result()
    assert result is not None
    assert result.cost is not None
    assert result.cost.seconds < 500
    assert result.cost.attempts == 1
