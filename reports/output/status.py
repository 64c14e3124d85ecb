"""`bench status`: what was asked for and where each cell stands. Reads only, no torch."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ddbench.benchmark.cluster import jobs
from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.store import CellDir, State
from ddbench.reports.output.number_text import NONE, seconds
from ddbench.reports.output.terminal import hanging, left_out, print_table, ruled
from ddbench.reports.results.origins import mixed, mixed_so_far
from ddbench.reports.results.rows import (
    BLOCKED,
    FAILURES,
    STALE,
    DistillCell,
    EvaluateCell,
    Problem,
    Results,
    printable,
)
from ddbench.reports.results.words import extent

MOST_CELLS = 200
"""Cells of which each has a line of its own, unless all are asked for; of more, those that are as they should be are
counted by row of the table."""
AS_THEY_SHOULD_BE = (State.OK, State.ABSENT)
MOST_TITLES = 5
"""Cells with the same to say of their environments that are named one by one."""
MOST_TASKS = 40
"""Tasks of a cluster's queue that are shown one by one."""
UNFINISHED = (State.RUNNING, State.INTERRUPTED, State.PREEMPTED, State.LOST)
STYLES: dict[str, str] = {
    State.OK: "green",
    State.RUNNING: "bold",
    State.ABSENT: "dim",
    State.INTERRUPTED: "yellow",
    State.PREEMPTED: "yellow",
    State.LOST: "yellow",
    STALE: "yellow",
    BLOCKED: "red",
    **{str(state): "red" for state in FAILURES},
}


class CellStatus(Record):
    cell: str
    kind: str
    state: str
    """Where the cell stands: a state of the store (absent, running, interrupted, preempted, lost, ok, failed, oom,
    timeout, killed, unreadable), `stale` for a student of images that are no longer there, `blocked` for one whose set
    failed."""
    label: str
    images_sha256: str | None
    """Hash of images made elsewhere."""
    with_test_images: bool
    """The set was taken although there may be test images in it; it takes no rank."""
    images_folder: str | None
    """Where images made elsewhere were when their students were asked for."""
    dataset: str
    split: str
    resolution: int
    ipc: int | None
    distill_seed: int | None
    """Seed of the set; None for images made elsewhere."""
    protocol: str | None
    student: str | None
    evaluate_seed: int | None
    """Seed of the student; None, like protocol and student, for the first stage."""
    shard: str | None
    """Part of a set that is not merged yet, `shard 2 of 8`; None for sets and students."""
    planned: bool
    """A plan in the folder asks for it."""
    attempts: int | None
    """Starts so far; None if it never started."""
    seconds: float | None
    """Wall-clock so far, over all attempts."""
    acc_last: float | None
    host: str | None = None
    """Machine that a running cell runs on."""
    job: str | None = None
    """The scheduler's number of its job there."""
    since: str | None = None
    """When that attempt began by that machine's clock, UTC, ISO 8601."""
    progress: dict[str, Any]
    """The last note of a cell that is running or was interrupted."""
    mixed: list[str]
    """Which parts of it were made in another environment than that in which it ended, or was tried last, and what
    differs."""
    reason: str | None


class Status(Record):
    schema_version: int = 1
    counts: dict[str, int]
    """State -> cells."""
    cells: list[CellStatus]
    jobs: list[jobs.Task]
    """The tasks that `bench submit` queued for this folder, from its files alone."""
    problems: list[Problem]


def build(results: Results) -> Status:
    """Every cell, each set before its students, in the order in which plans ask for them."""
    sets: dict[str, list[DistillCell | EvaluateCell]] = {id: [cell] for id, cell in results.distills.items()}
    for student in sorted(results.evaluates.values(), key=lambda cell: (not cell.planned, cell.spec.seed)):
        # Without a distill cell (images made elsewhere) a student stands alone.
        sets.setdefault(student.id if student.distill is None else student.distill.id, []).append(student)
    cells = [_status(results, cell) for members in sorted(sets.values(), key=_place) for cell in members]
    return Status(
        counts=dict(Counter(cell.state for cell in cells)),
        cells=cells,
        jobs=[*jobs.tasks(results.store.out)],
        problems=results.problems,
    )


