"""Which images of a folder count, where it holds more per class than the IPC asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ddbench.benchmark.core.seeds import stream
from ddbench.benchmark.core.spec import Model, Scalar, brackets

How = Literal["first", "lexicographic", "random"]


class SubsetOf(Model):
    """IPC images of each class of a larger folder."""

    how: How
    """Which images of a class are taken. `first`: by the numbers in file names (0, 1, 2, … 10). `lexicographic`: by
    file names as text (0, 1, 10, 11, …), what published loaders do. `random`: drawn without replacement."""
    ipc: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    """Seed of the draw; `random` only."""

    @property
    def label(self) -> str:
        """`[subset=first]`, `[subset=random,subset_seed=0]`: what tells its rows from those of other choices."""
        seed: dict[str, Scalar] = {"subset_seed": self.seed} if self.how == "random" else {}
        return brackets({"subset": self.how, **seed})

    def pick(self, files: Sequence[Path], class_id: str) -> list[Path]:
        """The files that count, as text-sorted paths: equal choices make equal sets, however they were made."""
        if self.how == "first":
            chosen = sorted(files, key=_by_numbers)[: self.ipc]
        elif self.how == "lexicographic":
            chosen = sorted(files)[: self.ipc]
        else:
            import torch

            drawn = torch.randperm(len(files), generator=stream(self.seed, "subset", class_id))[: self.ipc].tolist()
            listed = sorted(files)
            chosen = [listed[index] for index in drawn]
        return sorted(chosen)


def _by_numbers(path: Path) -> list[tuple[int, int, str]]:
    """Digits compare as numbers, all else as text."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
