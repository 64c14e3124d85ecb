"""The second stage inside its cell: train one student on a distilled set and look at the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ddbench.benchmark.cells import shifted, teachers
from ddbench.benchmark.cells.artefacts import save_array
from ddbench.benchmark.cells.distill import open_split
from ddbench.benchmark.cells.failures import identity
from ddbench.benchmark.cells.meter import MIB, SAVE_SECONDS, Meter
from ddbench.benchmark.cells.progress import Progress
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.gpu_errors import memory_ran_out
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.core.result import DatasetRecord, DistillResult, EvaluateResult, Metrics, ShiftedRecord
from ddbench.benchmark.core.spec import DistilledBy, EvaluateSpec, ForeignImages
from ddbench.benchmark.core.store import CellDir, CellPlan, Launch, Store
from ddbench.benchmark.planning import teacher_files
from ddbench.benchmark.protocols import memory, networks
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.images import fit
from ddbench.benchmark.protocols.pixels import Pixels, hold
from ddbench.benchmark.protocols.trainer import EpochReport, StudentResult, train_student
from ddbench.datasets import whitening
from ddbench.datasets.base import Dataset, ImageSource
from ddbench.datasets.foreign.soft_labels import SoftLabels
from ddbench.datasets.image_sets import ImageSet, read_set

PREDICTIONS = "predictions.npy"


def evaluate(
    cell: CellDir, spec: EvaluateSpec, launch: Launch, plan: CellPlan, store: Store, meter: Meter, progress: Progress
) -> EvaluateResult:
    """Run or resume an evaluate cell.

    Raises:
        RunError: the distilled set is not there or not the one that was planned; a loss that is not finite.
        UsageError: foreign images that cannot be read.
    """
    known, protocol = identity(cell, spec, launch), _protocol(spec)
    source = _source(spec, store)
    device = torch.device(launch.device)
    with meter.phase("load data"):
        dataset, split, record = open_split(spec.dataset, launch, cell)
        image_size = spec.dataset.resolution
        images = _images(spec, launch, store, dataset, source, lambda pixels: fit(protocol, pixels, image_size))
    zca = _zca(protocol, split.train, record, meter)
    found = teacher_files.find_all(protocol, type(dataset), spec.dataset.split, image_size, spec.ipc)
    teacher = None if found is None else _teacher(found, spec, protocol, dataset, record.split_hash, device, meter)
    train = np.asarray(images.pixels)
    train_fits, test_fits, step_mib = _room(protocol, spec, len(dataset.class_ids), launch, train)
    with meter.phase("load data"):
        test = hold(
            _test_source(protocol, spec, launch, dataset, split.test),
            device,
            lambda pixels: fit(protocol, pixels, image_size, test=True),
            fits=test_fits,
        )

    def on_epoch(report: EpochReport) -> None:
        progress.update(epoch=report.epoch, epochs=report.epochs)
        if report.accuracy is not None:
            progress.update(accuracy=report.accuracy, looked_at_epoch=report.epoch)
        # Not with the looks alone, which may lie an hour apart: a checkpoint of each minute keeps what was trained, and
        # a cell that goes on from it would tell of less time than it took.
        meter.save(at_most_every_seconds=SAVE_SECONDS)

    with meter.phase("train"), _telling(step_mib):
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
            dataset=spec.dataset.name,
            device=device,
            teacher=teacher,
            soft_labels=_soft_labels(protocol, spec, launch, store),
            zca=zca,
            on_epoch=on_epoch,
            checkpoint=cell.path / "checkpoint.pt",
            stream=not train_fits,
            compile=launch.compile,
        )
    cell.require_lease()  # else these predictions would lie beside another process's result
    save_array(cell.path / PREDICTIONS, outcome.predictions)
    counts = np.bincount(images.labels, minlength=len(dataset.class_ids))
    labels = store.artefacts / "test-labels" / f"{record.content_hash[:16]}.npy"
    if not labels.exists():
        labels.parent.mkdir(parents=True, exist_ok=True)
        save_array(labels, split.test.labels)
    cost = meter.cost(
        batch_size=protocol.batch_size_for(len(dataset.class_ids), spec.ipc, spec.student),
        threads=plan.threads,
        oom_batch_sizes=outcome.oom_batch_sizes,
    )
    meter.save()
    looks = _shifted(spec, launch, protocol, type(dataset), outcome, device, progress, split.test, test)
    return EvaluateResult(
        **known,
        status="ok",
        dataset=record,
        prior=None if source is None else source.prior,
        image_set_sha256=images.sha256,
        teacher=None if found is None else found.record,
        environment={"determinism": outcome.determinism},
        metrics=Metrics.model_validate(outcome, from_attributes=True),
        subset=launch.subset,
        source=launch.source,
        soft_labels=launch.soft_labels,
        reading=launch.reading,
        test_images=launch.test_images,
        n_images=len(images.labels),
        image_bytes=images.image_bytes if isinstance(spec.images, ForeignImages) else None,
        images_per_class=(int(counts.min()), int(counts.max())),
        images_seen=outcome.images_seen,
        stored_label_bytes=protocol.stored_label_bytes(outcome.images_seen, len(dataset.class_ids)),
        shifted=looks,
        predictions=PREDICTIONS,
        cost=cost,
    )


def _shifted(
    spec: EvaluateSpec,
    launch: Launch,
    protocol: Protocol,
    dataset: type[Dataset],
    outcome: StudentResult,
    device: torch.device,
    progress: Progress,
    test: ImageSource,
    test_pixels: Pixels,
) -> list[ShiftedRecord]:
    """What the trained student does on the shifted test sets that were asked for; what it costs is not the cell's."""
    found = []
    for one in spec.test_on:
        folder = launch.test_data.get(one.name)
        progress.update(looking_at=one.name)
        progress.flush()  # what it said of the last epoch may be a moment old
        images = shifted.pixels_of(one, protocol, dataset, spec.dataset, launch.data_dir, folder)
        record = shifted.look_at(
            one, images, outcome.look, protocol, dataset, spec.dataset, folder, device, test, test_pixels
        )
        found.append(record)
    return found


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
    spec: EvaluateSpec,
    launch: Launch,
    store: Store,
    dataset: Dataset,
    source: DistillResult | None,
    fit: Callable[[np.ndarray], np.ndarray],
) -> ImageSet:
    """The distilled set at the protocol's side, checked against the hash that names it."""
    if isinstance(spec.images, ForeignImages):
        if launch.images is None:
            raise RunError("this cell trains on images made elsewhere, but its launch file names no folder")
        folder, expected = Path(launch.images), spec.images.image_set_sha256
    else:
        assert source is not None
        assert source.image_set_sha256 is not None
        folder, expected = store.set_dir(source.image_set_sha256), source.image_set_sha256
    images = read_set(
        folder, dataset.class_ids, dataset.channels, fit=fit, subset=launch.subset, reading=launch.reading
    )
    if images.sha256 != expected:
        raise RunError(
            f"the images in {folder} are not the ones that were distilled: expected SHA-256 {expected}, "
            f"found {images.sha256}. Remove that folder and run again to make them anew."
        )
    return images


