"""Conformance tests loop over registries, so they would pass on empty ones; the guard makes that a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import coverage_guard
import pytest

from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS, Registry


@pytest.mark.parametrize("registry", [METHODS, DATASETS, PROTOCOLS], ids=lambda registry: registry.kind)
def test_no_registry_is_empty(registry: Registry[Any]) -> None:
    names = [entry.name for entry in registry]
    assert names
    assert len(set(names)) == len(names)


def test_the_guard_finds_tests_of_which_every_case_was_skipped() -> None:
    outcomes = {
        "all skipped": Counter(skipped=3),
        "one ran": Counter(skipped=3, passed=1),
        "one failed": Counter(skipped=3, failed=1),
        "all ran": Counter(passed=2),
    }
    assert coverage_guard.untested(outcomes) == ["all skipped"]


OVER_AN_EMPTY_REGISTRY = """
import pytest

@pytest.mark.parametrize("name", [])
def test_every_method(name):
    pass

def test_something_else():
    pass
"""


WITH_THE_GUARD = """
from coverage_guard import CoverageGuard

def pytest_configure(config):
    config.pluginmanager.register(CoverageGuard("test_empty"), "coverage guard")
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_guard_fails_a_session(workers: str, tmp_path: Path) -> None:
    """pytest skips a test that has no cases, so the session is green without the guard."""
    (tmp_path / "test_empty.py").write_text(OVER_AN_EMPTY_REGISTRY)
    options = ["-p", "no:cacheprovider", "--numprocesses", workers, "--rootdir", tmp_path, tmp_path]
    command = [sys.executable, "-P", "-m", "pytest", *options]
    path = {**os.environ, "PYTHONPATH": str(Path(coverage_guard.__file__).parent)}
    without = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=path)
    assert without.returncode == pytest.ExitCode.OK, without.stdout
    (tmp_path / "conftest.py").write_text(WITH_THE_GUARD)
    guarded = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=path)
    assert "1 passed, 1 skipped" in guarded.stdout
    assert "test_every_method - every case was skipped, so nothing was tested" in guarded.stdout
    assert guarded.returncode == pytest.ExitCode.TESTS_FAILED, guarded.stdout
