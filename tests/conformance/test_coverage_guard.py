"""Conformance tests loop over registries, so they would pass on empty ones; conftest's guard makes that a failure."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS, Registry


@pytest.mark.parametrize("registry", [METHODS, DATASETS, PROTOCOLS], ids=lambda registry: registry.kind)
def test_no_registry_is_empty(registry: Registry[Any]) -> None:
    names = [entry.name for entry in registry]
    assert names
    assert len(set(names)) == len(names)


def test_the_guard_finds_tests_of_which_every_case_was_skipped(find_untested: Any) -> None:
    outcomes = {
        "all skipped": Counter(skipped=3),
        "one ran": Counter(skipped=3, passed=1),
        "one failed": Counter(skipped=3, failed=1),
        "all ran": Counter(passed=2),
    }
    assert find_untested(outcomes) == ["all skipped"]


OVER_AN_EMPTY_REGISTRY = """
import pytest

@pytest.mark.parametrize("name", [])
def test_every_method(name):
    pass

def test_something_else():
    pass
"""


def test_the_guard_fails_a_session(tmp_path: Path) -> None:
    """pytest skips a test that has no cases, so the session is green without this folder's conftest."""
    (tmp_path / "test_empty.py").write_text(OVER_AN_EMPTY_REGISTRY)
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    without = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert without.returncode == pytest.ExitCode.OK, without.stdout
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    guarded = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "1 passed, 1 skipped" in guarded.stdout
    assert "test_every_method - every case was skipped, so nothing was tested" in guarded.stdout
    assert guarded.returncode == pytest.ExitCode.TESTS_FAILED, guarded.stdout
