"""A running mean of the student's weights, which is tested in its place (EDC, Shao et al., NeurIPS 2024)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class RunningMean:
    """ā ← d·ā + (1 − d)·θ after every step, from the initial weights on. Buffers (BatchNorm's running statistics) are
    the student's as they are.

    Args:
        student: on its device; it is copied.
        decay: d.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self._student = student
        self._mean = copy.deepcopy(student).eval().requires_grad_(False)
        self._move = get_ema_multi_avg_fn(decay)

    def after_step(self, done: int, steps: int) -> None:
        """As `train_epoch` calls it."""
        self._move(list(self._mean.parameters()), [p.detach() for p in self._student.parameters()], done)

    @torch.no_grad()
    def tested(self) -> nn.Module:
        """The network to test now."""
        for mine, buffer in zip(self._mean.buffers(), self._student.buffers(), strict=True):
            mine.copy_(buffer)
        return self._mean

    def state_dict(self) -> dict[str, Any]:
        return self._mean.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean.load_state_dict(state)
