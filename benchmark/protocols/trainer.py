"""The one trainer of every protocol: a student from scratch on a distilled set, tested on images it never saw.

Shapes: N training images, M test images, S side in pixels, C channels, K classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddbench.benchmark.core import environment, seeds
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import write_atomically
from ddbench.benchmark.core.gpu_errors import memory_ran_out
from ddbench.benchmark.core.result import Look
from ddbench.benchmark.core.spec import Compile
from ddbench.benchmark.protocols import augmentation, networks
from ddbench.benchmark.protocols.base import Cosine, Protocol
from ddbench.benchmark.protocols.compiled import Call, Forward, as_decided, calls_of, decide
from ddbench.benchmark.protocols.epoch import (
    EpochLosses,
    KlToStored,
    Loss,
    MicroBatches,
    SoftLabels,
    batches_of_test,
    build_optimiser,
    cross_entropy,
    to_device,
    top_classes,
    train_epoch,
)
from ddbench.benchmark.protocols.passes import Passes
from ddbench.benchmark.protocols.pixels import Pixels, Resident, Streamed
from ddbench.benchmark.protocols.soft.averaging import RunningMean
from ddbench.benchmark.protocols.soft.outputs import SquaredErrors
from ddbench.datasets.base import ArraySource
from ddbench.datasets.whitening import Zca

CHECKPOINT_SECONDS = "DDBENCH_CHECKPOINT_SECONDS"
"""Environment variable: seconds between two saves of a training's state; 0: after every epoch."""


@dataclass(frozen=True)
class EpochReport:
    """What a live view may show after an epoch."""

    epoch: int
    epochs: int
    train_loss: float
    accuracy: float | None
    """Top-1, percent; None after an epoch without a look at the test set."""


@dataclass(frozen=True)
class StudentResult:
    """What one student gives. Accuracies are percent of the test images."""

    acc_last: float
    """Top-1 after the last epoch, percent."""
    acc_best: float
    """Best top-1 of all looks, percent: it chooses by the test set, so it is only for comparison with papers that
    do."""
    top5_last: float | None
    """Top-5 after the last epoch, percent; None below six classes, where it is always 100."""
    curve: tuple[Look, ...]
    predictions: np.ndarray
    """Top-1 classes of the test images after the last epoch, (M,) uint16."""
    epochs: int
    steps: int
    """Steps of the optimiser, over all epochs."""
    images_seen: int
    """Images that it was trained on, each as often as it passed."""
    train_seconds: float
    """Seconds of training, summed over attempts, like `test_seconds`."""
    test_seconds: float
    oom_batch_sizes: tuple[int, ...]
    """Images of a batch that passed through the network at once when GPU memory ran out, in this attempt; half of them
    did from then on."""
    look: Callable[[Pixels, int], np.ndarray] = field(repr=False, compare=False)
    """(M', S, S, C) other test images, n -> (M', n) classes by falling logit: `top_classes` of the trained network."""
    determinism: dict[str, Any] | None
    """`environment.determinism` while it trained, and which calls of the network were `compiled`."""


