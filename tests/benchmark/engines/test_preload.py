"""What the fork server imports: all that a cell would, so that a cell spends its time on its work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CELLS_AFTER_PRELOAD = """
import sys
from pathlib import Path
import ddbench.benchmark.engines.preload
from ddbench.benchmark.cells.cell import run_cell
from ddbench.benchmark.core import environment
from ddbench.benchmark.core.spec import cell_id
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec

asked = dict(methods="random,dit[steps=2]", datasets="digits", ipc="1", seeds="0", repeats=1, device="cpu")
plan = plan_run(run_spec({}, {**asked, "protocol": "quick[epochs=1]"}))[0]
store = Store(Path(sys.argv[1]))
store.create()
imported = set(sys.modules)
environment.metadata.version = None  # asked already
for planned, spec in plan.cells():
    store.add(spec, planned.launch)
    assert run_cell(store.cell(cell_id(spec)).path) == 0
print(*sorted(set(sys.modules) - imported))
"""
OF_THE_METHOD = ("ddbench.methods.", "ddbench.benchmark.planning.")
OF_DIGITS = {"sklearn.datasets.data", "sklearn.datasets.descr"}
"""Folders of the files that are read."""


def test_a_cell_imports_little_and_asks_for_no_versions(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", CELLS_AFTER_PRELOAD, str(tmp_path / "runs")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    imported = set(ran.stdout.splitlines()[-1].split()) - OF_DIGITS
    assert [name for name in imported if not name.startswith(OF_THE_METHOD)] == []
