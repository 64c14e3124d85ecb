"""The first half of CaO2 (ICCV 2025): of a pool of samples, those that a classifier takes for their class.

Legend: N images, C latent channels, h = w latent side, K classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.normalisation import unit_range
from ddbench.methods.observer import Observer, image_size_of


@torch.no_grad()
def probabilities(task: DistillTask, prior: Prior, seen_by: Observer, latents: Tensor, *, raw: bool) -> np.ndarray:
    """Latents (N, C, h, w) -> what the classifier makes of their images, at the side of `task.train`: (N, K).

    Args:
        raw: it sees pixels in [-1, 1], not normalised as in its training.
    """
    image_size, found = image_size_of(task.train), []
    for block in latents.split(task.batch_size):
        images = unit_range(prior.decode(block), task.device)
        if images.shape[-1] != image_size:
            images = interpolate(images, (image_size, image_size), mode="bilinear", antialias=True)
        x = seen_by.normalise(images)
        found.append(seen_by.network()((2 * images - 1).expand_as(x) if raw else x).float().softmax(1))
    return torch.cat(found).cpu().numpy()


def select(probabilities: np.ndarray, label: int, count: int, order: Literal["descending", "ascending"]) -> list[int]:
    """The `count` rows of (N, K) to keep: those classified as `label` first, then the others; within each by the
    largest probability, whichever class has it; ties in the order of the rows."""
    confidence = probabilities.max(1) * (-1 if order == "descending" else 1)
    wrong = probabilities.argmax(1) != label
    return np.lexsort((confidence, wrong))[:count].tolist()
