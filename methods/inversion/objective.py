"""What the images of a batch are optimised for, under one teacher:

    L = cross-entropy + r · d(moments of the BatchNorm inputs)

Moments are those of the whole batch, whatever fits into memory. In parts, a first pass collects them; then, m and v
being sums over parts, each part's gradient of  Σ_l ⟨∂d/∂m_l, m⟩ + ⟨∂d/∂v_l, v⟩  is exact. With (m_k, v_k) of part k
and its share q_k,  m = Σ q_k m_k  and  v = Σ q_k (v_k + (m_k − m)²),  whose inner m counts for 0: Σ q_k (m_k − m) = 0.

Legend: B images, C channels, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.statistics import BatchNormInputs, Moments, merged


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
        name: of its network, for messages.
    """

    def __init__(self, teacher: Teacher, params: InversionParams, name: str) -> None:
        self.teacher, self.params, self.network = teacher, params, teacher.network()
        self.inputs = BatchNormInputs(self.network, name)

    def backward(self, images: Tensor, labels: Tensor, block: int, weight: float = 1.0) -> Tensor:
        """Add `weight` times the gradient of L to `images.grad`, and return L.

        Args:
            images: (B, C, S, S) in [0, 1], a leaf.
            labels: (B,).
            block: the most images that are looked at at once; it bounds memory.
        """
        edges = spans(len(images), block)
        if len(edges) == 1:
            found, cross_entropy = self._look(images, labels)
            loss = cross_entropy + self._matching(found)
            (weight * loss).backward()
            return loss.detach()
        return self._backward_in_parts(images, labels, edges, weight)

    def _backward_in_parts(self, images: Tensor, labels: Tensor, edges: list[tuple[int, int]], weight: float) -> Tensor:
        with torch.no_grad():
            parts = [self._look(images[a:b], labels[a:b])[0] for a, b in edges]
        whole = [Moments(*(t.requires_grad_() for t in one)) for one in merged(parts, [b - a for a, b in edges])]
        matching = self._matching(whole)
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

    def _matching(self, found: list[Moments]) -> Tensor:
        p = self.params
        return p.statistics_weight * self.inputs.distance(found, p.first_layer_weight, p.variance_weight)


def spans(count: int, block: int) -> list[tuple[int, int]]:
    """Consecutive (start, end) of at most `block` items each."""
    return list(pairwise([*range(0, count, block), count]))
