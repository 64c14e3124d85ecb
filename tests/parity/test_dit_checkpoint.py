"""Original DiT checkpoints against outputs of the original network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.priors.dit_checkpoint import load_dit_checkpoint


@pytest.fixture
def checkpoints(golden: Path) -> Path:
    return golden / "dit-checkpoint"


@pytest.mark.parametrize("file", ["original.pt", "training-format.pt"])
def test_output_equals_the_original_network(checkpoints: Path, file: str) -> None:
    heads = json.loads((checkpoints / "config.json").read_text())["num_heads"]
    case = load_file(checkpoints / "forward.safetensors")
    network = DenoisingNetwork(load_dit_checkpoint(checkpoints / file, num_heads=heads), freq_shift=0)
    with torch.no_grad():
        output = network(case["x"], network.embed_time(case["t"]) + network.embed_labels(case["y"]))
    torch.testing.assert_close(output, case["output"], rtol=0, atol=1e-5)

    # diffusers' own frequencies are another network: the convention matters.
    other = DenoisingNetwork(load_dit_checkpoint(checkpoints / file, num_heads=heads), freq_shift=1)
    with torch.no_grad():
        shifted = other(case["x"], other.embed_time(case["t"]) + other.embed_labels(case["y"]))
    assert (shifted - case["output"]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("blocks.1.mlp.fc2.bias", None, "transformer_blocks.1.ff.net.2.bias"),
        ("pos_embed", None, "pos_embed"),
        (None, "blocks.0.attn.q_norm.weight", "blocks.0.attn.q_norm.weight"),
        (None, "extra", "extra"),
    ],
)
def test_missing_and_unknown_tensors_are_refused(
    checkpoints: Path, tmp_path: Path, drop: str | None, add: str | None, message: str
) -> None:
    weights = torch.load(checkpoints / "original.pt", weights_only=True)
    if drop:
        del weights[drop]
    if add:
        weights[add] = torch.zeros(1)
    torch.save(weights, tmp_path / "changed.pt")
    with pytest.raises(UsageError, match=message):
        load_dit_checkpoint(tmp_path / "changed.pt", num_heads=4)


class _Payload:
    """An object that `weights_only` must not bring to life."""


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    for name, content in {"list.pt": [1, 2], "object.pt": _Payload()}.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UsageError, match=name):
            load_dit_checkpoint(tmp_path / name, num_heads=4)
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(UsageError, match=r"text\.pt cannot be read"):
        load_dit_checkpoint(tmp_path / "text.pt", num_heads=4)
    with pytest.raises(UsageError, match=r"absent\.pt"):
        load_dit_checkpoint(tmp_path / "absent.pt", num_heads=4)
