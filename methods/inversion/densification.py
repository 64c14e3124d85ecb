"""Data densification (G-VBSM, section 3.1): a term that keeps the images of a class apart.

    Σ_c KL( softmax(λ_c / 4) ‖ softmax(λ_c) )

λ_c: eigenvalues of the Gram matrix X Xᵀ of the class's images in the batch, each a row of X. The first argument is a
constant, so that the spectrum is drawn to a flatter one. A class with one image in the batch adds nothing.

Legend: B images, C channels, S side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ddbench.benchmark.core.transfers import send

SIDE = 32
"""Side in pixels to which images are averaged; smaller ones stay as they are."""
TEMPERATURE = 4.0


def densification(images: Tensor, labels: Tensor) -> Tensor:
    """The term above, in nats; differentiable.

    Args:
        images: (B, C, S, S), normalised.
        labels: (B,), on the CPU.
    """
    small = F.adaptive_avg_pool2d(images, SIDE) if images.shape[-1] > SIDE else images
    total = torch.zeros((), device=images.device)
    for label in labels.unique():
        rows = small[send((labels == label).nonzero()[:, 0], images.device)].flatten(1)
        eigenvalues = torch.linalg.eigvalsh(rows @ rows.T)
        flatter = (eigenvalues.detach() / TEMPERATURE).log_softmax(0)
        total = total + F.kl_div(eigenvalues.log_softmax(0), flatter, reduction="sum", log_target=True)
    return total
