"""The environment in a result is the one that its numbers came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec


def test_a_students_flags_are_those_that_held_while_it_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    monkeypatch.setattr("ddbench.benchmark.protocols.compiled.COMPILER", {"backend": "eager"})
    given = {
        "methods": "random", "datasets": "digits", "ipc": 1, "seeds": 0, "repeats": 1, "device": "cpu",
        "protocol": "hard-minimax-sgd[epochs=1,image_size=8]", "student": "convnet3", "compile": "always",
    }  # fmt: skip
    plan, _, _ = plan_run(run_spec({}, given))
    store = Store(tmp_path)
    store.create()
    threads, flags = torch.get_num_threads(), {}
    for planned, spec in plan.cells():
        cell = store.add(spec, planned.launch)
        assert run_cell(cell.path) == EXIT_OK, cell.result()
        result = cell.result()
        assert result is not None
        assert result.other_environments == [], "one attempt, whatever flags its protocol sets"
        assert result.environment == json.loads((cell.path / "environment.json").read_text())
        flags[spec.kind] = result.environment["determinism"]
    torch.set_num_threads(threads)

    assert not torch.backends.cudnn.benchmark, "which a whole process has"
    assert not flags["distill"]["cudnn_benchmark"]
    assert flags["evaluate"]["cudnn_benchmark"], "the protocol's"
    assert flags["evaluate"]["tf32_cudnn"]
    assert "compiled" not in flags["distill"]
    assert flags["evaluate"]["compiled"] == ["test 79", "test 128", "train 10"]
