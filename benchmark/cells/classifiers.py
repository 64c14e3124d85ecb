"""Classifiers trained on real images by a recipe: the task's service for methods, and what teachers are trained with.

Legend: N images, C channels, S side in pixels, K classes, F features.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddbench.benchmark.cells.dynamics import Dynamics
from ddbench.benchmark.cells.pretrained import PretrainedClassifier
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import write_atomically
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.core.transfers import send
from ddbench.benchmark.protocols import augmentation, network_names, networks
from ddbench.benchmark.protocols.base import AdamW, MultiStep, Sgd
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd, quick
from ddbench.benchmark.protocols.epoch import (
    build_optimiser,
    cross_entropy,
    shuffled,
    to_device,
    top_classes,
    train_epoch,
)
from ddbench.benchmark.protocols.pixels import hold
from ddbench.benchmark.protocols.trainer import checkpoint_seconds
from ddbench.datasets.base import ImageSource, Subset
from ddbench.methods.base import DistillTask
from ddbench.methods.classifier import ClassifierRecipe, penultimate

ALGORITHM = 2
"""Version of this file's algorithm: part of an artefact's key, raised whenever the weights for a given recipe
change."""
VALIDATION_ACCURACY = "validation_accuracy"
DYNAMICS = "dynamics."
"""How the names of a recorded training's scores begin, among the arrays."""

AUGMENTATIONS = {
    "crop-colour": hard_minimax_sgd.PROTOCOL.augmentation,
    "affine": quick.PROTOCOL.augmentation,
    "none": None,
}

State = Mapping[str, np.ndarray]


class Classifier:
    """`TrainedClassifier` (methods/classifier.py) from the arrays that `train_classifier` gives.

    Args:
        arrays: `<epoch>.<name in the network's state>` and the accuracy.
        channels: of the dataset's images; greyscale is repeated where the network is for RGB.
    """

    def __init__(
        self,
        recipe: ClassifierRecipe,
        arrays: Mapping[str, np.ndarray],
        *,
        num_classes: int,
        channels: int,
        device: torch.device,
    ) -> None:
        self.recipe = recipe
        accuracy = float(np.ravel(arrays[VALIDATION_ACCURACY])[0])
        self.validation_accuracy = None if math.isnan(accuracy) else accuracy
        self._states = {
            epoch: {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{epoch}.")}
            for epoch in kept_epochs(recipe)
        }
        self.sha256 = weights_sha256({n: array for n, array in arrays.items() if n[:1].isdigit()})
        if not recipe.epochs:  # as they were drawn, weights are the same whatever the normalisation, or another's stem
            self.sha256 = digest([self.sha256, recipe.network, recipe.mean, recipe.std])
        recorded = {name: array for name, array in arrays.items() if name.startswith(DYNAMICS)}
        self.dynamics: Mapping[str, np.ndarray] = {n.removeprefix(DYNAMICS): a for n, a in recorded.items()}
        self._num_classes, self._channels, self._device = num_classes, input_channels(recipe, channels), device
        self._networks: dict[int, nn.Module] = {}
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] for values in (recipe.mean, recipe.std)
        )

    def network(self, epoch: int | None = None) -> nn.Module:
        """The network after `epoch`; the same object every time.

        Raises:
            ValueError: an epoch whose weights were not kept.
        """
        epoch = self.recipe.epochs if epoch is None else epoch
        if epoch not in self._states:
            raise ValueError(f"expected one of the epochs {sorted(self._states)} that the recipe keeps, got {epoch}")
        if epoch not in self._networks:
            network = networks.build(
                self.recipe.network,
                self._num_classes,
                self.recipe.image_size,
                self._channels,
                generator=torch.Generator(),
            )
            load_state(network, self._states[epoch])
            self._networks[epoch] = to_device(network, self._device).eval().requires_grad_(False)
        return self._networks[epoch]

    def normalise(self, images: Tensor) -> Tensor:
        return (images.expand(-1, self._channels, -1, -1) - self._mean) / self._std

    def logits(self, images: Tensor, epoch: int | None = None) -> Tensor:
        return self.network(epoch)(self.normalise(images))

    def features(self, images: Tensor, epoch: int | None = None) -> Tensor:
        return penultimate(self.network(epoch), self.normalise(images))


def with_classifiers(task: DistillTask, withheld: np.ndarray) -> DistillTask:
    """The task with its services `network`, `trained_classifier` and `pretrained_classifier`; the first two see no more
    than the task itself.

    Args:
        withheld: indices of the validation part in the task's training images; no classifier is trained on it.
    """
    services = _Classifiers(task, withheld)
    return replace(
        task,
        network=services.network,
        trained_classifier=services.trained_classifier,
        pretrained_classifier=services.pretrained_classifier,
    )