def train_student(
    protocol: Protocol,
    student: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray | Pixels,
    test_labels: np.ndarray,
    *,
    num_classes: int,
    ipc: int | None,
    seed: int,
    dataset: str | None = None,
    device: torch.device | str = "cpu",
    teacher: nn.Module | None = None,
    soft_labels: np.ndarray | None = None,
    zca: Zca | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    checkpoint: Path | None = None,
    stream: bool = False,
    compile: Compile = "never",
) -> StudentResult:
    """Train one student under `protocol` and test it.

    Every random draw (initial weights, order, augmentation, CutMix) comes from a stream named by `seed` and the epoch,
    so a training that was interrupted ends as it would have: on one CPU and number of threads, bit for bit; on a GPU up
    to the order in which its kernels add.

    Args:
        train_images: (N, S, S, C) uint8 at the protocol's side, or float32 where 255 is white (`images.fit`).
        train_labels: (N,) class indices.
        test_images: (M, S, S, C) uint8, or what reads them.
        test_labels: (M,) class indices.
        num_classes: K; it decides the recipe where a protocol has another one beyond 100 classes.
        ipc: images per class, which decides the epochs; None: the whole training split.
        seed: the student's.
        dataset: its name, for protocols with rates of cells.
        teacher: on the device, in evaluation mode; for protocols with a teacher, and for no others. A committee is one
            network too (`soft.outputs.CommitteeOutput`).
        soft_labels: (N, K) logits, or logarithms of probabilities; for protocols with stored labels, and for no others.
        zca: that of the dataset's training images; for protocols that whiten, and for no others.
        on_epoch: called after every epoch; on a GPU up to an epoch late, but for those with a look or a checkpoint.
        checkpoint: a file that holds the state after an epoch, of once a minute (`checkpoint_seconds`); a training that
            was killed goes on from it and ends with the same result. It is left in place, for the caller to delete once
            the result is safe.
        stream: bring the training images to the device batch by batch, where together they do not fit beside a step
            (`memory.resident`). The result is the same.
        compile: whether the network goes through `torch.compile`, which rounds in other places; a training that was
            killed keeps to what it began with.

    Raises:
        UsageError: a student that the protocol does not train, or that cannot work at this side; a variable
            $DDBENCH_CHECKPOINT_SECONDS that is no number.
        ValueError: arrays that do not fit the protocol or each other; a teacher or a whitening where none belongs, or
            none.
        torch.OutOfMemoryError: GPU memory ran out, and the student cannot take its batch in parts (`MicroBatches`), or
            not even one image fits; `gpu_errors` lists its other names.
        RunError: a loss that is not finite; a checkpoint of another training, or one that cannot be read.
        OSError: a checkpoint that cannot be written.
    """
    device = torch.device(device)
    batch_size = protocol.batch_size_for(num_classes, ipc, student)
    augment = augmentation.build(protocol, device, dataset, batch_size, zca)
    host_or_device = torch.device("cpu") if augment.on_host else device
    train = _on(host_or_device, _checked(train_images, "training"), stream=stream)
    test = _on(device, _checked(test_images, "test"))
    _check(protocol, train, train_labels, test, test_labels, num_classes)
    protocol.check_student(student, train.image_size)
    epochs = protocol.epochs_for(ipc, num_classes)
    recipe = protocol.optimiser_for(num_classes, student)

    init = seeds.stream(seed, "student-init")
    network = networks.build(student, num_classes, train.image_size, train.channels, protocol.width, init)
    network = to_device(network, device)
    optimiser = build_optimiser(recipe, network, device)
    rate = protocol.rate_of(dataset, student, ipc)
    schedule = protocol.schedule if rate is None else Cosine(stretch=rate.stretch)
    initial = recipe.learning_rate if rate is None else rate.learning_rate
    passes = Passes(protocol, len(train), epochs, batch_size, initial, schedule, partial(seeds.stream, seed))
    looks = set(protocol.look_epochs(epochs, full=ipc is None))
    labels = _targets(protocol, train_labels, soft_labels).to(device)
    normalise = augmentation.normalise_of(protocol, device, dataset, zca)
    batches = passes.batches(network)
    loss_of = _loss(protocol, teacher)
    average = None if protocol.weight_average is None else RunningMean(network, protocol.weight_average)

    progress = _Progress()
    saved: _Checkpoint | None = None
    save_seconds, saved_at = checkpoint_seconds(), time.monotonic()
    if checkpoint is not None:
        training = [protocol.hash, student, num_classes, epochs, seed, device.type]
        arrays = [train_images, train_labels, test_images, test_labels, soft_labels, zca and zca.matrix]
        fingerprint = _fingerprint(training, *(array for array in arrays if isinstance(array, np.ndarray)))
        saved = _Checkpoint(checkpoint, fingerprint, network, optimiser, average)
        progress = saved.load()

    micro_batches = MicroBatches(protocol.images_at_once(len(train), num_classes, ipc, student))
    outputs: np.ndarray | None = None
    unread: list[tuple[int, EpochLosses]] = []
    with _arithmetic(protocol):
        # A running mean is another network than the one that trains, and is tested as it is.
        calls = calls_of(batches, epochs, batches_of_test(test, device) if average is None else [], len(looks))
        forward = _forward(network, compile, calls, (train.channels, *train.shape[1:3]), progress, saved)
        determinism = {**(environment.determinism() or {}), **forward.arithmetic}

        def look_at(pixels: Pixels, most: int = 5) -> np.ndarray:
            if average is not None:
                return top_classes(average.tested(), normalise, pixels, most)
            return top_classes(network, normalise, pixels, most, forward)

        for epoch in range(progress.epoch + 1, epochs + 1):
            began = time.perf_counter()
            if passes.restarts(epoch):
                optimiser.state.clear()
            losses = train_epoch(
                network,
                optimiser,
                train,
                labels,
                augment,
                loss_of,
                cutmix=protocol.cutmix,
                batch_size=batch_size,
                streams=passes.streams,
                epoch=epoch,
                order=passes.order(epoch),
                rates=passes.rates(epoch, len(batches)),
                batchnorm_parts=protocol.parts_for(student),
                second_pass=bool(protocol.second_pass),
                look_at=_suspects(protocol),
                micro_batches=micro_batches,
                forward=forward,
                after_step=None if average is None else average.after_step,
            )
            saving = saved is not None and time.monotonic() - saved_at >= save_seconds
            # A GPU gets the next epoch's work before its host reads this one's losses, but where the host waits anyway.
            unread.append((epoch, losses))
            due = len(unread) - (device.type == "cuda" and epoch not in looks and not saving)
            read = [(done, of_epoch.mean()) for done, of_epoch in unread[:due]]
            del unread[:due]
            trained = time.perf_counter()
            progress.train_seconds += trained - began
            progress.epoch = epoch
            accuracy = None
            if epoch in looks:
                outputs = look_at(test)
                progress.test_seconds += time.perf_counter() - trained
                accuracy = _percent(outputs[:, 0] == test_labels)
                progress.curve.append(Look(epoch=epoch, accuracy=accuracy, train_loss=read[-1][1]))
            if saved is not None and saving:
                saved.save(progress)
                saved_at = time.monotonic()
            if on_epoch is not None:
                for done, train_loss in read:
                    on_epoch(EpochReport(done, epochs, train_loss, accuracy if done == epoch else None))
        if outputs is None:
            outputs = look_at(test)

    def look(pixels: Pixels, most: int) -> np.ndarray:
        with _arithmetic(protocol):
            return look_at(pixels, most)

    return StudentResult(
        acc_last=progress.curve[-1].accuracy,
        acc_best=max(look.accuracy for look in progress.curve),
        top5_last=_percent((outputs == test_labels[:, None]).any(1)) if num_classes > 5 else None,
        curve=tuple(progress.curve),
        predictions=outputs[:, 0].astype(np.uint16),
        epochs=epochs,
        steps=passes.steps(len(batches)),
        images_seen=passes.images_seen(sum(batches)),
        train_seconds=progress.train_seconds,
        test_seconds=progress.test_seconds,
        oom_batch_sizes=tuple(micro_batches.too_large),
        look=look,
        determinism=determinism,
    )


