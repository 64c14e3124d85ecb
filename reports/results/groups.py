"""Cells as the tables and rows of leaderboards.

What the referee fixes splits *tables*: dataset, split, pixels, resolution, IPC, protocol, student. Numbers from two
tables are never ranked together. What the contestant brings splits *rows* of one table: method, version, parameters,
prior, precision, device. Numbers from two rows are never averaged. So a method without a prior meets those with one.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.core.result import DistillResult, EvaluateResult, PriorRecord, SoftLabelsRecord
from ddbench.benchmark.core.spec import ForeignImages, MethodSpec, digest
from ddbench.benchmark.planning.run_spec import parse_selector
from ddbench.datasets.validation import is_tuning
from ddbench.reports.results.rows import EvaluateCell, Results, Student, one_each, printable
from ddbench.reports.results.words import told_apart

Metric = Literal["acc_last", "acc_best", "top5_last"]


@dataclass(frozen=True)
class TableKey:
    """What all numbers of one ranking have in common."""

    dataset: str
    """Name of the dataset."""
    split: str
    """How the dataset is divided into training and test images."""
    resolution: int
    """Side of the images, pixels."""
    ipc: int | None
    """Images per class; none for the whole training set."""
    protocol: str
    """Evaluation protocol, `name@version`, with its overrides."""
    protocol_hash: str
    """Hash of all that the protocol fixes."""
    student: str
    """Network that is trained on the sets."""
    teacher_sha256: str | None = None
    """Hash of the network whose outputs were the labels; none under a protocol with hard labels."""
    split_hash: str | None = None
    """Hash of the split's file names; none where no evaluation has finished."""
    content_hash: str | None = None
    """Hash of the split's images; none where no evaluation has finished."""

    @property
    def student_image_size(self) -> int | None:
        """Side in pixels at which students see the images; None for a protocol that is not installed."""
        try:
            name, given = parse_selector(self.protocol.rpartition("@")[0])
            protocol = PROTOCOLS.load(name)
            if given:
                protocol = protocol.with_overrides({key: values[0] for key, values in given.items()})
            size: int = protocol.image_size_for(self.resolution)
        except (UsageError, ValueError):
            return None
        return size

    @property
    def pixels(self) -> str:
        """`224 px`, with the side that students saw where their protocol resizes to another."""
        seen = self.student_image_size or self.resolution
        return f"{self.resolution} px" + ("" if seen == self.resolution else f", students at {seen} px")

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
class RowKey:
    """What all numbers of one row have in common. The label is not part of it: parameters make a method."""

    method: str
    """Digest of the method's specification, or the name given to images made elsewhere."""
    images_sha256: str | None
    """Hash of images made elsewhere: another set is another row, since a folder's name says nothing of who made it. Of
    several sets of one method, where somebody says so, the first one's."""
    prior_sha256: str | None
    """Hash of the prior's files; none for a method without one."""
    precision: str | None
    """Precision of the sampler; none for images made elsewhere."""
    distill_device: str | None
    """Type of the device that made the sets: cpu, cuda; none for images made elsewhere."""
    evaluate_device: str
    """Type of the device that trained the students."""
    labels_sha256: str | None = None
    """Hash of soft labels that came with images made elsewhere, used or not; none where there are none."""

    @cached_property
    def id(self) -> str:
        """The same in every table."""
        return digest({k: v for k, v in asdict(self).items() if k != "labels_sha256" or v is not None})[:12]

    @property
    def images(self) -> str | None:
        """`images made elsewhere (8 of their hash)`; None for a method's own."""
        return None if self.images_sha256 is None else f"images made elsewhere ({self.images_sha256[:8]})"


