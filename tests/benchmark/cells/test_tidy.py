"""What killed attempts leave in a cell's directory is removed by whoever comes next, and nothing that is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddbench.benchmark.cells.tidy import tidy_after_kill
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec

OF_ATTEMPTS = ["checkpoint.pt", "rounds/0001/round.json", "scratch/state.pt"]
STRAYS = [".launch.json.host-0a1b2c.tmp", ".look.host-0a1b2c.tmp", ".5792bff69f623dd9.host-0a1b2c.tmp/manifest.json"]
KEPT = ["launch.json", "log.txt", "spec.json"]

Left = tuple[DistillSpec | EvaluateSpec, CellDir, list[CellDir]]


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """A set of two shards, each directory as killed attempts leave it at worst."""
    asked = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0", "repeats": 1, "device": "cpu"}
    plan = plan_run(run_spec({}, asked | {"shards": 2}))[0]
    store = Store(tmp_path)
    store.create()
    first, second, merged = (
        (spec, store.add(spec, planned.launch)) for planned, spec in plan.cells() if isinstance(spec, DistillSpec)
    )
    for _, cell in (first, second, merged):
        for name in (*OF_ATTEMPTS, *STRAYS, "log.txt"):
            (cell.path / name).parent.mkdir(parents=True, exist_ok=True)
            (cell.path / name).touch()
    return merged[0], merged[1], [first[1], second[1]]


def names(cell: CellDir) -> list[str]:
    found = (str(path.relative_to(cell.path)) for path in cell.path.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith("lease/"))


def test_a_finished_set_keeps_what_it_is_and_frees_its_shards(left: Left) -> None:
    spec, cell, shards = left
    tidy_after_kill(cell, spec, shards, done=True, alone=True)
    assert names(cell) == KEPT
    assert all(names(shard) == sorted([*KEPT, *STRAYS, "checkpoint.pt", "scratch/state.pt"]) for shard in shards)


def test_what_is_to_be_resumed_stays(left: Left) -> None:
    spec, cell, shards = left
    tidy_after_kill(cell, spec, shards, done=False, alone=True)
    assert names(cell) == sorted([*KEPT, *OF_ATTEMPTS])


def test_what_another_run_may_be_writing_stays(left: Left) -> None:
    spec, cell, shards = left
    tidy_after_kill(cell, spec, shards, done=False, alone=False)
    assert names(cell) == sorted([*KEPT, *OF_ATTEMPTS, STRAYS[0]])


def test_a_living_cell_is_left_alone(left: Left) -> None:
    spec, cell, shards = left
    before = names(cell)
    with cell.lock():
        tidy_after_kill(cell, spec, shards, done=True, alone=True)
        assert names(cell) == before


def test_a_tidy_cell_is_not_locked(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, cell, shards = left
    tidy_after_kill(cell, spec, shards, done=True, alone=True)
    monkeypatch.setattr(CellDir, "lock", lambda *_: pytest.fail("there is nothing to remove"))
    tidy_after_kill(cell, spec, shards, done=True, alone=True)
    tidy_after_kill(CellDir(cell.path / "absent"), spec, shards, done=True, alone=True)
