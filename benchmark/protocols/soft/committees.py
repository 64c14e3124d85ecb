"""Committees of teachers, as data: which networks label, and how their outputs become one. Imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import network_names
from ddbench.benchmark.protocols.lengths import Data
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION


class Member(Data):
    """One teacher of a committee."""

    network: str
    weight: float = Field(default=1.0, gt=0)
    """By which its share is reckoned (`Committee.softmax_of_weights`)."""
    imagenet_1k: str | None = None
    """SHA-256 of the file with its weights for ImageNet-1K, or the first digits of it; for other datasets a teacher is
    trained here. None: it is trained here for all."""


class Members(Data):
    """The teachers on one dataset, or at one IPC of it."""

    dataset: str | None = None
    """None: on every one."""
    ipc: int | None = Field(default=None, ge=1)
    """None: at every IPC."""
    teachers: tuple[Member, ...] = Field(min_length=1)


class Committee(Data):
    """Several networks, trained on the dataset's real training images, whose outputs together are the labels of a
    distilled set. They see every augmented and mixed batch; nothing is stored here.

    Under the loss `kl-to-teacher` their output counts as a teacher's (`base.Teacher`). Under `mse-to-teacher` the loss
    is the mean squared difference of the student's outputs from it, over images and classes.
    """

    members: tuple[Members, ...] = Field(min_length=1)
    """The first that fits dataset and IPC counts."""
    softmax_of_weights: float | None = Field(default=None, gt=0)
    """A teacher's share is softmax(weight / this) over the committee. None: its weight over their sum."""
    scaled: bool | None = None
    """Whether each teacher's outputs of a batch are first brought to one Frobenius norm, the mean of all teachers'.
    None: they are averaged as they are."""
    temperature: float | None = Field(default=None, gt=0)
    """T, under `kl-to-teacher`."""
    mode: Literal["train"] | None = None
    """As `base.Teacher.mode`, of all of them."""
    stored_bits: Literal[16] | None = None
    """As `base.Teacher.stored_bits`, of their common output."""

    @model_validator(mode="after")
    def _known(self) -> Committee:
        for member in (member for members in self.members for member in members.teachers):
            network_names.find(member.network)
        return self

    def members_for(self, dataset: str | None, ipc: int | None) -> tuple[Member, ...]:
        """The teachers on a dataset at `ipc` images per class; None is the whole training split.

        Raises:
            UsageError: there are none for this dataset.
        """
        for members in self.members:
            if members.dataset in (None, dataset) and members.ipc in (None, ipc):
                return members.teachers
        known = dict.fromkeys(members.dataset or "" for members in self.members)
        networks = "+".join(dict.fromkeys(member.network for member in self.members[0].teachers))
        raise UsageError(
            f"the committee's weights are known for {', '.join(known)}, and not for {dataset}; choose one of these, or "
            f"name a committee of equal weights in a modified copy, such as [teacher={networks}]"
        )

    def shares(self, members: tuple[Member, ...]) -> tuple[float, ...]:
        """Each teacher's share of the output; they sum to 1."""
        weights = [member.weight for member in members]
        if self.softmax_of_weights is not None:
            weights = [math.exp((weight - max(weights)) / self.softmax_of_weights) for weight in weights]
        return tuple(weight / sum(weights) for weight in weights)

    def of_networks(self, networks: str) -> Committee:
        """A copy with these teachers everywhere, all of one weight.

        Args:
            networks: names joined by `+`.
        """
        named = [(name, TORCHVISION.get(name)) for name in networks.split("+")]
        teachers = tuple(
            Member(network=name, imagenet_1k=None if known is None else known.sha256) for name, known in named
        )
        return self.model_copy(update={"members": (Members(teachers=teachers),), "softmax_of_weights": None})
