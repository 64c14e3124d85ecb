"""The second stage inside its cell: train one student on a distilled set and look at the test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ddbench.benchmark.artefacts import save_array
from ddbench.benchmark.distil import open_split
from ddbench.benchmark.errors import RunError
from ddbench.benchmark.image_sets import ImageSet, read_set
from ddbench.benchmark.meter import Meter
from ddbench.benchmark.progress import Progress
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.images import fit
from ddbench.benchmark.protocols.trainer import EpochReport, train_student
from ddbench.benchmark.registry import PROTOCOLS
from ddbench.benchmark.result import DistillResult, EvaluateResult, Metrics
from ddbench.benchmark.spec import DistilledBy, EvaluateSpec, ForeignImages
from ddbench.benchmark.store import CellDir, CellPlan, Launch, Store
from ddbench.datasets.base import Dataset, ImageSource

BLOCK = 256
"""Test images decoded at once."""
PREDICTIONS = "predictions.npy"


def evaluate(
    cell: CellDir, spec: EvaluateSpec, launch: Launch, plan: CellPlan, store: Store, meter: Meter, progress: Progress
) -> EvaluateResult:
    """Run or resume an evaluate cell.

    Raises:
        RunError: the distilled set is not there or not the one that was planned; a loss that is not finite.
        UsageError: foreign images that cannot be read.
    """
    protocol = _protocol(spec)
    source = _source(spec, store)
    with meter.phase("load data"):
        dataset, split, record = open_split(spec.dataset, launch)
        images = _images(spec, launch, store, dataset, source)
        side = spec.dataset.resolution
        train = np.stack([fit(protocol, pixels, side) for pixels in images.pixels])
        test = _test_images(protocol, split.test, side)

    def on_epoch(report: EpochReport) -> None:
        progress.update(epoch=report.epoch, epochs=report.epochs)
        if report.accuracy is not None:
            progress.update(accuracy=report.accuracy)
            meter.save()

    with meter.phase("train"):
        outcome = train_student(
            protocol,
            spec.student,
            train,
            images.labels,
            test,
            split.test.labels,
            num_classes=len(dataset.class_ids),
            ipc=spec.ipc,
            seed=spec.seed,
            device=torch.device(launch.device),
            on_epoch=on_epoch,
            checkpoint=cell.path / "checkpoint.pt",
        )
    save_array(cell.path / PREDICTIONS, outcome.predictions)
    labels = store.artefacts / "test-labels" / f"{record.content_hash[:16]}.npy"
    if not labels.exists():
        labels.parent.mkdir(parents=True, exist_ok=True)
        save_array(labels, split.test.labels)
    return EvaluateResult(
        cell=cell.id,
        status="ok",
        label=launch.label,
        method=None if source is None else source.method,
        dataset=record,
        prior=None if source is None else source.prior,
        ipc=spec.ipc,
        distill_seed=None if source is None else source.distill_seed,
        image_set_sha256=images.sha256,
        distil_cell=spec.images.cell if isinstance(spec.images, DistilledBy) else None,
        protocol=spec.protocol,
        protocol_label=protocol.label,
        modified_protocol=protocol.modified,
        student=spec.student,
        evaluate_seed=spec.seed,
        device_type=spec.device_type,
        metrics=Metrics(
            acc_last=outcome.acc_last,
            acc_best=outcome.acc_best,
            top5_last=outcome.top5_last,
            curve=list(outcome.curve),
        ),
        predictions=PREDICTIONS,
        cost=meter.cost(batch_size=protocol.batch_size_for(len(dataset.class_ids)), threads=plan.threads),
    )


def _protocol(spec: EvaluateSpec) -> Protocol:
    protocol: Protocol = PROTOCOLS.load(spec.protocol.name)
    if spec.protocol.overrides:
        protocol = protocol.with_overrides(spec.protocol.overrides)
    if protocol.hash != spec.protocol.hash:
        raise RunError(
            f"this cell was planned with another {spec.protocol.label} (hash {spec.protocol.hash[:12]}…, here "
            f"{protocol.hash[:12]}…): a published protocol is never edited. Plan the run again."
        )
    return protocol


def _source(spec: EvaluateSpec, store: Store) -> DistillResult | None:
    if not isinstance(spec.images, DistilledBy):
        return None
    result = store.cell(spec.images.cell).result()
    if not isinstance(result, DistillResult) or result.image_set_sha256 is None:
        raise RunError(f"the distilled set of {spec.images.cell} is not finished; run that cell first")
    return result


def _images(
    spec: EvaluateSpec, launch: Launch, store: Store, dataset: Dataset, source: DistillResult | None
) -> ImageSet:
    """The distilled set, checked against the hash that names it."""
    if isinstance(spec.images, ForeignImages):
        if launch.images is None:
            raise RunError("this cell trains on images made elsewhere, but its launch file names no folder")
        folder, expected = Path(launch.images), spec.images.image_set_sha256
    else:
        assert source is not None
        assert source.image_set_sha256 is not None
        folder, expected = store.set_dir(source.image_set_sha256), source.image_set_sha256
    images = read_set(folder, dataset.class_ids, dataset.channels)
    if images.sha256 != expected:
        raise RunError(
            f"the images in {folder} are not the ones that were distilled: expected SHA-256 {expected}, "
            f"found {images.sha256}. Remove that folder and run again to make them anew."
        )
    return images


def _test_images(protocol: Protocol, test: ImageSource, resolution: int) -> np.ndarray:
    blocks = [
        fit(protocol, test.read(np.arange(start, min(start + BLOCK, len(test)))), resolution)
        for start in range(0, len(test), BLOCK)
    ]
    return np.concatenate(blocks)