class _Classifiers:
    def __init__(self, task: DistillTask, withheld: np.ndarray) -> None:
        self.task, self.withheld = task, withheld
        self._trained: dict[ClassifierRecipe, Classifier] = {}

    @cached_property
    def _image_shape(self) -> tuple[int, ...]:
        return self.task.train.read([0]).shape[1:]

    def network(self, name: str, image_size: int, *key: seeds.Key) -> nn.Module:
        task, channels = self.task, self._image_shape[-1]
        generator = task.stream("network", name, *key)
        network = networks.build(name, len(task.class_ids), image_size, channels, generator=generator)
        # A method may ask for one at every step: the host does not wait for it to arrive.
        network.load_state_dict({n: send(t, task.device) for n, t in network.state_dict().items()}, assign=True)
        return to_device(network, task.device).train()

    def trained_classifier(self, recipe: ClassifierRecipe) -> Classifier:
        if recipe not in self._trained:
            self._trained[recipe] = self._train(recipe)
        return self._trained[recipe]

    def pretrained_classifier(
        self, name: str, image_size: int, sha256: str | None, class_ids: Sequence[str] | None = None
    ) -> PretrainedClassifier:
        return PretrainedClassifier(name, class_ids or self.task.class_ids, image_size, sha256, self.task.device)

    def _train(self, recipe: ClassifierRecipe) -> Classifier:
        task, num_classes, device = self.task, len(self.task.class_ids), self.task.device
        withheld = self.withheld[:0] if recipe.records_dynamics else self.withheld
        key = {
            "algorithm": ALGORITHM,
            "recipe": recipe.model_dump(mode="json"),
            "train": task.train_hash,
            "class_ids": digest(list(task.class_ids)),
            "withheld": digest(np.asarray(withheld).tolist()),
            "device": device.type,
        }

        def make() -> dict[str, np.ndarray]:
            here = self._image_shape[0] == recipe.image_size
            return train_classifier(
                recipe,
                task.train if here else task.train_at(recipe.image_size),
                withheld=withheld,
                num_classes=num_classes,
                device=device,
                progress=task.progress,
                checkpoint=task.scratch / f"classifier-{digest(key)[:16]}.pt",
            )

        arrays = task.cache.arrays("classifier", key, make)
        return Classifier(recipe, arrays, num_classes=num_classes, channels=self._image_shape[-1], device=device)


def train_classifier(
    recipe: ClassifierRecipe,
    source: ImageSource,
    *,
    withheld: np.ndarray,
    num_classes: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda note: None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    checkpoint: Path | None = None,
) -> dict[str, np.ndarray]:
    """Train on all images of `source` but the withheld ones, and test on those.

    Images are held on the device where they fit, else read batch by batch; on one CPU and number of threads, equal
    recipes and images give equal weights.

    Args:
        source: the training images at the recipe's side.
        withheld: indices of the validation part; empty: nothing is withheld, and no accuracy is measured.
        progress: takes a note at every step.
        on_epoch: called with (epochs done, mean training loss of an image).
        checkpoint: a file that holds the state now and then; a training that was killed goes on from it.

    Returns:
        `<epoch>.<name>`: the network's state after the last epoch and after each of `keep_epochs`, as arrays;
        `validation_accuracy`: percent, NaN where there is none; `dynamics.<score>`, of a recipe that records them: of
        each image of `source`, NaN for withheld ones.

    Raises:
        UsageError: a recipe that these images do not fit.
        RunError: a loss that is not finite.
    """
    _check(recipe, source)
    own_channels = source.read([0]).shape[-1]
    channels = input_channels(recipe, own_channels)

    def streams(purpose: str, *key: seeds.Key) -> torch.Generator:
        return seeds.stream(recipe.seed, "classifier", purpose, *key)

    def to_rgb(images: np.ndarray) -> np.ndarray:
        return np.repeat(images, 3, axis=-1)

    fit = to_rgb if channels > own_channels else None
    network = networks.build(recipe.network, num_classes, recipe.image_size, channels, generator=streams("init"))
    network = to_device(network, device)
    optimiser = build_optimiser(_optimiser(recipe), network, device)
    rates = _learning_rates(recipe)
    normalise = augmentation.Normalise(recipe.mean, recipe.std, device)
    augment = augmentation.make(AUGMENTATIONS[recipe.augmentation], normalise)
    trained_on = np.setdiff1d(np.arange(len(source)), withheld)
    dynamics = Dynamics(len(trained_on), recipe.early_epochs, device) if recipe.records_dynamics else None
    kept, begun = _resume(checkpoint, network, optimiser, dynamics)
    if begun == 0:
        kept[0] = _state(network)
    if begun < recipe.epochs:
        seen = Subset(source, trained_on)
        pixels = hold(seen, device, fit)
        labels = torch.from_numpy(seen.labels).to(device)
        save_seconds, saved = checkpoint_seconds(), time.monotonic()
        for epoch in range(begun + 1, recipe.epochs + 1):
            for group in optimiser.param_groups:
                group["lr"] = rates[epoch - 1]

            def note(step: int, steps: int, epoch: int = epoch) -> None:
                progress(f"classifier {recipe.network}: epoch {epoch} of {recipe.epochs}, step {step} of {steps}")

            order = shuffled(len(pixels), streams, epoch)
            forward = None if dynamics is None else dynamics.watched(network, send(order, device), labels, epoch)
            loss = train_epoch(
                network, optimiser, pixels, labels, augment, cross_entropy,
                cutmix=recipe.cutmix, batch_size=recipe.batch_size, streams=streams, epoch=epoch, order=order,
                what=f"the classifier {recipe.network}", forward=forward, after_step=note,
            ).mean()  # fmt: skip
            on_epoch(epoch, loss)
            if epoch in (recipe.epochs, *recipe.keep_epochs):
                kept[epoch] = _state(network)
            if checkpoint is not None and time.monotonic() - saved >= save_seconds:
                _save(checkpoint, epoch, network, optimiser, kept, dynamics)
                saved = time.monotonic()
    accuracy = math.nan
    if recipe.epochs and len(withheld):
        part = Subset(source, withheld)
        predicted = top_classes(network, normalise, hold(part, device, fit), most=1)[:, 0]
        accuracy = 100 * float(np.mean(predicted == part.labels))
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    arrays = {f"{epoch}.{name}": array for epoch in kept_epochs(recipe) for name, array in kept[epoch].items()}
    if dynamics is not None:
        for name, scores in dynamics.scores().items():
            arrays[f"{DYNAMICS}{name}"] = np.full(len(source), np.nan, np.float32)
            arrays[f"{DYNAMICS}{name}"][trained_on] = scores.numpy()
    return {**arrays, VALIDATION_ACCURACY: np.array([accuracy])}


