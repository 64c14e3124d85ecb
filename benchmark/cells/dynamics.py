"""What a training says of each of its images: how wrong it was early, how sure, and how often it was forgotten.

Of the outputs in training itself, for images as they were augmented, before each step's update: what the coresets'
published program records (Zheng et al., ICLR 2023). Legend: N images, K classes, B images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCORES = ("el2n", "aum", "forgetting")


class Dynamics:
    """Running sums over a training, on its device.

    Args:
        count: N.
        early_epochs: epochs from the first that count for EL2N.
    """

    def __init__(self, count: int, early_epochs: int, device: torch.device) -> None:
        self.early_epochs = early_epochs
        self._sums = {name: torch.zeros(count, device=device) for name in (*SCORES, "right")}

    def watched(self, network: nn.Module, order: Tensor, labels: Tensor, epoch: int) -> Callable[[Tensor], Tensor]:
        """The network's forward pass, of the batches of one epoch in their order, which records each output.

        Args:
            order: positions of the epoch's images, on the device.
            labels: (N,).
        """
        done = 0

        def forward(images: Tensor) -> Tensor:
            nonlocal done
            logits: Tensor = network(images)
            batch = order[done : done + len(images)]
            done += len(images)
            with torch.no_grad():
                self._record(batch, logits.float(), labels[batch], epoch)
            return logits

        return forward

    def _record(self, batch: Tensor, logits: Tensor, labels: Tensor, epoch: int) -> None:
        """EL2N: Σ ‖p − onehot‖₂; AUM: Σ (p_y − max over the others of p); forgetting: right, then wrong at the next
        pass. (B, K) logits."""
        p = logits.softmax(1)
        truth = F.one_hot(labels, p.shape[1]).bool()
        own = p.gather(1, labels[:, None])[:, 0]
        margin = own - p.masked_fill(truth, -1).amax(1)
        if epoch <= self.early_epochs:
            self._sums["el2n"][batch] += (p - truth.float()).norm(dim=1)
        self._sums["aum"][batch] += margin
        right = (logits.argmax(1) == labels).float()
        self._sums["forgetting"][batch] += self._sums["right"][batch] * (1 - right)
        self._sums["right"][batch] = right

    def state(self) -> dict[str, Tensor]:
        return {name: values.cpu() for name, values in self._sums.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for name, values in state.items():
            self._sums[name].copy_(values)

    def scores(self) -> dict[str, Tensor]:
        """Name -> (N,) float32."""
        return {name: self._sums[name].cpu() for name in SCORES}
