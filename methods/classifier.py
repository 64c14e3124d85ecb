"""Classifiers as methods see them: what to train, and what comes back from `task.trained_classifier`.

Legend: N images, C channels, S side in pixels, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


Optimiser = Literal["sgd", "adamw"]
Augmentation = Literal["crop-colour", "affine", "none"]
"""Augmentation of the training images: the hard protocols', the one of `quick`, or none."""
Network = Literal["resnet_ap10", "resnet18", "convnet3", "convnet6", "resnet18_bn", "resnet50_bn", "resnet101_bn"]
"""Networks that methods may train on real images."""
TIMM = "timm:"
"""How the names begin of timm's networks, where a method takes those too."""
ObserverNetwork = Literal[Network, "efficientnet_lite0"]
"""Networks through which methods look at real images: those, and the ones that come trained (`pretrained.py`)."""
Normalisation = Literal["imagenet", "half"]
"""Mean and std of pixels: ImageNet's by channel, or 0.5 and 0.5."""
ObserverNormalisation = Literal[Normalisation, "efficientnet-lite"]
"""Those, or (x - 127) / 128 of x in 0 … 255."""


class ClassifierRecipe(BaseModel):
    """How a classifier is trained on the real training images: all that its weights depend on besides those images.

    Equal recipes on equal images give one artefact, whichever methods and cells ask for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    network: str
    """Name of the network, one of `bench list networks`."""
    image_size: int = Field(ge=8)
    """Side in pixels of the images that it sees."""
    epochs: int = Field(ge=0)
    """Epochs of training; 0: random weights, as they were drawn."""
    optimiser: Optimiser = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["constant", "multistep", "cosine"] = "multistep"
    """Course of the learning rate: constant; ×0.2 at 2E//3 and 5E//6; or to zero along half a cosine."""
    batch_size: int = Field(default=64, ge=1)
    augmentation: Augmentation = "crop-colour"
    cutmix: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    keep_epochs: tuple[int, ...] = ()
    """Epochs after which the weights are kept besides the last; 0: as they were drawn."""
    seed: int = 0
    records_dynamics: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the training is recorded (`TrainedClassifier.dynamics`); it then sees the validation part too, since
    every image needs its score. Left out of the JSON, as the next, where it is not."""
    early_epochs: int = Field(default=10, ge=1, exclude_if=lambda value: value == 10)
    """Epochs from the first that count for EL2N."""


class TrainedClassifier(Protocol):
    """A classifier trained by a recipe, on the task's device; its parameters take no gradient unless asked to."""

    recipe: ClassifierRecipe
    sha256: str
    """Names it in artefact keys: SHA-256 of its weights; untrained, of its normalisation too."""
    validation_accuracy: float | None
    """Accuracy in percent on the validation part, which it did not see; None: the classes are too small for one, or it
    is untrained."""

    dynamics: Mapping[str, np.ndarray]
    """Of a recipe that records them: `el2n`, `aum`, `forgetting` -> (N,) float32, in the order of `task.train`; else
    empty."""

    def network(self, epoch: int | None = None) -> nn.Module:
        """The network in evaluation mode with the weights after `epoch` (one of `keep_epochs`; None: the last).

        It takes normalised images.
        """

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] -> what the network takes; differentiable."""

    def logits(self, images: Tensor, epoch: int | None = None) -> Tensor:
        """(N, C, S, S) in [0, 1] -> (N, K); differentiable with respect to the images."""

    def features(self, images: Tensor, epoch: int | None = None) -> Tensor:
        """(N, C, S, S) in [0, 1] -> (N, F), what the last linear layer takes."""


def penultimate(network: nn.Module, x: Tensor) -> Tensor:
    """(N, F): what the network's last linear layer takes for input `x`; differentiable."""
    with penultimate_seen(network) as seen:
        network(x)
    return seen[-1]


@contextmanager
def penultimate_seen(network: nn.Module) -> Iterator[list[Tensor]]:
    """While it is open, each forward pass adds to the list what the last linear layer takes, (N, F)."""
    from torch import nn

    linear: Sequence[nn.Linear] = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(network).__name__} has no linear layer, so it has no penultimate features")
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