def kept_epochs(recipe: ClassifierRecipe) -> list[int]:
    """The epochs whose weights are kept."""
    return sorted({*recipe.keep_epochs, recipe.epochs})


def input_channels(recipe: ClassifierRecipe, channels: int) -> int:
    """Channels that the network takes: the images' own, or RGB where the recipe normalises or augments RGB."""
    rgb = recipe.augmentation == "crop-colour" or 3 in (len(recipe.mean), len(recipe.std))
    return 3 if rgb else channels


def weights_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the names, types and values of arrays, whatever their order; shapes are the network's."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(f"{name} {arrays[name].dtype.str}\0".encode())
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


def load_state(network: nn.Module, state: State) -> None:
    """Put a network's state into it, strictly; caches may have made arrays of scalars."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    network.load_state_dict({n: t.reshape(shapes[n]) if n in shapes else t for n, t in tensors.items()})


def _state(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().contiguous().numpy().copy() for name, tensor in network.state_dict().items()}


def _check(recipe: ClassifierRecipe, source: ImageSource) -> None:
    shape = source.read([0]).shape
    if shape[1:3] != (recipe.image_size, recipe.image_size):
        raise UsageError(
            f"the classifier's recipe is for images of {recipe.image_size}×{recipe.image_size} pixels, "
            f"got {shape[1]}×{shape[2]}"
        )
    if network_names.find(recipe.network).comes_trained:
        raise UsageError(
            f"{recipe.network} comes trained and is not trained here; untrained it is {network_names.TIMM}"
            f"{network_names.find(recipe.network).layout}"
        )
    late = [epoch for epoch in recipe.keep_epochs if not 0 <= epoch <= recipe.epochs]
    if late:
        raise UsageError(f"a classifier trained for {recipe.epochs} epochs has no weights after epoch {late[0]}")
    channels = input_channels(recipe, shape[-1])
    if not {len(recipe.mean), len(recipe.std)} <= {1, channels}:
        raise UsageError(
            f"a classifier of images with {channels} channels needs 1 or {channels} values of mean and std, got "
            f"{len(recipe.mean)} and {len(recipe.std)}"
        )


def _optimiser(recipe: ClassifierRecipe) -> Sgd | AdamW:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return Sgd(learning_rate=rate, momentum=recipe.momentum, weight_decay=decay)
    return AdamW(learning_rate=rate, weight_decay=decay)


def _learning_rates(recipe: ClassifierRecipe) -> list[float]:
    rate, epochs = recipe.learning_rate, recipe.epochs
    match recipe.schedule:
        case "constant":
            return [rate] * epochs
        case "multistep":
            return MultiStep().learning_rates(rate, epochs)
        case "cosine":
            return [rate * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]


def _save(
    file: Path,
    epoch: int,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    kept: Mapping[int, State],
    dynamics: Dynamics | None,
) -> None:
    buffer = io.BytesIO()
    tensors = {e: {name: torch.from_numpy(array) for name, array in state.items()} for e, state in kept.items()}
    state = {"epoch": epoch, "network": network.state_dict(), "optimiser": optimiser.state_dict(), "kept": tensors}
    torch.save(state | ({} if dynamics is None else {"dynamics": dynamics.state()}), buffer)
    write_atomically(file, buffer.getvalue())


def _resume(
    file: Path | None, network: nn.Module, optimiser: torch.optim.Optimizer, dynamics: Dynamics | None
) -> tuple[dict[int, dict[str, np.ndarray]], int]:
    """(weights kept so far, epochs done) of a training that was killed; network and optimiser are put where it was."""
    if file is None or not file.exists():
        return {}, 0
    state = torch.load(file, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    if dynamics is not None:
        dynamics.load(state["dynamics"])
    kept = {e: {name: tensor.numpy() for name, tensor in tensors.items()} for e, tensors in state["kept"].items()}
    return kept, int(state["epoch"])
