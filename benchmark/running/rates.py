"""Rates that were measured: seconds per image of distilling, seconds per image and epoch of training a student.

They come from finished cells of a results folder and hold for the device model that those ran on, on a CPU with as many
threads. A rate of another device is no rate of this one, and there is none of a machine that nobody has measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddbench.benchmark.core import environment
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS, PROTOCOLS
from ddbench.benchmark.core.result import WAITING, DistillResult
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec, digest
from ddbench.benchmark.core.store import CellDir, Store

if TYPE_CHECKING:
    from ddbench.benchmark.protocols.base import Protocol
    from ddbench.datasets.base import Dataset

TRAINING = "train"
"""The phase of an evaluate cell that grows with images and epochs."""
SETTING_UP = ("load data", "load prior", "prepare")
"""Phases of a distill cell that do not grow with its images. Nor does the making of an artefact that cells share."""
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Rate:
    """Seconds per unit of work, and how long a cell sets up before any."""

    low: float
    mean: float
    high: float
    n: int
    """Cells that it was measured on."""
    setting_up: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Seconds: low, mean, high. What a cell finds that another has made, it does not make again, so the mean is that of
    the sharing in the results folder."""

    def seconds(self, amount: float) -> tuple[float, float, float]:
        """Low, mean and high of a cell with so much work."""
        low, mean, high = self.setting_up
        return low + self.low * amount, mean + self.mean * amount, high + self.high * amount


class Rates:
    """The rates of a results folder's finished cells."""

    def __init__(self, store: Store) -> None:
        spent: dict[Key, list[tuple[float, float]]] = defaultdict(list)
        shared = {kind.name for kind in store.artefacts.iterdir()} if store.artefacts.is_dir() else set()
        for cell in store.cell_dirs():
            found = _measured(cell, shared)
            if found is not None:
                name, ipc, setting_up, per_unit = found
                spent[name, ipc].append((setting_up, per_unit))
                spent[name, ANY_IPC].append((setting_up, per_unit))
        self._rates = {name: _rate(seconds) for name, seconds in spent.items()}

    def of(self, spec: DistillSpec | EvaluateSpec, model: str, threads: int) -> Rate | None:
        """The rate of cells of the same IPC, else of any IPC: what does not grow with the images (looks at the test
        set, real images that distilled ones are compared with) then makes the work only roughly linear."""
        name = key(spec, model, threads)
        return self._rates.get((name, spec.ipc), self._rates.get((name, ANY_IPC)))


ANY_IPC = "any"


def device_model(device: str, hardware: dict[str, Any] | None = None) -> str:
    """The model of the device that a cell runs on: `NVIDIA H100`, `AMD EPYC`."""
    hardware = hardware or {"cpu": environment.cpu_model(), "gpus": environment.gpus(device)}
    gpus = hardware.get("gpus") or []
    index = int(device.partition(":")[2] or 0)
    if device.startswith("cuda"):
        return str(gpus[index]["name"]) if index < len(gpus) else "unknown GPU"
    return str(hardware.get("cpu"))


def protocol_of(spec: EvaluateSpec) -> Protocol:
    """The protocol that a student is trained under.

    Raises:
        UsageError: there is none of that name here, or it has no such override.
    """
    protocol: Protocol = PROTOCOLS.load(spec.protocol.name)
    return protocol.with_overrides(spec.protocol.overrides) if spec.protocol.overrides else protocol


def work(spec: DistillSpec | EvaluateSpec, n_train: int | None = None) -> float:
    """How much a cell has to do: images, or images times epochs.

    Args:
        n_train: training images of the dataset; without it, a cell of them all counts as no work.

    Raises:
        UsageError: a dataset or a protocol that is not known here.
    """
    dataset: type[Dataset] = DATASETS.load(spec.dataset.name)
    n_classes = len(dataset.class_ids)
    classes = spec.classes(n_classes) if isinstance(spec, DistillSpec) else range(n_classes)
    images = spec.ipc * len(classes) if spec.ipc is not None else (n_train or 0) * len(classes) / n_classes
    return images if isinstance(spec, DistillSpec) else protocol_of(spec).images_seen(images, spec.ipc, n_classes)


def key(spec: DistillSpec | EvaluateSpec, model: str, threads: int) -> Key:
    """What cells have in common that one rate holds for; datasets of as many classes at one side share it."""
    place = (model, threads) if spec.device_type == "cpu" else (model,)
    where = (len(DATASETS.load(spec.dataset.name).class_ids), spec.dataset.resolution)
    if isinstance(spec, DistillSpec):
        made = (digest(spec.method.model_dump(mode="json")), spec.prior_sha256, spec.precision)
        return ("distill", *made, *where, *place)
    return ("evaluate", spec.protocol.hash, spec.student, *where, *place)


def _measured(cell: CellDir, shared: Container[str]) -> tuple[Key, int | None, float, float] | None:
    """(key, IPC, seconds of setting up, seconds per unit of work) of a cell, if it tells."""
    result = cell.result()
    if result is None or result.status != "ok" or result.cost is None or result.cost.exclusive_gpu is False:
        return None
    try:
        spec = cell.spec()
        amount = work(spec, None if result.dataset is None else result.dataset.n_train)
    except (RunError, UsageError):  # a damaged file, or a plugin's dataset: no rate, and no reason not to run others
        return None
    distills = isinstance(result, DistillResult)

    def sets_up(phase: str) -> bool:
        return phase in SETTING_UP or phase.replace(" ", "-") in shared if distills else phase != TRAINING

    phases = [phase for phase in result.cost.phases if phase.name != WAITING]
    once = sum(phase.seconds for phase in phases if sets_up(phase.name))
    growing = sum(phase.seconds for phase in phases if not sets_up(phase.name))
    if not amount or not growing:
        return None
    # Of seconds on several machines nobody knows which were whose; those of artefacts are not counted here.
    others = [one.environment for one in result.other_environments if one.attempts or one.shards]
    ran_in = [result.environment or {}, *others]
    models = {device_model(str(one.get("device", "cpu")), one.get("hardware")) for one in ran_in}
    if len(models) > 1:
        return None
    (model,) = models
    return key(spec, model, result.cost.threads), spec.ipc, once, growing / amount


def _rate(spent: Sequence[tuple[float, float]]) -> Rate:
    once, per_unit = (list(seconds) for seconds in zip(*spent, strict=True))
    return Rate(*_span(per_unit), n=len(spent), setting_up=_span(once))


def _span(seconds: Sequence[float]) -> tuple[float, float, float]:
    return min(seconds), sum(seconds) / len(seconds), max(seconds)
