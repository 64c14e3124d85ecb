"""DiffFit (Xie et al. 2023, arXiv 2304.06648): the few weights of a DiT that Minimax Diffusion fine-tunes.

All biases, the label table, and scales γ, initially 1, in the first half of the blocks: of the queries, keys and
values, of the attention's projection, and of what attention and MLP add to the residual stream. Every γ multiplies
outputs of one linear layer, so tuned weights fold back into a plain DiT of the same shape. Legend: d width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ddbench.methods.diffusion.network import DenoisingNetwork

LABEL_TABLE = "embedder.class_embedder.embedding_table.weight"
GAMMA = "gamma"


class OutputScale(nn.Module):
    """γ on some of a linear layer's outputs: s ∘ (W x + b), with s = γ there and 1 elsewhere."""

    def __init__(self, linear: nn.Linear, outputs: Tensor) -> None:
        super().__init__()
        self.linear, self.outputs = linear, outputs
        self.gamma = nn.Parameter(torch.ones(len(outputs), device=linear.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * output_scale(self.linear, self.outputs, self.gamma)


def output_scale(linear: nn.Linear, outputs: Tensor, gamma: Tensor) -> Tensor:
    """(out features,) s: γ at `outputs`, 1 elsewhere."""
    return torch.ones(linear.out_features, device=gamma.device).index_put((outputs,), gamma)


class DiffFit:
    """A network with DiffFit's weights set free.

    It shares the frozen weights with the network that it was made of, which stays as it is.
    """

    network: DenoisingNetwork
    trained: dict[str, nn.Parameter]
    """The trained weights by their names in a plain network; `<layer>.gamma` for the scales."""

    def __init__(self, network: DenoisingNetwork) -> None:
        self.network = _sharing_weights(network)
        self.trained = {
            name: nn.Parameter(weight.detach().clone())
            for name, weight in network.named_parameters()
            if name.endswith(".bias") or name == LABEL_TABLE
        }
        for name, weight in self.trained.items():
            _replace(self.network, name, weight)
        for layer, outputs in scaled_layers(network):
            linear = self.network.get_submodule(layer)
            assert isinstance(linear, nn.Linear)
            scaled = OutputScale(linear, outputs)
            _replace(self.network, layer, scaled)
            self.trained[f"{layer}.{GAMMA}"] = scaled.gamma


def scaled_layers(network: DenoisingNetwork) -> Iterator[tuple[str, Tensor]]:
    """(name of a linear layer, the outputs of it that have a γ).

    A block's residual branches are gated by rows 2d … 3d-1 (attention) and 5d … 6d-1 (MLP) of its modulation layer, so
    γ ∘ (gate ∘ branch) is γ on those rows.
    """
    blocks = network.transformer.transformer_blocks
    for index in range(len(blocks) // 2):
        block = f"transformer.transformer_blocks.{index}"
        weight = blocks[index].attn1.to_q.weight
        every = torch.arange(len(weight), device=weight.device)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            yield f"{block}.attn1.{part}", every
        width = len(every)
        yield f"{block}.norm1.linear", torch.cat([every + 2 * width, every + 5 * width])


@torch.no_grad()
def folded(network: DenoisingNetwork, trained: Mapping[str, Tensor]) -> DenoisingNetwork:
    """The plain network that computes what DiffFit's does with these weights; it shares the unchanged ones.

    Args:
        trained: as `DiffFit.trained`.
    """
    tuned = _sharing_weights(network)
    for name, weight in trained.items():
        if not name.endswith(f".{GAMMA}"):
            _replace(tuned, name, nn.Parameter(weight.detach().clone(), requires_grad=False))
    for layer, outputs in scaled_layers(network):
        linear = tuned.get_submodule(layer)
        assert isinstance(linear, nn.Linear)
        scale = output_scale(linear, outputs, trained[f"{layer}.{GAMMA}"])
        linear.weight = nn.Parameter(linear.weight * scale[:, None], requires_grad=False)
        linear.bias = nn.Parameter(linear.bias * scale, requires_grad=False)
    return tuned


def _sharing_weights(network: DenoisingNetwork) -> DenoisingNetwork:
    """A copy with modules of its own, whose frozen parameters lie in the original's memory."""
    views = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    return copy.deepcopy(network, views)


def _replace(network: nn.Module, name: str, value: nn.Module | nn.Parameter) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, value)
