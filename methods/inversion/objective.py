"""What the images of a batch are optimised for, under one teacher:

    L = cross-entropy + r · ((1 − c) · d(moments, those of all images) + c · d(moments, those of the classes)) + g · D

with d of `statistics.py` and D of `densification.py`; c and g are 0 unless a method sets them. Moments are those of the
whole batch, whatever fits into memory. In parts, a first pass collects them; then, m and v being sums over parts, each
part's gradient of  Σ_l ⟨∂d/∂m_l, m⟩ + ⟨∂d/∂v_l, v⟩  is exact. With (m_k, v_k) of part k and its share q_k,
m = Σ q_k m_k  and  v = Σ q_k (v_k + (m_k − m)²),  whose inner m counts for 0: Σ q_k (m_k − m) = 0.

Legend: B images, C channels, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.methods.inversion.densification import densification
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.running import RunningMean
from ddbench.methods.inversion.statistics import LayerInputs, Moments, merged
from ddbench.methods.inversion.targets import Targets


class Teacher(Protocol):
    """What is asked of a classifier here; an `Observer` is one."""

    @property
    def normalise(self) -> Callable[[Tensor], Tensor]:
        """(B, C, S, S) in [0, 1] -> what the network takes; differentiable."""

    def network(self) -> nn.Module:
        """In evaluation mode; it gives logits (B, K)."""


class Objective:
    """L under one teacher.

    Args:
        teacher: its network is in evaluation mode.
        targets: the moments that its layers' inputs are to have.
        name: of its network, for messages.
    """

    def __init__(self, teacher: Teacher, targets: Targets, params: InversionParams, name: str) -> None:
        self.teacher, self.targets, self.params, self.network = teacher, targets, params, teacher.network()
        self.inputs = LayerInputs(self.network, name, params.convolution_statistics)
        self.running = RunningMean(params.statistics_momentum, targets.whole)

    def backward(self, images: Tensor, labels: Tensor, block: int, weight: float = 1.0) -> Tensor:
        """Add `weight` times the gradient of L to `images.grad`, and return L. Each call is a step of the running mean.

        Args:
            images: (B, C, S, S) in [0, 1], a leaf.
            labels: (B,).
            block: the most images that are looked at at once; it bounds memory.
        """
        edges = spans(len(images), block)
        if len(edges) == 1:
            found, cross_entropy = self._look(images, labels)
            loss = cross_entropy + self._matching(found, labels)
            (weight * loss).backward()
            total = loss.detach()
        else:
            total = self._backward_in_parts(images, labels, edges, weight)
        if self.params.densification_weight:
            spread = self.params.densification_weight * densification(self.teacher.normalise(images), labels)
            (weight * spread).backward()
            total = total + spread.detach()
        return total

    def _backward_in_parts(self, images: Tensor, labels: Tensor, edges: list[tuple[int, int]], weight: float) -> Tensor:
        with torch.no_grad():
            parts = [self._look(images[a:b], labels[a:b])[0] for a, b in edges]
        whole = [Moments(*(t.requires_grad_() for t in one)) for one in merged(parts, [b - a for a, b in edges])]
        matching = self._matching(whole, labels)
        slopes = torch.autograd.grad(matching, [tensor for one in whole for tensor in one])
        total = matching.detach()
        for a, b in edges:
            found, cross_entropy = self._look(images[a:b], labels[a:b])
            share = (b - a) / len(images)
            part = share * cross_entropy
            total = total + part.detach()
            for one, all_of_it, by_mean, by_variance in zip(found, whole, slopes[::2], slopes[1::2], strict=True):
                spread = one.variance + (one.mean - all_of_it.mean.detach()).square()
                part = part + share * ((by_mean * one.mean).sum() + (by_variance * spread).sum())
            (weight * part).backward()
        return total

    def _look(self, images: Tensor, labels: Tensor) -> tuple[list[Moments], Tensor]:
        with self.inputs.seen() as found:
            logits = self.network(self.teacher.normalise(images))
        return found, F.cross_entropy(logits, labels)

    def _matching(self, found: list[Moments], labels: Tensor) -> Tensor:
        p, now = self.params, self.running.update(found)
        weights, share = (p.first_layer_weight, p.variance_weight), p.class_statistics_share
        apart = torch.zeros((), device=labels.device)
        if share < 1:
            apart = apart + (1 - share) * self.inputs.distance(now, self.targets.whole, *weights)
        if share > 0:
            apart = apart + share * self.inputs.distance(now, self.targets.of(labels), *weights)
        return p.statistics_weight * apart


def spans(count: int, block: int) -> list[tuple[int, int]]:
    """Consecutive (start, end) of at most `block` items each."""
    return list(pairwise([*range(0, count, block), count]))
