"""Student networks: initial values, sizes, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import nn

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols.network_names import CIFAR, MODIFIED, NETWORKS
from ddbench.benchmark.protocols.networks import ConvNet, ResNet, build

NAMES = [network.name for network in NETWORKS if not network.comes_trained]
SMALL = [name for name in NAMES if name.endswith((CIFAR, MODIFIED))]
"""Of `small_image_networks.py`, which have a test file of their own."""
OF_TORCHVISION = (
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x0_5",
    "alexnet",
    "mobilenet_v2",
    "efficientnet_b0",
    "densenet121",
)
INSTANCE_NORM = [name for name in NAMES if not name.endswith("_bn") and name not in (*OF_TORCHVISION, *SMALL)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
def test_generator_alone_decides_the_initial_values(name: str) -> None:
    torch_state = torch.get_rng_state()
    first, same, other = (build(name, 5, 64, generator=seeded(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert all(value.device.type == "cpu" and bool(value.isfinite().all()) for value in first.values())


def test_convnet_initialisation_is_pytorchs_default() -> None:
    network = build("convnet3", 10, 8, in_channels=1, width=64, generator=seeded(3))
    assert isinstance(network, ConvNet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = [nn.Conv2d(1, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3), nn.Linear(64, 10)]
    for ours, reference in zip([*network.convs, network.classifier], layers, strict=True):
        assert torch.equal(ours.weight, reference.weight)
        assert torch.equal(ours.bias, reference.bias)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("resnet") and name not in SMALL])
def test_resnet_initialisation(name: str) -> None:
    network = build(name, 200, 64, generator=seeded(0))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            count, std = weight.numel(), math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            # Six standard errors of a mean and of a standard deviation of `count` normal values.
            assert abs(float(weight.mean())) < 6 * std / math.sqrt(count)
            assert abs(float(weight.std()) / std - 1) < 6 / math.sqrt(2 * count)
        elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            weight = module.weight.detach()
            assert 0.99 * bound < float(weight.abs().max()) <= bound
            assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_batch_norm_students_are_torchvisions(name: str) -> None:
    reference = torchvision.models.get_model(name, weights=None, num_classes=7)
    ours = build(f"{name}_bn", 7, 224)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in reference.state_dict().items()}
    assert bool((ours.bn1.running_mean == 0).all())
    assert bool((ours.bn1.running_var == 1).all())
    assert int(ours.bn1.num_batches_tracked) == 0
    ours.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=seeded(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_networks_of_papers_are_torchvisions(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = torchvision.models.get_model(name, weights=None, num_classes=7)
    ours = build(name, 7, 64, generator=seeded(0))
    own, expected = ours.state_dict(), reference.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in expected.items()}
    for key, value in own.items():  # the same distribution: PyTorch's own for convolutions
        if key.endswith("weight") and value.numel() > 5000:
            assert float(value.std()) == pytest.approx(float(expected[key].std()), rel=0.05)
    ours.load_state_dict(expected)
    images = torch.randn(2, 3, 64, 64, generator=seeded(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_smallest_side_works_and_one_less_is_refused(name: str, in_channels: int) -> None:
    image_size = next(network.min_image_size for network in NETWORKS if network.name == name)
    network = build(name, 4, image_size, in_channels, generator=seeded(0))
    norm_sides: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda _module, inputs, _output: norm_sides.append(inputs[0].shape[-1]))
    logits = network(torch.randn(3, in_channels, image_size, image_size, generator=seeded(1)))
    assert logits.shape == (3, 4)
    assert float(logits.detach().std(0).max()) > 0
    if name in INSTANCE_NORM:
        assert min(norm_sides) == 2
    with pytest.raises(
        UsageError, match=rf"{name} needs images of at least {image_size}×{image_size} pixels, got {image_size - 1}×"
    ):
        build(name, 4, image_size - 1, in_channels)


@pytest.mark.parametrize(
    ("name", "image_size", "kernel", "map_sides"),
    [
        ("resnet_ap10", 64, 3, (64, 64)),
        ("resnet_ap10", 65, 3, (65, 32)),
        ("resnet_ap10", 128, 3, (128, 64)),
        ("resnet_ap10", 129, 7, (129, 32)),
        ("resnet_ap10", 224, 7, (224, 56)),
        ("resnet18", 64, 3, (64, 64)),
        ("resnet18", 65, 3, (65, 33)),
        ("resnet18", 128, 3, (128, 64)),
        ("resnet18", 129, 7, (65, 33)),
        ("resnet18", 224, 7, (112, 56)),
    ],
)
def test_stem_by_image_side(name: str, image_size: int, kernel: int, map_sides: tuple[int, int]) -> None:
    """Kernel of the stem, and the map's side after its convolution and after its pooling."""
    network = build(name, 4, image_size, width=4, generator=seeded(0))
    assert isinstance(network, ResNet)
    seen: list[int] = []
    for module in (network.stem, network.stem_pool):
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[-1]))
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, image_size, image_size)).shape == (1, 4)
    assert next(network.parameters()).shape == (4, 3, kernel, kernel)
    assert tuple(seen) == map_sides


@pytest.mark.parametrize("image_size", [64, 65, 128, 129])
def test_convnets_take_odd_sides(image_size: int) -> None:
    for name, depth in (("convnet3", 3), ("convnet6", 6)):
        network = build(name, 4, image_size, width=4, generator=seeded(0))
        with torch.inference_mode():
            assert network(torch.zeros(1, 3, image_size, image_size)).shape == (1, 4)
        assert list(network.parameters())[-2].shape == (4, 4 * (image_size // 2**depth) ** 2)


def test_width_is_the_first_stage() -> None:
    shapes = {name: [tuple(p.shape) for p in build(name, 10, 64, width=8).parameters()] for name in INSTANCE_NORM}
    assert shapes["convnet3"][0] == (8, 3, 3, 3)
    assert shapes["convnet3"][-2] == (10, 8 * 8 * 8)
    assert shapes["resnet18"][0] == (8, 3, 3, 3)
    assert shapes["resnet18"][-2] == shapes["resnet_ap10"][-2] == (10, 64)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown network 'convnet4'; did you mean 'convnet\d'"):
        build("convnet4", 10, 32)
    with pytest.raises(UsageError, match="resnet50_bn comes from a library and has one width"):
        build("resnet50_bn", 10, 64, width=32)
