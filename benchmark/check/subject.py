"""The method under check, with what its checks share; and the two ways in which a check ends but for passing."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.global_state import GlobalState
from ddbench.benchmark.check.runs import CLASSES, Images, SmallRuns
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import Entry
from ddbench.methods.base import Method


class Broken(Exception):
    """The contract is broken; the message says how."""


class NotApplicable(Exception):
    """The check does not apply; the message says why."""


@dataclass
class Subject:
    """A registered method under check, with what its checks share."""

    entry: Entry
    method: type[Method]
    params: Any
    runs: SmallRuns
    planted: Planted
    unsupported: str | None
    """Why the method does not run on digits, in its own words; None: it does."""
    changed_state: list[str] = field(default_factory=list)
    """Global state that the method's first run left other than it was."""
    real_images_seen: int = 0
    """Training images that the method's first run looked at, what made its artefacts included."""
    _failure: Exception | None = None

    @cached_property
    def _reference(self) -> Images:
        before = GlobalState.now()
        self.planted.train.seen.clear()
        images = self.runs.run(artefacts="reference")
        self.real_images_seen = len(self.planted.train.seen)
        self.changed_state = before.changed(GlobalState.now())
        return images

    @property
    def reference(self) -> Images:
        """The usual small run, made once.

        Raises:
            NotApplicable: the method says that it does not run on digits, or an earlier check has told that it failed.
        """
        if self.unsupported is not None:
            raise NotApplicable(f"it does not run on digits: {self.unsupported}")
        if self._failure is not None:
            raise NotApplicable("its run failed")
        try:
            return self._reference
        except Exception as error:  # a contestant's code may raise anything; told once, the other checks are skipped
            self._failure = error
            raise

    @cached_property
    def class_order(self) -> Images:
        """The same images in another order of classes and in small batches, with artefacts of its own."""
        return self.runs.run(classes=CLASSES[::-1], batch_size=2, artefacts="order", cell="undisturbed")


def in_words(error: BaseException) -> str:
    """The message of an error that the engine or a method phrased for people; else its type, text and place."""
    text = str(error).splitlines()[0] if str(error) else "no message"
    if isinstance(error, RunError | UsageError | Broken):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}, line {place.lineno})"
