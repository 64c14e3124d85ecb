"""The classifiers that are inverted, and which of them look at a step, with what weight."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.methods.base import DistillTask
from ddbench.methods.inversion.objective import Teacher, spans
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.observer import Observer, observer

SCORE_TEMPERATURE = 5.0
"""CV-DD's, of the softmax over two teachers' scores."""


def load_teachers(task: DistillTask, params: InversionParams) -> list[Observer]:
    """Train them, or fetch them, in the order of `network`."""
    return [observer(task, params.model_copy(update={"network": name})) for name in params.teachers]


Weights = tuple[tuple[int, float], ...]
"""(place of a teacher, its weight in the loss) of those that look at a step."""


def weights_of_round(task: DistillTask, params: InversionParams, image_index: int) -> list[Weights]:
    """The teachers of a round of images; step i takes entry i mod their number.

    In turn: every teacher alone. Pairs (CV-DD): one entry with two; at IPC 1 the two of the best scores, up to as many
    images as there are pairs the pairs in order, beyond that a random pair a round.
    """
    assert task.ipc is not None
    if params.committee == "in-turn":
        return [((place, 1.0),) for place in range(len(params.teachers))]
    pairs = params.pairs
    if task.ipc == 1:
        named = [params.teachers.index(name) for name in params.committee_at_ipc_1.split("+") if name]
        best = named or sorted(range(len(params.scores)), key=lambda place: -params.scores[place])[:2]
        pair = (min(best), max(best))
    elif task.ipc <= len(pairs):
        pair = pairs[image_index]
    else:
        stream = task.stream("inversion teachers", image_index)
        pair = pairs[int(torch.randint(len(pairs), (), generator=stream))]
    strengths = [math.exp((params.scores[place] - max(params.scores)) / SCORE_TEMPERATURE) for place in pair]
    return [tuple((place, strength / sum(strengths)) for place, strength in zip(pair, strengths, strict=True))]


class Moved:
    """A teacher whose weights were moved up its cross-entropy on some images (DWA).

    Args:
        images: (B, C, S, S) in [0, 1].
        labels: (B,).
        steps, size: θ ← θ + size · g / ‖g‖, so many times, g the gradient over all weights.
        block: the most images that are looked at at once.
    """

    def __init__(self, teacher: Teacher, images: Tensor, labels: Tensor, steps: int, size: float, block: int) -> None:
        self.normalise = teacher.normalise
        self._network = copy.deepcopy(teacher.network()).requires_grad_(True)
        weights = list(self._network.parameters())
        for _ in range(steps):
            for weight in weights:
                weight.grad = None
            for a, b in spans(len(images), block):
                logits = self._network(self.normalise(images[a:b]))
                (F.cross_entropy(logits, labels[a:b], reduction="sum") / len(images)).backward()
            gradient = [weight.grad for weight in weights if weight.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradient]))
            with torch.no_grad():
                for weight in weights:
                    if weight.grad is not None:
                        weight.add_(weight.grad / norm, alpha=size)
        for weight in weights:
            weight.grad = None
        self._network.requires_grad_(False)

    def network(self) -> nn.Module:
        return self._network
