"""What `bench check` finds on registered methods, once a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from few_steps import few_steps


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

    @cache
    def judge(name: str) -> Judged:
        with subject_of(name, few_steps(name), planted) as subject:
            report = report_on(subject)
            fewer = subject.runs.run(ipc=1, artefacts="reference") if subject.method.selects else {}
            return Judged(report, subject.reference, fewer)

    return judge
