"""What `bench check` finds on registered methods, once a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

STEPS = 8
"""Sampling steps for methods that have them: few, but some in every window of every guidance."""


@dataclass(frozen=True)
class Judged:
    """A registered method after its checks."""

    report: Any
    images: Mapping[tuple[int, int], Any]
    """The images of its usual small run."""
    fewer: Mapping[tuple[int, int], Any]
    """The images of IPC 1, for a method that selects."""


@pytest.fixture(scope="session")
def planted() -> Any:
    from ddbench.benchmark.check.canary import Planted

    return Planted()


@pytest.fixture(scope="session")
def judged(planted: Any) -> Callable[[str], Judged]:
    """Name -> what `bench check` finds on it, with few steps where its parameters allow that."""
    from ddbench.benchmark.check.check import report_on, subject_of
    from ddbench.benchmark.core.errors import UsageError

    @cache
    def judge(name: str) -> Judged:
        with ExitStack() as stack:
            try:
                subject = stack.enter_context(subject_of(name, {"steps": STEPS}, planted))
            except UsageError:  # it has no steps, or its overrides name steps of the usual chain
                subject = stack.enter_context(subject_of(name, {}, planted))
            report = report_on(subject)
            fewer = subject.runs.run(ipc=1, artefacts="reference") if subject.method.selects else {}
            return Judged(report, subject.reference, fewer)

    return judge