def _place(members: list[DistillCell | EvaluateCell]) -> tuple[Any, ...]:
    """What plans ask for stays in their order (sorting is stable); the rest follows by name."""
    if any(cell.planned for cell in members):
        return (0,)
    first = members[0]
    return (1, first.spec.dataset.name, first.spec.ipc or 0, first.label, first.spec.seed)


def _status(results: Results, cell: DistillCell | EvaluateCell) -> CellStatus:
    folder = results.store.cell(cell.id)
    attempts, seconds, in_others = _spent(cell, folder)
    holder = folder.holder() if cell.state == State.RUNNING else None
    distill, student = (cell, None) if isinstance(cell, DistillCell) else (cell.distill, cell)
    return CellStatus(
        cell=cell.id,
        kind=cell.spec.kind,
        state=cell.standing,
        label=cell.label,
        images_sha256=None if student is None else student.images_sha256,
        with_test_images=student is not None and student.with_test_images,
        images_folder=_images_folder(folder) if student is not None and student.images_sha256 is not None else None,
        dataset=cell.spec.dataset.name,
        split=cell.spec.dataset.split,
        resolution=cell.spec.dataset.resolution,
        ipc=cell.spec.ipc,
        distill_seed=None if distill is None else distill.spec.seed,
        protocol=None if student is None else printable(student.spec.protocol.label),
        student=None if student is None else student.spec.student,
        evaluate_seed=None if student is None else student.spec.seed,
        shard=str(cell.spec.shard) if isinstance(cell, DistillCell) and cell.spec.shard is not None else None,
        planned=cell.planned,
        attempts=attempts,
        seconds=seconds,
        acc_last=student.student.metrics.acc_last if student is not None and student.student is not None else None,
        progress=folder.progress() if cell.state in UNFINISHED else {},
        host=None if holder is None else printable(holder.host),
        job=None if holder is None or holder.job is None else printable(holder.job),
        since=None if holder is None else printable(holder.since),
        mixed=in_others,
        reason=cell.why,
    )


def _spent(cell: DistillCell | EvaluateCell, folder: CellDir) -> tuple[int | None, float | None, list[str]]:
    """(attempts, seconds, parts made in other environments): from the result, else from what the cell's process noted
    while it ran."""
    if cell.result is not None and cell.result.cost is not None:
        return cell.result.cost.attempts, cell.result.cost.seconds, mixed(cell.result)
    try:
        noted = json.loads(read_regular(folder.path / "spent.json"))
        so_far = mixed_so_far(noted.get("environments", ()))
        return int(noted["attempts"]), float(sum(noted["seconds"].values())), so_far
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, None, []


def _images_folder(folder: CellDir) -> str | None:
    try:
        return printable(folder.launch().images or "") or None
    except (OSError, ValueError):
        return None


SHARED: dict[str, Callable[[CellStatus], str | None]] = {
    "dataset": lambda cell: cell.dataset,
    "protocol": lambda cell: cell.protocol,
    "student": lambda cell: cell.student,
}
"""Columns that are said once, above the table, where all cells agree."""


