"""The networks by name: what a listing or a plan needs to know of them, without importing torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.near_names import did_you_mean

MODIFIED, CIFAR = "_modified", "_cifar"
"""How the names end of networks whose stem is for images of 32 or 64 px (`small_image_networks.py`)."""


@dataclass(frozen=True)
class NetworkName:
    """A student network that `networks.build` can make."""

    name: str
    summary: str
    min_image_size: int
    """Smallest image side in pixels."""
    widths: bool = True
    """Whether its number of channels can be set."""
    too_small: str = (
        "its strides would leave a last feature map of 1×1, and instance norm over a single pixel is constant"
    )
    """Why images may not be smaller."""
    layout: str | None = None
    """For a network that comes trained, timm's name of the same layers."""

    @property
    def comes_trained(self) -> bool:
        """Whether it is a classifier of ImageNet-1K as it is: a teacher or an observer, and no student."""
        return self.layout is not None


NETWORKS: tuple[NetworkName, ...] = (
    NetworkName("resnet_ap10", "ResNet-10 with average pooling for strides, instance norm (Minimax, IDC)", 16),
    NetworkName("resnet18", "ResNet-18, torchvision's layout, instance norm", 16),
    NetworkName("convnet3", "3 blocks of convolution, instance norm, ReLU, average pooling; width 128", 8),
    NetworkName("convnet6", "6 blocks of convolution, instance norm, ReLU, average pooling; width 128", 64),
    NetworkName("resnet18_bn", "torchvision's ResNet-18, BatchNorm", 16, widths=False),
    NetworkName("resnet50_bn", "torchvision's ResNet-50, BatchNorm", 16, widths=False),
    NetworkName("resnet101_bn", "torchvision's ResNet-101, BatchNorm", 16, widths=False),
    NetworkName("shufflenet_v2_x1_0", "torchvision's ShuffleNetV2, BatchNorm", 16, widths=False),
    NetworkName("shufflenet_v2_x0_5", "torchvision's ShuffleNetV2 of half the width, BatchNorm", 16, widths=False),
    NetworkName("mobilenet_v2", "torchvision's MobileNetV2, BatchNorm and dropout", 16, widths=False),
    NetworkName("efficientnet_b0", "torchvision's EfficientNet-B0, BatchNorm, dropout", 16, widths=False),
    NetworkName(
        "densenet121",
        "torchvision's DenseNet-121, BatchNorm",
        29,
        widths=False,
        too_small="its poolings would leave nothing",
    ),
    NetworkName(
        "alexnet",
        "torchvision's AlexNet, no norm: dropout and 57 million weights in its linear layers",
        63,
        widths=False,
        too_small="its poolings would leave nothing",
    ),
    *(
        NetworkName(
            f"{network}{MODIFIED}",
            f"torchvision's {called}, BatchNorm; 3×3 stem without pooling, for small images (RDED, DELT)",
            16,
            widths=False,
        )
        for network, called in (("resnet18", "ResNet-18"), ("resnet101", "ResNet-101"))
    ),
    *(
        NetworkName(
            f"{network}{CIFAR}",
            f"torchvision's {called}, BatchNorm; 3×3 stem without pooling, PyTorch's initial values (CV-DD)",
            16,
            widths=False,
        )
        for network, called in (
            ("resnet18", "ResNet-18"),
            ("resnet50", "ResNet-50"),
            ("resnet101", "ResNet-101"),
            ("shufflenet_v2_x0_5", "ShuffleNetV2 of half the width"),
            ("mobilenet_v2", "MobileNetV2 with more shortcuts"),
            ("densenet121", "DenseNet-121"),
        )
    ),
    NetworkName(
        "efficientnet_lite0",
        "EfficientNet-lite0 trained on ImageNet-1K (extra `teachers`): a teacher or an observer, no student",
        32,
        widths=False,
        too_small="it halves the side five times",
        layout="tf_efficientnet_lite0",
    ),
)

TIMM = "timm:"
"""Prefix of the names of timm's networks."""

_BY_NAME = {network.name: network for network in NETWORKS}


def is_timm(name: str) -> bool:
    """Whether the name is that of a network of timm."""
    return name.startswith(TIMM)


def find(name: str) -> NetworkName:
    """The network of that name. A name of timm's imports timm, and with it torch; others import nothing.

    Raises:
        UsageError: unknown name, with the nearest known ones.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    if is_timm(name):
        return _find_timm(name)
    raise UsageError(f"unknown network {name!r}; {did_you_mean(name, _BY_NAME)} See `bench list networks`.")


def _find_timm(name: str) -> NetworkName:
    timm, plain = importlib.import_module("timm"), name.removeprefix(TIMM)
    if timm.is_model(plain) and "." not in plain:  # what follows a dot names trained weights
        return NetworkName(name, f"timm's {plain}, random weights", 1, widths=False)
    near = did_you_mean(name, (TIMM + model for model in timm.list_models()), "see `timm.list_models()`.")
    raise UsageError(f"timm {timm.__version__} has no network {plain!r}; {near}")


def check_image_size(name: str, image_size: int) -> None:
    """Refuse images on which the network cannot work.

    Raises:
        UsageError: unknown name, or images smaller than the network's least side.
    """
    network = find(name)
    if image_size < network.min_image_size:
        fitting = [n.name for n in NETWORKS if n.min_image_size <= image_size and not n.comes_trained]
        instead = f"use {' or '.join(fitting)}, or larger images" if fitting else "use larger images"
        raise UsageError(
            f"network {name} needs images of at least {network.min_image_size}×{network.min_image_size} pixels, "
            f"got {image_size}×{image_size}: {network.too_small}; {instead}."
        )
