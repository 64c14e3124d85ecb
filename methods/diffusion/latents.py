"""Latents of the real training images: encoded once per (images, prior, class), kept for every later cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch

from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.prior import Prior

Posterior = Literal["mean", "sample"]


def latents_key(task: DistillTask, prior: Prior, class_index: int, posterior: Posterior) -> dict[str, Any]:
    """What determines the latents of one class, as JSON data.

    Raises:
        ValueError: the prior has no hash, so nothing made with it can be kept.
    """
    if prior.sha256 is None:
        raise ValueError("expected a prior loaded from files; one without a hash cannot key an artefact")
    return {
        "train": task.train_hash,
        "prior": prior.sha256,
        "precision": prior.precision,
        "device": prior.device.type,
        "class_id": task.class_ids[class_index],
        "posterior": posterior,
        "seed": task.seed if posterior == "sample" else None,
    }


def class_latents(task: DistillTask, prior: Prior, class_index: int, posterior: Posterior = "mean") -> np.ndarray:
    """Latents of all training images of one class, in the source's order: (N, C, h, w) float32.

    `mean` is the mean of the autoencoder's posterior; `sample` a draw from it for the image, flipped left to right
    with probability one half (what the released DMGD program clusters). A pixel prior's posterior is a point.
    """

    def encode() -> Iterator[np.ndarray]:
        indices = task.train.of_class(class_index)
        for start in range(0, len(indices), task.batch_size):
            block = indices[start : start + task.batch_size]
            task.progress(f"encoding class {task.class_ids[class_index]}: {start} of {len(indices)} images")
            images = task.train.read(block)
            if posterior == "mean":
                yield prior.encode(images)[0].cpu().numpy()
                continue
            streams = [task.stream("support latents", task.train.names[i]) for i in block]
            flips = [bool(torch.randint(2, (), generator=stream)) for stream in streams]
            images = np.stack([image[:, ::-1] if flip else image for image, flip in zip(images, flips, strict=True)])
            mean, std = prior.encode(images)
            if std is not None:
                noise = torch.stack([torch.randn(prior.latent_shape, generator=stream) for stream in streams])
                mean = mean + std * noise.to(mean.device)
            yield mean.cpu().numpy()

    key = latents_key(task, prior, class_index, posterior)
    return task.cache.arrays("latents", key, lambda: {"latents": np.concatenate(list(encode()))})["latents"]
