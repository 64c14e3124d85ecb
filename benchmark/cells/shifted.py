"""Shifted test sets: their pixels made once, and a trained student looked at on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.result import ShiftedLook, ShiftedRecord
from ddbench.benchmark.core.spec import DatasetSpec, ShiftedSpec
from ddbench.benchmark.planning.shifted_sets import files_of
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.images import fit
from ddbench.benchmark.protocols.pixels import Pixels, hold
from ddbench.datasets.base import ArraySource, Dataset, ImageSource
from ddbench.datasets.file_dataset import Progress, silent
from ddbench.datasets.shifted import corruptions
from ddbench.datasets.shifted.catalogue import conditions, shifted_set
from ddbench.datasets.shifted.files import is_of_ilsvrc
from ddbench.datasets.shifted.pixels import ShiftedImages, corrupted, from_files


def pixels_of(
    spec: ShiftedSpec,
    protocol: Protocol,
    dataset: type[Dataset],
    where: DatasetSpec,
    data_dir: Path | None,
    folder: Path | None,
    *,
    jobs: int = 1,
    progress: Progress = silent,
) -> dict[str, ShiftedImages]:
    """The images of every condition, at the side from which the protocol takes its test images.

    Photographs are as the dataset's own test images. Corrupted images are 224 px, which is all that a student sees of
    the clean ones: no protocol crops them again.

    Args:
        folder: of its files; None: it is made here.
        jobs: processes that corrupt side by side.

    Raises:
        RunError: files that have changed since the cell was planned, or cannot be read.
        UsageError: files, or the package that corrupts, that are no longer there.
    """
    which, image_size = shifted_set(spec.name), kept_size(spec, protocol, where.resolution)
    if which.kind == "corrupted here":
        wanted, shown = protocol.test_image_size_for(where.resolution), protocol.image_size_for(where.resolution)
        crops = protocol.test_resize is not None
        at = round(corruptions.IMAGE_SIZE * wanted / shown) if crops else corruptions.IMAGE_SIZE
        test = dataset().test_at(where.split, data_dir, at, progress)
        assert test is not None
        made = conditions(spec.corruptions, spec.severities)
        return corrupted(test, made, image_size, progress=progress, jobs=jobs)
    assert folder is not None
    files = files_of(which, folder, dataset, where, data_dir, spec.corruptions, spec.severities)
    if files.sha256 != spec.sha256:
        raise RunError(
            f"the files of {spec.name} in {folder} have changed since this cell was planned: expected SHA-256 "
            f"{spec.sha256}, found {files.sha256}. Plan the run again."
        )
    return from_files(files, image_size, progress)


def kept_size(spec: ShiftedSpec, protocol: Protocol, resolution: int) -> int:
    """Side in pixels at which a set's images are kept, before the protocol's own resize."""
    if protocol.test_resize is None:
        return resolution
    cut_already = shifted_set(spec.name).corrupted
    return protocol.image_size_for(resolution) if cut_already else protocol.test_image_size_for(resolution)


def look_at(
    spec: ShiftedSpec,
    images: Mapping[str, ShiftedImages],
    look: Callable[[Pixels, int], np.ndarray],
    protocol: Protocol,
    dataset: type[Dataset],
    where: DatasetSpec,
    folder: Path | None,
    device: torch.device,
    test: ImageSource,
    test_pixels: Pixels,
) -> ShiftedRecord:
    """What a trained student says of a shifted test set, and of the dataset's own test images that it is held against.

    It chooses among the classes that the set has images of, as the authors of ImageNet-A and -R have it.

    Args:
        look: of the trained student (`StudentResult.look`).
        folder: of the set's files; None: it was made here.
        test: the dataset's own test images; `test_pixels` has them as the protocol tests on them.
    """
    began, which = time.perf_counter(), shifted_set(spec.name)
    shared = np.array([dataset.class_ids.index(class_id) for class_id in which.shared(dataset.class_ids)])
    most = len(dataset.class_ids) if len(shared) < len(dataset.class_ids) else 1
    looks, digest = list[ShiftedLook](), hashlib.sha256()

    def right(pixels: Pixels, labels: np.ndarray) -> np.ndarray:
        """(N,) whether the first of the shared classes is the image's own."""
        order = look(pixels, most)
        first = np.isin(order, shared).argmax(1)
        return np.asarray(np.take_along_axis(order, first[:, None], 1)[:, 0] == labels)

    def fitted(pixels: np.ndarray) -> np.ndarray:
        return fit(protocol, pixels, where.resolution, test=not which.corrupted)

    for condition, one in images.items():
        source = ArraySource(one.pixels, one.labels, [""] * len(one.labels))
        accuracy = 100 * float(right(hold(source, device, fitted), one.labels).mean())
        looks.append(ShiftedLook(condition=condition, accuracy=accuracy))
        digest.update(f"{condition} {one.sha256}\n".encode())
    beside = np.isin(test.labels, shared)
    if which.kind == "corrupted files":
        beside &= np.array([is_of_ilsvrc(name) for name in test.names])
    return ShiftedRecord(
        name=spec.name,
        accuracy=float(np.mean([one.accuracy for one in looks])),
        clean_accuracy=100 * float(right(test_pixels, test.labels)[beside].mean()),
        looks=looks,
        n_images=len(next(iter(images.values())).labels),
        n_classes=len(shared),
        sha256=spec.sha256,
        content_sha256=digest.hexdigest(),
        folder=None if folder is None else folder.name,
        made_by=corruptions.versions() if folder is None else {},
        image_size=kept_size(spec, protocol, where.resolution),
        seconds=round(time.perf_counter() - began, 3),
    )
