"""Coresets: real images chosen by their features under a classifier trained on the real set.

Each class is chosen from by itself. The classifier's defaults are those of the lineage that published these baselines
(IDC, Kim et al., ICML 2022): ResNetAP-10 with instance norm, trained with CutMix on the same subset; a feature is the
globally average-pooled vector of an image that is not augmented.

Legend: N images of a class, F features.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ddbench.methods.base import CostClass, DistillTask
from ddbench.methods.observer_params import ObserverParams
from ddbench.methods.selection import Selection

if TYPE_CHECKING:
    import torch

    from ddbench.datasets.base import Dataset


class Coreset(Selection):
    """Chooses images of a class by their features."""

    cost_class = CostClass.NEEDS_CLASSIFIER
    check_params: ClassVar = {"epochs": 1}

    class Params(ObserverParams):
        """The classifier that gives the features."""

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        return self.params.unsupported(dataset)

    def prepare(self, task: DistillTask) -> None:
        from ddbench.methods.observer import observer

        self._observer = observer(task, self.params)

    def choose(self, task: DistillTask, class_index: int) -> np.ndarray:
        from ddbench.methods.observer import class_features

        assert task.ipc is not None
        features = class_features(task, self._observer, class_index)
        indices = task.train.of_class(class_index)
        stream = task.stream(self.name, task.class_ids[class_index])
        return indices[self.pick(features, min(task.ipc, len(indices)), stream)]

    @abstractmethod
    def pick(self, features: np.ndarray, count: int, stream: torch.Generator) -> np.ndarray:
        """`count` different rows of `features` (N, F), in order."""


class Herding(Coreset):
    """Herding (Welling, ICML 2009), as in iCaRL and IDC."""

    name = "herding"
    version = 1
    uses_seed = False

    def pick(self, features: np.ndarray, count: int, stream: torch.Generator) -> np.ndarray:
        return herding(features, count)


class KCenter(Coreset):
    """Greedy k-center (Gonzalez 1985; Sener & Savarese, ICLR 2018) from a random first image."""

    name = "k-center"
    version = 1

    def pick(self, features: np.ndarray, count: int, stream: torch.Generator) -> np.ndarray:
        import torch

        return k_center(features, count, first=int(torch.randint(len(features), (), generator=stream)))


def herding(features: np.ndarray, count: int) -> np.ndarray:
    """Each pick brings the mean of all picks nearest to the class mean.

    Pick k + 1 is argmin over the rows i that are left of ‖(k + 1) μ − s − f_i‖, s the sum of the k picks so far; at a
    tie the first. (DeepCore's program takes the argmax.)

    Args:
        features: (N, F).

    Returns:
        (count,) rows, in the order in which they were picked.
    """
    points = features.astype(np.float64)
    mean, total = points.mean(0), np.zeros(points.shape[1])
    left, picks = np.ones(len(points), bool), []
    for k in range(count):
        distance = np.linalg.norm((k + 1) * mean - total - points, axis=1)
        picks.append(int(np.where(left, distance, np.inf).argmin()))
        left[picks[-1]] = False
        total += points[picks[-1]]
    return np.array(picks)


def k_center(features: np.ndarray, count: int, first: int) -> np.ndarray:
    """Each pick is the point farthest from its nearest pick so far.

    Args:
        features: (N, F).
        first: row of the first pick.

    Returns:
        (count,) rows, in the order in which they were picked.
    """
    points = features.astype(np.float64)
    nearest, picks = np.full(len(points), np.inf), [first]
    while len(picks) < count:
        nearest = np.minimum(nearest, np.linalg.norm(points - points[picks[-1]], axis=1))
        nearest[picks[-1]] = -1  # never again, also among equal points
        picks.append(int(nearest.argmax()))
    return np.array(picks)
