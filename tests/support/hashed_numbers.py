"""Numbers, and a tiny DiT made of them, that any program on any machine has without a file: hashes of their places.

The golden cases of `test_program_goldens.py` are of these inputs: only what the released programs gave is stored.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from scipy.linalg import hadamard
from torch import Tensor

WIDTH, HEADS, DEPTH, PATCH = 32, 2, 2, 2
CHANNELS, SIDE, CLASSES = 4, 8, 10
SHAPE = (CHANNELS, SIDE, SIDE)


def uniform(name: str, *shape: int) -> Tensor:
    """Float32 in [0, 1), by SplitMix64 of the name's CRC and the place."""
    with np.errstate(over="ignore"):
        z = np.arange(math.prod(shape), dtype=np.uint64) + (np.uint64(zlib.crc32(name.encode())) << np.uint64(32))
        z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((z >> np.uint64(40)).astype(np.float64) / 2**24).float().reshape(shape)


def spread(name: str, *shape: int) -> Tensor:
    """Float32 of mean 0 and variance 1, uniform: what stands in for normal noise."""
    return (2 * uniform(name, *shape) - 1) * 3**0.5


def dit_weights() -> dict[str, Tensor]:
    """By the original's names. Every layer counts, and what comes out is near to the noise that went in, as of a
    trained network: of one that predicts anything, chains soon leave float32 under guidance."""
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.weight": (WIDTH, CHANNELS, PATCH, PATCH),
        "x_embedder.proj.bias": (WIDTH,),
        "t_embedder.mlp.0.weight": (WIDTH, 256),
        "t_embedder.mlp.0.bias": (WIDTH,),
        "t_embedder.mlp.2.weight": (WIDTH, WIDTH),
        "t_embedder.mlp.2.bias": (WIDTH,),
        "y_embedder.embedding_table.weight": (CLASSES + 1, WIDTH),
        "final_layer.linear.weight": (PATCH * PATCH * 2 * CHANNELS, WIDTH),
        "final_layer.linear.bias": (PATCH * PATCH * 2 * CHANNELS,),
        "final_layer.adaLN_modulation.1.weight": (2 * WIDTH, WIDTH),
        "final_layer.adaLN_modulation.1.bias": (2 * WIDTH,),
    }
    for block in range(DEPTH):
        shapes |= {
            f"blocks.{block}.{layer}.{leaf}": shape
            for layer, (rows, columns) in {
                "attn.qkv": (3 * WIDTH, WIDTH),
                "attn.proj": (WIDTH, WIDTH),
                "mlp.fc1": (4 * WIDTH, WIDTH),
                "mlp.fc2": (WIDTH, 4 * WIDTH),
                "adaLN_modulation.1": (6 * WIDTH, WIDTH),
            }.items()
            for leaf, shape in (("weight", (rows, columns)), ("bias", (rows,)))
        }
    weights = {name: spread(name, *shape) / math.prod(shape[1:] or (16,)) ** 0.5 for name, shape in shapes.items()}
    weights["y_embedder.embedding_table.weight"] = spread("labels", CLASSES + 1, WIDTH)
    _let_noise_through(weights)
    table = get_2d_sincos_pos_embed(WIDTH, SIDE // PATCH, output_type="pt", base_size=SIDE // PATCH)
    return weights | {"pos_embed": table.float()[None]}


def _let_noise_through(weights: dict[str, Tensor]) -> None:
    """Patches are embedded along orthogonal directions, and what lies along them is what the last layer gives."""
    numbers = CHANNELS * PATCH * PATCH
    along = torch.from_numpy(hadamard(WIDTH)[:, :numbers]).float() / numbers**0.5
    weights["x_embedder.proj.weight"] = 0.2 * weights["x_embedder.proj.weight"] + 4 * along.reshape(
        WIDTH, CHANNELS, PATCH, PATCH
    )
    last = 0.1 * weights["final_layer.linear.weight"].reshape(PATCH, PATCH, 2 * CHANNELS, WIDTH)
    last[:, :, CHANNELS:] *= 5  # of the variance
    last[:, :, :CHANNELS] += 0.5 * along.reshape(WIDTH, CHANNELS, PATCH, PATCH).permute(2, 3, 1, 0)
    weights["final_layer.linear.bias"] *= 0.3
    weights["final_layer.linear.weight"] = last.reshape(-1, WIDTH)
    for name in weights:
        if "adaLN" in name:
            weights[name] *= 0.15


def write_dit(folder: Path) -> Path:
    torch.save(dit_weights(), folder / "hashed.pt")
    return folder / "hashed.pt"
