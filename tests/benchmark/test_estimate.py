"""Estimates are measured rates times work, by hand; where nothing was measured they say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark import estimate as estimates
from ddbench.benchmark import rates
from ddbench.benchmark.environment import cpu_model
from ddbench.benchmark.planner import plan_run
from ddbench.benchmark.result import Cost, DatasetRecord, DistillResult, EvaluateResult, Look, Metrics, Phase
from ddbench.benchmark.run_spec import run_spec
from ddbench.benchmark.runner import Fate, Item, Runner
from ddbench.benchmark.spec import DistillSpec
from ddbench.benchmark.store import Store, write_json

HERE = {"hardware": {"cpu": cpu_model(), "gpus": []}, "device": "cpu"}
ELSEWHERE = {"hardware": {"cpu": "Another CPU", "gpus": []}, "device": "cpu"}


def items(store: Store, **options: Any) -> list[Item]:
    asked = {"datasets": "digits", "device": "cpu", "ipc": "10", "seeds": "0", "repeats": 1, **options}
    runner = Runner(store, plan_run(run_spec({}, asked))[0], engine=None)  # type: ignore[arg-type] # starts nothing
    runner.settle()
    return runner.items


def finish(store: Store, item: Item, seconds: float, environment: dict[str, Any] = HERE) -> None:
    """Write the result of a cell that took so long in its one phase that counts."""
    spec, cell = item.spec, store.add(item.spec, item.planned.launch)
    distil = isinstance(spec, DistillSpec)
    cost = Cost(
        phases=[Phase(name="distil" if distil else "train", seconds=seconds)], seconds=seconds, cold_seconds=seconds,
        gpu_peak_allocated_mib=None, gpu_peak_reserved_mib=None, host_peak_mib=1.0, gpu_seconds=None,
        energy_joules=None, batch_size=32, threads=item.planned.launch.threads, exclusive_gpu=None, attempts=1,
    )  # fmt: skip
    record = DatasetRecord(
        **spec.dataset.model_dump(), split_hash="5f", content_hash="cc", n_train=1078, n_test=719, warning=None
    )
    common: dict[str, Any] = {
        "cell": cell.id, "status": "ok", "label": item.planned.label, "dataset": record, "ipc": spec.ipc,
        "distill_seed": 0, "image_set_sha256": "ab" * 32, "cost": cost, "environment": environment,
        "device_type": "cpu",
    }  # fmt: skip
    result: DistillResult | EvaluateResult
    if isinstance(spec, DistillSpec):
        result = DistillResult(
            **common, method=spec.method, n_images=100, guidance={}, precision="fp32", cost_class="selection"
        )
    else:
        result = EvaluateResult(
            **common, method=None, distil_cell=None, protocol=spec.protocol, protocol_label=spec.protocol.label,
            modified_protocol=False, student=spec.student, evaluate_seed=spec.seed,
            metrics=Metrics(acc_last=90.0, acc_best=91.0, top5_last=None,
                            curve=[Look(epoch=1, accuracy=90.0, train_loss=0.1)]),
            predictions=None,
        )  # fmt: skip
    write_json(cell.path / "result.json", result.model_dump(mode="json"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs")
    made.create()
    return made


def test_measured_rates_times_work(store: Store) -> None:
    for seed, distil_seconds, student_seconds in ((0, 10.0, 30.0), (1, 14.0, 60.0)):
        distil, student = items(store, methods="random", seeds=str(seed))
        finish(store, distil, distil_seconds)
        finish(store, student, student_seconds)
    found = estimates.estimate(items(store, methods="random", ipc="1", seeds="5"), store, probe=False)
    # 10 images instead of 100; a student of `quick` at IPC 1 has 300 epochs of 10 images, at IPC 10 of 100.
    assert found.seconds == pytest.approx(12.0 / 10 + 45.0 / 10)
    assert (found.low_seconds, found.high_seconds) == (pytest.approx(1.0 + 3.0), pytest.approx(1.4 + 6.0))
    assert (found.cells, sum(found.unknown.values())) == (2, 0)
    (line,) = found.lines(jobs=1)
    assert line.startswith("estimate: 0.1 min (0.1 min to 0.1 min) of CPU time for 2 cells on ")


def test_a_rate_of_another_machine_is_none_of_this_one(store: Store) -> None:
    for item in items(store, methods="random"):
        finish(store, item, 10.0, ELSEWHERE)
    found = estimates.estimate(items(store, methods="random", seeds="5"), store, probe=False)
    assert found.cells == 0
    assert found.unknown == {"distilling by random at 8 px": 1, "convnet3 under quick@1": 1}
    (line,) = found.lines(jobs=1)
    assert line.startswith("no rate measured on ")


def test_finished_cells_are_not_counted(store: Store) -> None:
    plan = items(store, methods="random")
    for item in plan:
        finish(store, item, 10.0)
        item.fate = Fate.REUSED
    assert estimates.estimate(plan, store, probe=False).lines(jobs=1) == []


def test_a_long_run_on_a_cpu_is_warned_of_before_it_starts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def one_step(step: Any, images: int, threads: int) -> rates.Rate:
        timed.append(threads)
        step()
        return rates.Rate(0.5, 0.5, 0.5, 1)

    monkeypatch.setattr(estimates, "_timed", one_step)
    plan = items(store, methods="random", protocol="hard-minimax-sgd[side=96]", student="convnet3")
    found = estimates.estimate(plan, store, probe=True)
    assert timed == [plan[0].planned.launch.threads]
    assert found.seconds == 0.5 * 100 * 2000  # images × epochs
    assert found.probed == 1
    warning = found.warning(jobs=1)
    assert warning is not None
    assert "about 1 days on this CPU" in warning
    assert found.warning(jobs=2) is None
    assert "from one timed step" in found.lines(jobs=1)[0]


def test_what_is_short_is_not_timed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "_timed", lambda *_: pytest.fail("nothing here is worth timing"))
    found = estimates.estimate(items(store, methods="random,dit"), store, probe=True)
    assert sum(found.unknown.values()) == 4


def test_a_timed_step_is_a_rate() -> None:
    calls: list[int] = []
    rate = estimates._timed(lambda: calls.append(1), 8, 1)
    assert len(calls) == 2
    assert 0 < rate.mean < 1