def _soft_labels(protocol: Protocol, spec: EvaluateSpec, launch: Launch, store: Store) -> np.ndarray | None:
    """The set's own labels as `train_student` takes them, checked against the hash that names them; None under a
    protocol that does not train with them."""
    if protocol.stored is None:
        return None
    known = launch.soft_labels
    if not isinstance(spec.images, ForeignImages) or known is None or known.kind is None:
        raise RunError(f"protocol {protocol.label} trains with a set's own soft labels, and this cell was given none")
    file = store.soft_labels(known.sha256)
    try:
        labels = SoftLabels(np.load(file, allow_pickle=False), known.kind, known.label_bytes or 0, known.source)
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: the set's soft labels cannot be read ({error}); plan the run again") from error
    if labels.sha256 != spec.images.soft_labels_sha256:
        raise RunError(
            f"{file} holds other soft labels than this cell was planned with: expected SHA-256 "
            f"{spec.images.soft_labels_sha256}, found {labels.sha256}. Remove it and run again."
        )
    return labels.logits()


def _zca(protocol: Protocol, train: ImageSource, record: DatasetRecord, meter: Meter) -> whitening.Zca | None:
    if protocol.whitening is None:
        return None
    resolution = record.resolution
    with meter.phase("whitening"):
        return whitening.of_dataset(
            train,
            record.content_hash,
            protocol.image_size_for(resolution),
            protocol.whitening.epsilon,
            lambda pixels: fit(protocol, pixels, resolution),
        )


