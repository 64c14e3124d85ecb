"""The images that the optimisation starts from.

The programs of CV-DD, SRe2L++ and FADRM read "medium patches" from their authors' drives, and how those were cut is in
no program. Here `collages` are RDED's.

Legend: C channels, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import DistillTask
from ddbench.methods.enough_images import check_enough_images
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.normalisation import Normalisation, unit_range
from ddbench.methods.observer import Observer, image_size_of
from ddbench.methods.rded.crops import best_crops, collages
from ddbench.methods.rded.params import RDEDParams


def check_start(task: DistillTask, params: InversionParams) -> None:
    """Refuse what cannot start, before a teacher is trained for it.

    Raises:
        UsageError: a class has too few images, or the side is no multiple of the collages' factor.
    """
    assert task.ipc is not None
    if params.start == "noise":
        return
    ipc, side, crops = task.ipc, image_size_of(task.train), 1
    if params.starts_from_collages:
        factor = RDEDParams().factor_at(side)
        crops = factor**2
        if side % factor:
            raise UsageError(
                f"collages have {factor} crops along each side, which {side} px cannot be divided by; choose another "
                "resolution, or start=real"
            )
    # Batches hold images of all classes, whichever of them the cell has.
    every = replace(task, class_indices=tuple(range(len(task.class_ids))))
    check_enough_images(
        every,
        ipc * crops,
        f"the {ipc * crops} to start from",
        lambda found: f"choose --ipc {found // crops} or less, or start=noise",
    )


class Starts:
    """Images to start from, by class and number.

    Args:
        teacher: scores crops and images, where the start asks for it.

    Raises:
        UsageError: a class has too few images, or the side is no multiple of the collages' factor.
    """

    def __init__(self, task: DistillTask, params: InversionParams, teacher: Observer) -> None:
        assert task.ipc is not None
        check_start(task, params)
        self.task, self.params, self.teacher, self.ipc = task, params, teacher, task.ipc
        self.normalisation = Normalisation(params.normalisation, task.device)
        self.side, self.channels = image_size_of(task.train), task.train.read([0]).shape[-1]
        self.rded = RDEDParams(pool=params.pool, crops=params.crops)
        self.factor = self.rded.factor_at(self.side)
        self._of_class: dict[int, np.ndarray] = {}

    def image(self, class_index: int, image_index: int) -> Tensor:
        """(C, S, S), normalised, on the device."""
        task, class_id = self.task, self.task.class_ids[class_index]
        match self.params.start:
            case "noise":
                stream = task.stream("inversion noise", class_id, image_index)
                return torch.randn(self.channels, self.side, self.side, generator=stream).to(task.device)
            case "collages":
                pixels = self._collage(class_index, image_index)
            case "collages-drawn":
                pixels = self._drawn_collage(class_index, image_index)
            case "median":
                pixels = task.train.read([self._chosen(class_index, self._medians)[image_index]])
            case "real":
                pixels = task.train.read([self._chosen(class_index, self._at_random)[image_index]])
        return self.normalisation.from_pixels(pixels)[0]

    def _collage(self, class_index: int, image_index: int) -> np.ndarray:
        """(1, S, S, C) uint8: the one of this number among RDED's IPC collages of the class."""
        best = best_crops(self.task, self.rded, self.task.train, self.side, self.teacher, class_index)
        own = {name: best[name][: self.ipc * self.factor**2][image_index :: self.ipc] for name in ("images", "boxes")}
        return collages(self.task.train, own, 1, self.factor, self.side, self.task.device)

    def _drawn_collage(self, class_index: int, image_index: int) -> np.ndarray:
        """(1, S, S, C) uint8: one of the class's collages, whichever the image's number, mirrored or not. (EDC's
        program shuffles its crops, and then puts the unshuffled ones together.)"""
        stream = self.task.stream("inversion collages", self.task.class_ids[class_index], image_index)
        drawn = int(torch.randint(self.ipc, (), generator=stream))
        mirrored = self.params.flip and bool(torch.rand((), generator=stream) < 0.5)
        collage = self._collage(class_index, drawn)
        return np.ascontiguousarray(collage[:, :, ::-1]) if mirrored else collage

    def _chosen(self, class_index: int, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        if class_index not in self._of_class:
            self._of_class[class_index] = choose(class_index)
        return self._of_class[class_index]

    def _at_random(self, class_index: int) -> np.ndarray:
        indices = self.task.train.of_class(class_index)
        stream = self.task.stream("inversion images", self.task.class_ids[class_index])
        return indices[torch.randperm(len(indices), generator=stream).numpy()[: self.ipc]]

    def _medians(self, class_index: int) -> np.ndarray:
        indices = self.task.train.of_class(class_index)
        ascending = np.argsort(self._probabilities(class_index), kind="stable")
        return indices[ascending[around_the_middle(len(indices), self.ipc)]]

    def _probabilities(self, class_index: int) -> np.ndarray:
        """The teacher's probability of the class for each of its images, in the source's order: (N,)."""
        task = self.task

        def make() -> dict[str, np.ndarray]:
            indices, blocks = task.train.of_class(class_index), []
            for start in range(0, len(indices), task.batch_size):
                task.progress(f"probabilities of class {task.class_ids[class_index]}: {start} of {len(indices)} images")
                images = unit_range(task.train.read(indices[start : start + task.batch_size]), task.device)
                with torch.no_grad():
                    logits = self.teacher.network()(self.teacher.normalise(images))
                blocks.append(logits.float().softmax(1)[:, class_index].cpu().numpy())
            return {"probabilities": np.concatenate(blocks)}

        key = {
            "train": task.train_hash,
            "class_id": task.class_ids[class_index],
            "classifier": self.teacher.sha256,
            "device": task.device.type,
        }
        return task.cache.arrays("probabilities", key, make)["probabilities"]


def around_the_middle(count: int, wanted: int) -> np.ndarray:
    """Places ⌈count/2⌉ + 0, +1, -1, +2, -2, … in a list of `count`, those outside it left out."""
    middle = math.ceil(count / 2)
    places = [middle + sign * step for step in range(count + 1) for sign in ((1, -1) if step else (1,))]
    return np.array([place for place in places if 0 <= place < count][:wanted])
