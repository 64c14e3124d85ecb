"""Statistics as a running mean over the steps at which a teacher looks (G-VBSM, EDC):

    M̃ ← αM̃ + (1 − α)m

M̃ is what is compared, and the gradient is m's at weight 1, not 1 − α. In the programs M̃ begins at 0 with the run and
each batch goes on from where the one before left it: close to M, the statistics that it was optimised to. Here it
begins at M with every batch: an image would otherwise depend on the classes before its own, and so on which of them a
cell has, and a batch that began at 0 would be driven beyond M until 0 is forgotten (50 of EDC's 1,000 steps).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddbench.methods.inversion.statistics import Moments


class RunningMean:
    """M̃ of one teacher.

    Args:
        momentum: α; 0 leaves the moments as they are.
        begin: M, with which it begins.
    """

    def __init__(self, momentum: float, begin: Sequence[Moments]) -> None:
        self.momentum = momentum
        self.state = _flat(begin) if momentum else None
        """All of M̃ in one vector, for a checkpoint; None where nothing is kept."""

    def update(self, found: Sequence[Moments]) -> list[Moments]:
        """M̃ with a batch's moments in it; differentiable with respect to them."""
        if self.state is None:
            return list(found)
        now = _flat(found)
        self.state = (self.momentum * self.state + (1 - self.momentum) * now).detach()
        through = self.state + (now - now.detach())
        tensors = through.split([len(tensor) for one in found for tensor in one])
        return [Moments(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)]


def _flat(several: Sequence[Moments]) -> Tensor:
    return torch.cat([tensor for one in several for tensor in one])
