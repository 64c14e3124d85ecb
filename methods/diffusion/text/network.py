"""A text-to-image network as a prior: a `diffusers` UNet that is told a class in words.

Latent diffusion (Rombach et al., CVPR 2022, arXiv 2112.10752) and SDXL (arXiv 2307.01952). The texts of all classes
were encoded when the prior was installed (`prompts.py`), so that a class's label leads to its encoded text as it
leads to a row of DiT's table, and methods see one kind of prior.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.loading import load_strictly
from ddbench.methods.diffusion.network import Denoiser


class TextNetwork(Denoiser):
    """A UNet2DConditionModel that cross-attends to a class's text.

    A label's embedding is the encoded text as one vector: L tokens of W numbers each, then, of SDXL, the P numbers of
    its pooled text. The time goes to the network as it is, which embeds it itself: `conditioning` puts it before them.

    Legend: as `Denoiser`; K classes, D = L·W + P, E = 1 + D.

    Args:
        unet: a UNet2DConditionModel (Any: type checkers do not see through diffusers' lazy imports).
        tokens: (K + 1, L, W), the texts of all classes and, last, that of "no class".
        resolution: the image's side in pixels, which SDXL is told as its original size and its target, nothing cut off.
        pooled: (K + 1, P), for a network that is told the pooled text and that size as well.
    """

    texts: Tensor
    sizes: Tensor
    """(1, 6): original size, top left corner of what was cut out of it, and target size, in pixels."""

    def __init__(self, unet: Any, tokens: Tensor, resolution: int, pooled: Tensor | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.shape: tuple[int, int] = (tokens.shape[1], tokens.shape[2])
        parts = [tokens.flatten(1)] + ([] if pooled is None else [pooled])
        self.register_buffer("texts", torch.cat(parts, 1).float(), persistent=False)
        sizes = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]]).float()
        self.register_buffer("sizes", sizes, persistent=False)
        side = unet.config.sample_size
        self.latent_shape = (unet.config.in_channels, side, side)

    def embed_time(self, timesteps: Tensor) -> Tensor:
        return timesteps.float().reshape(-1, 1)

    def embed_labels(self, labels: Tensor) -> Tensor:
        return self.texts[labels]

    def conditioning(self, time: Tensor, label: Tensor) -> Tensor:
        images = max(len(time), len(label))
        return torch.cat([time.to(label.dtype).expand(images, -1), label.expand(images, -1)], 1)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        time, text = conditioning[:, 0], conditioning[:, 1:]
        tokens = text[:, : math.prod(self.shape)].unflatten(1, self.shape)
        pooled = text[:, math.prod(self.shape) :]
        more = {"text_embeds": pooled, "time_ids": self.sizes.expand(len(x), 6)} if pooled.shape[1] else None
        return self.unet(x, time, tokens, added_cond_kwargs=more, return_dict=False)[0]

    def hold_in_bf16(self) -> None:
        for module in self.unet.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(torch.bfloat16)


def load_text_network(folder: Path, prompts: Path, resolution: int) -> TextNetwork:
    """The network in a folder of `diffusers`' two files, with its classes' encoded texts.

    Raises:
        UsageError: weights that are not exactly the network's, or texts that are not finite.
    """
    from diffusers import UNet2DConditionModel

    texts = load_file(prompts)
    if wrong := [name for name, values in texts.items() if not values.isfinite().all()]:
        raise UsageError(f"{prompts}: {wrong[0]} is not finite; install the prior again")
    unet = load_strictly(UNet2DConditionModel, folder)
    return TextNetwork(unet, texts["tokens"], resolution, texts.get("pooled"))
