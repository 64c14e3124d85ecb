"""The denoising network: a `diffusers` DiT whose conditioning vector is computed once and handed to all blocks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings, Timesteps
from torch import Tensor, nn

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.files import METADATA
from ddbench.methods.diffusion.priors.metadata import PriorMetadata


class _Given(nn.Module):
    """Stands in a block where its embedder was: the conditioning comes ready, in place of the class labels."""

    def forward(self, timestep: None, class_labels: Tensor, hidden_dtype: torch.dtype | None = None) -> Tensor:
        return class_labels


class Denoiser(nn.Module, ABC):
    """A network that predicts noise or velocities, as a prior asks it.

    Legend: N batch, C latent channels, H = W latent side, D width of a label's embedding, T of a time's, E of both.
    """

    latent_shape: tuple[int, int, int]
    """(C, H, W)."""

    @abstractmethod
    def embed_time(self, timesteps: Tensor) -> Tensor:
        """(N,) original timesteps -> (N, T)."""

    @abstractmethod
    def embed_labels(self, labels: Tensor) -> Tensor:
        """Labels of any shape (…) -> (…, D)."""

    @abstractmethod
    def conditioning(self, time: Tensor, label: Tensor) -> Tensor:
        """(N, T) and (N, D), or one of either for all -> (N, E), what `forward` takes."""

    @abstractmethod
    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(N, C, H, W) and (N, E) -> (N, C or more, H, W)."""

    @abstractmethod
    def hold_in_bf16(self) -> None:
        """Keep in bf16 what autocast casts at every pass; what comes out is the same."""


class DenoisingNetwork(Denoiser):
    """DiT (Peebles & Xie, arXiv 2212.09748) with one embedder.

    `DiTTransformer2DModel` holds a copy of the timestep and label embedder in every block. Here the first copy is
    kept and the others are dropped, so that a method can change the conditioning c = time(t) + label itself.

    Legend: N batch, C latent channels, H = W latent side, D width of the embedding.

    Args:
        transformer: a DiTTransformer2DModel (Any: type checkers do not see through diffusers' lazy imports); taken
            over and changed, `to_diffusers` gives a plain one back.
        freq_shift: of the timestep frequencies, see `PriorMetadata`.

    Raises:
        UsageError: the blocks' embedder copies differ, so there is no one conditioning vector.
    """

    def __init__(self, transformer: Any, freq_shift: float) -> None:
        super().__init__()
        blocks = transformer.transformer_blocks
        _check_equal_embedders([block.norm1.emb for block in blocks])
        self.embedder: CombinedTimestepLabelEmbeddings = blocks[0].norm1.emb
        self.frequencies = Timesteps(num_channels=256, flip_sin_to_cos=True, downscale_freq_shift=freq_shift)
        self.transformer = transformer
        config = transformer.config
        self.latent_shape = (config.in_channels, config.sample_size, config.sample_size)
        for block in blocks:
            block.norm1.emb = _Given()

    def embed_time(self, timesteps: Tensor) -> Tensor:
        """(N,) original timesteps -> (N, D)."""
        return self.embedder.timestep_embedder(self.frequencies(timesteps))

    def embed_labels(self, labels: Tensor) -> Tensor:
        """Labels of any shape (…) -> (…, D); none is dropped at random, a trainer puts in the null label itself."""
        return self.embedder.class_embedder.embedding_table(labels)

    def conditioning(self, time: Tensor, label: Tensor) -> Tensor:
        return time + label

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(N, C, H, W) and (N, D), time + label -> (N, C or 2C, H, W): ε, then v if the prior has it."""
        return self.transformer(x, timestep=None, class_labels=conditioning, return_dict=False)[0]

    def hold_in_bf16(self) -> None:
        """Keep the matrices in bf16 that autocast casts at every pass: what comes out is the same, bit for bit. The
        embedder, which is asked outside autocast, the patches' few weights and the position table stay in float32."""
        for module in self.transformer.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)

    def to_diffusers(self) -> Any:
        """A plain DiTTransformer2DModel with equal embedder copies, sharing nothing with this network."""
        transformer = copy.deepcopy(self.transformer)
        for block in transformer.transformer_blocks:
            block.norm1.emb = copy.deepcopy(self.embedder)
        return transformer

    def save(self, folder: Path, metadata: PriorMetadata, dtype: torch.dtype = torch.float16) -> None:
        """Write config, weights (as `dtype`) and `prior.json`, so that `find_prior(folder)` finds a pixel prior."""
        transformer = copy.deepcopy(self).to(dtype).to_diffusers()
        transformer.register_to_config(_name_or_path="")  # else the path it was loaded from is written
        transformer.save_pretrained(folder, safe_serialization=True)
        (folder / METADATA).write_text(metadata.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _check_equal_embedders(embedders: list[nn.Module]) -> None:
    first = embedders[0].state_dict()
    for index, embedder in enumerate(embedders[1:], start=1):
        if embedder is embedders[0]:
            continue
        for name, tensor in embedder.state_dict().items():
            if not torch.equal(tensor, first[name]):
                raise UsageError(
                    f"the prior's blocks have different embedders: {name} of block {index} is not that of block 0. "
                    "Guidance of the label embedding needs one; train with a shared embedder and save equal copies."
                )
