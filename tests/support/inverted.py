"""Classifiers to invert that are small enough to be written out, and runs of the loop on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddbench.methods.base import DistillTask
from ddbench.methods.inversion.inverting import BatchInversion
from ddbench.methods.inversion.method import Inversion
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.starts import Starts
from ddbench.methods.inversion.targets import load_targets

CLASSES = ("a", "b", "c")
PLAIN: dict[str, Any] = {"normalisation": "half", "min_scale": 1.0, "flip": False, "jitter": 0.0}
"""A view of the whole image, always."""


class Teacher:
    """Two BatchNorm layers with statistics of their own, in evaluation mode; an `Observer`."""

    def __init__(self, seed: int = 0, channels: int = 1, classes: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.sha256 = f"teacher {seed}"
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2),
            nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, classes),
        )  # fmt: skip
        with torch.no_grad():
            for tensor in (*self.layers.parameters(), *self.layers.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
            for layer in (self.layers[1], self.layers[4]):
                layer.running_var.abs_().add_(0.1)
        self.layers.eval().requires_grad_(False)
        self.largest = 0

    def network(self) -> nn.Module:
        return self.layers

    def normalise(self, images: Tensor) -> Tensor:
        self.largest = max(self.largest, len(images))
        return (images - 0.5) / 0.5

    def features(self, images: Tensor) -> Tensor:
        raise AssertionError("not asked for")


class Killed(Exception):
    pass


def adam_by_hand(
    x: Tensor, loss: Callable[[Tensor, int], Tensor], steps: int, rate: float, total: int, begun: int = 0
) -> Tensor:
    """Adam with betas 0.5 and 0.9, pixels clamped to [-1, 1] after each step, the rate on half a cosine."""
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t in range(1, steps + 1):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(leaf, t - 1), leaf)
        m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g * g
        now = rate * (1 + math.cos(math.pi * (begun + t - 1) / total)) / 2
        x = (x - now * (m / (1 - 0.5**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8)).clamp(-1, 1)
    return x


def inversion(
    task: DistillTask, keys: Sequence[tuple[int, int]], teachers: Sequence[Teacher] = (), **given: Any
) -> BatchInversion:
    params = InversionParams(**PLAIN | given)
    teachers = teachers or [Teacher()]
    targets = [load_targets(task, params, teacher, "it") for teacher in teachers]
    return BatchInversion(task, params, teachers, targets, Starts(task, params, teachers[0]), keys)


def method(task: DistillTask, **given: Any) -> Inversion:
    """Ready to distill, with a teacher of its own."""
    made = Inversion(InversionParams(**PLAIN | given))
    made._teachers = [Teacher()]
    made._targets = [load_targets(task, made.params, made._teachers[0], "it")]
    made._starts = Starts(task, made.params, made._teachers[0])
    return made
