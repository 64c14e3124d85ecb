"""Groups of samples and their centroids, kept for every cell that chooses among them.

The choice compares all classes of the dataset, whichever of them a cell distills, so that a set does not depend on how
it is split into cells; each class's groups are an artefact that the cells of one set share.

Legend: G groups, I images of a class (IPC), C latent channels, h = w latent side, F features.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.ims3.choice import centroid
from ddbench.methods.ims3.params import IMS3Params
from ddbench.methods.normalisation import unit_range
from ddbench.methods.observer import Observer, class_features, image_size_of


def class_groups(
    task: DistillTask, prior: Prior, params: IMS3Params, seen_by: Observer, class_index: int
) -> Mapping[str, np.ndarray]:
    """`latents` (G, I, C, h, w) float32 and `centroids` (G, F) float64 of one class.

    Sample i of group g starts from the noise of image g·I + i, so the first group is what plain sampling gives.

    Raises:
        ValueError: the prior has no hash, so nothing made with it can be kept.
    """
    assert task.ipc is not None
    if prior.sha256 is None:
        raise ValueError("expected a prior loaded from files; one without a hash cannot key an artefact")
    class_id, ipc = task.class_ids[class_index], task.ipc

    def make() -> dict[str, np.ndarray]:
        latents, features = [], []
        images = [ImageKey(class_id, j) for j in range(params.groups * ipc)]
        for start in range(0, len(images), task.batch_size):
            task.progress(f"sampling groups of class {class_id}: {start} of {len(images)} images")
            block = images[start : start + task.batch_size]
            noise = StreamNoise(task.stream, block)
            made = sample(prior, block, [], noise, steps=params.steps, cfg_scale=params.cfg_scale).latents
            latents.append(made.cpu().numpy())
            features.append(features_of(task, prior, seen_by, made))
        found = np.concatenate(features).reshape(params.groups, ipc, -1)
        shape = params.groups, ipc, *prior.latent_shape
        return {
            "latents": np.concatenate(latents).reshape(shape),
            "centroids": np.stack([centroid(group) for group in found]),
        }

    key = {
        "prior": prior.sha256,
        "precision": prior.precision,
        "device": task.device.type,
        "class_id": class_id,
        "classifier": seen_by.sha256,
        "train": task.train_hash,
        "image_size": image_size_of(task.train),
        "seed": task.seed,
        "ipc": ipc,
        **params.model_dump(include={"steps", "cfg_scale", "groups"}),
        **prior.rounding,
    }
    return task.cache.arrays("groups", key, make)


@torch.no_grad()
def features_of(task: DistillTask, prior: Prior, seen_by: Observer, latents: Tensor) -> np.ndarray:
    """Latents (B, C, h, w) -> features of their images at the side of `task.train`: (B, F)."""
    images = unit_range(prior.decode(latents), task.device)
    image_size = image_size_of(task.train)
    if images.shape[-1] != image_size:
        images = interpolate(images, (image_size, image_size), mode="bilinear", antialias=True)
    return seen_by.features(images).float().cpu().numpy()


def real_centroid(task: DistillTask, params: IMS3Params, seen_by: Observer, class_index: int) -> np.ndarray:
    """(F,) of at most `real_images` random training images of a class."""
    features = class_features(task, seen_by, class_index)
    stream = task.stream("real centroid", task.class_ids[class_index])
    return centroid(features[torch.randperm(len(features), generator=stream)[: params.real_images].numpy()])
