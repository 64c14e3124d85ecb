"""`result.json`, key by key. Numbers are numbers, units are in the names, accuracies are percent."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ddbench.benchmark.spec import DatasetSpec, MethodSpec, ProtocolSpec

SCHEMA_VERSION: Literal[1] = 1

Status = Literal["ok", "failed", "oom", "timeout", "killed"]
RETRIED = ("oom", "timeout", "killed")
"""Statuses that `--reuse missing` runs again; a `failed` cell would fail the same way and stays unless asked for."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Phase(Record):
    """Wall-clock of one part of a cell."""

    name: str
    seconds: float
    """What this cell spent."""
    cached_from: str | None = None
    """The artefact that this phase was served from; None if it was computed here."""
    cold_seconds: float | None = None
    """What computing it cost where it was computed; present only with `cached_from`."""


class Cost(Record):
    phases: list[Phase]
    seconds: float
    """Wall-clock of the cell from the first to the last phase, summed over attempts."""
    cold_seconds: float
    """The same with every cached phase at its original cost: what a first user pays."""
    gpu_peak_allocated_mib: float | None
    gpu_peak_reserved_mib: float | None
    host_peak_mib: float
    """Peak resident memory of the cell's process (VmHWM); if forked, less its resident memory at the start."""
    gpu_seconds: float | None
    energy_joules: float | None
    """GPU energy by NVML; None on a CPU or where NVML does not tell."""
    batch_size: int
    threads: int
    exclusive_gpu: bool | None
    """No other process was on the GPU when the cell began; None on a CPU."""
    attempts: int
    """Starts of this cell until it finished; the times include those of earlier attempts."""


class DatasetRecord(DatasetSpec):
    split_hash: str
    content_hash: str
    n_train: int
    n_test: int
    warning: str | None


class PriorRecord(Record):
    name: str
    sha256: str
    trained_on: str
    """What its metadata says of its training data; "unknown" where it says nothing."""


class Look(Record):
    """One look at the test set."""

    epoch: int
    accuracy: float
    train_loss: float


class Metrics(Record):
    acc_last: float
    """Top-1 after the last epoch, percent: what leaderboards rank."""
    acc_best: float
    """The best of the looks, percent: what papers report."""
    top5_last: float | None
    curve: list[Look]


class Result(Record):
    """Common to both kinds of cell, finished or failed."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["distil", "evaluate"]
    cell: str
    status: Status
    reason: str | None = None
    """Why it is not ok, in one message."""
    retriable: bool = False
    """The cause lies outside the cell (a full disk, say); `--reuse missing` runs it again."""
    label: str
    """The method's registered name where its parameters equal one, else `name[param=value]`; for foreign images the
    name that the user gave them."""
    method: MethodSpec | None
    """None for images made elsewhere."""
    dataset: DatasetRecord | None
    prior: PriorRecord | None = None
    ipc: int | None
    """Images per class; None for the whole training set."""
    distill_seed: int | None
    image_set_sha256: str | None = None
    """Over decoded pixels, class id and index."""
    cost: Cost | None = None
    environment: dict[str, Any] | None = None
    plugins: dict[str, str] = {}
    """File name -> SHA-256 of the plugin files that were loaded."""


class DistillResult(Result):
    kind: Literal["distil"] = "distil"
    n_images: int | None = None
    guidance: dict[str, list[float]] = {}
    """Guidance term -> path KL in nats by image index, averaged over classes (dmgd.md section 3)."""
    precision: str = "fp32"
    device_type: str = "cpu"
    cost_class: str | None = None


class EvaluateResult(Result):
    kind: Literal["evaluate"] = "evaluate"
    distil_cell: str | None
    protocol: ProtocolSpec
    protocol_label: str
    """`name@version`, or `name[epochs=60]@version` for a modified protocol."""
    modified_protocol: bool
    student: str
    evaluate_seed: int
    device_type: str = "cpu"
    metrics: Metrics | None = None
    predictions: str | None = None
    """Name of the array beside the result: (n_test,) uint16 predicted class indices after the last epoch."""


def mean_guidance(per_image: dict[tuple[int, int], dict[str, float]]) -> dict[str, list[float]]:
    """Path KL averaged over classes: (class index, image index) -> term -> nats becomes term -> nats by image index."""
    sums: dict[str, dict[int, list[float]]] = {}
    for (_, image_index), terms in sorted(per_image.items()):
        for term, nats in terms.items():
            sums.setdefault(term, {}).setdefault(image_index, []).append(nats)
    return {
        term: [sum(nats) / len(nats) for _, nats in sorted(by_image.items())] for term, by_image in sorted(sums.items())
    }
