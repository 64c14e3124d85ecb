"""A results folder made through the real models, for the tests of what people read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import (
    Cost,
    DatasetRecord,
    DistillResult,
    EvaluateResult,
    Look,
    Metrics,
    Phase,
    PriorRecord,
    Status,
)
from ddbench.benchmark.core.spec import (
    DatasetSpec,
    DistilledBy,
    DistillSpec,
    EvaluateSpec,
    ForeignImages,
    MethodSpec,
    ProtocolSpec,
    Scalar,
    cell_id,
)
from ddbench.benchmark.core.store import Launch, Store
from ddbench.benchmark.planning.plan import Plan, PlannedSet
from ddbench.datasets.image_sets import image_name, pixels_sha256, set_sha256, write_png

N_TEST = 500
PRIOR = "a1b2c3d4" * 8
QUICK = ProtocolSpec(name="quick", version=1, overrides={}, hash="11" * 32)
CPU = {"hardware": {"cpu": "Testing CPU", "gpus": []}, "device": "cpu"}
GPU = {"hardware": {"cpu": "Testing CPU", "gpus": [{"name": "Testing GPU"}]}, "device": "cuda:0"}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Folder:
    """Writes cells, plans and arrays as the engine does."""

    out: Path
    dataset: str = "digits"
    split: str = "default"
    resolution: int = 8
    content_hash: str = "cc" * 32
    warning: str | None = None
    environment: dict[str, Any] = field(default_factory=lambda: CPU)
    arrays: bool = True
    """Write predictions and test labels."""

    def __post_init__(self) -> None:
        self.store = Store(self.out)
        self.store.create()
        self.labels = np.arange(N_TEST, dtype=np.int64) % 10

    # Specifications

    def distill_spec(
        self,
        method: str = "dmgd",
        *,
        seed: int = 0,
        ipc: int | None = 10,
        prior: str | None = None,
        precision: Any = "fp32",
        device: Any = "cpu",
        version: int = 1,
        params: dict[str, Scalar] | None = None,
    ) -> DistillSpec:
        return DistillSpec(
            method=MethodSpec(name=method, version=version, params=params or {}),
            dataset=self.dataset_spec(),
            prior_sha256=prior,
            ipc=ipc,
            seed=seed,
            precision=precision,
            device_type=device,
        )

    def dataset_spec(self) -> DatasetSpec:
        return DatasetSpec(name=self.dataset, split=self.split, resolution=self.resolution)

    def evaluate_spec(
        self,
        made_by: DistillSpec | str,
        *,
        seed: int = 0,
        ipc: int | None = 10,
        protocol: ProtocolSpec = QUICK,
        student: str = "convnet3",
        device: Any = "cpu",
    ) -> EvaluateSpec:
        foreign = isinstance(made_by, str)
        images = ForeignImages(image_set_sha256=made_by) if foreign else DistilledBy(cell=cell_id(made_by))
        return EvaluateSpec(
            images=images,
            dataset=self.dataset_spec(),
            ipc=ipc if foreign else made_by.ipc,
            protocol=protocol,
            student=student,
            seed=seed,
            device_type=device,
        )

    def record(self) -> DatasetRecord:
        return DatasetRecord(
            **self.dataset_spec().model_dump(),
            split_hash="5f" * 32,
            content_hash=self.content_hash,
            n_train=1000,
            n_test=N_TEST,
            warning=self.warning,
        )

    # Cells

    def cost(self, seconds: float, cold: float | None = None, **changed: Any) -> Cost:
        values: dict[str, Any] = {
            "phases": [Phase(name="distill", seconds=seconds)],
            "seconds": seconds,
            "cold_seconds": seconds if cold is None else cold,
            "gpu_peak_allocated_mib": None,
            "gpu_peak_reserved_mib": None,
            "host_peak_mib": 512.5,
            "gpu_seconds": None,
            "energy_joules": None,
            "batch_size": 32,
            "threads": 1,
            "exclusive_gpu": None,
            "attempts": 1,
        }
        return Cost(**{**values, **changed})

    def distill(
        self,
        spec: DistillSpec,
        label: str | None = None,
        *,
        images: str | None = None,
        status: Status = "ok",
        reason: str | None = None,
        cost: Cost | None = None,
        guidance: dict[str, list[float]] | None = None,
        image_bytes: int | None = None,
        prior_name: str = "digits-dit",
    ) -> str:
        """Write a finished or failed distill cell; returns the hash of its images."""
        label = label or spec.method.name
        cell = self.store.add(spec, Launch(label=label))
        images = images or sha(cell.id)
        ok = status == "ok"
        prior = PriorRecord(name=prior_name, sha256=spec.prior_sha256, trained_on="t") if spec.prior_sha256 else None
        result = DistillResult(
            cell=cell.id,
            status=status,
            reason=reason,
            label=label,
            method=spec.method,
            dataset=self.record() if ok else None,
            prior=prior if ok else None,
            ipc=spec.ipc,
            distill_seed=spec.seed,
            image_set_sha256=images if ok else None,
            cost=(cost or self.cost(12.34)) if ok else None,
            environment=self.environment if ok else None,
            n_images=100 if ok else None,
            image_bytes=image_bytes,
            guidance=guidance or {},
            precision=spec.precision,
            device_type=spec.device_type,
            cost_class="training-free" if spec.prior_sha256 else "selection",
        )
        write_json(cell.path / "result.json", result.model_dump(mode="json"))
        return images

    def student(
        self,
        spec: EvaluateSpec,
        label: str,
        accuracy: float | np.ndarray,
        *,
        images: str,
        made_by: DistillSpec | None = None,
        status: Status = "ok",
        reason: str | None = None,
        cost: Cost | None = None,
        best: float | None = None,
    ) -> EvaluateResult:
        """Write a finished or failed evaluate cell.

        Args:
            accuracy: percent (the first images are the right ones), or (N_TEST,) bool: which images it got right.
        """
        cell = self.store.add(spec, Launch(label=label))
        right = accuracy if isinstance(accuracy, np.ndarray) else np.arange(N_TEST) < round(N_TEST * accuracy / 100)
        acc_last = 100 * float(right.mean())
        ok = status == "ok"
        result = EvaluateResult(
            cell=cell.id,
            status=status,
            reason=reason,
            label=label,
            method=None if made_by is None else made_by.method,
            dataset=self.record() if ok else None,
            ipc=spec.ipc,
            distill_seed=None if made_by is None else made_by.seed,
            image_set_sha256=images if ok else None,
            cost=(cost or self.cost(4.5)) if ok else None,
            environment=self.environment if ok else None,
            distill_cell=None if made_by is None else cell_id(made_by),
            protocol=spec.protocol,
            protocol_label=spec.protocol.label,
            modified_protocol=bool(spec.protocol.overrides),
            student=spec.student,
            evaluate_seed=spec.seed,
            device_type=spec.device_type,
            metrics=Metrics(
                acc_last=acc_last,
                acc_best=best if best is not None else acc_last + 0.5,
                top5_last=None,
                curve=[Look(epoch=1, accuracy=acc_last, train_loss=0.1)],
            )
            if ok
            else None,
            predictions="predictions.npy" if ok and self.arrays else None,
        )
        if ok and self.arrays:
            predicted = np.where(right, self.labels, (self.labels + 1) % 10).astype(np.uint16)
            np.save(cell.path / "predictions.npy", predicted)
            folder = self.store.artefacts / "test-labels"
            folder.mkdir(exist_ok=True)
            np.save(folder / f"{self.content_hash[:16]}.npy", self.labels)
        write_json(cell.path / "result.json", result.model_dump(mode="json"))
        return result

    def method(
        self,
        label: str,
        accuracies: list[list[float]] | list[list[np.ndarray]],
        *,
        seeds: list[int] | None = None,
        images: Callable[[int], str] | None = None,
        protocol: ProtocolSpec = QUICK,
        student: str = "convnet3",
        device: Any = "cpu",
        distill: dict[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """A method with finished sets and students: `accuracies[set][student]`."""
        for index, students in enumerate(accuracies):
            seed = index if seeds is None else seeds[index]
            made_by = self.distill_spec(label.partition("[")[0], seed=seed, **spec)
            made = self.distill(made_by, label, images=images(seed) if images else None, **(distill or {}))
            for repeat, accuracy in enumerate(students):
                evaluate = self.evaluate_spec(
                    made_by, seed=1000 * seed + repeat, protocol=protocol, student=student, device=device
                )
                self.student(evaluate, label, accuracy, images=made, made_by=made_by)

    def pictures(self, image_size: int = 8) -> list[Path]:
        """Two images of each class for each set, as the engine writes them, with their true hash in all results.

        Images of a class are (side, side) of 20 · class + image; the last pixel of a set's last image tells sets apart.
        """
        folders = []
        cells = [(cell.path / "result.json", cell.result()) for cell in self.store.cell_dirs()]
        for _, result in cells:
            if not isinstance(result, DistillResult) or result.image_set_sha256 is None or result.ipc is None:
                continue
            made = [
                (c, i, np.full((image_size, image_size, 1), 20 * c + i, np.uint8)) for c in range(10) for i in range(2)
            ]
            made[-1][2][-1, -1] = len(folders)
            sha256 = set_sha256((str(c), i, pixels_sha256(pixels)) for c, i, pixels in made)
            folders.append(self.store.set_dir(sha256))
            for c, i, pixels in made:
                (folders[-1] / str(c)).mkdir(parents=True, exist_ok=True)
                write_png(folders[-1] / str(c) / image_name(i), pixels)
            for file, other in cells:
                if other is not None and other.image_set_sha256 == result.image_set_sha256:
                    file.write_text(file.read_text().replace(result.image_set_sha256, sha256))
        return folders

    def plan(self, label: str, spec: DistillSpec, students: int, **evaluate: Any) -> None:
        """Ask for one set and its students."""
        cells = tuple(self.evaluate_spec(spec, seed=1000 * spec.seed + r, **evaluate) for r in range(students))
        planned = PlannedSet(
            label=label,
            spec=spec,
            launch=Launch(label=label),
            students=cells,
            protocol_label=cells[0].protocol.label if cells else None,
        )
        Plan(sets=(planned,)).save(self.store)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "runs")


@pytest.fixture
def make_folder() -> type[Folder]:
    return Folder
