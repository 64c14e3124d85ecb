"""DiT weights of other kinds as a `diffusers` DiTTransformer2DModel: the naming of facebookresearch/DiT, with DiffFit's
scales or without, and what older versions of `diffusers` wrote (Transformer2DModel).

Strict: every tensor of the file must have its place, and every weight of the network must come from the file.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.configs import TransformerConfig, validated
from ddbench.methods.diffusion.priors.weight_files import read_weights

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
SCALE_NAMES = (".gamma1", ".gamma2")
_SCALES = {"attn.gamma1": "attn.qkv", "attn.gamma2": "attn.proj", "gamma1": "attn.proj", "gamma2": "mlp.fc2"}
"""DiffFit's scales in a block, as Minimax Diffusion's program saves them -> the linear layer whose outputs each
multiplies: γ ∘ (W x + b), and of a residual branch γ ∘ (gate ∘ (W x + b)), which is the same of γ W and γ b."""


def load_dit_checkpoint(path: Path, *, num_heads: int, tuned: bool = True) -> Any:
    """Read an original DiT checkpoint into a DiTTransformer2DModel, the embedder copied into every block.

    Whatever `read_weights` reads. Widths, depth, patch, side and classes follow from the tensors' shapes; DiffFit's
    scales become part of the weights that they multiply. The network needs freq_shift = 0 (see `DenoisingNetwork`).

    Args:
        num_heads: attention heads, which no tensor's shape tells; 16 for DiT-XL, DiT-L, 12 for DiT-B, 6 for DiT-S.
        tuned: whether it may have DiffFit's scales.

    Raises:
        UsageError: as `read_weights`; scales where there may be none; a missing or unknown tensor, or a shape that does
            not fit.
    """
    weights = read_weights([path])
    if not tuned and (scales := [name for name in weights if name.endswith(SCALE_NAMES)]):
        raise UsageError(
            f"{path} holds tuned weights, with DiffFit's scales ({scales[0]}, …); install them under a name of their "
            "own: bench prepare prior NAME --like dit-xl-2-256 --from FILE"
        )
    return _of_original(path, weights, num_heads)


def load_diffusers_dit(config: Mapping[str, Any], *files: Path) -> Any:
    """Read weights that lie in a folder of `diffusers`, of whatever age, into a DiTTransformer2DModel.

    Args:
        config: its `config.json`; older versions call the class Transformer2DModel and have settings that a DiT lacks.
        files: of weights; their names may be the original's.

    Raises:
        UsageError: another network; as `read_weights`; a missing or unknown tensor, or a shape that does not fit.
    """
    path = files[0]
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
    own = validated(TransformerConfig, config, path.parent / "config.json")
    weights = read_weights(files)
    if "x_embedder.proj.weight" in weights:
        model = _of_original(path, weights, own.num_attention_heads)
        said = {
            key: (getattr(own, key), model.config[key]) for key in ("num_layers", "num_embeds_ada_norm", "patch_size")
        }
        if wrong := [f"{key} is {one}, the weights have {other}" for key, (one, other) in said.items() if one != other]:
            raise UsageError(f"{path.parent / 'config.json'} is not that of the weights: {'; '.join(wrong)}")
        return model
    position = weights.pop("pos_embed.pos_embed", None)  # computed, and kept by some versions
    return _filled(path, {key: value for key, value in config.items() if key in taken}, weights, position)


def _of_original(path: Path, weights: dict[str, Tensor], num_heads: int) -> Any:
    config = _config(path, weights, num_heads)
    _fold_scales(path, weights)
    position = weights.pop("pos_embed")
    return _filled(path, config, _rename(path, weights, config["num_layers"]), position)


def _filled(path: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], position: Tensor | None) -> Any:
    """The network with these weights; `position` is compared with its own table and not used."""
    try:
        with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are replaced below
            model: Any = DiTTransformer2DModel(**config)
        model.load_state_dict(weights, strict=True)
    except Exception as error:  # of foreign settings and weights `diffusers` and torch raise whatever they stumble over
        said = " ".join(str(error).split())[:500] or type(error).__name__
        raise UsageError(f"{path} does not hold the weights of a DiT: {said}") from None
    if position is not None:
        table = model.pos_embed.pos_embed
        # Rounded as the file's was, even where that lies in float32 again.
        rounding = next(
            (kind for kind in (torch.bfloat16, torch.float16) if position.equal(position.to(kind).float())), None
        )
        within = 1e-5 if rounding is None else torch.finfo(rounding).eps
        if position.shape != table.shape or not torch.allclose(position, table, rtol=0, atol=within):
            raise UsageError(f"{path}: pos_embed is not the sine-cosine table of a {config['sample_size']} latent")
    return model.eval()


def _fold_scales(path: Path, weights: dict[str, Tensor]) -> None:
    """Multiply DiffFit's scales into the layers whose outputs they scale."""
    for name in [name for name in weights if name.endswith(SCALE_NAMES)]:
        block, _, scale = name.partition(".")[2].partition(".")
        layer = f"blocks.{block}.{_SCALES.get(scale)}"
        gamma = weights.pop(name).double()
        for leaf in ("weight", "bias"):
            scaled = weights.get(f"{layer}.{leaf}")
            if scaled is None or gamma.shape != scaled.shape[:1]:
                raise UsageError(
                    f"{path}: {name} of shape {tuple(gamma.shape)} scales no layer: expected {layer}.{leaf} with as "
                    "many outputs"
                )
            weights[f"{layer}.{leaf}"] = (scaled.double() * gamma.view(-1, *[1] * (scaled.dim() - 1))).float()


def _config(path: Path, weights: Mapping[str, Tensor], num_heads: int) -> dict[str, Any]:
    """The arguments of DiTTransformer2DModel that the tensors' shapes imply."""
    try:
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        _, tokens, _ = weights["pos_embed"].shape
        out_numbers, _ = weights["final_layer.linear.weight"].shape
        labels, _ = weights["y_embedder.embedding_table.weight"].shape
        out_channels = out_numbers // patch**2
    except KeyError as error:
        raise UsageError(
            f"{path} is not a DiT checkpoint: it has no tensor {error} (weights of `diffusers` need their config.json)"
        ) from None
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{path} is not a DiT checkpoint: its tensors have other numbers of dimensions") from None
    if width % num_heads:
        raise UsageError(f"{path}: {num_heads} heads do not divide the width {width}; give the right num_heads")
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return {
        "num_attention_heads": num_heads,
        "attention_head_dim": width // num_heads,
        "in_channels": channels,
        "out_channels": out_channels,
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
