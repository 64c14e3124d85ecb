"""Methods that keep real images: the references that every table needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages
from ddbench.methods.enough_images import check_enough_images

ROUND_IMAGES = 256
"""Images read and committed at once; it bounds memory and changes no image."""


def kept_images(task: DistillTask, class_index: int, chosen: np.ndarray) -> Iterator[list[DistilledImage]]:
    """The training images at the indices `chosen` as a class's set, but those that are done."""
    missing = [index for index in range(len(chosen)) if (class_index, index) not in task.done]
    for start in range(0, len(missing), ROUND_IMAGES):
        block = missing[start : start + ROUND_IMAGES]
        images = task.train.read(chosen[block])
        yield [DistilledImage(class_index, i, pixels) for i, pixels in zip(block, images, strict=True)]


class Selection(Method):
    """Keeps some training images of each class, as they are read."""

    cost_class = CostClass.SELECTION
    selects = True
    nested: ClassVar[bool] = True
    """Whether a larger IPC starts with the images of a smaller one."""

    @abstractmethod
    def choose(self, task: DistillTask, class_index: int) -> np.ndarray:
        """Indices into `task.train` of the images to keep, in order."""

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        if task.ipc is not None:
            check_enough_images(task, task.ipc, f"the {task.ipc} asked for")
        for class_index in task.class_indices:
            yield from kept_images(task, class_index, self.choose(task, class_index))


class RandomSelection(Selection):
    """A random subset of each class, drawn without replacement."""

    name = "random"
    version = 1

    def reads_real_images(self) -> RealImages:
        return RealImages.CHOSEN

    def choose(self, task: DistillTask, class_index: int) -> np.ndarray:
        import torch  # here, so that planning starts without it

        indices = task.train.of_class(class_index)
        stream = task.stream("random selection", task.class_ids[class_index])
        return indices[torch.randperm(len(indices), generator=stream).numpy()[: task.ipc]]


class FirstImages(Selection):
    """The first images of each class by sorted file name: what the papers' loaders call random."""

    name = "random-first"
    version = 1
    uses_seed = False

    def reads_real_images(self) -> RealImages:
        return RealImages.CHOSEN

    def choose(self, task: DistillTask, class_index: int) -> np.ndarray:
        return task.train.of_class(class_index)[: task.ipc]


class FullDataset(Selection):
    """The whole training set: the upper reference."""

    name = "full"
    version = 1
    selects = False
    uses_seed = False
    whole_set = True

    def choose(self, task: DistillTask, class_index: int) -> np.ndarray:
        return task.train.of_class(class_index)
