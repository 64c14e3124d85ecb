"""The classifier through which a method looks at real images: trained on them by a recipe, read from a user's
file, or come trained on all of ImageNet-1K.

Legend: N images, C channels, S side in pixels, K classes, F features.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.datasets.base import ImageSource
from ddbench.methods.base import DistillTask
from ddbench.methods.classifier import penultimate
from ddbench.methods.normalisation import Normalisation, unit_range
from ddbench.methods.observer_params import ObserverParams


class Observer(Protocol):
    """What a method needs of a classifier; a `TrainedClassifier` is one."""

    sha256: str
    """Names in artefact keys what it says of images: its weights, and normalisation and network, if they may be
    had with others."""

    def network(self) -> nn.Module:
        """In evaluation mode; it takes normalised images (N, C, S, S) and gives logits (N, K)."""

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] -> what the network takes."""

    def features(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] -> (N, F), what the last linear layer takes."""


def observer(task: DistillTask, params: ObserverParams, class_ids: Sequence[str] | None = None) -> Observer:
    """The classifier that `params` describe, at the side of `task.train`.

    Args:
        class_ids: of one that comes trained, the classes that it is to tell apart; None: the task's.

    Raises:
        UsageError: the checkpoint is not one of this network for these classes, or the weights are not installed.
        RunError: they are not the ones that the run was planned with.
    """
    image_size = image_size_of(task.train)
    if params.comes_trained:
        return task.pretrained_classifier(params.network, image_size, params.checkpoint_sha256, class_ids)
    if params.checkpoint is None:
        return task.trained_classifier(params.recipe(image_size))
    return CheckpointObserver(task, params, image_size)


class CheckpointObserver:
    """A classifier whose weights come from a user's file."""

    def __init__(self, task: DistillTask, params: ObserverParams, image_size: int) -> None:
        path, expected = Path(str(params.checkpoint)), params.checkpoint_sha256
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"checkpoint {path} cannot be read: {error.strerror}") from error
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise RunError(
                f"checkpoint {path} has SHA-256 {found}, but the run was planned with {expected}: put that file back, "
                "or plan the run again"
            )
        # One file may be named twice, with two normalisations or for two networks whose weights have the same names and
        # shapes (another stem, another padding), and says other things of the same images then.
        self.sha256 = hashlib.sha256(f"{found} {params.normalisation} {params.network}".encode()).hexdigest()
        self._network = task.network(params.network, image_size, "checkpoint").eval().requires_grad_(False)
        state = _state_dict(path, data)
        own = self._network.state_dict()
        wrong = [name for name, tensor in state.items() if name not in own or own[name].shape != tensor.shape]
        missing = sorted(own.keys() - state.keys())
        if wrong or missing:
            raise UsageError(
                f"checkpoint {path} does not hold {params.network} for {len(task.class_ids)} classes at {image_size} px"
                + ": "
                + "; ".join(
                    f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                    for what, names in (("unknown or of another shape:", wrong), ("missing:", missing))
                    if names
                )
            )
        self._network.load_state_dict(state)
        self._normalisation = Normalisation(params.normalisation, task.device)

    def network(self) -> nn.Module:
        return self._network

    def normalise(self, images: Tensor) -> Tensor:
        return self._normalisation(images)

    def features(self, images: Tensor) -> Tensor:
        return penultimate(self._network, self.normalise(images))


def _state_dict(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"checkpoint {path} holds more than tensors, which is not loaded since it could run code; save its state "
            "dict alone"
        ) from error
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UsageError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"checkpoint {path}: expected a state dict (name -> tensor), got {type(state).__name__}")
    return state


def image_size_of(source: ImageSource) -> int:
    """S of its images."""
    return source.read([0]).shape[1]


def class_features(task: DistillTask, seen_by: Observer, class_index: int) -> np.ndarray:
    """Features of all training images of one class, not augmented, in the source's order: (N, F) float32.

    Made once for the classifier's weights, whichever methods, seeds and IPC ask for them.
    """

    def make() -> dict[str, np.ndarray]:
        indices = task.train.of_class(class_index)
        blocks = []
        for start in range(0, len(indices), task.batch_size):
            task.progress(f"features of class {task.class_ids[class_index]}: {start} of {len(indices)} images")
            images = unit_range(task.train.read(indices[start : start + task.batch_size]), task.device)
            with torch.no_grad():
                blocks.append(seen_by.features(images).float().cpu().numpy())
        return {"features": np.concatenate(blocks)}

    key = {
        "train": task.train_hash,
        "class_id": task.class_ids[class_index],
        "classifier": seen_by.sha256,
        "device": task.device.type,
    }
    return task.cache.arrays("features", key, make)["features"]
