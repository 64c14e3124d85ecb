"""What `bench check` finds on registered methods, once a session; and sees to it that contracts really are tested."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Mapping
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


# Tests over registries could pass by testing nothing: a test of which every case was skipped fails the session.

_outcomes = pytest.StashKey[dict[str, Counter[str]]]()


def untested(outcomes: Mapping[str, Counter[str]]) -> list[str]:
    """The tests of which every case was skipped, as for a registry without entries."""
    return [name for name, counts in outcomes.items() if set(counts) == {"skipped"}]


@pytest.fixture
def find_untested() -> Any:
    return untested


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        outcomes = item.config.stash.setdefault(_outcomes, defaultdict(Counter))
        outcomes[item.nodeid.partition("[")[0]][report.outcome] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if untested(session.config.stash.get(_outcomes, {})) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in untested(terminalreporter.config.stash.get(_outcomes, {})):
        terminalreporter.write_line(f"FAILED {name} - every case was skipped, so nothing was tested", red=True)
