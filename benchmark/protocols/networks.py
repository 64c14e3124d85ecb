"""Student networks. A student is built untrained from a name; its parameters are the only random thing about it.

"Instance norm" is `GroupNorm(C, C)`: one mean and variance per image and channel, with affine parameters, the same in
training and evaluation. Sources: IDC (Kim et al., ICML 2022) and Minimax Diffusion (Gu et al., CVPR 2024) for
`resnet_ap10` and the instance-norm `resnet18`; Dataset Condensation (Zhao et al., ICLR 2021) for `convnet*`;
torchvision for `*_bn`, `shufflenet_v2_*`, `alexnet`, `mobilenet_v2`, `efficientnet_b0` and `densenet121`; networks
with another stem for small images are in `small_image_networks.py`.

Shapes: B images, C channels, S side in pixels, K classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import network_names, small_image_networks


def build(
    name: str,
    num_classes: int,
    image_size: int,
    in_channels: int = 3,
    width: int | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """An untrained student on the CPU that maps images (B, in_channels, S, S) to logits (B, num_classes).

    Args:
        name: one of `network_names.NETWORKS`, or `timm:` and the name of one of timm's networks. One that comes trained
            is built untrained all the same: its weights are put in by who wants them.
        num_classes: K.
        image_size: S; it decides the stem of the ResNets and the head of the ConvNets.
        in_channels: channels of an image.
        width: channels of a ConvNet (default 128), or of a ResNet's first stage (default 64).
        generator: a CPU generator that every initial value is drawn from (timm's networks, and torchvision's with an
            initialisation of their own: from PyTorch's global generator, which is seeded from this one and put back);
            None is PyTorch's global generator.

    Raises:
        UsageError: unknown name; images too small for the network; a width for a network that has one only.
    """
    network_names.check_image_size(name, image_size)
    if width is not None and not network_names.find(name).widths:
        raise UsageError(f"network {name} comes from a library and has one width; leave width out (got {width}).")
    if network_names.is_timm(name):
        return _timm(name.removeprefix(network_names.TIMM), num_classes, image_size, in_channels, generator)
    if layout := network_names.find(name).layout:
        return _timm(layout, num_classes, image_size, in_channels, generator)
    if name in WITH_OWN_INITIALISATION:
        return _initialised_by_torchvision(name, num_classes, in_channels, generator)
    # On the meta device a layer's own initialisation costs nothing and draws nothing; `_initialise` then draws every
    # value from `generator`, which PyTorch's constructors do not accept.
    with torch.device("meta"):
        network = _LAYOUTS[name](num_classes, image_size, in_channels, width)
    return _initialise(name, network.to_empty(device="cpu"), generator)


WITH_OWN_INITIALISATION = ("mobilenet_v2", "efficientnet_b0", "densenet121")
"""torchvision's networks whose constructors draw initial values of their own kind."""


@contextmanager
def _seeded_from(generator: torch.Generator | None) -> Iterator[None]:
    """Constructors draw from PyTorch's global generator and take no other."""
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _initialised_by_torchvision(
    name: str, num_classes: int, in_channels: int, generator: torch.Generator | None
) -> nn.Module:
    with _seeded_from(generator):
        network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        if in_channels != first.in_channels:
            first.in_channels = in_channels
            first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_channels, *first.kernel_size))
            nn.init.kaiming_normal_(first.weight, mode="fan_in" if name == "densenet121" else "fan_out")
    return network


def _timm(
    name: str, num_classes: int, image_size: int, in_channels: int, generator: torch.Generator | None
) -> nn.Module:
    import timm

    usual = timm.models.get_pretrained_cfg(name)
    # Networks of a fixed input size (transformers with a grid of positions) are built for the side that is asked for.
    sized: dict[str, Any] = {"img_size": image_size} if usual is not None and usual.fixed_input_size else {}
    with _seeded_from(generator):
        try:
            network = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **sized)
            network.eval()
            with torch.inference_mode():
                logits = network(torch.zeros(1, in_channels, image_size, image_size))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"timm's network {name} cannot be built for images of {image_size}×{image_size}×{in_channels}: "
                f"{str(error).partition(chr(10))[0]}. Choose another student or another side."
            ) from error
    if logits.shape != (1, num_classes):
        raise UsageError(
            f"timm's network {name} is no classifier of images: it gives {tuple(logits.shape)}, and "
            f"(1, {num_classes}) was expected. Choose another student."
        )
    return network.train()


