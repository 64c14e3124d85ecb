"""Which checkpoints of its surrogate's training IGD looks at (ICLR 2025), as its program finds them: where the loss
gradients have turned away from those of the checkpoint before.

Legend: C classes, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SMALL = 1e-6
"""What the program adds to the product of two norms."""


def take_checkpoints(gradients: Callable[[int], Tensor], epochs: Sequence[int], below: float) -> list[int]:
    """The first epoch, then each whose gradients have a cosine of less than `below` with those of the one taken before,
    on average over the classes.

    Args:
        gradients: epoch -> (C, P), the loss gradient of each class.
        epochs: in ascending order.
    """
    first, *later = epochs
    taken, before = [first], gradients(first)
    for epoch in later:
        here = gradients(epoch)
        cosines = (before * here).sum(1) / (torch.linalg.norm(before, dim=1) * torch.linalg.norm(here, dim=1) + SMALL)
        if float(cosines.mean()) < below:
            taken.append(epoch)
            before = here
    return taken
