"""Networks for images of 32 or 64 px, made of torchvision's: a 3×3 first convolution of stride 1 with no pooling behind
it, so that the first stage sees the whole side. They are in two forms, as programs have them.

`*_modified` (RDED's name; DELT): torchvision's ResNet with that first convolution, whose initial values are PyTorch's
own, in front of He's.

`*_cifar` (CV-DD, from a widely copied collection of networks for CIFAR): the same layers with PyTorch's own initial
values throughout. ShuffleNetV2 and DenseNet lose stride and pooling too; MobileNetV2 the strides of its first
convolution and of its second stage, and has three further differences from torchvision's: ReLU for ReLU6 and no
dropout, a first block that expands to as many channels as it has, and a convolution as the shortcut of blocks of stride
1 whose channels change.

Shapes: B images, C channels, S side in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from ddbench.benchmark.protocols.network_names import CIFAR, MODIFIED


class ShortcutBlock(InvertedResidual):
    """torchvision's inverted residual that expands at a factor of 1 too, and whose shortcut is a 1×1 convolution where
    a block of stride 1 changes the channels."""

    def __init__(
        self,
        in_width: int,
        width: int,
        stride: int,
        expand_ratio: int,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__(in_width, width, stride, expand_ratio, norm_layer)
        norm_layer = norm_layer or nn.BatchNorm2d
        if expand_ratio == 1:
            self.conv.insert(0, Conv2dNormActivation(in_width, in_width, kernel_size=1, norm_layer=norm_layer))
        self.shortcut: nn.Module | None = None
        if stride == 1 and in_width != width:
            self.shortcut = Conv2dNormActivation(
                in_width, width, kernel_size=1, norm_layer=norm_layer, activation_layer=None
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C', S / stride, S / stride)."""
        return super().forward(x) if self.shortcut is None else self.conv(x) + self.shortcut(x)


def _resnet(name: str, num_classes: int, in_channels: int) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    network.conv1 = _first(in_channels, 64)
    network.maxpool = nn.Identity()
    return network


def _shufflenet(name: str, num_classes: int, in_channels: int) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    network.conv1[0] = _first(in_channels, 24)
    network.maxpool = nn.Identity()
    return network


def _densenet(name: str, num_classes: int, in_channels: int) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    network.features.conv0 = _first(in_channels, 64)
    for of_the_stem in ("norm0", "relu0", "pool0"):  # the first dense layer begins with a norm of its own
        setattr(network.features, of_the_stem, nn.Identity())
    return network


def _mobilenet(name: str, num_classes: int, in_channels: int) -> nn.Module:
    network = torchvision.models.get_model(
        name,
        weights=None,
        num_classes=num_classes,
        # Factor of expansion, channels, blocks, stride of the first.
        inverted_residual_setting=[
            [1, 16, 1, 1],
            [6, 24, 2, 1],
            [6, 32, 3, 2],
            [6, 64, 4, 2],
            [6, 96, 3, 1],
            [6, 160, 3, 2],
            [6, 320, 1, 1],
        ],
        block=ShortcutBlock,
        dropout=0.0,
    )
    network.features[0][0] = _first(in_channels, 32)
    for parent in list(network.modules()):
        for name_in_parent, module in parent.named_children():
            if isinstance(module, nn.ReLU6):
                setattr(parent, name_in_parent, nn.ReLU(inplace=True))
    return network


def _first(in_channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, width, 3, padding=1, bias=False)


def _layout(make: Callable[[str, int, int], nn.Module], name: str) -> Callable[..., nn.Module]:
    def layout(num_classes: int, image_size: int, in_channels: int, width: int | None) -> nn.Module:
        return make(name, num_classes, in_channels)

    return layout


LAYOUTS: dict[str, Callable[[int, int, int, int | None], nn.Module]] = {
    f"resnet18{MODIFIED}": _layout(_resnet, "resnet18"),
    f"resnet101{MODIFIED}": _layout(_resnet, "resnet101"),
    f"resnet18{CIFAR}": _layout(_resnet, "resnet18"),
    f"resnet50{CIFAR}": _layout(_resnet, "resnet50"),
    f"resnet101{CIFAR}": _layout(_resnet, "resnet101"),
    f"shufflenet_v2_x0_5{CIFAR}": _layout(_shufflenet, "shufflenet_v2_x0_5"),
    f"mobilenet_v2{CIFAR}": _layout(_mobilenet, "mobilenet_v2"),
    f"densenet121{CIFAR}": _layout(_densenet, "densenet121"),
}
"""Name -> the network for (K, S, C, width), its parameters on whatever device is the default. Widths are fixed."""


def has_he_values(name: str, network: Any, convolution: nn.Conv2d) -> bool:
    """Whether a convolution of one of torchvision's ResNets begins with He's values and not with PyTorch's own."""
    if name.endswith(CIFAR):
        return False
    return not (name.endswith(MODIFIED) and convolution is network.conv1)
