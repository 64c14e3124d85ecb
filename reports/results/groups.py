"""Cells as the tables and rows of leaderboards.

What the referee fixes splits *tables*: dataset, split, pixels, resolution, IPC, protocol, student. Numbers from two
tables are never ranked together. What the contestant brings splits *rows* of one table: method, version, parameters,
prior, precision, device. Numbers from two rows are never averaged. So a method without a prior meets those with one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddbench.benchmark.core.spec import MethodSpec, digest
from ddbench.benchmark.core.store import Store
from ddbench.datasets.validation import is_tuning
from ddbench.reports.results.rows import EvaluateCell, Results, Student, printable

ROUNDING = 0.006
"""Recorded accuracies may have been rounded to two decimals."""


@dataclass(frozen=True)
class TableKey:
    """What all numbers of one ranking have in common."""

    dataset: str
    split: str
    resolution: int
    ipc: int | None
    """None: the whole training set."""
    protocol: str
    """`name@version`, with its overrides."""
    protocol_hash: str
    student: str
    teacher_sha256: str | None = None
    """Whose outputs were the labels; None under a protocol with hard labels."""
    split_hash: str | None = None
    content_hash: str | None = None
    """Both None where no evaluation has finished yet."""

    def conditions(self, protocol: str, *, whole_set: bool = False) -> dict[str, Any]:
        """What published numbers are looked up by (`paper_numbers.published`).

        Args:
            protocol: its registered name, without version.
            whole_set: of a row that was trained on the whole training set.
        """
        return {
            "dataset": self.dataset,
            "split": self.split,
            "resolution": self.resolution,
            "ipc": None if whole_set else self.ipc,
            "student": self.student,
            "protocol": protocol,
        }


@dataclass(frozen=True)
class Contestant:
    """What all numbers of one row have in common. The label is not part of it: parameters make a method."""

    method: str
    """Digest of the method's specification, or the name given to images made elsewhere."""
    images_sha256: str | None
    """Of images made elsewhere: another set is another row, since a folder's name says nothing of who made it."""
    prior_sha256: str | None
    precision: str | None
    distill_device: str | None
    evaluate_device: str

    @property
    def images(self) -> str | None:
        """`images made elsewhere (8 of their hash)`; None for a method's own."""
        return None if self.images_sha256 is None else f"images made elsewhere ({self.images_sha256[:8]})"


