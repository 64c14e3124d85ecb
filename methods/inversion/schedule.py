"""What changes from step to step: learning rate, crops, the side of the images, and which of them take part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ddbench.methods.inversion.params import InversionParams


@dataclass(frozen=True)
class Step:
    """The settings of one step."""

    learning_rate: float
    min_scale: float
    stage: int
    active: tuple[int, ...]
    """Places in the batch of the images that take part."""


class Schedule:
    """The steps of one batch.

    Args:
        ipc: images of a class.
        image_indices: of the batch's images, each its number in its class.
    """

    def __init__(self, params: InversionParams, ipc: int, image_indices: Sequence[int]) -> None:
        self.params = params
        joins = admission_rounds(params.admissions, ipc)
        rounds = [
            tuple(place for place, i in enumerate(image_indices) if joins[i] <= r) for r in range(params.admissions)
        ]
        # A batch that cuts a class may have no image in the first rounds; the program leaves those out.
        self.rounds = [active for active in rounds if active]
        self.steps_of_round = params.steps // params.admissions
        self.steps = self.steps_of_round * len(self.rounds)

    def at(self, step: int) -> Step:
        """Step i of N: learning rate · ½(1 + cos(πi/N)), and likewise the crops of the curriculum."""
        p, fall = self.params, (1 + math.cos(math.pi * step / self.steps)) / 2
        return Step(
            learning_rate=p.image_learning_rate * fall,
            min_scale=p.min_scale + (1 - p.min_scale) * fall if p.curriculum else p.min_scale,
            stage=step * p.stages // self.steps,
            active=self.rounds[step // self.steps_of_round],
        )

    def side(self, stage: int, run_side: int) -> int:
        """Side in pixels of the images in a stage: the small one in the first, third, …"""
        return run_side if stage % 2 else round(self.params.stage_scale * run_side)


def admission_rounds(rounds: int, ipc: int) -> list[int]:
    """The round, from 0, in which each image of a class joins: ⌊IPC / rounds⌋ in each, and one more in each of the
    first IPC mod `rounds`."""
    return [r for r in range(rounds) for _ in range(ipc // rounds + (r < ipc % rounds))]
