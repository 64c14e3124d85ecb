"""What the images of a batch are optimised for, under one teacher:

    L = cross-entropy + r · ((1 − c) · d(moments, those of all images) + c · d(moments, those of the classes))
        + b · ‖F − P‖ + g · D

with d of `statistics.py`, D of `densification.py`, and the features F at points P of `barycentre.py`; c, b and g are 0
unless a method sets them. Moments are those of the whole batch, whatever fits into memory. In parts, a first pass
collects them; then, m and v being sums over parts, each part's gradient of  Σ_l ⟨∂d/∂m_l, m⟩ + ⟨∂d/∂v_l, v⟩  is exact.
With (m_k, v_k) of part k and its share q_k, m = Σ q_k m_k  and  v = Σ q_k (v_k + (m_k − m)²),  whose inner m counts for
0: Σ q_k (m_k − m) = 0. Moments of images apart, and features, are a part's own rows, so their gradients are ⟨∂L/∂m, m⟩
over those rows.

Legend: B images, C channels, S side in pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core.transfers import send
from ddbench.methods.classifier import penultimate_seen
from ddbench.methods.inversion.densification import densification
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.running import RunningMean
from ddbench.methods.inversion.statistics import LayerInputs, Moments, by_group, merged
from ddbench.methods.inversion.targets import Targets


class Teacher(Protocol):
    """What is asked of a classifier here; an `Observer` is one."""

    @property
    def normalise(self) -> Callable[[Tensor], Tensor]:
        """(B, C, S, S) in [0, 1] -> what the network takes; differentiable."""

    def network(self) -> nn.Module:
        """In evaluation mode; it gives logits (B, K)."""


class Seen(NamedTuple):
    """What one forward pass shows."""

    moments: list[Moments]
    """Of the images together, or of each apart, statistic by statistic."""
    features: Tensor | None
    """(B, F), where they are to lie at points."""
    cross_entropy: Tensor


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

    def backward(
        self, images: Tensor, labels: Tensor, block: int, weight: float = 1.0, points: Tensor | None = None
    ) -> Tensor:
        """Add `weight` times the gradient of L to `images.grad`, and return L. Each call is a step of the running mean.

        Args:
            images: (B, C, S, S) in [0, 1], a leaf.
            labels: (B,), on the CPU: which classes there are says what is computed, and a GPU is not asked for it.
            block: the most images that are looked at at once; it bounds memory.
            points: (B, F) where their features are to lie, if a method sets that.
        """
        edges = spans(len(images), block)
        if len(edges) == 1:
            seen = self._look(images, send(labels, images.device))
            loss = seen.cross_entropy + self._matching(seen.moments, labels) + self._off(seen.features, points)
            (weight * loss).backward()
            total = loss.detach()
        else:
            total = self._backward_in_parts(images, labels, edges, weight, points)
        if self.params.densification_weight:
            spread = self.params.densification_weight * densification(self.teacher.normalise(images), labels)
            (weight * spread).backward()
            total = total + spread.detach()
        return total

    def _backward_in_parts(
        self, images: Tensor, labels: Tensor, edges: list[tuple[int, int]], weight: float, points: Tensor | None
    ) -> Tensor:
        there = send(labels, images.device)
        with torch.no_grad():
            parts = [self._look(images[a:b], there[a:b]) for a, b in edges]
        together = self._put_together([part.moments for part in parts], [b - a for a, b in edges])
        whole = [Moments(*(t.requires_grad_() for t in one)) for one in together]
        found = [part.features for part in parts if part.features is not None]
        features = torch.cat(found).requires_grad_() if found else None
        shared = self._matching(whole, labels) + self._off(features, points)
        leaves = [tensor for one in whole for tensor in one] + ([] if features is None else [features])
        slopes = torch.autograd.grad(shared, leaves)
        total = shared.detach()
        for a, b in edges:
            seen = self._look(images[a:b], there[a:b])
            share = (b - a) / len(images)
            part = share * seen.cross_entropy
            total = total + part.detach()
            for place, (one, all_of_it) in enumerate(zip(seen.moments, whole, strict=True)):
                by_mean, by_variance = slopes[2 * place : 2 * place + 2]
                if self.params.class_statistics_apart:
                    part = part + (by_mean[a:b] * one.mean).sum() + (by_variance[a:b] * one.variance).sum()
                else:
                    spread = one.variance + (one.mean - all_of_it.mean.detach()).square()
                    part = part + share * ((by_mean * one.mean).sum() + (by_variance * spread).sum())
            if seen.features is not None:
                part = part + (slopes[-1][a:b] * seen.features).sum()
            (weight * part).backward()
        return total

    def _look(self, images: Tensor, labels: Tensor) -> Seen:
        p = self.params
        watch: AbstractContextManager[list[Tensor]]
        watch = penultimate_seen(self.network) if p.barycentre_weight else nullcontext([])
        with self.inputs.seen(p.class_statistics_apart) as found, watch as features:
            logits = self.network(self.teacher.normalise(images))
        return Seen(found, features[-1] if features else None, F.cross_entropy(logits, labels))

    def _put_together(self, parts: list[list[Moments]], counts: list[int]) -> list[Moments]:
        if not self.params.class_statistics_apart:
            return merged(parts, counts)
        return [Moments(*(torch.cat(rows) for rows in zip(*layer, strict=True))) for layer in zip(*parts, strict=True)]

    def _matching(self, found: list[Moments], labels: Tensor) -> Tensor:
        p, device = self.params, found[0].mean.device
        weights, share = (p.first_layer_weight, p.variance_weight), p.class_statistics_share
        if p.class_statistics_apart:
            classes, place = labels.unique(return_inverse=True)
            groups = send(F.one_hot(place, len(classes)).T.to(found[0].mean.dtype), device)
            ours, theirs = [by_group(one, groups) for one in found], self.targets.of_each(send(classes, device))
            now = [Moments(*(row[0] for row in by_group(one, torch.ones_like(groups[:1])))) for one in found]
        else:
            now = self.running.update(found)
            ours, theirs = now, self.targets.of(send(labels, device))
        apart = torch.zeros((), device=device)
        if share < 1:
            apart = apart + (1 - share) * self.inputs.distance(now, self.targets.whole, *weights)
        if share > 0:
            apart = apart + share * self.inputs.distance(ours, theirs, *weights)
        return p.statistics_weight * apart

    def _off(self, features: Tensor | None, points: Tensor | None) -> Tensor | float:
        """The Frobenius norm of what features are off their points, weighted."""
        if features is None:
            return 0.0
        assert points is not None, "the loop gives points wherever a method weighs them"
        return self.params.barycentre_weight * torch.linalg.vector_norm(features - points)


def spans(count: int, block: int) -> list[tuple[int, int]]:
    """Consecutive (start, end) of at most `block` items each."""
    return list(pairwise([*range(0, count, block), count]))