@dataclass(frozen=True)
class DistilledSet:
    """One distilled set and the students that finished on it."""

    image_set_sha256: str
    students: tuple[Student, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that made these images; several for a method whose set does not depend on the seed."""
        return tuple(sorted({s.result.distill_seed for s in self.students if s.result.distill_seed is not None}))


@dataclass
class Row:
    """One contestant in one table."""

    contestant: Contestant
    label: str
    reference: bool
    """A companion that stands in every IPC's table and takes no rank: the whole training set."""
    cells: list[EvaluateCell]

    @property
    def finished(self) -> list[Student]:
        return [student for cell in self.cells if (student := cell.student) is not None]

    @property
    def complete(self) -> bool:
        return all(cell.ok for cell in self.cells)

    @property
    def method(self) -> MethodSpec | None:
        return next((m for m in map(_method, self.cells) if m is not None), None)

    @property
    def sets(self) -> list[DistilledSet]:
        """Finished sets by seed: one for each distinct image hash."""
        students: dict[str, list[Student]] = defaultdict(list)
        for student in self.finished:
            students[student.result.image_set_sha256 or ""].append(student)
        sets = [
            DistilledSet(sha, tuple(sorted(members, key=lambda student: student.result.evaluate_seed)))
            for sha, members in students.items()
        ]
        return sorted(sets, key=lambda made: (made.seeds, made.image_set_sha256))


@dataclass
class Group:
    """One table: its key and its rows."""

    key: TableKey
    rows: list[Row] = field(default_factory=list)

    @property
    def modified_protocol(self) -> bool:
        return any(cell.spec.protocol.overrides for row in self.rows for cell in row.cells)


def group(results: Results) -> list[Group]:
    """The tables of a results folder, by dataset, split, resolution, protocol, student and IPC. Tuning runs have none.

    A cell without a result names no pixels; it belongs to the table with the most finished students of its kind.
    """
    evaluates = [cell for cell in results.evaluates.values() if not is_tuning(cell.spec.dataset.name)]
    finished: dict[TableKey, Counter[TableKey]] = defaultdict(Counter)
    for cell in evaluates:
        if (pixels := _pixels(cell)) is not None:
            finished[_key(cell)][pixels] += 1
    members: dict[TableKey, list[EvaluateCell]] = defaultdict(list)
    for cell in evaluates:
        members[_pixels(cell) or _likeliest_pixels(_key(cell), finished)].append(cell)
    groups = {key: Group(key, _rows(cells)) for key, cells in members.items()}
    whole = {key: table for key, table in groups.items() if key.ipc is None}
    for key, table in groups.items():
        companion = whole.get(replace(key, ipc=None))
        if key.ipc is not None and companion is not None:
            table.rows += companion.rows
    shown = {replace(key, ipc=None) for key in groups if key.ipc is not None}
    tables = [table for key, table in groups.items() if key not in shown]
    return sorted(tables, key=lambda table: _order(table.key))


def _key(cell: EvaluateCell) -> TableKey:
    spec = cell.spec
    return TableKey(
        dataset=spec.dataset.name,
        split=spec.dataset.split,
        resolution=spec.dataset.resolution,
        ipc=spec.ipc,
        protocol=printable(spec.protocol.label),
        protocol_hash=spec.protocol.hash,
        student=spec.student,
        teacher_sha256=spec.teacher_sha256,
    )


def _pixels(cell: EvaluateCell) -> TableKey | None:
    student = cell.student
    if student is None:
        return None
    return replace(_key(cell), split_hash=student.data.split_hash, content_hash=student.data.content_hash)


def _likeliest_pixels(key: TableKey, finished: dict[TableKey, Counter[TableKey]]) -> TableKey:
    known = finished.get(key)
    if not known:
        # Students that differ in IPC only saw the same dataset.
        known = sum((counts for other, counts in finished.items() if replace(other, ipc=key.ipc) == key), Counter())
    if not known:
        return key
    likeliest = max(known, key=lambda pixels: (known[pixels], str(pixels)))
    return replace(key, split_hash=likeliest.split_hash, content_hash=likeliest.content_hash)


def _order(key: TableKey) -> tuple[Any, ...]:
    ipc = (key.ipc is None, key.ipc or 0)
    hashes = (key.teacher_sha256 or "", key.split_hash or "", key.content_hash or "")
    return (key.dataset, key.split, key.resolution, key.protocol, key.protocol_hash, key.student, ipc, *hashes)


def _rows(cells: Iterable[EvaluateCell]) -> list[Row]:
    by_contestant: dict[Contestant, list[EvaluateCell]] = defaultdict(list)
    for cell in cells:
        by_contestant[_contestant(cell)].append(cell)
    return [
        Row(contestant, _row_label(members), members[0].spec.ipc is None, members)
        for contestant, members in by_contestant.items()
    ]


def _row_label(cells: Sequence[EvaluateCell]) -> str:
    """The usual name; a method that got its own name after some of its runs is shown by that name (the shorter)."""
    counts = Counter(cell.label for cell in cells)
    return min(counts, key=lambda label: ("[" in label, -counts[label], label))


def _method(cell: EvaluateCell) -> MethodSpec | None:
    if cell.distill is not None:
        return cell.distill.spec.method
    return cell.result.method if cell.result is not None else None


def _contestant(cell: EvaluateCell) -> Contestant:
    distill = cell.distill.spec if cell.distill is not None else None
    method = _method(cell)
    prior = cell.result.prior.sha256 if cell.result is not None and cell.result.prior is not None else None
    return Contestant(
        method=cell.label if method is None else digest(method.model_dump(mode="json")),
        images_sha256=cell.images_sha256,
        prior_sha256=prior if distill is None else distill.prior_sha256,
        precision=None if distill is None else distill.precision,
        distill_device=None if distill is None else distill.device_type,
        evaluate_device=cell.spec.device_type,
    )


def correct(store: Store, student: Student) -> np.ndarray | None:
    """(n_test,) bool: which test images a finished student got right; None where that is not known.

    Predictions lie beside the result; labels in `artefacts/test-labels/<content_hash[:16]>.npy`, (n_test,) int64. Both
    must have the recorded length and give the recorded accuracy: arrays that do not are not this result's.
    """
    name, data = student.result.predictions, student.data
    # Both names come from a file of unknown origin and must not lead out of their folders.
    if not name or Path(name).name != name:
        return None
    labels = labels_of_test(store, data.content_hash)
    try:
        predicted = np.load(store.cell(student.cell.id).path / name, allow_pickle=False)
    except (OSError, ValueError):
        return None
    if labels is None or predicted.shape != (data.n_test,) or labels.shape != predicted.shape:
        return None
    right = predicted.astype(np.int64) == labels
    agrees = abs(100 * float(right.mean()) - student.metrics.acc_last) < ROUNDING
    return right if agrees else None


def labels_of_test(store: Store, content_hash: str | None) -> np.ndarray | None:
    """(n_test,) int64 classes of a dataset's test images; None where the folder does not hold them."""
    if content_hash is None or not content_hash.isalnum():
        return None
    try:
        labels: np.ndarray = np.load(store.artefacts / "test-labels" / f"{content_hash[:16]}.npy", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return labels
