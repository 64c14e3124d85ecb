"""Networks with a stem for small images: their shapes against the published ones, the sides of their maps, and where
their initial values come from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.protocols.networks import build

COUNTS_OF_10_CLASSES = {
    "resnet18_modified": 11_173_962,
    "resnet101_modified": 42_512_970,
    "resnet18_cifar": 11_173_962,
    "resnet50_cifar": 23_520_842,
    "resnet101_cifar": 42_512_970,
    "shufflenet_v2_x0_5_cifar": 352_042,
    "mobilenet_v2_cifar": 2_296_922,
    "densenet121_cifar": 6_956_298,
}
"""Parameters of the networks for CIFAR-10 of the collection that CV-DD's program has its networks from."""

GOLDEN = {
    "resnet18_cifar": [4.126914, 3.276574, 1.250146, -0.900576, -2.059445],
    "resnet50_cifar": [11.840104, -9.413076, 11.608671, -8.833676, 9.99776],
    "resnet101_cifar": [0.880661, 1.086952, 0.968792, 1.014206, 1.063264],
    "shufflenet_v2_x0_5_cifar": [1.023152, 1.257637, 0.724267, 1.169631, 1.039258],
    "mobilenet_v2_cifar": [0.987977, 0.739694, 0.71399, 0.93506, 1.207198],
    "densenet121_cifar": [0.9, -25.560033, 22.110319, 10.357877, -27.891737],
}
"""What the classes of CV-DD's program (Jiacheng8/CV-DD @24097e9, models/) give for the first image of the test."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", COUNTS_OF_10_CLASSES)
def test_they_have_as_many_parameters_as_the_published_ones(name: str) -> None:
    network = build(name, 10, 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == COUNTS_OF_10_CLASSES[name]
    assert not any(isinstance(module, nn.MaxPool2d | nn.ReLU6) for module in network.modules())


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_those_of_the_released_classes(name: str) -> None:
    """Of weights in closed form, in the order in which both have them, and with a batch's own statistics.

    Its DenseNet puts new channels before the old ones and not behind: weights there are alike for all input channels.
    """
    network, alike = build(name, 5, 32).double().train(), name.startswith("densenet")
    with torch.no_grad():
        for place, values in enumerate(network.parameters()):
            count = len(values) if alike else values.numel()
            waves = torch.sin(torch.arange(count, dtype=torch.float64) * (1.3 + place % 7))
            if values.ndim == 1:
                values.copy_(torch.full_like(values, 0.9) if alike else 1 + 0.3 * waves)
            else:
                waves = waves.view(-1, *[1] * (values.ndim - 1)) if alike else waves.view_as(values)
                values.copy_((waves / math.sqrt(values[0].numel())).expand_as(values))
        images = torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64) ** 1.1).view(2, 3, 32, 32)
        assert network(images)[0].tolist() == pytest.approx(GOLDEN[name], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("resnet18_modified", [64, 32, 16, 8]),
        ("resnet50_cifar", [64, 32, 16, 8]),
        ("shufflenet_v2_x0_5_cifar", [64, 32, 16, 8]),
        ("mobilenet_v2_cifar", [64, 32, 16, 8]),
        ("densenet121_cifar", [64, 32, 16, 8]),
    ],
)
def test_sides_of_their_maps(name: str, sides: list[int]) -> None:
    """The first stage sees the whole side, and the last one an eighth of it."""
    network, seen = build(name, 10, 64, generator=seeded(0)), list[int]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[-1]))
    with torch.inference_mode():
        network(torch.zeros(2, 3, 64, 64))
    assert seen[0] == 64
    assert list(dict.fromkeys(seen)) == sides


def test_resnet18_is_the_published_arithmetic() -> None:
    """By functions alone: 3×3 stem, two blocks a stage, the stride in a stage's first convolution and its shortcut."""
    network = build("resnet18_cifar", 7, 64, generator=seeded(0)).double()
    state: Mapping[str, Tensor] = network.state_dict()
    x = torch.randn(3, 3, 16, 16, generator=seeded(1), dtype=torch.float64)

    def convolved(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        kernel = state[f"{convolution}.weight"]
        y = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return F.batch_norm(y, None, None, state[f"{norm}.weight"], state[f"{norm}.bias"], training=True)

    y = convolved(x, "conv1", "bn1").relu()
    for stage in (1, 2, 3, 4):
        for block, stride in ((0, 1 if stage == 1 else 2), (1, 1)):
            at = f"layer{stage}.{block}"
            shortcut = convolved(y, f"{at}.downsample.0", f"{at}.downsample.1", stride) if stride == 2 else y
            inner = convolved(y, f"{at}.conv1", f"{at}.bn1", stride).relu()
            y = (convolved(inner, f"{at}.conv2", f"{at}.bn2") + shortcut).relu()
    expected = F.linear(y.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    with torch.no_grad():
        torch.testing.assert_close(network.train()(x), expected)


def test_blocks_of_mobilenet_whose_channels_change_have_a_convolution_as_shortcut() -> None:
    """Torchvision's add nothing there."""
    network = build("mobilenet_v2_cifar", 10, 64, generator=seeded(0))
    changes = {name: tuple(m[0].weight.shape[:2]) for name, m in network.named_modules() if name.endswith("shortcut")}
    assert list(changes.values()) == [(16, 32), (24, 16), (96, 64), (320, 160)]
    block = network.features[1].eval()
    assert [tuple(m.weight.shape) for m in block.conv.modules() if isinstance(m, nn.Conv2d)] == [
        (32, 32, 1, 1), (32, 1, 3, 3), (16, 32, 1, 1),
    ]  # fmt: skip
    x = torch.randn(2, 32, 8, 8, generator=seeded(1))
    with torch.inference_mode():
        torch.testing.assert_close(block(x), block.conv(x) + F.conv2d(x, block.shortcut[0].weight) / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize("name", COUNTS_OF_10_CLASSES)
def test_initial_values(name: str) -> None:
    """PyTorch's own, U(±1 / √fan-in), in `_cifar` and the stem of `_modified`; else He's over the fan-out."""
    network = build(name, 200, 64, generator=seeded(0))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions[0].weight.shape[1:] == (3, 3, 3)
    for place, convolution in enumerate(convolutions):
        weight = convolution.weight.detach()
        fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
        if name.endswith("_cifar") or place == 0:
            bound = 1 / math.sqrt(fan_in)
            assert float(weight.abs().max()) <= bound * (1 + 1e-6)
            std, kurtosis = bound / math.sqrt(3), 1.8
        else:
            std, kurtosis = math.sqrt(2 / fan_out), 3.0
        # Six standard errors of a standard deviation, which are narrower for uniform values than for normal ones.
        assert abs(float(weight.std()) / std - 1) < 6 * math.sqrt((kurtosis - 1) / (4 * weight.numel()))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.running_var == 1).all())


def test_grey_images_have_one_channel() -> None:
    for name in COUNTS_OF_10_CLASSES:
        assert build(name, 4, 32, in_channels=1)(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
