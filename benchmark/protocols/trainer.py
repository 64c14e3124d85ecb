"""The one trainer of every protocol: a student from scratch on a distilled set, tested on images it never saw.

Shapes: N training images, M test images, S side in pixels, C channels, K classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark import seeds
from ddbench.benchmark.errors import RunError
from ddbench.benchmark.protocols import augmentation, networks
from ddbench.benchmark.protocols.base import AdamW, Protocol, Sgd
from ddbench.benchmark.result import Look
from ddbench.benchmark.store import write_atomically

TEST_BATCH = 128
"""Images per forward pass of a test. It changes no result beyond float error, so it is no part of a protocol."""


@dataclass(frozen=True)
class EpochReport:
    """What a live view may show after an epoch."""

    epoch: int
    epochs: int
    train_loss: float
    accuracy: float | None
    """Percent; None after an epoch without a look at the test set."""


@dataclass(frozen=True)
class StudentResult:
    """What one student gives. Accuracies are percent of the test images."""

    acc_last: float
    """Top-1 after the last epoch."""
    acc_best: float
    """Best top-1 of all looks: it chooses by the test set, so it is only for comparison with papers that do."""
    top5_last: float | None
    """None below six classes, where it is always 100."""
    curve: tuple[Look, ...]
    predictions: np.ndarray
    """(M,) uint16 top-1 classes after the last epoch."""
    epochs: int
    steps: int
    train_seconds: float
    """Summed over attempts, like `test_seconds`."""
    test_seconds: float


def train_student(
    protocol: Protocol,
    student: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    num_classes: int,
    ipc: int | None,
    seed: int,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[EpochReport], None] | None = None,
    checkpoint: Path | None = None,
) -> StudentResult:
    """Train one student under `protocol` and test it.

    Every random draw (initial weights, order, augmentation, CutMix) comes from a stream named by `seed` and the epoch,
    so a training that was interrupted ends as it would have: on one CPU and number of threads, bit for bit; on a GPU up
    to the order in which its kernels add.

    Args:
        train_images: (N, S, S, C) uint8 at the protocol's side (`images.fit`).
        train_labels: (N,) class indices.
        test_images: (M, S, S, C) uint8.
        test_labels: (M,) class indices.
        num_classes: K; it decides the recipe where a protocol has another one beyond 100 classes.
        ipc: images per class, which decides the epochs; None: the whole training split.
        seed: the student's.
        on_epoch: called after every epoch.
        checkpoint: a file that holds the state at the last look; a training that was killed goes on from it and ends
            with the same result. It is left in place, for the caller to delete once the result is safe.

    Raises:
        UsageError: a student that the protocol does not train, or that cannot work at this side.
        ValueError: arrays that do not fit the protocol or each other.
        RunError: a loss that is not finite; a checkpoint of another training, or one that cannot be read.
        OSError: a checkpoint that cannot be written.
    """
    side, channels = _check_arrays(protocol, train_images, train_labels, test_images, test_labels, num_classes)
    protocol.check_student(student, side)
    device = torch.device(device)
    epochs = protocol.epochs_for(ipc, num_classes)
    batch_size = protocol.batch_size_for(num_classes)
    recipe = protocol.optimiser_for(num_classes)

    # Instance norm wants contiguous maps: on a GPU its kernel would copy channels_last maps back at every layer.
    network = networks.build(
        student, num_classes, side, channels, protocol.width, seeds.stream(seed, "student-init")
    ).to(device)
    optimiser = _optimiser(recipe, network, device)
    rates = protocol.schedule.learning_rates(recipe.learning_rate, epochs)
    looks = set(protocol.look_epochs(epochs))
    images = torch.from_numpy(np.ascontiguousarray(train_images.transpose(0, 3, 1, 2))).to(device)
    labels = torch.from_numpy(train_labels.astype(np.int64)).to(device)
    augment = augmentation.build(protocol, device)
    normalise = augmentation.Normalise(protocol.mean, protocol.std, device)

    progress = _Progress()
    saved: _Checkpoint | None = None
    if checkpoint is not None:
        training = [protocol.hash, student, num_classes, epochs, seed, device.type]
        fingerprint = _fingerprint(training, train_images, train_labels, test_images, test_labels)
        saved = _Checkpoint(checkpoint, fingerprint, network, optimiser)
        progress = saved.load()

    outputs: np.ndarray | None = None
    with _arithmetic(protocol):
        for epoch in range(progress.epoch + 1, epochs + 1):
            began = time.perf_counter()
            for group in optimiser.param_groups:
                group["lr"] = rates[epoch - 1]
            train_loss = _train_epoch(
                network,
                optimiser,
                images,
                labels,
                augment,
                protocol.cutmix,
                batch_size=batch_size,
                seed=seed,
                epoch=epoch,
            )
            trained = time.perf_counter()
            progress.train_seconds += trained - began
            progress.epoch = epoch
            accuracy = None
            if epoch in looks:
                outputs = _top_classes(network, normalise, test_images, device)
                progress.test_seconds += time.perf_counter() - trained
                accuracy = _percent(outputs[:, 0] == test_labels)
                progress.curve.append(Look(epoch=epoch, accuracy=accuracy, train_loss=train_loss))
                if saved is not None:
                    saved.save(progress)
            if on_epoch is not None:
                on_epoch(EpochReport(epoch, epochs, train_loss, accuracy))
        if outputs is None:
            outputs = _top_classes(network, normalise, test_images, device)

    return StudentResult(
        acc_last=progress.curve[-1].accuracy,
        acc_best=max(look.accuracy for look in progress.curve),
        top5_last=_percent((outputs == test_labels[:, None]).any(1)) if num_classes > 5 else None,
        curve=tuple(progress.curve),
        predictions=outputs[:, 0].astype(np.uint16),
        epochs=epochs,
        steps=epochs * math.ceil(len(train_images) / batch_size),
        train_seconds=progress.train_seconds,
        test_seconds=progress.test_seconds,
    )


def _train_epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    augment: augmentation.Augmentation,
    cutmix: bool,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
) -> float:
    """One pass over the reshuffled images, last partial batch included. Returns the mean loss of an image."""
    n, side, device = len(images), images.shape[-1], images.device
    order = torch.randperm(n, generator=seeds.stream(seed, "shuffle", epoch)).to(device)
    rows = augment.draw(n, side, seeds.stream(seed, "augment", epoch)).to(device)
    cuts = seeds.stream(seed, "cutmix", epoch)
    sizes = [len(batch) for batch in order.split(batch_size)]
    losses = torch.empty(len(sizes), device=device)
    network.train()
    for step, (batch, batch_rows) in enumerate(zip(order.split(batch_size), rows.split(batch_size), strict=True)):
        x, y = augment.apply(images[batch], batch_rows), labels[batch]
        if cutmix:
            cut = augmentation.draw_cut(len(batch), side, cuts)
            logits = network(cut.apply(x))
            own = cut.own_share(side)
            loss = own * F.cross_entropy(logits, y) + (1 - own) * F.cross_entropy(logits, y[cut.partners.to(device)])
        else:
            loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[step] = loss.detach()
    # Looked at once an epoch: a look at every step would make a GPU wait for the host.
    values = losses.tolist()
    for step, value in enumerate(values, start=1):
        if not math.isfinite(value):
            raise RunError(
                f"the student's training loss became {value} at step {step} of {len(values)} in epoch {epoch} "
                f"(learning rate {optimiser.param_groups[0]['lr']:g}). Look at the training images; if the protocol is "
                "overridden, lower learning_rate."
            )
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / n


@torch.inference_mode()
def _top_classes(
    network: nn.Module, normalise: augmentation.Normalise, images: np.ndarray, device: torch.device
) -> np.ndarray:
    """(M, min(5, K)) class indices by falling logit, in evaluation mode."""
    network.eval()
    top = []
    for start in range(0, len(images), TEST_BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + TEST_BATCH].transpose(0, 3, 1, 2)))
        logits = network(normalise(pixels.to(device)))
        top.append(logits.topk(min(5, logits.shape[1]), dim=1).indices)
    return torch.cat(top).cpu().numpy()


def _optimiser(recipe: Sgd | AdamW, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    fused = device.type in ("cpu", "cuda")
    decay, rate = recipe.weight_decay, recipe.learning_rate
    if isinstance(recipe, AdamW):
        return torch.optim.AdamW(network.parameters(), lr=rate, betas=recipe.betas, weight_decay=decay, fused=fused)
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=fused)


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


@dataclass(frozen=True)
class _Checkpoint:
    """The state of one training in one file, written whole or not at all.

    No generator is in it: an epoch's streams are named by the epoch.
    """

    file: Path
    fingerprint: str
    network: nn.Module
    optimiser: torch.optim.Optimizer

    def save(self, progress: _Progress) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
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
                return _Progress(**{**progress, "curve": [Look(**look) for look in progress["curve"]]})
        except Exception as error:
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


def _check_arrays(
    protocol: Protocol,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
) -> tuple[int, int]:
    """Side and channels of the images."""
    for part, images, labels in (("training", train_images, train_labels), ("test", test_images, test_labels)):
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(f"expected {part} images (N, S, S, C) uint8, got {images.dtype} of shape {images.shape}")
        side, channels = protocol.side_for(train_images.shape[1]), protocol.channels or train_images.shape[3]
        if images.shape[1:] != (side, side, channels):
            raise ValueError(
                f"protocol {protocol.label} works on {part} images of {side}×{side}×{channels}, got "
                f"{'×'.join(map(str, images.shape[1:]))}; bring them there with images.fit"
            )
        if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"expected {len(images)} {part} labels in 0 … {num_classes - 1}, got shape {labels.shape}, "
                f"from {labels.min(initial=0)} to {labels.max(initial=0)}"
            )
    return side, channels


def _percent(hits: np.ndarray) -> float:
    return 100 * int(hits.sum()) / hits.size
