"""Classifiers of ImageNet-1K that come trained (`methods/pretrained.py`), as networks of a dataset's own classes.

Legend: N images, S side in pixels, K classes of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.epoch import to_device
from ddbench.methods.classifier import ClassifierRecipe, penultimate
from ddbench.methods.pretrained import PRETRAINED, Pretrained

HEAD = ("classifier.weight", "classifier.bias")
"""The last layer of timm's EfficientNets."""


class PretrainedClassifier:
    """`TrainedClassifier` (methods/classifier.py) of one that comes trained.

    Its K logits are those of `class_ids` among its 1000: a softmax over them is what it says when it knows that no
    other class is meant.

    Args:
        class_ids: the classes to tell apart, in the order of the logits.
        planned_sha256: the weights that are expected.

    Raises:
        UsageError: not installed; a class that it does not know; images too small.
        RunError: other weights than the pinned or the expected ones.
    """

    validation_accuracy: float | None = None
    dynamics: Mapping[str, np.ndarray] = MappingProxyType({})

    def __init__(
        self, name: str, class_ids: Sequence[str], image_size: int, planned_sha256: str | None, device: torch.device
    ) -> None:
        known = PRETRAINED[name]
        if planned_sha256 != known.sha256:
            raise RunError(
                f"this was planned with other weights of {name} than this version of ddbench knows: expected SHA-256 "
                f"{planned_sha256}, it has {known.sha256}. Plan the run again."
            )
        self.sha256 = known.sha256
        self._network = to_device(build(known, class_ids, image_size), device).eval().requires_grad_(False)
        self.recipe = ClassifierRecipe(network=name, image_size=image_size, epochs=0, mean=known.mean, std=known.std)
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] for values in (known.mean, known.std)
        )

    def network(self, epoch: int | None = None) -> nn.Module:
        return self._network

    def normalise(self, images: Tensor) -> Tensor:
        return (images - self._mean) / self._std

    def logits(self, images: Tensor, epoch: int | None = None) -> Tensor:
        return self._network(self.normalise(images))

    def features(self, images: Tensor, epoch: int | None = None) -> Tensor:
        return penultimate(self._network, self.normalise(images))


class Renormalised(nn.Module):
    """A network behind images (N, C, S, S) that were normalised for another one.

    Args:
        given, own: mean and std, by channel or one for all, of the images and of the network's.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        given: tuple[Sequence[float], Sequence[float]],
        own: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        super().__init__()
        self.network = network
        mean, std, own_mean, own_std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (*given, *own))
        self.register_buffer("scale", (std / own_std).float())
        self.register_buffer("shift", ((mean - own_mean) / own_std).float())

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x * self.scale + self.shift)


def build(known: Pretrained, class_ids: Sequence[str], image_size: int) -> nn.Module:
    """The network with its weights, on the CPU, its outputs those of `class_ids`; it takes its own normalisation."""
    rows = known.rows(class_ids)
    network = networks.build(known.network, len(rows), image_size, generator=torch.Generator())
    state = timm_names(torch.load(known.checked(), map_location="cpu", weights_only=True), network)
    network.load_state_dict({name: state[name][rows] if name in HEAD else state[name] for name in state})
    return network


def timm_names(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The weights under the names of timm's `tf_efficientnet_lite0`, from those of EfficientNet-PyTorch, which numbers
    the blocks through and calls a block's layers by what they do."""
    stages: Sequence[Sequence[nn.Module]] = network.blocks  # type: ignore[assignment]  # a module's attributes have no type
    places = [f"blocks.{i}.{j}" for i, stage in enumerate(stages) for j in range(len(stage))]
    renamed = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    further = {
        **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
        **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
    }
    for number, place in enumerate(places):
        layers = further if number else first  # the first block widens nothing
        renamed |= {f"_blocks.{number}.{layer}": f"{place}.{name}" for layer, name in layers.items()}
    found = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        found[f"{renamed[layer]}.{kind}"] = tensor
    return found
