"""How long a training is and how many images are in a step, by images per class; and when it looks at the test set."""

from __future__ import annotations

import bisect
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchTable(Data):
    """Images per step by images per class."""

    at: tuple[tuple[int, int], ...] = Field(min_length=1)
    """Rows (IPC, images per step), IPC rising; between two rows the lower one counts, and beyond the last the last."""
    doubled_from_classes: int | None = None
    """Number of classes from which on a step takes twice the table's images. None: never."""
    undoubled: tuple[str, ...] | None = None
    """How the names of students begin whose steps take the table's images all the same. None: no student's do."""

    def images(self, ipc: int | None, num_classes: int, student: str = "") -> int:
        """Images per step; an IPC of None, the whole training split, lies beyond the last row."""
        row = len(self.at) if ipc is None else bisect.bisect_right([known for known, _ in self.at], ipc)
        doubled = self.doubled_from_classes is not None and num_classes >= self.doubled_from_classes
        if student.startswith(self.undoubled or ()):
            doubled = False
        return self.at[max(row, 1) - 1][1] * (2 if doubled else 1)


class EpochTable(Data):
    """Epochs by images per class: fewer images, more epochs."""

    up_to: tuple[tuple[int, int], ...]
    """Rows (largest IPC, epochs), IPC rising."""
    beyond: int = Field(ge=1)
    """Epochs at any larger IPC."""
    full: int = Field(ge=1)
    """Epochs on the whole training split, whatever the number of classes."""
    two_thirds_at_100_classes: bool = False
    """Whether, with exactly 100 classes, an IPC's epochs are ⌊2/3⌋ of the table's, floored to hundreds (at least
    100)."""

    @model_validator(mode="after")
    def _rising(self) -> EpochTable:
        largest = [ipc for ipc, _ in self.up_to]
        if largest != sorted(set(largest)):
            raise ValueError(f"the table's IPCs must rise, got {largest}")
        return self

    def epochs(self, ipc: int | None, num_classes: int) -> int:
        if ipc is None:
            return self.full
        row = bisect.bisect_left([largest for largest, _ in self.up_to], ipc)
        epochs = self.up_to[row][1] if row < len(self.up_to) else self.beyond
        if self.two_thirds_at_100_classes and num_classes == 100:
            epochs = max(100, 2 * epochs // 3 // 100 * 100)
        return epochs

    @classmethod
    def constant(cls, epochs: int) -> EpochTable:
        return cls(up_to=(), beyond=epochs, full=epochs)


class Updates(Data):
    """A length in updates, whatever the number of images and the IPC.

    Every update takes a whole batch: the images pass in whole permutations, one behind the other, cut into batches.
    What is called an epoch then is `per_epoch` updates (the last one may be shorter).
    """

    updates: int = Field(ge=1)
    per_epoch: int = Field(ge=1)

    def epochs(self, ipc: int | None, num_classes: int) -> int:
        return -(-self.updates // self.per_epoch)

    def of_epoch(self, epoch: int) -> range:
        """The updates (0, 1, …) of an epoch (1, 2, …)."""
        return range((epoch - 1) * self.per_epoch, min(epoch * self.per_epoch, self.updates))


class LateLooks(Data):
    """The test set is looked at after every `every`-th epoch once more than the fraction n/d of all is over."""

    every: int = Field(ge=1)
    beyond: tuple[int, int]

    def epochs(self, epochs: int) -> set[int]:
        numerator, denominator = self.beyond
        return {e for e in range(self.every, epochs + 1, self.every) if e * denominator > numerator * epochs}


class LooksFromFirst(Data):
    """The test set is looked at after the first epoch and every `every`-th from there."""

    kind: Literal["from-first"] = "from-first"
    every: int = Field(ge=1)

    def epochs(self, epochs: int) -> set[int]:
        return set(range(1, epochs + 1, self.every))
