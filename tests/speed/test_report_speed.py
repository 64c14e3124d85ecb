"""How long a results folder takes to become tables and pages: `make speed`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ddbench.reports.results import rows
from ddbench.reports.site.build import build_site
from ddbench.reports.tables.leaderboard import build

REPORTS = Path(__file__).parent.parent / "reports"
RESULTS = 400


def module(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = module("speed_results_builder", REPORTS / "conftest.py").Folder(tmp_path_factory.mktemp("many") / "runs")
    assert module("speed_many_results", REPORTS / "many_results.py").fill(folder, RESULTS) == RESULTS
    return Path(folder.out)


def test_reading_and_ranking(benchmark: Any, runs: Path) -> None:
    board = benchmark(lambda: build(rows.read(runs)))
    assert sum(row.done for table in board.tables for row in table.rows) == RESULTS // 2


def test_building_the_site(benchmark: Any, runs: Path, tmp_path: Path) -> None:
    built = benchmark(lambda: build_site(runs, tmp_path / "site"))
    assert built.pages > RESULTS // 2
