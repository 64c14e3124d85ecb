"""The two kinds of failure a user meets; each is shown as one message, never as a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UsageError(Exception):
    """What was asked for cannot be done as asked: exit code 2. The message says how to ask instead."""


class RunError(Exception):
    """What was asked for failed while it ran: exit code 1. The message says what to mend."""


class ChangedMeanwhile(RunError):
    """What was planned with is another by now. Nothing is wrong with the cell: the next run tries it again."""


class Problems(UsageError):
    """Several usage problems found in one pass, reported together."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Collector:
    """Usage problems gathered from block after block, so that all of them are told at once.

    problems = Collector()
    with problems.catching():
        dataset = DATASETS.load(name)
    problems.raise_any()
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, *problems: str) -> None:
        """Note what is wrong; what was noted before is not noted twice."""
        self.found += [problem for problem in dict.fromkeys(problems) if problem not in self.found]

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Note the usage errors that a block raises, and go on behind it."""
        try:
            yield
        except Problems as error:
            self.add(*error.problems)
        except UsageError as error:
            self.add(str(error))

    def raise_any(self) -> None:
        """Raises Problems if anything was noted."""
        if self.found:
            raise Problems(self.found)