def _test_source(
    protocol: Protocol, spec: EvaluateSpec, launch: Launch, dataset: Dataset, test: ImageSource
) -> ImageSource:
    """The test images, at the side from which the protocol crops them where they can be had at it."""
    wanted = protocol.test_image_size_for(spec.dataset.resolution)
    if protocol.test_resize is None or wanted == spec.dataset.resolution:
        return test
    return dataset.test_at(spec.dataset.split, launch.data_dir, wanted) or test


def _room(
    protocol: Protocol, spec: EvaluateSpec, n_classes: int, launch: Launch, train: np.ndarray
) -> tuple[bool, Callable[[int], bool] | None, float | None]:
    """Whether the training images may lie on the device; what says it of so many bytes of test images beside them
    (None: they have no bound but that of any images); and the MiB of a step (None: not on a GPU)."""
    device = torch.device(launch.device)
    if device.type != "cuda":
        return True, None, None
    n, image_size, _, channels = train.shape
    batch_size = protocol.images_at_once(n, n_classes, spec.ipc, spec.student)

    def unused(network: str, width: int | None) -> nn.Module:
        generator = seeds.stream(0, "memory")  # of weights that nothing is computed with
        return networks.build(network, n_classes, image_size, channels, width, generator).to("meta")

    members = protocol.teachers_for(spec.dataset.name, spec.ipc)
    # They label one after another, so what a step needs is what the largest needs: of their outputs none is large.
    teacher = nn.ModuleList(unused(member.network, None).eval() for member in members) if members else None
    shape = batch_size, channels, image_size, image_size
    averaged = protocol.weight_average is not None
    step = memory.step_bytes(unused(spec.student, protocol.width), shape, teacher, running_mean=averaged)
    free_bytes, all_bytes = torch.cuda.mem_get_info(device)
    free_bytes = min(free_bytes, all_bytes // launch.cells_at_once)  # neighbours that begin now see it as free too
    room_for = partial(memory.resident, free_bytes, step, train.nbytes)
    return room_for(0)[0], lambda test_bytes: room_for(test_bytes)[1], step / MIB


@contextmanager
def _telling(step_mib: float | None) -> Iterator[None]:
    """Say what a step needs, where GPU memory runs out all the same."""
    try:
        yield
    except RuntimeError as error:
        if step_mib is None or not memory_ran_out(error):
            raise
        said = str(error).partition("\n")[0].rstrip(".")
        raise torch.OutOfMemoryError(f"{said}. A step needs about {step_mib:,.0f} MiB beside all images.") from error


def _teacher(
    found: teacher_files.FoundTeachers,
    spec: EvaluateSpec,
    protocol: Protocol,
    dataset: Dataset,
    split_hash: str,
    device: torch.device,
    meter: Meter,
) -> nn.Module:
    """Raises RunError if it is not the one that the cell was planned with."""
    if found.record.sha256 != spec.teacher_sha256:
        raise RunError(
            f"the teacher of {spec.dataset.name} has changed since this cell was planned: expected SHA-256 "
            f"{spec.teacher_sha256}, found {found.record.sha256}. Plan the run again."
        )
    for teacher in found.members:
        teacher_files.check_split(teacher, split_hash, spec.dataset.name)
    with meter.phase("load teacher"):
        image_size = protocol.image_size_for(spec.dataset.resolution)
        return teachers.load_all(found, dataset.class_ids, protocol, image_size, device)
