"""Full-size networks with random weights: for measuring speed and memory where the true weights are not at hand.

The weights are torch's default initialisation, from a stream named after the prior; on the CPU they are the same
everywhere. Their images are noise: results are marked "timing only" and stand in no leaderboard.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel

from ddbench.benchmark.core import seeds
from ddbench.methods.diffusion.priors.catalogue import KnownPrior


def random_networks(known: KnownPrior) -> tuple[Any, Any]:
    """A DiTTransformer2DModel whose blocks share one embedder, and an AutoencoderKL."""
    # Both constructors draw from the global generator; the fork gives it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.stream_seed(0, "random prior", known.name))
        transformer: Any = DiTTransformer2DModel(**known.network, norm_eps=known.metadata.norm_eps)
        autoencoder: Any = AutoencoderKL(**known.autoencoder)
    blocks = transformer.transformer_blocks
    for block in blocks[1:]:
        block.norm1.emb = blocks[0].norm1.emb
    return transformer, autoencoder
