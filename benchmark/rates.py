"""Rates that were measured: seconds per image of distilling, seconds per image and epoch of training a student.

They come from finished cells of a results folder and hold for the device model that those ran on, with as many threads.
A rate of another device is no rate of this one, and there is none of a machine that nobody has measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ddbench.benchmark import environment
from ddbench.benchmark.registry import DATASETS, PROTOCOLS
from ddbench.benchmark.result import DistillResult, EvaluateResult
from ddbench.benchmark.spec import DistillSpec, EvaluateSpec, digest
from ddbench.benchmark.store import Store

TRAINING = "train"
"""The phase of an evaluate cell that grows with images and epochs."""
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Rate:
    """Seconds per unit of work."""

    low: float
    mean: float
    high: float
    n: int
    """Cells that it was measured on."""


def device_model(device: str, hardware: dict[str, Any] | None = None) -> str:
    """The model of the device that a cell runs on, with its threads left out: `NVIDIA H100`, `AMD EPYC`."""
    hardware = hardware or {"cpu": environment.cpu_model(), "gpus": environment.gpus()}
    gpus = hardware.get("gpus") or []
    index = int(device.partition(":")[2] or 0)
    if device.startswith("cuda"):
        return str(gpus[index]["name"]) if index < len(gpus) else "unknown GPU"
    return str(hardware.get("cpu"))


def work(spec: DistillSpec | EvaluateSpec) -> float:
    """How much a cell has to do: images, or images times epochs. Linear: starting up and the test are in the rates."""
    dataset = DATASETS.load(spec.dataset.name)
    n_classes = len(dataset.class_ids)
    if isinstance(spec, DistillSpec):
        return (spec.ipc or 0) * len(spec.classes(n_classes))
    protocol = PROTOCOLS.load(spec.protocol.name)
    if spec.protocol.overrides:
        protocol = protocol.with_overrides(spec.protocol.overrides)
    return float((spec.ipc or 0) * n_classes * protocol.epochs_for(spec.ipc, n_classes))


def key(spec: DistillSpec | EvaluateSpec, model: str, threads: int) -> Key:
    """What cells have in common that one rate holds for."""
    place = (model, threads) if spec.device_type == "cpu" else (model,)
    if isinstance(spec, DistillSpec):
        # Selection takes next to nothing an image, whatever it selects; parameters decide what sampling takes.
        made = (digest(spec.method.model_dump(mode="json")), spec.prior_sha256, spec.precision)
        return ("distil", *made, spec.dataset.resolution, *place)
    return ("evaluate", spec.protocol.hash, spec.student, spec.dataset.name, spec.dataset.resolution, *place)


def measured(store: Store) -> dict[Key, Rate]:
    """The rates of a results folder's finished cells."""
    seconds: dict[Key, list[float]] = defaultdict(list)
    for cell in store.cell_dirs():
        result = cell.result()
        if result is None or result.status != "ok" or result.cost is None or result.cost.exclusive_gpu is False:
            continue
        spec = cell.spec()
        amount = work(spec) if spec.ipc is not None else 0
        spent = _seconds(result)
        if amount and spent:
            found = result.environment or {}
            model = device_model(str(found.get("device", "cpu")), found.get("hardware"))
            seconds[key(spec, model, result.cost.threads)].append(spent / amount)
    return {name: _rate(values) for name, values in seconds.items()}


def _seconds(result: DistillResult | EvaluateResult) -> float:
    assert result.cost is not None
    if isinstance(result, DistillResult):
        return result.cost.cold_seconds
    return sum(phase.seconds for phase in result.cost.phases if phase.name == TRAINING)


def _rate(values: Iterable[float]) -> Rate:
    known = list(values)
    return Rate(min(known), sum(known) / len(known), max(known), len(known))
