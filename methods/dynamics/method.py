"""Coresets whose scores come from one recorded training run on the real images.

The program that published these on ImageNet-1K (Zheng et al., "Coverage-centric coreset selection", ICLR 2023) ranks
over all classes; IPC asks for as many of each class, so here each class is ranked by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from ddbench.datasets.base import Dataset
from ddbench.methods.base import CostClass, DistillTask
from ddbench.methods.dynamics.choice import ends, stratified
from ddbench.methods.dynamics.params import AUMParams, CCSParams, DynamicsParams, EL2NParams
from ddbench.methods.selection import Selection


class ScoredCoreset(Selection):
    """Keeps the images of a class at one end of a score."""

    cost_class = CostClass.NEEDS_CLASSIFIER
    check_params: ClassVar = {"epochs": 1}
    uses_seed = False
    score: ClassVar[str]
    """Which of `training_dynamics` ranks the images."""

    params: DynamicsParams

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        return self.params.unsupported(dataset)

    def prepare(self, task: DistillTask) -> None:
        from ddbench.methods.observer import image_size_of

        trained = task.trained_classifier(self.params.recipe(image_size_of(task.train)))
        self._scores = np.asarray(trained.dynamics[self.score])

    def choose(self, task: DistillTask, class_index: int) -> np.ndarray:
        assert task.ipc is not None
        indices = task.train.of_class(class_index)
        return indices[self.pick(task, class_index, self._scores[indices], min(task.ipc, len(indices)))]

    @abstractmethod
    def pick(self, task: DistillTask, class_index: int, scores: np.ndarray, count: int) -> np.ndarray:
        """`count` different places in the scores of a class, (N,), in order."""


class _AtOneEnd(ScoredCoreset):
    def pick(self, task: DistillTask, class_index: int, scores: np.ndarray, count: int) -> np.ndarray:
        return ends(scores, count, highest=self.params.keep == "highest")


class EL2N(_AtOneEnd):
    """EL2N (Paul et al., NeurIPS 2021): the norm of the error vector, summed over the first epochs."""

    name = "el2n"
    version = 1
    check_params: ClassVar = {"epochs": 1, "early_epochs": 1}
    score = "el2n"

    class Params(EL2NParams):
        """The training, the epochs that count, and which end is kept."""


class Forgetting(_AtOneEnd):
    """Forgetting events (Toneva et al., ICLR 2019): how often an image was right and then wrong."""

    name = "forgetting"
    version = 1
    score = "forgetting"

    class Params(DynamicsParams):
        """The training, and which end is kept."""


class AUM(_AtOneEnd):
    """Area under the margin (Pleiss et al., NeurIPS 2020): the lowest are the hardest, or mislabelled."""

    name = "aum"
    version = 1
    score = "aum"

    class Params(AUMParams):
        """The training, and which end is kept."""


class CCS(ScoredCoreset):
    """Coverage-centric coreset selection (Zheng et al., ICLR 2023) by AUM: the hardest left out, the rest covered."""

    name = "ccs"
    version = 1
    uses_seed = True
    nested = False  # a stratum's share of a larger set is another
    score = "aum"

    class Params(CCSParams):
        """The training, what is left out, and the strata."""

    params: CCSParams

    def pick(self, task: DistillTask, class_index: int, scores: np.ndarray, count: int) -> np.ndarray:
        return stratified(
            scores,
            count,
            left_out_share=self.params.left_out_share,
            strata=self.params.strata,
            stream=task.stream(self.name, task.class_ids[class_index]),
        )
