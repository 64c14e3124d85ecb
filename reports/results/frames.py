"""A results folder as pandas DataFrames: one row per student, and one per distilled set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddbench.benchmark.core.result import Cost, DatasetRecord, DistillResult, EvaluateResult, Metrics
from ddbench.benchmark.core.store import Store
from ddbench.datasets.validation import is_tuning
from ddbench.reports.results.columns import Columns, frame
from ddbench.reports.results.groups import TableKey, key_with_pixels, table_key, trained_with
from ddbench.reports.results.hardware import hardware
from ddbench.reports.results.origins import Origin, origin_of
from ddbench.reports.results.rows import DistillCell, EvaluateCell, Results, one_each, printable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SetFacts:
    """What is known of a distilled set, made here or elsewhere."""

    method: str
    """The method as leaderboards call it: its registered name, or `dmgd[ot_scale=0.1]`; of
    images made elsewhere the name that the user gave them."""
    base_method: str | None
    """Registered name of the method whose parameters these are; missing for images made elsewhere."""
    method_version: int | None
    """Version of the method: raised when it makes other images."""
    parameters: str | None
    """All parameters of the method, resolved, as JSON."""
    dataset: str
    """Name of the dataset."""
    split: str
    """How the dataset is divided into training and test images."""
    resolution: int
    """Side of the images, pixels."""
    ipc: int | None
    """Images per class; missing: the whole training set."""
    distill_seed: int | None
    """Seed that the set was made with; missing for images made elsewhere."""
    prior: str | None
    """Name of the prior (the pretrained diffusion model), where the method has one."""
    prior_sha256: str | None
    """Hash of the prior's files."""
    prior_trained_on: str | None
    """What the prior's metadata says of its training data."""
    timing_only: bool
    """The prior's weights are random: the costs are what is known, and no table has its students."""
    precision: str | None
    """Precision of the sampler; missing for images made elsewhere."""
    distill_device: str | None
    """Type of the device that made the set: cpu, cuda."""
    distill_hardware: list[str]
    """Models of the devices that made the set."""
    cost_class: str | None
    """What kind of work the method does: selection, training-free, needs-classifier, fine-tunes."""
    image_set_sha256: str | None
    """Hash of the set: over decoded pixels, class and index."""
    with_test_images: bool
    """The set, made elsewhere, was taken although there may be test images in it: its accuracies say nothing."""
    distill_cell: str | None
    """Id of the cell that made the set; missing for images made elsewhere."""
    distill_state: str | None
    """Where that cell stands: ok, running, failed, oom, absent, …"""
    set_folder: str | None
    """Folder with the set's images; missing where there are none."""


@dataclass(frozen=True)
class StudentFacts:
    """What is known of a student besides its set."""

    state: str
    """Where the student stands: ok, or why it has no accuracy: absent, running, failed, oom, timeout, killed,
    interrupted, unreadable, stale (its set was made anew), blocked (its set failed)."""
    reason: str | None
    """Why it is not ok, in words."""
    modified_protocol: bool
    """The protocol has overrides: compare with its like only."""
    trained_with: str | None
    """Labels that the student was trained with: hard labels, a teacher's labels, or own soft labels, the set's; missing
    where it has not finished."""
    label_bytes: int | None
    """What the values of the soft labels that came with the set take as they are stored, used or not; missing where
    there are none."""
    images_seen: int | None
    """Images that the student was trained on, each as often as it passed; each teacher labelled as many."""
    stored_label_bytes: int | None
    """What the labels of these passes take where the protocol's program stores them; missing where it stores none."""
    evaluate_seed: int
    """Seed of the student's training."""
    evaluate_device: str
    """Type of the device that trained the student."""
    evaluate_hardware: list[str]
    """Models of the devices that trained the student."""
    cell: str
    """Id of the student's cell."""
    folder: str
    """The student's cell: specification, result, log, predictions."""


@dataclass(frozen=True)
class SetCounts:
    """What became of a set."""

    n_images: int | None
    """Images of the set, all classes together."""
    image_bytes: int | None
    """What its image files take; missing where no result says it."""
    students: int
    """Students that were asked for, under all protocols."""
    students_ok: int
    """Students that finished."""


@dataclass(frozen=True)
class _Line:
    made: SetFacts
    distill: DistillResult | None
    table: TableKey | None = None
    student: StudentFacts | None = None
    evaluate: EvaluateResult | None = None
    counts: SetCounts | None = None
    origin: Origin | None = None


NOT_IN_CELLS = ("phases", "measured")
DISTILL_COST = Columns(Cost, lambda line: line.distill and line.distill.cost, leave=NOT_IN_CELLS, prefix="distill_")
ORIGIN = Columns(Origin, lambda line: line.origin, prefix="origin_")
STUDENTS = (
    Columns(SetFacts, lambda line: line.made),
    Columns(TableKey, lambda line: line.table, leave=("dataset", "split", "resolution", "ipc")),
    Columns(StudentFacts, lambda line: line.student),
    Columns(Metrics, lambda line: line.evaluate and line.evaluate.metrics, leave=("curve",)),
    Columns(DatasetRecord, lambda line: line.evaluate and line.evaluate.dataset, ("n_train", "n_test")),
    ORIGIN,
    DISTILL_COST,
    Columns(Cost, lambda line: line.evaluate and line.evaluate.cost, leave=NOT_IN_CELLS, prefix="evaluate_"),
)
SETS = (Columns(SetFacts, lambda line: line.made), Columns(SetCounts, lambda line: line.counts), ORIGIN, DISTILL_COST)


