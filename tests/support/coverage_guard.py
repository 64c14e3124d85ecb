"""Tests over registries could pass by testing nothing: a test of which every case was skipped fails the session.

It listens to reports, not to tests: where worker processes run the tests, their reports come to the process that
decides how the session ends.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import pytest


def untested(outcomes: Mapping[str, Counter[str]]) -> list[str]:
    """The tests of which every case was skipped, as for a registry without entries."""
    return [name for name, counts in outcomes.items() if set(counts) == {"skipped"}]


class CoverageGuard:
    """A pytest plugin.

    Args:
        under: the folder of the tests that must not be skipped altogether, as node ids begin.
    """

    def __init__(self, under: str) -> None:
        self._under = under
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        decides = report.when == "call" or (report.when == "setup" and report.outcome != "passed")
        if decides and report.nodeid.startswith(self._under):
            self._outcomes[report.nodeid.partition("[")[0]][report.outcome] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if untested(self._outcomes) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in untested(self._outcomes):
            terminalreporter.write_line(f"FAILED {name} - every case was skipped, so nothing was tested", red=True)
