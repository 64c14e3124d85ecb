"""Whether a prior's class list is its network's: real images are denoised under the label that each class should have.

A network that was told the right class predicts the noise a little better. Every image is denoised under the labels of
all checked classes, with the same noise, and the errors under the listed labels are compared with those under labels
dealt out at random among these classes: a permutation test, exact whatever the network and the images are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.schedule import alpha_bar

LEVELS = (0.3, 0.5, 0.7)
"""Noise levels as shares of the training schedule: little noise leaves nothing to guess, much hides every class."""
CHANCE = 0.01
"""Labels dealt out at random fit as well as the listed ones more often than this: they are refused."""
CERTAIN = 0.001
"""No further images are looked at."""
DEALS = 9999
LEAST_CLASSES = 6
"""With fewer there are too few ways to deal labels out."""


@dataclass(frozen=True)
class LabelFit:
    """What `check_labels` found."""

    p_value: float
    classes: int
    images: int
    best: int
    """Number of classes whose own label denoised their images best."""


def check_labels(prior: Prior, images: Mapping[str, np.ndarray]) -> LabelFit | None:
    """Compare the prior's labels with real images of its classes, an image of each class at a time until it is plain.

    Args:
        images: class id -> (n, H, W, channels) uint8.

    Returns:
        How well they fit; None where there are fewer than six classes, of which nothing can be said.

    Raises:
        UsageError: the labels fit no better than chance.
    """
    class_ids = [class_id for class_id, found in images.items() if len(found)]
    if len(class_ids) < LEAST_CLASSES:
        return None
    labels = torch.tensor([prior.label_of(class_id) for class_id in class_ids])
    rounds = min(len(images[class_id]) for class_id in class_ids)
    deals = torch.rand(DEALS, len(labels), generator=seeds.stream(0, "label check", "deals")).argsort(1)
    errors = torch.zeros(len(labels), len(labels), dtype=torch.float64)
    for i in range(rounds):
        for row, class_id in enumerate(class_ids):
            errors[row] += _errors(prior, images[class_id][i], labels, f"{class_id}/{i}")
        own = errors.diagonal()
        dealt = errors[torch.arange(len(labels)), deals].sum(1)
        p_value = (1 + int((dealt <= own.sum() + 1e-12).sum())) / (1 + DEALS)
        if p_value <= CERTAIN:
            break
    best = int((errors.argmin(1) == torch.arange(len(labels))).sum())
    fit = LabelFit(p_value, len(labels), (i + 1) * len(labels), best)
    if p_value > CHANCE:
        raise UsageError(
            f"the class list does not fit the network: {fit.images} real images of {fit.classes} classes are "
            "denoised no better under their own labels than under labels dealt out at random "
            f"(p = {p_value:.2f}, expected at most {CHANCE}; {best} of the classes fit their own label best). "
            "Correct the order of class_ids, or give the list with --class-ids FILE"
        )
    return fit


@torch.no_grad()
def _errors(prior: Prior, image: np.ndarray, labels: torch.Tensor, name: str) -> torch.Tensor:
    """(L,) how much more than the mean over labels the error of ε is under each, in standard deviations over labels,
    summed over noise levels: so each level counts alike."""
    x, _ = prior.encode(image[None])
    signal = alpha_bar(prior.metadata.schedule)
    conditions, found = prior.embed_labels(labels), torch.zeros(len(labels), dtype=torch.float64)
    for level in LEVELS:
        t = int(level * len(signal))
        noise = torch.randn(x.shape, generator=seeds.stream(0, "label check", name, t)).to(x.device)
        noisy = (float(signal[t]) ** 0.5 * x + (1 - float(signal[t])) ** 0.5 * noise).expand(len(labels), -1, -1, -1)
        epsilon, _ = prior.predict(noisy, t, conditions)
        error = (epsilon - noise).square().flatten(1).mean(1).double().cpu()
        found += (error - error.mean()) / error.std().clamp(min=1e-12)
    return found
