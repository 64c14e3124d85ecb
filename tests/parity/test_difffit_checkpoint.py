"""Checkpoints with DiffFit's scales, as Minimax Diffusion's program saves them, against outputs of its network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.priors.dit_checkpoint import load_dit_checkpoint

HEADS = 4


@pytest.fixture
def checkpoints(golden: Path) -> Path:
    return golden / "difffit-checkpoint"


def output(file: Path, case: dict[str, torch.Tensor]) -> torch.Tensor:
    network = DenoisingNetwork(load_dit_checkpoint(file, num_heads=HEADS), freq_shift=0)
    with torch.no_grad():
        return network(case["x"], network.embed_time(case["t"]) + network.embed_labels(case["y"]))


@pytest.mark.parametrize("file", ["difffit.pt", "difffit-training.pt"])
def test_the_folded_network_computes_what_the_scaled_one_does(checkpoints: Path, file: str) -> None:
    case = load_file(checkpoints / "forward.safetensors")
    torch.testing.assert_close(output(checkpoints / file, case), case["output"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", ["gamma1", "gamma2", "attn.gamma1", "attn.gamma2"])
def test_every_scale_counts_in_every_block(checkpoints: Path, tmp_path: Path, scale: str) -> None:
    """Blocks without scales are plain ones, as the second half of the blocks that Minimax Diffusion tunes."""
    case = load_file(checkpoints / "forward.safetensors")
    weights = torch.load(checkpoints / "difffit.pt", weights_only=True)
    for block in (0, 1):
        save_file({k: v for k, v in weights.items() if k != f"blocks.{block}.{scale}"}, tmp_path / "less.safetensors")
        assert (output(tmp_path / "less.safetensors", case) - case["output"]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("blocks.0.gamma3", (48,), "a DiT does not have: blocks.0.gamma3"),
        ("blocks.0.mlp.gamma1", (48,), "blocks.0.mlp.gamma1 of shape .48,. scales no layer"),
        ("blocks.7.gamma1", (48,), "blocks.7.gamma1 of shape .48,. scales no layer"),
        ("blocks.1.attn.gamma1", (48,), r"blocks.1.attn.gamma1 of shape .48,. scales no layer: .* blocks.1.attn.qkv"),
    ],
)
def test_scales_of_no_layer_are_refused(
    checkpoints: Path, tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    weights = torch.load(checkpoints / "difffit.pt", weights_only=True) | {name: torch.ones(shape)}
    torch.save(weights, tmp_path / "strange.pt")
    with pytest.raises(UsageError, match=message):
        load_dit_checkpoint(tmp_path / "strange.pt", num_heads=HEADS)
