"""Estimates are measured rates times work, by hand; where nothing was measured they say so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ddbench.benchmark.commands import cli
from ddbench.benchmark.core.environment import cpu_model
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import Cost, DatasetRecord, DistillResult, EvaluateResult, Look, Metrics, Phase
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.benchmark.running import estimate as estimates
from ddbench.benchmark.running import timed_step
from ddbench.benchmark.running.runner import Fate, Item, Runner
from ddbench.benchmark.running.timed_step import TimedStep
from ddbench.methods.diffusion.priors.files import BUNDLED

HERE = {"hardware": {"cpu": cpu_model(), "gpus": []}, "device": "cpu"}
ELSEWHERE = {"hardware": {"cpu": "Another CPU", "gpus": []}, "device": "cpu"}


def items(store: Store, **options: Any) -> list[Item]:
    asked = {"datasets": "digits", "device": "cpu", "ipc": "10", "seeds": "0", "repeats": 1, **options}
    runner = Runner(store, plan_run(run_spec({}, asked))[0], engine=None)  # type: ignore[arg-type] # starts nothing
    runner.settle()
    return runner.items


def finish(
    store: Store, item: Item, seconds: float, environment: dict[str, Any] = HERE, more: dict[str, float] | None = None
) -> None:
    """Write the result of a cell that took so long in the phase that grows with its work, and `more` in others."""
    spec, cell = item.spec, store.add(item.spec, item.planned.launch)
    distill = isinstance(spec, DistillSpec)
    phases = {"distill" if distill else "train": seconds, **(more or {})}
    cost = Cost(
        phases=[Phase(name=name, seconds=took) for name, took in phases.items()], seconds=seconds, cold_seconds=seconds,
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
            **common, method=None, distill_cell=None, protocol=spec.protocol, protocol_label=spec.protocol.label,
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
    for seed, distill_seconds, student_seconds in ((0, 10.0, 30.0), (1, 14.0, 60.0)):
        distill, student = items(store, methods="random", seeds=str(seed))
        finish(store, distill, distill_seconds)
        finish(store, student, student_seconds)
    found = estimates.estimate(items(store, methods="random", ipc="1", seeds="5"), store, probe=False)
    # 10 images instead of 100; a student of `quick` at IPC 1 has 300 epochs of 10 images, at IPC 10 of 100.
    assert found.seconds == pytest.approx(12.0 / 10 + 45.0 / 10)
    assert (found.low_seconds, found.high_seconds) == (pytest.approx(1.0 + 3.0), pytest.approx(1.4 + 6.0))
    assert (found.cells, sum(found.unknown.values())) == (2, 0)
    (line,) = found.lines(jobs=1)
    assert line.startswith("estimate: 6 s (4 s to 7 s) of CPU time for 2 cells on ")
    assert line.endswith(" (1 thread)")  # as many as a cell of digits gets


def test_setting_up_does_not_grow_with_the_images_and_waiting_is_no_work(store: Store) -> None:
    (store.artefacts / "tuned-prior").mkdir()
    distill, student = items(store, methods="random")
    finish(store, distill, 20.0, more={"load data": 1.0, "tuned prior": 300.0, "wait": 50.0})
    finish(store, student, 30.0, more={"load data": 2.0})
    found = estimates.estimate(items(store, methods="random", ipc="50", seeds="5"), store, probe=False)
    # Five times the images; `quick` trains 150 epochs at IPC 50 in place of 300.
    assert found.seconds == pytest.approx(301 + 5 * 20 + 2 + 2.5 * 30)


def test_cells_of_the_same_ipc_are_the_better_measure(store: Store) -> None:
    for ipc, seconds in (("1", 8.0), ("10", 20.0)):  # 0.8 and 0.2 s an image
        finish(store, items(store, methods="random", ipc=ipc)[0], seconds)
    asked = items(store, methods="random", ipc="1,10,20", seeds="5")
    found = estimates.estimate([item for item in asked if isinstance(item.spec, DistillSpec)], store, probe=False)
    assert found.seconds == pytest.approx(10 * 0.8 + 100 * 0.2 + 200 * (0.8 + 0.2) / 2)


def test_the_whole_training_set_counts_with_its_size(store: Store) -> None:
    finish(store, items(store, methods="random")[1], 30.0)
    _, student = items(store, methods="full")
    found = estimates.estimate([student], store, probe=False)
    assert found.seconds == pytest.approx(1078 * 60 * 30.0 / (100 * 300))  # images × epochs × the measured rate


def test_a_rate_of_another_machine_is_none_of_this_one(store: Store) -> None:
    for item in items(store, methods="random"):
        finish(store, item, 10.0, ELSEWHERE)
    found = estimates.estimate(items(store, methods="random", seeds="5"), store, probe=False)
    assert found.cells == 0
    assert found.unknown == {"distilling by random at 8 px": 1, "convnet3 under quick@1": 1}
    (line,) = found.lines(jobs=1)
    assert line.startswith("no rate measured on ")


def test_a_first_run_on_a_gpu_says_how_to_get_an_estimate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that way gives one."""
    monkeypatch.setattr(estimates.rates, "device_model", lambda device, hardware=None: "NVIDIA H200")
    asked = {"methods": "random", "device": "cuda:0", "ipc": "10", "seeds": "0,1"}
    none, hint = estimates.estimate(items(store, **asked), store, probe=True).lines(jobs=1)
    assert none.startswith("no rate measured on NVIDIA H200 for ")
    assert "--ipc 1 --seeds 0 --repeats 1 measures it in the same folder" in hint
    for item in items(store, **(asked | {"ipc": "1", "seeds": "0", "repeats": 1})):
        finish(store, item, 10.0)
    (line,) = estimates.estimate(items(store, **asked), store, probe=True).lines(jobs=1)
    assert line == "estimate: 6.7 min of GPU time for 4 cells on NVIDIA H200", "ten times the images: 100 s a cell"


