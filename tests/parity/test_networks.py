"""Student networks against references: golden counts, shapes and logits; and torchvision's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from ddbench.benchmark.protocols.networks import build

CASES = ["resnet_ap10-224", "resnet_ap10-64", "resnet18-224", "convnet3-32"]


def fill_by_formula(network: nn.Module) -> nn.Module:
    """Parameter i, element j: sin(0.37 j + 1.3 i + 0.5), scaled; 1 is added to norm weights."""
    norm_weights = {id(m.weight) for m in network.modules() if isinstance(m, nn.GroupNorm)}
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            j = torch.arange(parameter.numel(), dtype=torch.float64)
            values = torch.sin(0.37 * j + 1.3 * i + 0.5).reshape(parameter.shape)
            values *= (2 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(values + (1 if id(parameter) in norm_weights else 0))
    return network.eval()


def formula_images(n: int, image_size: int) -> torch.Tensor:
    return torch.sin(0.01 * torch.arange(n * 3 * image_size**2, dtype=torch.float64)).reshape(
        n, 3, image_size, image_size
    )


@pytest.mark.parametrize("case", CASES)
def test_network_equals_golden(golden: Path, case: str) -> None:
    expected = json.loads((golden / "networks" / "networks.json").read_text())[case]
    logits = load_file(golden / "networks" / "logits.safetensors")[case].double()
    name, image_size = case.rsplit("-", 1)[0], expected["input_size"]
    network = build(name, 10, image_size)
    assert sum(p.numel() for p in network.parameters()) == expected["params"]
    assert [list(p.shape) for p in network.parameters()] == expected["shapes"]

    images = formula_images(2, image_size)
    with torch.inference_mode():
        single = fill_by_formula(network)(images.float()).double()
        double = fill_by_formula(network.double())(images)
    # The reference is a float32 evaluation on some processor. How far rounding alone moves these logits is seen between
    # our own float32 and float64: 1e-6 for the small cases, 3e-4 for resnet_ap10-224, and 0.25 for resnet18-224, whose
    # formula-filled layers amplify it by instance norm of nearly constant maps. Where that exceeds 1e-4, no other
    # processor can meet 1e-4; resnet18 is therefore held to torchvision's layout in float64 below.
    rounding = float((single - double).abs().max())
    assert float((double - logits).abs().max()) <= max(1e-4, 3 * rounding)


def test_every_golden_network_is_tested(golden: Path) -> None:
    assert sorted(json.loads((golden / "networks" / "networks.json").read_text())) == sorted(CASES)


@pytest.mark.parametrize("image_size", [64, 96, 224])
def test_resnet18_is_torchvisions_layout_with_instance_norm(image_size: int) -> None:
    reference = torchvision.models.resnet18(num_classes=10, norm_layer=lambda width: nn.GroupNorm(width, width))
    if image_size <= 128:
        reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    if image_size <= 64:
        reference.maxpool = nn.Identity()
    ours = build("resnet18", 10, image_size)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in reference.parameters()]
    images = formula_images(1, image_size)
    with torch.inference_mode():
        torch.testing.assert_close(
            fill_by_formula(ours.double())(images), fill_by_formula(reference.double())(images), rtol=0, atol=1e-6
        )