@dataclass(frozen=True)
class DistilledSet:
    """One distilled set and the students that finished on it."""

    image_set_sha256: str
    students: tuple[Student, ...]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that made these images; several for a method whose set does not depend on the seed."""
        return tuple(sorted({s.result.distill_seed for s in self.students if s.result.distill_seed is not None}))


@dataclass(frozen=True)
class Row:
    """One method as run, in one table."""

    key: RowKey
    label: str
    reference: bool
    """It takes no rank: the whole training set, a companion in every IPC's table; or a set with test images in it."""
    cells: list[EvaluateCell]

    @property
    def whole_set(self) -> bool:
        """Trained on the whole training set."""
        return self.cells[0].spec.ipc is None

    @property
    def with_test_images(self) -> bool:
        """A set that was taken although there may be test images in it."""
        return self.reference and not self.whole_set

    @property
    def test_images(self) -> int | None:
        """How many there are; None where nothing says it."""
        return max((s.result.test_images for s in self.finished if s.result.test_images is not None), default=None)

    @property
    def n_images(self) -> tuple[int, ...]:
        """The distinct numbers of images of its sets."""
        made = [result.n_images for result in self.distilled] + [student.result.n_images for student in self.finished]
        return tuple(sorted({count for count in made if count is not None}))

    @property
    def images_per_class(self) -> tuple[int, int] | None:
        """The fewest and the most images of a class in its sets; None where nothing says it."""
        told = [s.result.images_per_class for s in self.finished if s.result.images_per_class is not None]
        return (min(few for few, _ in told), max(most for _, most in told)) if told else None

    @cached_property
    def finished(self) -> list[Student]:
        return [student for cell in self.cells if (student := cell.student) is not None]

    @property
    def complete(self) -> bool:
        return all(cell.ok for cell in self.cells)

    @cached_property
    def method(self) -> MethodSpec | None:
        return next((m for m in map(_method, self.cells) if m is not None), None)

    @cached_property
    def distilled(self) -> list[DistillResult]:
        """Its finished distill cells, also of sets whose students are still to come."""
        cells = {cell.distill.id: cell.distill for cell in self.cells if cell.distill is not None}
        return [cell.result for cell in cells.values() if cell.result is not None and cell.result.status == "ok"]

    @property
    def prior(self) -> PriorRecord | None:
        """None for a method without one, and where no result names it yet."""
        results = [*self.distilled, *(student.result for student in self.finished)]
        return next((result.prior for result in results if result.prior is not None), None)

    @property
    def image_bytes(self) -> float | None:
        """What the image files of a set take, mean over its sets; None where no result says it."""
        made = [result.image_bytes for result in self.distilled]
        return _mean(made or [of.students[0].result.image_bytes for of in self.sets])

    @property
    def soft_labels(self) -> SoftLabelsRecord | None:
        """Soft labels that came with its images; None where there are none, and where no student has finished."""
        return next((s.result.soft_labels for s in self.finished if s.result.soft_labels is not None), None)

    @property
    def left_labels_for(self) -> str | None:
        """What its students were trained with instead of the soft labels that came with its images; else None."""
        soft = self.soft_labels
        return None if soft is None or soft.used else trained_with(self.finished[0].result)

    @property
    def teacher_passes(self) -> float | None:
        """Images that a teacher labelled for one student, of several teachers each one's, mean over students; None
        without a teacher, or where that was not recorded."""
        return _mean(
            [
                None if s.result.images_seen is None else s.result.images_seen * s.result.teacher.networks
                for s in self.finished
                if s.result.teacher is not None
            ]
        )

    @property
    def stored_label_bytes(self) -> float | None:
        """What their labels take where the protocol's program stores them, mean over students."""
        return _mean([s.result.stored_label_bytes for s in self.finished])

    @cached_property
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

    def accuracies(self, metric: Metric) -> list[list[float]]:
        """Percent, of each set's students, as far as they have it."""
        metrics = [[getattr(student.metrics, metric) for student in made.students] for made in self.sets]
        return [[value for value in students if value is not None] for students in metrics]


@dataclass
class Table:
    """One table: its key, its rows, and what it is called."""

    key: TableKey
    rows: list[Row] = field(default_factory=list)
    title: str = ""

    @property
    def modified_protocol(self) -> bool:
        return any(cell.spec.protocol.overrides for row in self.rows for cell in row.cells)

    @property
    def n_test(self) -> int:
        """Test images; 0 where nothing has finished."""
        return next((student.data.n_test for row in self.rows for student in row.finished), 0)


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def trained_with(result: EvaluateResult) -> str:
    """The labels that a student was trained with."""
    if result.teacher is not None:
        return "a teacher's labels"
    return "own soft labels" if result.soft_labels is not None and result.soft_labels.used else "hard labels"


