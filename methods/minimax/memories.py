"""The minimax criteria (Gu et al., CVPR 2024, arXiv 2311.15529, section 3.2) on two memories of each class.

Legend: B batch, D numbers in a latent, M latents in a memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddbench.benchmark.core.transfers import send


class Memory:
    """The newest latents of each class, first in, first out.

    Args:
        size: the most latents of one class.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.of_class: dict[int, Tensor] = {}
        """Class index -> its latents (M, D), oldest first; a class without any is left out."""

    def push(self, classes: Sequence[int], latents: Tensor) -> None:
        """Add (B, D) latents of those classes."""
        for class_index, new in by_class(latents.detach(), classes).items():
            held = self.of_class.get(class_index, new[:0])
            self.of_class[class_index] = torch.cat([held, new])[-self.size :]


def by_class(latents: Tensor, classes: Sequence[int]) -> dict[int, Tensor]:
    """Class index -> its rows of (B, D) latents, in their order; classes rise."""
    order = torch.tensor(sorted(range(len(classes)), key=classes.__getitem__))
    counts = sorted(Counter(classes).items())
    parts = latents[send(order, latents.device)].split([count for _, count in counts])
    return dict(zip((class_index for class_index, _ in counts), parts, strict=True))


def minimax_losses(x0: Tensor, classes: Sequence[int], real: Memory, generated: Memory) -> tuple[Tensor, Tensor]:
    """Representativeness and diversity, before their weights: means over the n classes of the batch of

        1 - min cos(P, R)        the least similar pair of a prediction and a real latent
        max cos(P, Q)            the most similar pair of a prediction and an earlier prediction

    over all pairs, with P the class's predictions in the batch, R its real memory and Q its memory of predictions. A
    class that has no memory yet counts in n and adds nothing.

    Args:
        x0: (B, D) predicted clean latents, with their gradient.
    """
    predictions = by_class(x0, classes)
    representativeness = diversity = torch.zeros((), device=x0.device)
    for class_index, predicted in predictions.items():
        if class_index in generated.of_class:
            p = F.normalize(predicted, dim=1)
            r = F.normalize(real.of_class[class_index], dim=1)
            q = F.normalize(generated.of_class[class_index], dim=1)
            representativeness = representativeness + (1 - (p @ r.T).min())
            diversity = diversity + (p @ q.T).max()
    return representativeness / len(predictions), diversity / len(predictions)