@pytest.mark.parametrize("text", ["{", json.dumps({"name": "a-plugins-dataset"})])
def test_a_cell_that_tells_no_rate_does_not_stop_a_run(store: Store, text: str) -> None:
    """A damaged file, and a dataset that a plugin of another run had."""
    for item in items(store, methods="random"):
        finish(store, item, 10.0)
        file = item.cell.path / "spec.json"
        file.write_text(text if text == "{" else file.read_text().replace('"digits"', '"a-plugins-dataset"'))
    assert estimates.estimate(items(store, methods="random", seeds="5"), store, probe=False).cells == 0


def test_finished_cells_are_not_counted(store: Store) -> None:
    plan = items(store, methods="random")
    for item in plan:
        finish(store, item, 10.0)
        item.fate = Fate.REUSED
    assert estimates.estimate(plan, store, probe=False).lines(jobs=1) == []


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every timed step takes half a second an image; the list gets its threads."""
    timed: list[int] = []

    def each(steps: Sequence[TimedStep], threads: int) -> dict[TimedStep, float]:
        timed.extend([threads] * len(steps))
        for step in steps:
            step.build()[0]()
        return dict.fromkeys(steps, 0.5)

    monkeypatch.setattr(timed_step, "seconds_each", each)
    return timed


def test_a_long_run_on_a_cpu_is_warned_of_before_it_starts(store: Store, half_a_second: list[int]) -> None:
    plan = items(store, methods="random", protocol="hard-minimax-sgd[image_size=96]", student="convnet3")
    found = estimates.estimate(plan, store, probe=True)
    assert half_a_second == [plan[0].planned.launch.threads]
    assert found.seconds == 0.5 * 100 * 2000  # images × epochs
    assert found.probed == 1
    warning = found.warning(jobs=1)
    assert warning is not None
    assert "at least a day on this CPU" in warning
    assert found.warning(jobs=2) is None
    assert "estimate: at least 27.8 h of CPU time for 1 cell on " in found.lines(jobs=1)[0]
    assert "from one timed step" in found.lines(jobs=1)[1]


def test_many_short_cells_are_long_together(store: Store, half_a_second: list[int]) -> None:
    def asked(repeats: int) -> list[Item]:
        options = {"methods": "random", "protocol": "hard-minimax-sgd[image_size=32]", "student": "convnet3"}
        return items(store, repeats=repeats, **options)

    assert estimates.estimate(asked(1), store, probe=True).probed == 0
    found = estimates.estimate(asked(40), store, probe=True)
    assert (found.probed, len(half_a_second)) == (40, 1)
    assert found.seconds == 40 * 0.5 * 100 * 2000


@pytest.mark.parametrize(
    ("selector", "teachers"),
    [
        ("soft-rded-half[image_size=32]", ["resnet18_bn"]),
        ("soft-bssl-4[image_size=32]", ["resnet18_bn", "shufflenet_v2_x1_0", "mobilenet_v2", "densenet121"]),
    ],
)
def test_soft_labels_are_timed_with_their_teachers(
    selector: str, teachers: list[str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddbench.benchmark.protocols import networks

    built: list[str] = []
    build = networks.build
    monkeypatch.setattr(networks, "build", lambda name, *rest: (built.append(name), build("convnet3", *rest))[1])
    (_, student) = items(store, methods="random", protocol="hard-minimax-sgd[image_size=16]", student="convnet3")
    assert isinstance(student.spec, EvaluateSpec)
    _, spec = resolve_protocol(selector)
    soft = student.spec.model_copy(update={"protocol": spec, "student": "resnet50_bn"})
    step, units = estimates._student_step(soft).what.build()
    step()
    assert built == ["resnet50_bn", *teachers]
    assert units == 64


def test_a_prior_counts_all_its_blocks_at_every_step() -> None:
    config = json.loads((BUNDLED / "digits" / "config.json").read_bytes())
    blocks, width = config["num_layers"], config["num_attention_heads"] * config["attention_head_dim"]
    tokens = (config["sample_size"] // config["patch_size"]) ** 2
    with_class, without = (estimates._prior_step("digits", "digits", 50, guided) for guided in (True, False))
    assert (with_class.times, without.times) == (2 * 50 * blocks, 50 * blocks)
    assert with_class.multiply_adds == with_class.times * tokens * 12 * width**2
    step, units = with_class.what.build()
    step()
    assert units * tokens == 256


def test_what_is_short_is_not_timed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_step.subprocess, "run", lambda *_, **__: pytest.fail("nothing here is worth timing"))
    found = estimates.estimate(items(store, methods="random,dit"), store, probe=True)
    assert sum(found.unknown.values()) == 4


def test_a_timed_step_is_the_fastest_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.3, 1.0, 1.2, 2.0, 2.6])  # steps of 0.3, 0.2 and 0.6 s
    monkeypatch.setattr(timed_step.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    assert timed_step.timed(lambda: calls.append(1), 8) == pytest.approx(0.2 / 8)
    assert len(calls) == 4


def test_the_command_line_says_it_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "LARGE", 0.0)
    monkeypatch.setattr(timed_step, "seconds_each", lambda steps, threads: dict.fromkeys(steps, 100.0))
    asked = ["run", "-m", "random", "-d", "digits", "--ipc", "1", "--seeds", "0", "--repeats", "1", "--device", "cpu"]
    asked += ["--protocol", "quick[epochs=1]", "--out", str(tmp_path / "runs")]
    ran = CliRunner().invoke(cli.app, [*asked, "--dry-run"])
    assert "estimate: at least 16.7 min of CPU time for 1 cell" in ran.output  # 10 images × 1 epoch × 100 s
    assert "Warning" not in ran.output
    monkeypatch.setattr(timed_step, "seconds_each", lambda steps, threads: dict.fromkeys(steps, 50_000.0))
    ran = CliRunner().invoke(cli.app, [*asked, "--dry-run"])
    assert "Warning: at least 6 days on this CPU. Use a GPU" in ran.output


WITHOUT_TORCH = """
import sys
from ddbench.benchmark.commands.cli import main
from ddbench.benchmark.running import estimate
estimate.LARGE = 0.0
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def test_a_dry_run_times_steps_and_loads_no_torch(tmp_path: Path) -> None:
    asked = ["run", "-m", "dit", "-d", "digits", "--ipc", "1", "--seeds", "0", "--repeats", "1", "--device", "cpu"]
    command = [sys.executable, "-P", "-c", WITHOUT_TORCH, *asked, "--out", str(tmp_path / "runs"), "--dry-run"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "of CPU time for 2 cells" in ran.stdout
    assert "2 of them from one timed step" in ran.stdout
    assert ran.stdout.endswith("False\n")


def test_a_step_that_cannot_be_timed_is_in_no_estimate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "LARGE", 0.0)
    monkeypatch.setattr(timed_step.sys, "executable", "/bin/false")
    found = estimates.estimate(items(store, methods="random"), store, probe=True)
    assert (found.cells, sum(found.unknown.values())) == (0, 2)
