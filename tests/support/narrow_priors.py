"""Known priors that a test can afford."""

from __future__ import annotations

from dataclasses import replace

from ddbench.methods.diffusion.priors.catalogue import KNOWN, KnownPrior


def narrow(name: str) -> KnownPrior:
    """A prior with everything that the catalogue says of it, but two narrow layers."""
    known = KNOWN[name]
    network = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
    autoencoder = {"block_out_channels": (4,) * 4, "norm_num_groups": 2, "layers_per_block": 1}
    return replace(known, network={**known.network, **network}, autoencoder={**known.autoencoder, **autoencoder})