def _forward(
    network: nn.Module,
    choice: Compile,
    calls: Mapping[Call, int],
    image_shape: tuple[int, int, int],
    progress: _Progress,
    saved: _Checkpoint | None,
) -> Forward:
    """The network as this training takes it: what is decided of a new one is saved before its first step."""
    began = time.perf_counter()
    if progress.epoch or progress.compiled is not None:
        forward = as_decided(network, [Call(bool(kind), size) for kind, size in progress.compiled or ()], image_shape)
        if forward.problem is not None:
            forward = replace(forward, problem=f"compiled up to epoch {progress.epoch}, then not: {forward.problem}")
    else:
        decided = decide(network, choice, calls, image_shape)
        if decided is None:
            return Forward(network)
        forward, progress.compiled = decided, [[int(call.training), call.images] for call in decided.calls]
        if saved is not None:
            saved.save(progress)
    if progress.compiled:
        progress.train_seconds += time.perf_counter() - began
    return forward


def checkpoint_seconds() -> float:
    """Seconds between two saves of a training's state: a minute, or what $DDBENCH_CHECKPOINT_SECONDS says.

    Raises:
        UsageError: it says no number.
    """
    said = os.environ.get(CHECKPOINT_SECONDS, "60")
    try:
        return float(said)
    except ValueError:
        raise UsageError(f"expected seconds in ${CHECKPOINT_SECONDS}, such as 60, got {said!r}") from None


