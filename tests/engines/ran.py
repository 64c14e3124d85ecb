"""What ran in a results folder of fake cells."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.spec import cell_id
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec


def ids(sets: int, students: int) -> list[list[str]]:
    """Of each set, its cell and those of its students; of GPUs, wherever they are planned."""
    given = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": f"0-{sets - 1}", "repeats": students}
    plan = plan_run(run_spec({}, {**given, "device": "cuda"})).plan
    return [[planned.id or "", *map(cell_id, planned.students)] for planned in plan.sets]


def states(out: Path) -> Counter[str]:
    return Counter(cell.state() for cell in Store(out).cell_dirs())


def starts(out: Path) -> dict[str, int]:
    return {cell.id: len(cell.attempts.all()) for cell in Store(out).cell_dirs()}


def ran(cell: CellDir) -> list[dict[str, Any]]:
    file = cell.path / "ran.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def notes(out: Path) -> list[dict[str, Any]]:
    """Of all cells, what each of their processes noted at its end."""
    return [note for cell in Store(out).cell_dirs() for note in ran(cell)]
