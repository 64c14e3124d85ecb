"""Tiny text-to-image networks with random weights, as parts of a prior and as pipelines in the hub's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

SIDE = 8
TOKENS, WIDTH, POOLED, SIZE_WIDTH = 7, 16, 24, 4
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class Scripted:
    """Draws that were made before, the same for whoever asks: `NoiseSource` as plain sampling needs it."""

    def __init__(self, images: int, steps: int) -> None:
        draw = torch.Generator().manual_seed(5)
        self.first = torch.randn(images, 4, SIDE, SIDE, generator=draw)
        self.steps = torch.randn(steps, images, 4, SIDE, SIDE, generator=draw)

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        return self.first

    def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return self.steps[n]

    def labels(self, steps: int, width: int, distribution: Literal["uniform", "normal"]) -> Tensor:
        raise NotImplementedError

    def choice(self, n: int) -> Tensor:
        raise NotImplementedError


def unet(*, xl: bool = False, width: int = WIDTH, side: int = SIDE) -> Any:
    """Of Stable Diffusion 1.5's kind, or of SDXL's."""
    more: dict[str, Any] = {}
    if xl:
        more = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SIZE_WIDTH,
            "projection_class_embeddings_input_dim": 6 * SIZE_WIDTH + POOLED,
            "use_linear_projection": True,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=side, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=width, attention_head_dim=2, norm_num_groups=4, **more,
        )  # fmt: skip


def autoencoder(channels: int = 3) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoencoderKL(
            in_channels=channels, out_channels=channels, down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8), layers_per_block=1, latent_channels=4,
            norm_num_groups=4, sample_size=2 * SIDE,
        )  # fmt: skip


def text_prior(
    folder: Path, class_ids: tuple[str, ...], *, xl: bool = False, channels: int = 3, side: int = SIDE, **metadata: Any
) -> Path:
    """A prior's folder, with random numbers where encoded texts would be."""
    unet(xl=xl, side=side).save_pretrained(folder / "unet")
    autoencoder(channels).save_pretrained(folder / "vae")
    draw = torch.Generator().manual_seed(2)
    texts = {"tokens": torch.randn(len(class_ids) + 1, TOKENS, WIDTH, generator=draw)}
    if xl:
        texts["pooled"] = torch.randn(len(class_ids) + 1, POOLED, generator=draw)
    save_file(texts, folder / "prompts.safetensors")
    said = {
        "space": "latents of a small autoencoder",
        "resolution": 2 * side,
        "prediction": "epsilon",
        "learned_variance": False,
        "schedule": {"kind": "scaled_linear", "steps": 1000, "beta_start": 0.00085, "beta_end": 0.012},
        "freq_shift": 0,
        "norm_eps": 1e-5,
        "guided_channels": "all",
        "clip_denoised": False,
        "latent_scale": 0.18215,
        "class_ids": list(class_ids),
        "null_label": len(class_ids),
        "conditioning": {"prompts": [f"a {one}" for one in class_ids]},
    }
    (folder / "prior.json").write_text(json.dumps(said | metadata))
    return folder


def text_pipeline(folder: Path, *, xl: bool = False) -> Any:
    """A whole pipeline, saved as the hub has it. Needs `transformers`.

    Its tokenizer knows small letters, so names are some tokens long.
    """
    from diffusers import EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    files = folder.parent / f"{folder.name}-words"
    files.mkdir(parents=True)
    (files / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (files / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(files / "vocab.json"), str(files / "merges.txt"), model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=POOLED, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder, second = CLIPTextModel(config).eval(), CLIPTextModelWithProjection(config).eval()
    if xl:
        pipe = StableDiffusionXLPipeline(
            vae=autoencoder(), text_encoder=encoder, text_encoder_2=second, tokenizer=tokenizer, tokenizer_2=tokenizer,
            unet=unet(xl=True, width=2 * WIDTH), force_zeros_for_empty_prompt=True,
            scheduler=EulerDiscreteScheduler(**SCHEDULE, steps_offset=1, timestep_spacing="leading"),
        )  # fmt: skip
    else:
        pipe = StableDiffusionPipeline(
            vae=autoencoder(), text_encoder=encoder, tokenizer=tokenizer, unet=unet(), safety_checker=None,
            scheduler=PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1), feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
    pipe.save_pretrained(folder)
    return pipe
