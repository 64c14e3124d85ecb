"""DiT weights of other kinds as a `diffusers` DiTTransformer2DModel: original checkpoints (`.pt`, the naming of
facebookresearch/DiT), and what older versions of `diffusers` wrote (Transformer2DModel, pickled).

Strict: every tensor of the file must have its place, and every weight of the network must come from the file.
"""

from __future__ import annotations

import argparse
import inspect
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError

NORM_EPS = 1e-6
"""ε of the original's layer norms; `diffusers`' default is 1e-5."""

_TOP = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.linear": "proj_out_2",
    "final_layer.adaLN_modulation.1": "proj_out_1",
}
_EMBEDDER = {
    "t_embedder.mlp.0.weight": "timestep_embedder.linear_1.weight",
    "t_embedder.mlp.0.bias": "timestep_embedder.linear_1.bias",
    "t_embedder.mlp.2.weight": "timestep_embedder.linear_2.weight",
    "t_embedder.mlp.2.bias": "timestep_embedder.linear_2.bias",
    "y_embedder.embedding_table.weight": "class_embedder.embedding_table.weight",
}
_BLOCK = {
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}


def load_dit_checkpoint(path: Path, *, num_heads: int) -> Any:
    """Read an original DiT checkpoint into a DiTTransformer2DModel, the embedder copied into every block.

    Plain state dicts and the training format (the `ema` weights are taken) are read, with `weights_only`. Widths,
    depth, patch, side and classes follow from the tensors' shapes. The network needs freq_shift = 0 (see
    `DenoisingNetwork`).

    Args:
        num_heads: attention heads, which no tensor's shape tells; 16 for DiT-XL, DiT-L, 12 for DiT-B, 6 for DiT-S.

    Raises:
        UsageError: not a file that `weights_only` can read, a missing or unknown tensor, or a shape that does not fit.
    """
    weights = _read(path)
    config = _config(path, weights, num_heads)
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are replaced below
        model: Any = DiTTransformer2DModel(**config)
    position = weights.pop("pos_embed")
    if not torch.allclose(position, model.pos_embed.pos_embed, atol=1e-5):
        raise UsageError(f"{path}: pos_embed is not the sine-cosine table of a {config['sample_size']} latent")
    renamed = _rename(path, weights, config["num_layers"])
    try:
        model.load_state_dict(renamed, strict=True)
    except RuntimeError as error:
        raise UsageError(f"{path} does not hold the weights of a DiT: {error}") from None
    return model.eval()


def load_diffusers_dit(config: Mapping[str, Any], path: Path) -> Any:
    """Read weights that `diffusers` wrote, of whatever age, into a DiTTransformer2DModel.

    Args:
        config: its `config.json`; older versions call the class Transformer2DModel and have settings that a DiT lacks.
        path: safetensors, or pickled tensors (read with `weights_only`).

    Raises:
        UsageError: another network, a missing or unknown tensor, or a shape that does not fit.
    """
    if config.get("_class_name") not in ("DiTTransformer2DModel", "Transformer2DModel"):
        raise UsageError(f"{path.parent}: expected the config of a DiT, got {config.get('_class_name')!r}")
    taken = inspect.signature(DiTTransformer2DModel).parameters
    foreign = {key for key, value in config.items() if value and key not in taken and not key.startswith("_")}
    foreign -= {"attention_type"} if config.get("attention_type") == "default" else set()
    if config.get("norm_type", "ada_norm_zero") != "ada_norm_zero" or foreign:
        raise UsageError(
            f"{path.parent} holds another transformer than a DiT: norm_type is {config.get('norm_type')!r}, and it has "
            f"{', '.join(sorted(foreign)) or 'no other settings'}"
        )
    if path.suffix == ".safetensors":
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
    else:
        weights = _read(path)
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are replaced below
        model: Any = DiTTransformer2DModel(**{key: value for key, value in config.items() if key in taken})
    position = weights.pop("pos_embed.pos_embed", None)  # computed, and kept by some versions
    if position is not None and not torch.allclose(position, model.pos_embed.pos_embed, atol=1e-5):
        raise UsageError(f"{path}: pos_embed is not the sine-cosine table of a {config['sample_size']} latent")
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise UsageError(f"{path} does not hold the weights of a DiT: {error}") from None
    return model.eval()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        # The training format keeps its command line; a Namespace holds data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from None
    weights = content.get("ema", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UsageError(f"{path}: expected a state dict, or a training checkpoint with one under `ema`")
    return {name: tensor.float() for name, tensor in weights.items()}


def _config(path: Path, weights: Mapping[str, Tensor], num_heads: int) -> dict[str, Any]:
    """The arguments of DiTTransformer2DModel that the tensors' shapes imply."""
    try:
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        tokens = weights["pos_embed"].shape[1]
        out_numbers = weights["final_layer.linear.weight"].shape[0]
        labels = weights["y_embedder.embedding_table.weight"].shape[0]
    except KeyError as error:
        raise UsageError(f"{path} is not a DiT checkpoint: it has no tensor {error}") from None
    if width % num_heads:
        raise UsageError(f"{path}: {num_heads} heads do not divide the width {width}; give the right num_heads")
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return {
        "num_attention_heads": num_heads,
        "attention_head_dim": width // num_heads,
        "in_channels": channels,
        "out_channels": out_numbers // patch**2,
        "num_layers": len(blocks),
        "sample_size": math.isqrt(tokens) * patch,
        "patch_size": patch,
        "num_embeds_ada_norm": labels - 1,  # the table's last row is the null label
        "norm_eps": NORM_EPS,
    }


def _rename(path: Path, weights: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The tensors under `diffusers`' names; the joint query-key-value projection is split in three."""
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in weights.items():
        stem, _, leaf = name.rpartition(".")
        if stem in _TOP:
            renamed[f"{_TOP[stem]}.{leaf}"] = tensor
        elif name in _EMBEDDER:
            for layer in range(layers):
                renamed[f"transformer_blocks.{layer}.norm1.emb.{_EMBEDDER[name]}"] = tensor
        elif stem.startswith("blocks."):
            layer_name, _, part = stem.removeprefix("blocks.").partition(".")
            block = f"transformer_blocks.{layer_name}"
            if part == "attn.qkv":
                for target, third in zip(("to_q", "to_k", "to_v"), tensor.chunk(3), strict=True):
                    renamed[f"{block}.attn1.{target}.{leaf}"] = third
            elif part in _BLOCK:
                renamed[f"{block}.{_BLOCK[part]}.{leaf}"] = tensor
            else:
                unknown.append(name)
        else:
            unknown.append(name)
    if unknown:
        raise UsageError(f"{path} holds tensors that a DiT does not have: {', '.join(sorted(unknown)[:5])}")
    return renamed