def group(results: Results) -> list[Table]:
    """The tables of a results folder, by dataset, split, resolution, protocol, student and IPC. Tuning runs have none.

    A cell without a result names no pixels; it belongs to the table with the most finished students of its kind.
    """
    evaluates = [cell for cell in one_each(results.evaluates.values()) if not is_tuning(cell.spec.dataset.name)]
    keys = [key_with_pixels(cell) for cell in evaluates]
    finished: dict[TableKey, Counter[TableKey]] = defaultdict(Counter)
    for pixels, count in Counter(keys).items():
        if pixels is not None:
            finished[replace(pixels, split_hash=None, content_hash=None)][pixels] = count
    members: dict[TableKey, list[EvaluateCell]] = defaultdict(list)
    for cell, pixels in zip(evaluates, keys, strict=True):
        members[pixels or _likeliest_pixels(table_key(cell), finished)].append(cell)
    leaked = {cell.images_sha256 for cell in evaluates if cell.with_test_images}
    groups = {key: Table(key, _rows(cells, leaked)) for key, cells in members.items()}
    whole = {key: table for key, table in groups.items() if key.ipc is None}
    for key, table in groups.items():
        companion = whole.get(replace(key, ipc=None))
        if key.ipc is not None and companion is not None:
            table.rows += companion.rows
    shown = {replace(key, ipc=None) for key in groups if key.ipc is not None}
    tables = sorted((table for key, table in groups.items() if key not in shown), key=lambda table: _order(table.key))
    for table, title in zip(tables, _titles([table.key for table in tables]), strict=True):
        table.title = title
    return tables


def title_of(dataset: str, split: str, ipc: int | None, pixels: str, *evaluated: str) -> str:
    """What a table is called; `evaluated` are protocol and student, where it is one of accuracies."""
    return " · ".join([f"{dataset} ({split} split)", ipc_text(ipc), *evaluated, pixels])


def ipc_text(ipc: int | None) -> str:
    return "whole training set" if ipc is None else f"IPC {ipc}"


def _titles(keys: Sequence[TableKey]) -> list[str]:
    """Hashes are added only where two would be called the same."""
    plain = [title_of(key.dataset, key.split, key.ipc, key.pixels, key.protocol, key.student) for key in keys]
    hashes = [
        f"data {(key.content_hash or 'unknown')[:8]} · protocol hash {key.protocol_hash[:8]}"
        + ("" if key.teacher_sha256 is None else f" · teacher {key.teacher_sha256[:8]}")
        for key in keys
    ]
    return told_apart(plain, list(map(" · ".join, zip(plain, hashes, strict=True))))


def table_key(cell: EvaluateCell, split_hash: str | None = None, content_hash: str | None = None) -> TableKey:
    """The key of its table; that of a cell without a result names no pixels."""
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
        split_hash=split_hash,
        content_hash=content_hash,
    )


def key_with_pixels(cell: EvaluateCell) -> TableKey | None:
    """None for a student that has not finished."""
    student = cell.student
    if student is None:
        return None
    return table_key(cell, student.data.split_hash, student.data.content_hash)


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


def _rows(cells: Iterable[EvaluateCell], leaked: Collection[str | None]) -> list[Row]:
    """Rows of one table.

    Args:
        leaked: hashes of sets with test images in them, wherever that was seen.
    """
    by_key: dict[RowKey, list[EvaluateCell]] = defaultdict(list)
    for cell in cells:
        by_key[_row_key(cell)].append(cell)
    rows = []
    for key, members in by_key.items():
        with_test_images = any(cell.images_sha256 is not None and cell.images_sha256 in leaked for cell in members)
        label = _row_label(members) + (" (with test images)" if with_test_images else "")
        rows.append(Row(key, label, members[0].spec.ipc is None or with_test_images, members))
    return rows


def _row_label(cells: Sequence[EvaluateCell]) -> str:
    """The usual name; a method that got its own name after some of its runs is shown by that name (the shorter)."""
    counts = Counter(cell.label for cell in cells)
    return min(counts, key=lambda label: ("[" in label, -counts[label], label))


def _method(cell: EvaluateCell) -> MethodSpec | None:
    if cell.distill is not None:
        return cell.distill.spec.method
    return cell.result.method if cell.result is not None else None


@lru_cache(maxsize=1024)
def _digest_of(method: str) -> str:
    """The digest of a method written as JSON: thousands of cells share it."""
    return digest(json.loads(method))


def _row_key(cell: EvaluateCell) -> RowKey:
    distill = cell.distill.spec if cell.distill is not None else None
    method = _method(cell)
    prior = cell.result.prior.sha256 if cell.result is not None and cell.result.prior is not None else None
    return RowKey(
        method=cell.label if method is None else _digest_of(method.model_dump_json()),
        images_sha256=cell.method_sha256,
        prior_sha256=prior if distill is None else distill.prior_sha256,
        precision=None if distill is None else distill.precision,
        distill_device=None if distill is None else distill.device_type,
        evaluate_device=cell.spec.device_type,
        labels_sha256=cell.spec.images.soft_labels_sha256 if isinstance(cell.spec.images, ForeignImages) else None,
    )
