"""DiffFit: which weights train, how many at DiT-XL/2, and that a plain DiT with folded weights computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.minimax.difffit import DiffFit, folded

MakePrior = Callable[..., Path]


def test_at_dit_xl_2_it_trains_the_papers_1_74_million_weights() -> None:
    with torch.device("meta"):
        transformer: Any = DiTTransformer2DModel(
            num_attention_heads=16,
            attention_head_dim=72,
            in_channels=4,
            out_channels=8,
            num_layers=28,
            sample_size=32,
            patch_size=2,
            num_embeds_ada_norm=1000,
        )
    for block in transformer.transformer_blocks[1:]:
        block.norm1.emb = transformer.transformer_blocks[0].norm1.emb
    trained = DiffFit(DenoisingNetwork(transformer, 0)).trained
    counted = {"label table": 0, "block biases": 0, "other biases": 0, "gamma": 0}
    for name, weight in trained.items():
        if name.endswith(".gamma"):
            part = "gamma"
        elif name.endswith(".bias"):
            part = "block biases" if "transformer_blocks" in name else "other biases"
        else:
            part = "label table"
        counted[part] += weight.numel()
    # 1001 labels; 15 d in each of 28 blocks; patches, time (2) and output; 6 d in each of 14 blocks. d = 1152.
    assert counted == {"label table": 1_153_152, "block biases": 483_840, "other biases": 5_792, "gamma": 96_768}
    assert sum(counted.values()) == 1_739_552


@pytest.fixture
def network(make_prior: MakePrior) -> DenoisingNetwork:
    return Prior.load(find_prior(make_prior(channels=2, learned_variance=True))).network


def randomised(difffit: DiffFit) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in difffit.trained.values():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return {name: weight.detach() for name, weight in difffit.trained.items()}


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 2, 8, 8, generator=generator), torch.tensor([3, 500, 999]), torch.tensor([0, 2, 3])


def evaluate(network: DenoisingNetwork) -> Tensor:
    x, t, labels = inputs()
    return network(x, network.embed_time(t) + network.embed_labels(labels))


def test_exactly_the_trained_weights_get_a_gradient(network: DenoisingNetwork) -> None:
    before = evaluate(network)
    difffit = DiffFit(network)
    assert torch.equal(evaluate(difffit.network), before), "it starts as the prior"
    free = {id(p) for p in difffit.network.parameters() if p.requires_grad}
    assert free == {id(p) for p in difffit.trained.values()}
    evaluate(difffit.network).square().sum().backward()
    assert all(p.grad is not None for p in difffit.trained.values())
    assert all(p.grad is None for p in difffit.network.parameters() if not p.requires_grad)

    names = set(difffit.trained)
    own = dict(network.named_parameters())
    assert {n for n in names if not n.endswith(".gamma")} == {
        n for n in own if n.endswith("bias") or "embedding_table" in n
    }
    # Two blocks: the first one has scales.
    block = "transformer.transformer_blocks.0"
    width = own[f"{block}.attn1.to_q.weight"].shape[0]
    assert {n: difffit.trained[n].numel() for n in names if n.endswith(".gamma")} == {
        **{f"{block}.attn1.{part}.gamma": width for part in ("to_q", "to_k", "to_v", "to_out.0")},
        f"{block}.norm1.linear.gamma": 2 * width,
    }


def test_the_prior_it_was_made_of_stays_as_it_is(network: DenoisingNetwork) -> None:
    before = {name: p.clone() for name, p in network.named_parameters()}
    difffit = DiffFit(network)
    folded(network, randomised(difffit))
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    frozen = "transformer.transformer_blocks.1.ff.net.2.weight"
    assert difffit.network.get_parameter(frozen).data_ptr() == network.get_parameter(frozen).data_ptr(), "shared"


def test_folded_weights_compute_the_same_in_a_plain_network(network: DenoisingNetwork) -> None:
    difffit = DiffFit(network)
    plain = folded(network, randomised(difffit))
    assert plain.state_dict().keys() == network.state_dict().keys()
    with torch.no_grad():
        expected, found = evaluate(difffit.network), evaluate(plain)
    assert (expected - evaluate(network)).abs().max() > 0.1, "the weights moved"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_gates_scale_what_attention_and_mlp_add(network: DenoisingNetwork) -> None:
    """γ ∘ (gate ∘ branch), worked out from the block's own parts."""
    difffit = DiffFit(network)
    trained = {
        name: torch.ones_like(p) if name.endswith(".gamma") else p.detach() for name, p in difffit.trained.items()
    }
    gamma = trained["transformer.transformer_blocks.0.norm1.linear.gamma"]
    width = len(gamma) // 2
    gamma[:width], gamma[width:] = torch.linspace(0.5, 2, width), torch.linspace(-1, 1, width)
    block = network.transformer.transformer_blocks[0]
    tuned = folded(network, trained).transformer.transformer_blocks[0]
    generator = torch.Generator().manual_seed(2)
    h, c = torch.randn(2, 16, width, generator=generator), torch.randn(2, width, generator=generator)
    normed, gate, shift, scale, gate_mlp = block.norm1(h, None, c)
    after = h + gamma[:width] * (gate[:, None] * block.attn1(normed))
    branch = block.ff(block.norm3(after) * (1 + scale[:, None]) + shift[:, None])
    expected = after + gamma[width:] * (gate_mlp[:, None] * branch)
    torch.testing.assert_close(tuned(h, class_labels=c), expected, rtol=0, atol=1e-5)


def test_a_saved_tuned_network_is_an_ordinary_prior(
    network: DenoisingNetwork, make_prior: MakePrior, tmp_path: Path
) -> None:
    plain = folded(network, randomised(DiffFit(network)))
    metadata = find_prior(make_prior(channels=2, learned_variance=True, name="again")).metadata
    plain.save(tmp_path / "tuned", metadata, torch.float32)
    loaded = Prior.load(find_prior(tmp_path / "tuned")).network
    torch.testing.assert_close(evaluate(loaded), evaluate(plain), rtol=0, atol=1e-6)