def print_terminal(status: Status, console: Console, *, every_cell: bool = False) -> None:
    """A line for each cell, or of very many for each that needs a look; below it, in full, why cells failed and which
    files could not be read."""
    values = {name: {value for cell in status.cells if (value := get(cell))} for name, get in SHARED.items()}
    told = [value for several in values.values() if len(several) == 1 for value in several]
    columns = {name: get for name, get in SHARED.items() if len(values[name]) > 1}
    if told:
        console.print(Text(" · ".join(told), style="bold"))
    if status.cells:
        lines = [[cell] for cell in status.cells]
        if len(lines) > MOST_CELLS and not every_cell:
            lines = _together(status.cells, columns)
        print_table(_table(lines, columns), console)
        if len(lines) < len(status.cells):
            console.print(Text("Cells that need no look are counted; --every-cell gives each a line.", style="dim"))
    for (state, reason), cells in _failures(status).items():
        who = "; ".join(f"{_title(cell)} ({cell.cell})" for cell in cells)
        console.print(hanging(f"{state}: {who}\n{reason}", style=STYLES.get(state, "")))
    for (name, parts), cells in _mixed(status).items():
        which = "; ".join(map(_title, cells)) if len(cells) <= MOST_TITLES else f"{len(cells):,} cells of {name}"
        console.print(hanging(f"not made in one environment: {which}\n{'; '.join(parts)}", style="yellow"))
    if status.problems:
        console.print(left_out(status.problems))
    for name, place in dict.fromkeys((_name(cell), cell.images_folder) for cell in status.cells):
        if place is not None:
            console.print(hanging(f"{name}: images in {place}"))
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status.counts.items()))
    unplanned = sum(not cell.planned for cell in status.cells)
    said = f"{len(status.cells)} cells{f': {counts}' if counts else ''}"
    console.print(Text(f"{said}; no plan asks for {unplanned} of them" if unplanned else said))
    if status.jobs:
        _print_jobs(status.jobs, console)


def _print_jobs(tasks: list[jobs.Task], console: Console) -> None:
    """A line for each task that is queued or runs, and what all have had."""
    there = [task for task in tasks if task.state != "ended"]
    if there:
        table = ruled()
        for name in ("job", "of", "state", "since", "node", "starts", "cells"):
            table.add_column(name, no_wrap=True, justify="right" if name in ("starts", "cells") else "left")
        for task in there[:MOST_TASKS]:
            state = Text(task.state, {"running": "bold", "lost": "yellow", "held": "dim"}.get(task.state, ""))
            texts = (printable(task.since or ""), printable(task.host or ""), str(task.starts), str(task.made))
            table.add_row(Text(printable(task.task)), Text(printable(task.stage)), state, *map(Text, texts))
        console.print(table)
    more = f" ({len(there) - MOST_TASKS} of them not shown)" if len(there) > MOST_TASKS else ""
    states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(task.state for task in tasks).items()))
    console.print(Text(f"{len(tasks)} pilots: {states}{more}"))
    for why, failed in _ended_badly(tasks).items():
        logs = f"see {printable(failed[0].log)}" + (" and others beside it" if len(failed) > 1 else "")
        console.print(hanging(f"{len(failed)} ended: {printable(why)}; {logs}", style="red"))
    asked, held, used = (sum(getattr(task, f"{name}_hours") for task in tasks) for name in ("asked", "held", "used"))
    unit = "GPU hours" if any(task.gpus for task in tasks) else "hours of pilots"
    console.print(
        Text(f"{unit}: {asked:.1f} asked for, {held:.2f} had, {used:.2f} used by cells, {held - used:.2f} idle")
    )


def _ended_badly(tasks: list[jobs.Task]) -> dict[str, list[jobs.Task]]:
    """Why -> the tasks that ended and did not do what was theirs."""
    found: dict[str, list[jobs.Task]] = {}
    for task in tasks:
        if task.state == "ended" and task.ended not in (None, "done", "idle", "interrupted", "cancelled"):
            found.setdefault(str(task.ended), []).append(task)
    return found


Columns = dict[str, Callable[[CellStatus], str | None]]


def _together(cells: Sequence[CellStatus], columns: Columns) -> list[list[CellStatus]]:
    """Cells as lines: those that are as they should be, of one method, IPC and columns, on one, where the first is."""
    lines: dict[tuple[object, ...], list[CellStatus]] = {}
    for cell in cells:
        of: tuple[object, ...] = (cell.cell,)
        if cell.state in AS_THEY_SHOULD_BE:
            shared = (get(cell) for get in columns.values())
            of = (cell.state, _name(cell), cell.ipc, cell.kind, cell.shard is None, *shared)
        lines.setdefault(of, []).append(cell)
    return list(lines.values())


