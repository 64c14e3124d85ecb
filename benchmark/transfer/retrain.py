"""Students trained again, to see whether a results folder's numbers come out: in a folder of their own.

Equal means: on the machine that trained a student, the same predictions, each of them. Elsewhere sums are rounded
otherwise and a student ends somewhere else, as one with another seed does; how far such students lie apart is known
from those that share a set. A difference between two of them beyond what 99 of 100 such pairs show is a finding.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import ENGINES
from ddbench.benchmark.core.result import EvaluateResult, Metrics
from ddbench.benchmark.core.spec import DistilledBy, EvaluateSpec
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.engines.base import Engine
from ddbench.benchmark.transfer.contents import launch_of
from ddbench.benchmark.transfer.data_at_hand import same_arrays
from ddbench.benchmark.transfer.proof import Finding

CONFIDENCE = 0.99
POLL_SECONDS = 0.1
SAME_MACHINE = ("platform", "python", "versions", "source", "hardware", "device", "variables", "determinism")
"""Keys of `environment.capture` that decide which sums are done and how they are rounded."""


@dataclass
class Retrained:
    """A student and its twin."""

    cell: str
    label: str
    before: float
    """Accuracy after the last epoch, percent."""
    after: float | None
    verdict: str
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        after = "nothing" if self.after is None else f"{self.after:.2f} %"
        return f"{self.cell} ({self.label}): {self.before:.2f} %, again {after}: {self.verdict}"


@dataclass(frozen=True)
class _Student:
    cell: CellDir
    spec: EvaluateSpec
    result: EvaluateResult
    metrics: Metrics
    images: Path


def retrain(store: Store, count: int, *, seed: int = 0, data_dir: Path | None = None) -> Iterator[Retrained]:
    """Train students of a results folder again, drawn at random among those whose images are here.

    Args:
        data_dir: where the files of datasets lie; None: where the cells had them.

    Raises:
        UsageError: there is no finished student whose images are here.
    """
    students = list(_students(store))
    here = [student for student in students if student.images.exists()]
    if not here:
        raise UsageError(f"{store.out}: no finished student has its set's images here, so none can be trained again")
    chosen = random.Random(seeds.stream_seed(seed, "retrain")).sample(here, min(count, len(here)))
    for student in chosen:
        yield _again(student, students, data_dir)


def _students(store: Store) -> Iterator[_Student]:
    for cell in store.cell_dirs():
        result = cell.result()
        if not isinstance(result, EvaluateResult) or result.status != "ok" or result.metrics is None:
            continue
        spec, launch = cell.spec(), launch_of(cell)
        assert isinstance(spec, EvaluateSpec)
        images = store.set_dir(str(result.image_set_sha256))
        if not images.exists() and launch.images is not None:
            images = Path(launch.images)
        yield _Student(cell, spec, result, result.metrics, images)


def _again(student: _Student, students: Sequence[_Student], data_dir: Path | None) -> Retrained:
    with TemporaryDirectory(prefix="ddbench-retrain-") as scratch:
        store = Store(Path(scratch))
        store.create()
        before = student.metrics.acc_last
        try:
            twin = _train(student, store, data_dir)
        except UsageError as error:  # no such device here
            return Retrained(student.cell.id, student.result.label, before, None, f"not verified: {error}")
        result = twin.result()
        if not isinstance(result, EvaluateResult) or result.metrics is None:
            reason = result.reason if result is not None else "its process ended without a result"
            return Retrained(student.cell.id, student.result.label, before, None, f"not verified: {reason}")
        same = same_arrays(student.cell.path / "predictions.npy", twin.path / "predictions.npy")
        verdict, wrong = _judge(student, result, students, same=same)
    found = [Finding(student.cell.id, "retrained", True, verdict)] if wrong else []
    return Retrained(student.cell.id, student.result.label, before, result.metrics.acc_last, verdict, found)


def _train(student: _Student, store: Store, data_dir: Path | None) -> CellDir:
    """Run the cell again, in another folder; its set stays where it is."""
    launch, cost = launch_of(student.cell), student.result.cost
    arithmetic = (student.result.environment or {}).get("determinism") or {}
    launch = launch.model_copy(
        update={
            "device": student.spec.device_type,
            "threads": launch.threads if cost is None else cost.threads,
            "compile": "always" if arithmetic.get("compiled") else "never",
            "data_dir": data_dir or launch.data_dir,
            "timeout_seconds": None,
            "replaces": None,
        }
    )
    if isinstance(student.spec.images, DistilledBy):
        made = student.cell.path.parent / student.spec.images.cell
        (store.cells / made.name).symlink_to(made.resolve())
        (store.sets / student.images.name).symlink_to(student.images.resolve())
    else:
        launch = launch.model_copy(update={"images": str(student.images.resolve())})
    # What is compared is the training; files of shifted test sets need not be here.
    cell = store.add(student.spec.model_copy(update={"test_on": ()}), launch)
    engine: Engine = ENGINES.load("local")()
    (slot,) = engine.open(jobs=1, device=launch.device)
    handle = engine.start(cell.path, launch, slot)
    try:
        while handle.exit_status() is None:
            time.sleep(POLL_SECONDS)
    finally:
        if handle.exit_status() is None:
            handle.kill()
        engine.close()
    return cell


def _judge(student: _Student, again: EvaluateResult, students: Sequence[_Student], *, same: bool) -> tuple[str, bool]:
    """(what to say of the two, whether it is a finding)."""
    assert again.metrics is not None
    if same:
        return "the same predictions", False
    difference = abs(again.metrics.acc_last - student.metrics.acc_last)
    if student.spec.device_type == "cpu" and _same_machine(student.result, again):
        return "the same machine and versions, and other predictions", True
    noise = _noise(student, students)
    if noise is None:
        return f"{difference:.2f} points apart; no set here has two students, so nothing says how far is far", False
    said = f"{difference:.2f} points apart on another machine or version, where 99 of 100 lie within {noise:.2f}"
    return said, difference > noise


def _same_machine(before: EvaluateResult, again: EvaluateResult) -> bool:
    if before.other_environments:
        return False  # the twin runs in one
    a, b = before.environment or {}, again.environment or {}
    threads = [None if result.cost is None else result.cost.threads for result in (before, again)]
    return all(a.get(key) == b.get(key) for key in SAME_MACHINE) and threads[0] == threads[1]


def _noise(student: _Student, students: Sequence[_Student]) -> float | None:
    """Points within which two students of one set lie, 99 times of 100: from the spread of those that share a set in
    this student's kind of table, pooled over its sets."""
    from scipy.stats import t

    sets: dict[str | None, list[float]] = defaultdict(list)
    spec = student.spec
    for other in students:
        kind = (other.spec.dataset, other.spec.ipc, other.spec.protocol, other.spec.student)
        if kind == (spec.dataset, spec.ipc, spec.protocol, spec.student):
            sets[other.result.image_set_sha256].append(other.metrics.acc_last)
    squares = math.fsum(math.fsum((a - fmean(of)) ** 2 for a in of) for of in sets.values())
    freedom = sum(len(of) - 1 for of in sets.values())
    if not freedom:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(2 * squares / freedom)
