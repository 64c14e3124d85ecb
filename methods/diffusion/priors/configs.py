"""`config.json` of a prior's networks: its types, and whether the weights beside it fit. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.methods.diffusion.priors.file_kinds import read_object

Some = Annotated[int, Field(ge=1, le=16384)]
"""A number of heads, channels, pixels: more are a slip, and would fill the memory before anything could be compared."""
Few = Annotated[int, Field(ge=1, le=1024)]
Model = TypeVar("Model", bound=BaseModel)


class TransformerConfig(BaseModel):
    """What a DiTTransformer2DModel is built with; the rest of its settings is left to `diffusers`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    in_channels: Some
    sample_size: Annotated[int, Field(ge=1, le=2048)]
    num_embeds_ada_norm: Annotated[int, Field(ge=1, le=10**6)]
    out_channels: Some | None = None
    num_attention_heads: Some = 16
    attention_head_dim: Some = 72
    num_layers: Few = 28
    patch_size: Few = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention_bias: bool = True
    activation_fn: str = "gelu-approximate"
    upcast_attention: bool = False
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5

    def shapes(self) -> dict[str, list[int]]:
        width, patch = self.num_attention_heads * self.attention_head_dim, self.patch_size
        table = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
        return {
            "pos_embed.proj.weight": [width, self.in_channels, patch, patch],
            table: [self.num_embeds_ada_norm + 1, width],
            "proj_out_2.weight": [patch**2 * (self.out_channels or self.in_channels), width],
        }


class AutoencoderConfig(BaseModel):
    """What an AutoencoderKL is built with; the rest of its settings is left to `diffusers`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    latent_channels: Some
    block_out_channels: Annotated[list[Some], Field(min_length=1, max_length=16)]
    in_channels: Some = 3
    out_channels: Some = 3
    down_block_types: list[str] | None = None
    up_block_types: list[str] | None = None
    layers_per_block: Few = 1
    norm_num_groups: Some = 32
    act_fn: str = "silu"

    def shapes(self) -> dict[str, list[int]]:
        first, last = self.block_out_channels[0], self.block_out_channels[-1]
        return {
            "encoder.conv_in.weight": [first, self.in_channels, 3, 3],
            "decoder.conv_in.weight": [last, self.latent_channels, 3, 3],
            "decoder.conv_out.weight": [self.out_channels, first, 3, 3],
        }


class UNetConfig(BaseModel):
    """What a UNet2DConditionModel is built with, as far as it is looked at; the rest is left to `diffusers`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    in_channels: Some
    out_channels: Some
    sample_size: Annotated[int, Field(ge=1, le=2048)]
    block_out_channels: Annotated[list[Some], Field(min_length=1, max_length=16)]
    cross_attention_dim: Some
    addition_embed_type: Literal["text_time"] | None = None
    """`text_time` (SDXL): it is told the pooled text and sizes as well."""
    addition_time_embed_dim: Some | None = None
    projection_class_embeddings_input_dim: Some | None = None

    @property
    def pooled_width(self) -> int:
        """Numbers of the pooled text; 0 where it is not told."""
        if self.addition_embed_type is None:
            return 0
        return (self.projection_class_embeddings_input_dim or 0) - SIZES * (self.addition_time_embed_dim or 0)

    def shapes(self) -> dict[str, list[int]]:
        first = self.block_out_channels[0]
        return {
            "conv_in.weight": [first, self.in_channels, 3, 3],
            "conv_out.weight": [self.out_channels, first, 3, 3],
        }


SIZES = 6
"""Numbers about an image's size that SDXL is told."""
CONFIGS: Mapping[str, type[TransformerConfig | UNetConfig | AutoencoderConfig]] = {
    "DiTTransformer2DModel": TransformerConfig,
    "UNet2DConditionModel": UNetConfig,
    "AutoencoderKL": AutoencoderConfig,
}


def read_transformer_config(path: Path) -> TransformerConfig:
    """Raises UsageError: no such file, another network, or missing and ill-typed settings, all in one message."""
    return _read(path, "DiTTransformer2DModel", TransformerConfig)


def read_unet_config(path: Path) -> UNetConfig:
    """Raises as `read_transformer_config`."""
    return _read(path, "UNet2DConditionModel", UNetConfig)


def read_autoencoder_config(path: Path) -> AutoencoderConfig:
    """Raises as `read_transformer_config`."""
    return _read(path, "AutoencoderKL", AutoencoderConfig)


def _read(path: Path, name: str, model: type[Model]) -> Model:
    content = read_object(path)
    if content.get("_class_name") != name:
        raise UsageError(f"{path}: expected the config of a {name}, got {content.get('_class_name')!r}")
    absent = [key for key, field in model.model_fields.items() if field.is_required() and key not in content]
    if absent:
        raise UsageError(f"{path} lacks {', '.join(absent)}; write it with save_pretrained")
    return validated(model, content, path)


def validated(model: type[Model], content: Mapping[str, Any], path: Path) -> Model:
    """The content of a JSON file as a model, its types taken strictly.

    Raises:
        Problems: missing and ill-typed values, a line each.
    """
    try:
        return model.model_validate_json(json.dumps(content), strict=True)  # as JSON: strictly, no list is a tuple
    except ValidationError as error:
        raise Problems(
            [f"{path}: {'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        ) from None


def shape_problems(path: Path, shapes: Mapping[str, list[int]]) -> list[str]:
    """How the weights beside a `config.json` differ from what it says of them; a few tensors tell it."""
    content = read_object(path)
    model = CONFIGS[content["_class_name"]]
    config = validated(model, content, path)
    expected = config.shapes()
    if not expected.keys() & shapes.keys():
        names = ", ".join(sorted(shapes)[:3]) or "no tensors"
        return [
            f"the weights in {path.parent} have other names than `diffusers`' {content['_class_name']} ({names}); "
            f"bench prepare prior NAME --from {path.parent} converts what it knows"
        ]
    wrong = [
        f"{path} asks for {name} of shape {shape}, the weights beside it have {shapes[name]}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    blocks = {name.split(".")[1] for name in shapes if re.match(r"transformer_blocks\.\d+\.", name)}
    if isinstance(config, TransformerConfig) and len(blocks) != config.num_layers:
        wrong.append(f"{path} says num_layers is {config.num_layers}, the weights beside it have {len(blocks)} blocks")
    return wrong
