"""The small classifier of the golden cases that need one (`tests/golden_small`), whose weights they hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class TwoConvolutions(nn.Module):
    """Two convolutions, each before BatchNorm, or with a bias and none."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        (a, channels, *_), (b, *_) = weights["conv1.weight"].shape, weights["conv2.weight"].shape
        normed = "bn1.weight" in weights
        self.conv1 = nn.Conv2d(channels, a, 3, padding=1, bias=not normed)
        self.bn1 = nn.BatchNorm2d(a) if normed else nn.Identity()
        self.conv2 = nn.Conv2d(a, b, 3, stride=2, bias=not normed)
        self.bn2 = nn.BatchNorm2d(b) if normed else nn.Identity()
        self.fc = nn.Linear(b, len(weights["fc.bias"]))
        self.load_state_dict(dict(weights), strict=False)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))