def _seeds(seeds: Iterable[int | None], missing: str) -> str:
    known = sorted({seed for seed in seeds if seed is not None})
    return extent(known) if known else missing


def _mean_seconds(cells: Sequence[CellStatus]) -> float | None:
    known = [cell.seconds for cell in cells if cell.seconds is not None]
    return fmean(known) if known else None


def _table(lines: Sequence[Sequence[CellStatus]], columns: Columns) -> RichTable:
    """A line for each list of cells that differ in seeds alone: their range, mean seconds, and how many they are."""
    table = ruled()
    table.add_column("state", no_wrap=True)
    table.add_column("method", overflow="fold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in ("IPC", "set", "student seed" if "student" in columns else "student", "try", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for cells in lines:
        cell = cells[0]
        tries = [one.attempts for one in cells if one.attempts is not None]
        table.add_row(
            Text(cell.state, STYLES.get(cell.state, "")),
            Text(_name(cell)),
            *(Text(get(cell) or "") for get in columns.values()),
            "all" if cell.ipc is None else str(cell.ipc),
            _seeds((one.distill_seed for one in cells), NONE),
            _seeds((one.evaluate_seed for one in cells), ""),
            str(max(tries)) if tries else NONE,
            seconds(_mean_seconds(cells)),
            Text(_words(cell) if len(cells) == 1 else f"{len(cells):,} cells"),
        )
    return table


def _failures(status: Status) -> dict[tuple[str, str], list[CellStatus]]:
    """(state, reason) -> the cells; a blocked student has its set's reason, which is said there."""
    found: dict[tuple[str, str], list[CellStatus]] = {}
    for cell in status.cells:
        if cell.reason and cell.state != BLOCKED:
            found.setdefault((cell.state, cell.reason), []).append(cell)
    return found


def _mixed(status: Status) -> dict[tuple[str, tuple[str, ...]], list[CellStatus]]:
    """(name, parts made in other environments) -> the cells."""
    found: dict[tuple[str, tuple[str, ...]], list[CellStatus]] = {}
    for cell in status.cells:
        if cell.mixed:
            found.setdefault((_name(cell), tuple(cell.mixed)), []).append(cell)
    return found


def _name(cell: CellStatus) -> str:
    with_test_images = ", with test images" if cell.with_test_images else ""
    return cell.label if cell.images_sha256 is None else f"{cell.label} ({cell.images_sha256[:8]}{with_test_images})"


def _title(cell: CellStatus) -> str:
    parts = [_name(cell), cell.dataset, "whole set" if cell.ipc is None else f"IPC {cell.ipc}"]
    parts += [f"set {cell.distill_seed}"] if cell.distill_seed is not None else []
    parts += [cell.shard] if cell.shard is not None else []
    parts += [f"{cell.student} {cell.evaluate_seed}"] if cell.student is not None else []
    return " · ".join(parts)


def _words(cell: CellStatus) -> str:
    """How far it is, or what came of it."""
    noted, parts = cell.progress, [cell.shard] if cell.shard is not None else []
    if cell.host not in (None, os.uname().nodename) or cell.job is not None:
        job = "" if cell.job is None else f", job {cell.job}"
        parts.append(f"on {cell.host}{job} since {cell.since}")
    if cell.acc_last is not None:
        parts.append(f"{cell.acc_last:.2f} %")
    if noted.get("images_total"):
        parts.append(f"{noted.get('images_done', 0)}/{noted['images_total']} images")
    if noted.get("epochs"):
        parts.append(f"epoch {noted.get('epoch', 0)}/{noted['epochs']}")
    if isinstance(noted.get("accuracy"), int | float):
        parts.append(f"{noted['accuracy']:.1f} % so far")
    if noted.get("note"):
        parts.append(str(noted["note"]))
    return printable(" · ".join(parts))