def students_frame(results: Results) -> pd.DataFrame:
    """One row per student that was asked for or is there, in the order of plans.

    A student that has not finished says so in `state`, and has no accuracy. Tuning runs are left out: their test images
    are training images.
    """
    return frame(STUDENTS, _students(results))


def sets_frame(results: Results) -> pd.DataFrame:
    """One row per distilled set that was asked for or is there, made here or elsewhere, in the order of plans.

    Left out are tuning runs, the whole training set, and the shards of sets that are not merged yet.
    """
    return frame(SETS, _sets(results))


def _students(results: Results) -> Iterator[_Line]:
    for cell in one_each(results.evaluates.values()):
        if is_tuning(cell.spec.dataset.name):
            continue
        finished = cell.student
        result = None if finished is None else finished.result
        facts = StudentFacts(
            state=cell.standing,
            reason=cell.why,
            modified_protocol=bool(cell.spec.protocol.overrides),
            trained_with=None if result is None else trained_with(result),
            label_bytes=None if result is None or result.soft_labels is None else result.soft_labels.label_bytes,
            images_seen=None if result is None else result.images_seen,
            stored_label_bytes=None if result is None else result.stored_label_bytes,
            evaluate_seed=cell.spec.seed,
            evaluate_device=cell.spec.device_type,
            evaluate_hardware=hardware([result]),
            cell=cell.id,
            folder=str(results.store.cell(cell.id).path),
        )
        made = cell.distill.result if cell.distill is not None else None
        yield _Line(
            _set_facts(results.store, cell.distill, cell),
            made,
            key_with_pixels(cell) or table_key(cell),
            facts,
            result,
            origin=origin_of([cell, cell.distill]),
        )


def _sets(results: Results) -> Iterator[_Line]:
    students: dict[tuple[str, str], list[EvaluateCell]] = {}
    for cell in one_each(results.evaluates.values()):
        made = (cell.images_sha256 or "", cell.label) if cell.distill is None else ("", cell.distill.id)
        students.setdefault(made, []).append(cell)
    for distill in results.distills.values():
        spec = distill.spec
        if spec.shard is None and spec.ipc is not None and not is_tuning(spec.dataset.name):
            counts = _counts(students.get(("", distill.id), []), distill.result)
            facts, origin = _set_facts(results.store, distill, None), origin_of([distill])
            yield _Line(facts, distill.result, counts=counts, origin=origin)
    for (sha256, _), cells in students.items():
        if sha256 and not is_tuning(cells[0].spec.dataset.name):
            facts = _set_facts(results.store, None, cells[0])
            result = next((cell.result for cell in cells if cell.result is not None), None)
            yield _Line(facts, None, counts=_counts(cells, result), origin=origin_of(cells))


def _counts(students: list[EvaluateCell], result: DistillResult | EvaluateResult | None) -> SetCounts:
    """Of a set that `result` says the size of."""
    n_images, image_bytes = (None, None) if result is None else (result.n_images, result.image_bytes)
    return SetCounts(n_images, image_bytes, len(students), sum(cell.ok for cell in students))


def _set_facts(store: Store, distill: DistillCell | None, student: EvaluateCell | None) -> SetFacts:
    """Of a set that was made here, or of the images elsewhere on which a student was trained."""
    cell = student if distill is None else distill
    assert cell is not None
    evaluated = None if student is None else student.result
    made = None if distill is None else distill.result
    method = distill.spec.method if distill is not None else evaluated.method if evaluated is not None else None
    priors = [result.prior for result in (made, evaluated) if result is not None and result.prior is not None]
    prior = priors[0] if priors else None
    # A student whose set was made anew keeps the hash of the images that it was trained on.
    hashes = [result.image_set_sha256 for result in (evaluated, made) if result is not None]
    hashes += [] if student is None else [student.images_sha256]
    sha256 = next((sha256 for sha256 in hashes if sha256 is not None), None)
    return SetFacts(
        method=cell.label,
        base_method=None if method is None else method.name,
        method_version=None if method is None else method.version,
        parameters=None if method is None else json.dumps(method.params, sort_keys=True),
        dataset=cell.spec.dataset.name,
        split=cell.spec.dataset.split,
        resolution=cell.spec.dataset.resolution,
        ipc=cell.spec.ipc,
        distill_seed=None if distill is None else distill.spec.seed,
        prior=None if prior is None else printable(prior.name),
        prior_sha256=distill.spec.prior_sha256 if distill is not None else None if prior is None else prior.sha256,
        prior_trained_on=None if prior is None else printable(prior.trained_on),
        timing_only=cell.timing_only,
        precision=None if distill is None else distill.spec.precision,
        distill_device=None if distill is None else distill.spec.device_type,
        distill_hardware=hardware([made]),
        cost_class=None if made is None else made.cost_class,
        image_set_sha256=sha256,
        with_test_images=student is not None and student.with_test_images,
        distill_cell=None if distill is None else distill.id,
        distill_state=None if distill is None else distill.standing,
        set_folder=_folder(store, distill, student, sha256),
    )


def _folder(store: Store, distill: DistillCell | None, student: EvaluateCell | None, sha256: str | None) -> str | None:
    cell = student if distill is None else distill
    # Images made elsewhere lie in the results folder where a bundle has brought them.
    folder = store.set_dir(sha256) if sha256 is not None and cell is not None and cell.spec.ipc is not None else None
    if distill is None and student is not None and (folder is None or not folder.is_dir()):
        with suppress(OSError, ValueError):
            folder = Path(store.cell(student.id).launch().images or os.devnull)
    return str(folder) if folder is not None and folder.is_dir() else None