class ConvNet(nn.Module):
    """`depth` blocks of 3×3 convolution, norm, ReLU, AvgPool 2; then a linear layer over the flattened map."""

    def __init__(self, depth: int, num_classes: int, image_size: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels if i == 0 else width, width, 3, padding=1) for i in range(depth)
        )
        self.norms = nn.ModuleList(_instance_norm(width) for _ in range(depth))
        last_side = image_size // 2**depth
        self.classifier = nn.Linear(width * last_side**2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.avg_pool2d(F.relu(norm(conv(x)), inplace=True), 2)  # (B, width, S / 2^i, S / 2^i)
        return self.classifier(x.flatten(1))


class BasicBlock(nn.Module):
    """torchvision's basic block with instance norm: a stride is the first convolution's, and the shortcut's.

    Args:
        pooled: it is an average pooling instead, after the first ReLU and in the shortcut.
    """

    def __init__(self, in_width: int, width: int, stride: int, *, pooled: bool) -> None:
        super().__init__()
        pool = [nn.AvgPool2d(stride)] if pooled else []
        strided = 1 if pooled else stride
        self.pool = nn.Sequential(*pool)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=strided, padding=1, bias=False)
        self.norm1 = _instance_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = _instance_norm(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_width != width:
            convolution = nn.Conv2d(in_width, width, 1, stride=strided, bias=False)
            self.shortcut = nn.Sequential(convolution, *pool, _instance_norm(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(F.relu(self.norm1(self.conv1(x)), inplace=True))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """A stem, four stages of blocks whose width doubles and side halves, global average pooling, a linear layer."""

    def __init__(
        self,
        blocks_per_stage: int,
        stem: nn.Module,
        stem_pool: nn.Module,
        num_classes: int,
        width: int,
        *,
        pooled: bool,
    ) -> None:
        super().__init__()
        self.stem, self.stem_norm, self.stem_pool = stem, _instance_norm(width), stem_pool
        widths = [width * 2 ** (i // blocks_per_stage) for i in range(4 * blocks_per_stage)]
        self.blocks = nn.Sequential(
            *(
                BasicBlock(before, after, 2 if after > before else 1, pooled=pooled)
                for before, after in itertools.pairwise([width, *widths])
            )
        )
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_pool(F.relu(self.stem_norm(self.stem(x)), inplace=True))
        return self.classifier(self.blocks(x).mean((2, 3)))


def _instance_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width, width)


def _resnet_ap10(num_classes: int, image_size: int, in_channels: int, width: int | None) -> nn.Module:
    width = width or 64
    pool: nn.Module = nn.AvgPool2d(4 if image_size > 128 else 2) if image_size > 64 else nn.Identity()
    kernel = 7 if image_size > 128 else 3
    stem = nn.Conv2d(in_channels, width, kernel, padding=kernel // 2, bias=False)
    return ResNet(1, stem, pool, num_classes, width, pooled=True)


def _resnet18(num_classes: int, image_size: int, in_channels: int, width: int | None) -> nn.Module:
    width = width or 64
    pool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1) if image_size > 64 else nn.Identity()
    kernel, stride = (7, 2) if image_size > 128 else (3, 1)
    stem = nn.Conv2d(in_channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)
    return ResNet(2, stem, pool, num_classes, width, pooled=False)


def _convnet(depth: int) -> Callable[[int, int, int, int | None], nn.Module]:
    return lambda num_classes, image_size, in_channels, width: ConvNet(
        depth, num_classes, image_size, in_channels, width or 128
    )


def _torchvision(name: str) -> Callable[[int, int, int, int | None], nn.Module]:
    def layout(num_classes: int, image_size: int, in_channels: int, width: int | None) -> nn.Module:
        network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
        if in_channels != 3:
            if isinstance(network, torchvision.models.AlexNet):
                network.features[0] = nn.Conv2d(in_channels, 64, 11, stride=4, padding=2)
            elif isinstance(network, torchvision.models.ResNet):
                network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            else:
                network.conv1[0] = nn.Conv2d(in_channels, 24, 3, stride=2, padding=1, bias=False)
        return network

    return layout


_LAYOUTS: dict[str, Callable[[int, int, int, int | None], nn.Module]] = {
    "resnet_ap10": _resnet_ap10,
    "resnet18": _resnet18,
    "convnet3": _convnet(3),
    "convnet6": _convnet(6),
    "resnet18_bn": _torchvision("resnet18"),
    "resnet50_bn": _torchvision("resnet50"),
    "resnet101_bn": _torchvision("resnet101"),
    "shufflenet_v2_x1_0": _torchvision("shufflenet_v2_x1_0"),
    "shufflenet_v2_x0_5": _torchvision("shufflenet_v2_x0_5"),
    "alexnet": _torchvision("alexnet"),
    **small_image_networks.LAYOUTS,
}


def _initialise(name: str, network: nn.Module, generator: torch.Generator | None) -> nn.Module:
    """Draw every parameter, in the order of `modules()`.

    Convolutions of ResNets: N(0, √(2 / (k² · out channels))), which is He's initialisation over the fan-out and what
    torchvision's ResNets use (`small_image_networks.has_he_values` has the exceptions). Everything else: what PyTorch's
    constructors do.
    """
    of_resnet = isinstance(network, ResNet | torchvision.models.ResNet)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and of_resnet and small_image_networks.has_he_values(name, network, module):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
            module.reset_parameters()
    return network