@contextmanager
def _arithmetic(protocol: Protocol) -> Iterator[None]:
    """The protocol's precision flags, which PyTorch keeps for the whole process; restored on leaving."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    try:
        cudnn.allow_tf32, matmul.allow_tf32 = protocol.tf32_convolutions, protocol.tf32_matmul
        cudnn.benchmark = protocol.cudnn_benchmark
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


@dataclass
class _Progress:
    """How far a training is."""

    epoch: int = 0
    curve: list[Look] = field(default_factory=list)
    train_seconds: float = 0.0
    test_seconds: float = 0.0
    compiled: list[list[int]] | None = None
    """The calls of the network that are compiled; None: nothing was measured to decide it."""


@dataclass(frozen=True)
class _Checkpoint:
    """The state of one training in one file, written whole or not at all.

    No generator is in it: an epoch's streams are named by the epoch.
    """

    file: Path
    fingerprint: str
    network: nn.Module
    optimiser: torch.optim.Optimizer
    average: RunningMean | None = None

    def save(self, progress: _Progress) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **({} if self.average is None else {"average": self.average.state_dict()}),
            "progress": {**vars(progress), "curve": [look.model_dump() for look in progress.curve]},
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.file, buffer.getvalue())

    def load(self) -> _Progress:
        """Put network and optimiser into the saved state; without a file they stay as they are."""
        if not self.file.exists():
            return _Progress()
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            fingerprint, progress = state["fingerprint"], state["progress"]
            if fingerprint == self.fingerprint:
                self.network.load_state_dict(state["network"])
                self.optimiser.load_state_dict(state["optimiser"])
                if self.average is not None:
                    self.average.load_state_dict(state["average"])
                return _Progress(**{**progress, "curve": [Look(**look) for look in progress["curve"]]})
        except Exception as error:
            if memory_ran_out(error):  # on its way to the GPU: the file is whole
                raise
            raise RunError(
                f"checkpoint {self.file} cannot be read ({type(error).__name__}). "
                "Delete it to train this student from the start."
            ) from error
        raise RunError(
            f"checkpoint {self.file} belongs to another training: its protocol, student, seed or images are not those "
            "of this one. Delete it to train this student from the start."
        )


def _fingerprint(training: list[Any], *arrays: np.ndarray) -> str:
    """SHA-256 over everything that a training's result depends on."""
    digest = hashlib.sha256(json.dumps([*training, *([str(a.dtype), a.shape] for a in arrays)]).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _on(device: torch.device, images: np.ndarray | Pixels, *, stream: bool = False) -> Pixels:
    if isinstance(images, Pixels):
        return images
    if stream:
        return Streamed(ArraySource(images, np.zeros(len(images)), [""] * len(images)), device)
    return Resident(torch.from_numpy(images).to(device))


def _checked(images: np.ndarray | Pixels, part: str) -> np.ndarray | Pixels:
    kinds = (np.uint8, np.float32) if part == "training" else (np.uint8,)
    if isinstance(images, np.ndarray) and (images.dtype not in kinds or images.ndim != 4 or len(images) == 0):
        raise ValueError(f"expected {part} images (N, S, S, C) uint8, got {images.dtype} of shape {images.shape}")
    return images


def _check(
    protocol: Protocol,
    train: Pixels,
    train_labels: np.ndarray,
    test: Pixels,
    test_labels: np.ndarray,
    num_classes: int,
) -> None:
    image_size, channels = protocol.image_size_for(train.image_size), protocol.channels or train.channels
    for part, images, labels in (("training", train, train_labels), ("test", test, test_labels)):
        if images.shape[1:] != (image_size, image_size, channels):
            raise ValueError(
                f"protocol {protocol.label} works on {part} images of {image_size}×{image_size}×{channels}, got "
                f"{'×'.join(map(str, images.shape[1:]))}; bring them there with images.fit"
            )
        if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"expected {len(images)} {part} labels in 0 … {num_classes - 1}, got shape {labels.shape}, "
                f"from {labels.min(initial=0)} to {labels.max(initial=0)}"
            )


def _targets(protocol: Protocol, classes: np.ndarray, soft_labels: np.ndarray | None) -> Tensor:
    """(N,) classes, or (N, K) probabilities where the protocol has stored labels."""
    if (protocol.stored is None) != (soft_labels is None):
        raise ValueError(
            f"protocol {protocol.label} trains with {protocol.labels}: soft_labels were given, or were not"
        )
    if protocol.stored is None or soft_labels is None:
        return torch.from_numpy(classes.astype(np.int64))
    if soft_labels.ndim != 2 or len(soft_labels) != len(classes):
        raise ValueError(f"expected {len(classes)} rows of soft labels, got shape {soft_labels.shape}")
    logits = torch.from_numpy(soft_labels.astype(np.float64)) / protocol.stored.temperature
    return logits.softmax(1).float()


def _loss(protocol: Protocol, teacher: nn.Module | None) -> Loss:
    if (protocol.teacher is None) != (teacher is None):
        raise ValueError(
            f"protocol {protocol.label} trains with {protocol.labels}, and "
            f"{'no teacher' if teacher is None else 'a teacher'} was given"
        )
    if protocol.stored is not None:
        return KlToStored(protocol.stored.temperature)
    if protocol.teacher is None or teacher is None:
        return cross_entropy
    teacher.train(protocol.teacher.mode == "train")
    half = protocol.teacher.stored_bits == 16
    if protocol.teacher.temperature is None:
        return SquaredErrors(teacher, cross_entropy=protocol.cross_entropy_weight or 0.0, half=half)
    return SoftLabels(teacher, protocol.teacher.temperature, half=half)


def _suspects(protocol: Protocol) -> str:
    """What may be wrong where a loss is not finite."""
    if protocol.teacher is None or protocol.teacher.stored_bits is None:
        return "the training images"
    largest = torch.finfo(torch.half).max
    return (
        "the training images, and at the teacher: its outputs are rounded to half precision, which ends at "
        f"{largest:g}, and those of a teacher that has learnt next to nothing may be larger"
    )


def _percent(hits: np.ndarray) -> float:
    return 100 * int(hits.sum()) / hits.size
