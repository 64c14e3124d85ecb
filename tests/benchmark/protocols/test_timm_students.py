"""timm's networks as students: built by name for any classes, sides and channels, from the named stream alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import network_names, networks
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd
from ddbench.benchmark.protocols.trainer import train_student


@pytest.mark.parametrize(
    ("name", "image_size", "channels"),
    [("timm:resnet10t", 32, 1), ("timm:vit_tiny_patch16_224", 48, 3), ("timm:swin_tiny_patch4_window7_224", 64, 3)],
)
def test_built_for_the_task(name: str, image_size: int, channels: int) -> None:
    state = torch.get_rng_state()
    network, again, other = (
        networks.build(name, 7, image_size, channels, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    images = torch.rand(2, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = network.eval()(images)
        assert logits.shape == (2, 7)
        assert torch.equal(again.eval()(images), logits)
        assert not torch.equal(other.eval()(images), logits)


def test_layers_that_draw_are_seeded_too() -> None:
    """Swin's stochastic depth draws from the global generator in every step."""
    swin = networks.build("timm:swin_tiny_patch4_window7_224", 6, 32, generator=torch.Generator())
    assert any(getattr(module, "drop_prob", 0) for module in swin.modules())
    protocol = hard_minimax_sgd.PROTOCOL.with_overrides({"epochs": 1, "image_size": 32, "learning_rate": 0.1})
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)

    def loss() -> float:
        arrays = images, np.arange(6), images, np.arange(6)
        result = train_student(protocol, "timm:swin_tiny_patch4_window7_224", *arrays, num_classes=6, ipc=1, seed=0)
        return result.curve[-1].train_loss

    first, state = loss(), torch.get_rng_state()
    torch.rand(5)
    expected = torch.get_rng_state()
    assert loss() == first
    assert torch.equal(torch.get_rng_state(), expected)
    assert not torch.equal(state, expected)


def test_unknown_and_unfit_names_are_refused() -> None:
    with pytest.raises(UsageError, match="has no network 'resnet_18'; did you mean 'timm:resnet18'"):
        network_names.find("timm:resnet_18")
    with pytest.raises(UsageError, match="has no network 'resnet18.a1_in1k'"):
        network_names.find("timm:resnet18.a1_in1k")
    with pytest.raises(UsageError, match="cannot be built for images of 8×8×3"):
        networks.build("timm:vit_tiny_patch16_224", 7, 8, generator=torch.Generator())
    with pytest.raises(UsageError, match="comes from a library and has one width"):
        networks.build("timm:resnet10t", 7, 32, width=8)


def test_published_protocols_take_them_and_planning_imports_them_only_when_named() -> None:
    hard_minimax_sgd.PROTOCOL.check_student("timm:resnet10t", 224)
    code = (
        "import sys; from ddbench.benchmark.protocols.definitions import hard_minimax_sgd as h; "
        "h.PROTOCOL.check_student('resnet18', 224); sys.exit('timm' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
