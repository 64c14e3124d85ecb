"""Latents of the real training images: encoded once per (images, prior, class), kept for every later cell.

Latents of an autoencoder are kept in float16, half the room; the error of that rounding is measured and kept with them.
Pixel priors' are the images themselves, whose 256 levels float16 would shift by up to 2.4e-4: they stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.transfers import send
from ddbench.datasets.base import ImageSource
from ddbench.methods.base import DistillTask, Made
from ddbench.methods.diffusion.ahead import begun_ahead
from ddbench.methods.diffusion.prior import Encoder, Prior

Posterior = Literal["mean", "sample"]


def real_images(task: DistillTask, prior: Prior) -> ImageSource:
    """The task's training images as the prior's autoencoder is to see them: at its side, in the order of `task.train`.

    Latent priors see ADM's centre crop of the files, whatever the run's resolution; pixel priors the run's own images.
    """
    for image_size, resize in prior.metadata.real_images:
        return task.train_at(image_size, resize)
    return task.train


def latents_key(
    task: DistillTask, prior: Prior, class_index: int, posterior: Posterior, encoder: Encoder = "vae"
) -> dict[str, Any]:
    """What determines the latents of one class, as JSON data.

    Raises:
        ValueError: the prior has no hash, so nothing made with it can be kept.
    """
    if prior.sha256 is None:
        raise ValueError("expected a prior loaded from files; one without a hash cannot key an artefact")
    key = {
        "train": real_images(task, prior).class_sha256(class_index) or task.train_hash,
        "prior": prior.sha256,
        "precision": prior.precision,
        "device": prior.device.type,
        "class_id": task.class_ids[class_index],
        "posterior": posterior,
        "seed": task.seed if posterior == "sample" else None,
    }
    return key | ({} if prior.metadata.of_pixels else {"encoder": encoder, "dtype": "float16"})


def class_latents(
    task: DistillTask, prior: Prior, class_index: int, posterior: Posterior = "mean", encoder: Encoder = "vae"
) -> np.ndarray:
    """As `kept_latents`, in float32 whatever they are kept in."""
    return np.asarray(kept_latents(task, prior, class_index, posterior, encoder), np.float32)


def kept_latents(
    task: DistillTask, prior: Prior, class_index: int, posterior: Posterior = "mean", encoder: Encoder = "vae"
) -> np.ndarray:
    """Latents of all training images of one class, in the source's order: (N, C, h, w) float16, of a pixel prior
    float32; mapped from the disk where an earlier cell made them, encoded now where none did.

    `mean` is the mean of the autoencoder's posterior; `sample` a draw from it for the image, flipped left to right
    with probability one half (what the released DMGD program clusters). A pixel prior's posterior is a point.

    Raises:
        UsageError: an encoder that the prior does not have.
        RunError: latents that are not finite, or beyond float16.
    """
    source, class_id = real_images(task, prior), task.class_ids[class_index]

    def encode() -> Iterator[Tensor]:
        indices = source.of_class(class_index)
        blocks = np.split(indices, range(task.batch_size, len(indices), task.batch_size))
        done = 0
        # The next images are read while these are encoded, and the host waits for none of it.
        for block, images in zip(blocks, begun_ahead(source.read, blocks, threads=1), strict=True):
            task.progress(f"encoding class {class_id}: {done} of {len(indices)} images")
            done += len(block)
            if posterior == "mean":
                yield prior.encode(images, encoder)[0]
                continue
            streams = [task.stream("support latents", source.names[i]) for i in block]
            flips = [bool(torch.randint(2, (), generator=stream)) for stream in streams]
            images = np.stack([image[:, ::-1] if flip else image for image, flip in zip(images, flips, strict=True)])
            mean, std = prior.encode(images, encoder)
            if std is not None:
                noise = torch.stack([torch.randn(prior.latent_shape, generator=stream) for stream in streams])
                mean = mean + std * send(noise, mean.device)
            yield mean

    def make() -> Made:
        latents = torch.cat(list(encode())).cpu().numpy()
        return Made({"latents": latents}) if prior.metadata.of_pixels else _in_float16(latents, class_id)

    # The autoencoder alone makes latents: a tuned prior's are its base's.
    key = latents_key(task, prior, class_index, posterior, encoder) | {"prior": prior.latents_of}
    return task.cache.arrays("latents", key, make)["latents"]


def _in_float16(latents: np.ndarray, class_id: str) -> Made:
    with np.errstate(over="ignore"):
        rounded = latents.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise RunError(
            f"class {class_id} has latents that are not finite, or beyond float16 (the largest is "
            f"{np.abs(latents).max():g}); look at the prior's autoencoder and latent_scale, or use --precision fp32"
        )
    error = rounded.astype(np.float64) - latents
    measured = {
        "latents_float16_error_max": float(np.abs(error).max()),
        "latents_float16_error_rms": float(np.sqrt(np.mean(error**2))),
    }
    return Made({"latents": rounded}, measured=measured)
