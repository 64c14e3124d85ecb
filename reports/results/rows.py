"""A results folder, cell by cell: what was asked for, what is there, what cannot be read. Reads only, no torch."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.provenance import PROVENANCE, Provenance, provenance_of
from ddbench.benchmark.core.result import (
    SCHEMA_VERSION,
    DatasetRecord,
    DistillResult,
    EvaluateResult,
    Metrics,
    impossible,
)
from ddbench.benchmark.core.spec import CELL_SPEC, DistilledBy, DistillSpec, EvaluateSpec, ForeignImages, cell_id
from ddbench.benchmark.core.store import ANY_RESULT, OF_SCHEMA_1, CellDir, State, Store
from ddbench.benchmark.planning.plan import Plan
from ddbench.methods.diffusion.priors.catalogue import WITH_RANDOM_WEIGHTS
from ddbench.methods.diffusion.priors.files import random_sha256
from ddbench.reports.results.paths import LEADS_OUT, leads_out

STALE = "stale"
"""State of an evaluation whose distilled set has since been made anew with other images."""

RANDOM_PRIORS = frozenset(random_sha256(name) for name in WITH_RANDOM_WEIGHTS)
"""Hashes of priors with random weights, to know what is planned with one; a tuned one's result says so itself."""

OTHER_SCHEMA = "schema version"
BLOCKED = "blocked"
"""Standing of a student that cannot be trained because its distilled set failed."""
CELL_FILES = ("spec.json", "launch.json", "result.json", "predictions.npy", PROVENANCE)
"""Files of a cell's directory that reports read."""
FAILURES = (State.FAILED, State.OOM, State.TIMEOUT, State.KILLED, State.UNREADABLE)


@dataclass(frozen=True)
class Problem:
    """A file of the results folder that could not be used."""

    path: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("path", "reason"):  # names of files and what errors quote may be anybody's
            object.__setattr__(self, name, printable(getattr(self, name)))


Model = TypeVar("Model", bound=BaseModel)
Spec = TypeVar("Spec", DistillSpec, EvaluateSpec)
Result = TypeVar("Result", DistillResult, EvaluateResult)


@dataclass(frozen=True)
class Cell(Generic[Spec, Result]):
    """A cell that was asked for or is there."""

    id: str
    spec: Spec
    label: str
    state: str = str(State.ABSENT)
    reason: str | None = None
    result: Result | None = None
    planned: bool = False
    provenance: Provenance | None = None
    """The bundles that it came in; None for a cell that was run here."""


@dataclass(frozen=True)
class DistillCell(Cell[DistillSpec, DistillResult]):
    """A first-stage cell."""

    failed_shard: DistillCell | None = None
    """A shard without which the set cannot be merged."""

    @property
    def timing_only(self) -> bool:
        """Its prior has random weights."""
        return _timing_only(self.result) or self.spec.prior_sha256 in RANDOM_PRIORS

    @property
    def standing(self) -> str:
        """The state, with a set that waits for a failed shard told from one that nobody has started yet."""
        return BLOCKED if self.state == State.ABSENT and self.failed_shard is not None else self.state

    @property
    def why(self) -> str | None:
        if self.standing == BLOCKED and self.failed_shard is not None:
            shard = self.failed_shard
            return f"{shard.spec.shard} {shard.state}: {shard.reason or f'see {shard.id}'}"
        return self.reason


@dataclass(frozen=True)
class EvaluateCell(Cell[EvaluateSpec, EvaluateResult]):
    """A second-stage cell: one student."""

    distill: DistillCell | None = None
    """The cell that made its set; None for images made elsewhere, and where that cell is gone."""

    @property
    def images_sha256(self) -> str | None:
        """The hash of images made elsewhere; None for a method's own."""
        return self.spec.images.image_set_sha256 if isinstance(self.spec.images, ForeignImages) else None

    @property
    def method_sha256(self) -> str | None:
        """The hash of images made elsewhere that names their method: their own, unless another set's was said."""
        images = self.spec.images
        return (images.same_method_as or self.images_sha256) if isinstance(images, ForeignImages) else None

    @property
    def with_test_images(self) -> bool:
        """Whether its set was taken although there may be test images in it."""
        return isinstance(self.spec.images, ForeignImages) and self.spec.images.with_test_images

    @property
    def ok(self) -> bool:
        return self.state == State.OK

    @cached_property
    def student_id(self) -> str:
        """The same for cells that train the same student, to look at it on other shifted test sets."""
        return self.spec.student_id if self.spec.test_on else self.id

    @property
    def timing_only(self) -> bool:
        """Its images come from a prior with random weights."""
        return _timing_only(self.result) or (self.distill is not None and self.distill.timing_only)

    @cached_property
    def student(self) -> Student | None:
        """The finished student, None if there is none."""
        result = self.result
        if not self.ok or result is None or result.metrics is None or result.dataset is None:
            return None
        return Student(self, result, result.metrics, result.dataset)

    @property
    def standing(self) -> str:
        """The state, with students that wait for a failed set told from those that nobody has started yet."""
        distill = self.distill
        blocked = self.state == State.ABSENT and distill is not None and distill.standing in (*FAILURES, BLOCKED)
        return BLOCKED if blocked else self.state

    @property
    def why(self) -> str | None:
        """Why it is not ok, if anything says so."""
        if self.standing == BLOCKED and self.distill is not None:
            return f"distilled set {self.distill.standing}: {self.distill.why or f'see {self.distill.id}'}"
        return self.reason


def _timing_only(result: DistillResult | EvaluateResult | None) -> bool:
    return result is not None and result.prior is not None and result.prior.timing_only


@dataclass(frozen=True)
class Student:
    """A finished evaluate cell and what it certainly has."""

    cell: EvaluateCell
    result: EvaluateResult
    metrics: Metrics
    data: DatasetRecord


@dataclass(frozen=True)
class Results:
    """A results folder, read once."""

    store: Store
    distills: dict[str, DistillCell]
    """Distilled sets, and the shards of those that are not merged yet, by id: those of plans in their order first."""
    evaluates: dict[str, EvaluateCell]
    """Students by id, in the same order."""
    problems: list[Problem]


def read(out: Path, *, follow_links: bool = True) -> Results:
    """Read a results folder. What cannot be read is listed, never fatal.

    Args:
        follow_links: also read plans and cells that are links out of the folder; else they are listed. What is
            published must lie in the folder.

    Raises:
        UsageError: `out` is not a results folder.
    """
    with nothing_collected():
        return _read(out.expanduser(), follow_links=follow_links)


@contextmanager
def nothing_collected() -> Iterator[None]:
    """While the block runs, no search for garbage: all that is read stays, and the search through ever more of it takes
    as long as reading does."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


@contextmanager
def kept() -> Iterator[None]:
    """While the block runs, no search for garbage looks through what was there before it: thousands of results stay."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _read(out: Path, *, follow_links: bool) -> Results:
    store = Store(out)
    store.require()
    problems: list[Problem] = []
    distills: dict[str, DistillCell] = {}
    evaluates: dict[str, EvaluateCell] = {}

    def read_here(*paths: Path) -> bool:
        outside = [] if follow_links else [path for path in paths if leads_out(path, out)]
        problems.extend(Problem(str(path), LEADS_OUT) for path in outside[:1])
        return not outside

    plans = [path for path in sorted(store.plans.glob("*.json")) if not path.name.startswith(".") and read_here(path)]
    _read_plans(plans, distills, evaluates, problems)
    inside = not leads_out(store.cells, out)
    for folder in store.cell_dirs():
        if folder.id.startswith("."):
            continue
        linked = not follow_links and (not inside or _has_links(folder.path))
        if linked and not read_here(folder.path, *(folder.path / name for name in CELL_FILES)):
            continue
        try:
            _read_cell(folder, distills, evaluates, problems)
        except (OSError, ValueError) as error:
            problems.append(Problem(str(folder.path), first_line(error)))
    distills = _with_shards(distills)
    joined = _one_name_a_method({id: _joined(cell, distills) for id, cell in evaluates.items()})
    timed = {id: cell for id, cell in joined.items() if cell.timing_only}
    for made in dict.fromkeys(cell.spec.images for cell in timed.values()):
        students = sum(cell.spec.images == made for cell in timed.values())
        path = store.cell(made.cell).path if isinstance(made, DistilledBy) else store.out
        problems.append(
            Problem(str(path), f"timing only: its prior has random weights, so no table has its {students} students")
        )
    evaluates = {id: cell for id, cell in joined.items() if id not in timed}
    return Results(store, distills, evaluates, _said_once(problems, store.cells))


def _read_plans(
    plans: Iterable[Path], distills: dict[str, DistillCell], evaluates: dict[str, EvaluateCell], problems: list[Problem]
) -> None:
    for path in plans:
        try:
            plan = Plan.model_validate_json(read_regular(path))
            cells = [(cell_id(spec), printable(planned.label), shown(spec)) for planned, spec in plan.cells()]
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), f"not a plan that this program reads: {first_line(error)}"))
            continue
        for id, label, spec in cells:
            if isinstance(spec, DistillSpec):
                distills.setdefault(id, DistillCell(id, spec, label, planned=True))
            else:
                evaluates.setdefault(id, EvaluateCell(id, spec, label, planned=True))


def _has_links(cell: Path) -> bool:
    """Whether a cell's directory, or a file in it that reports read, is a link, or may be: one look at the directory,
    where following each path takes a look at every folder above it."""
    try:
        with os.scandir(cell) as entries:
            return cell.is_symlink() or any(entry.name in CELL_FILES and entry.is_symlink() for entry in entries)
    except OSError:
        return True


def _read_cell(
    folder: CellDir, distills: dict[str, DistillCell], evaluates: dict[str, EvaluateCell], problems: list[Problem]
) -> None:
    id = folder.id
    try:
        spec = CELL_SPEC.validate_json(written := read_regular(f"{folder.path}/spec.json"))
    except FileNotFoundError:
        problems.append(Problem(str(folder.path), "no cell: there is no spec.json in it"))
        return
    except (OSError, ValidationError) as error:
        other = 1 if id.startswith(OF_SCHEMA_1) else folder.schema_version() or SCHEMA_VERSION
        why = first_line(error) if other == SCHEMA_VERSION else _of_schema(other)
        problems.append(Problem(str(folder.path / "spec.json"), why))
        return
    if (named := cell_id(spec)) != id:
        problems.append(Problem(str(folder.path), f"its spec.json is that of {named}: a copy, or edited; left out"))
        return
    spec = shown(spec, written)
    result, state, reason = _outcome(folder)
    if state == State.UNREADABLE:
        problems.append(Problem(str(folder.path / "result.json"), reason or "unreadable"))
    cells: dict[str, Any] = distills if isinstance(spec, DistillSpec) else evaluates
    kind: Any = DistillCell if isinstance(spec, DistillSpec) else EvaluateCell
    asked = cells.get(id)
    if asked is not None:
        spec = asked.spec
    label = result.label if result is not None else _launch_label(folder) if asked is None else asked.label
    origins = provenance_of(folder.path)
    origins = None if origins is None else shown(origins)
    cells[id] = kind(id, spec, label, state, reason, result, planned=asked is not None, provenance=origins)


def _outcome(folder: CellDir) -> tuple[DistillResult | EvaluateResult | None, str, str | None]:
    """(result, state, reason of a failure)."""
    try:
        result = ANY_RESULT.validate_json(written := read_regular(f"{folder.path}/result.json"))
        result = shown(result, written)
    except (OSError, ValidationError):
        result = None
    if result is None and (problem := folder.problem()) is not None:
        why = schema_problem(folder.path / "result.json") or problem.partition("result.json: ")[2] or problem
        return None, str(State.UNREADABLE), why
    if result is not None and (result.cell != folder.id or not folder.id.startswith(result.kind)):
        return None, str(State.UNREADABLE), f"it is the result of {printable(result.cell)}, not of this cell"
    if result is not None and result.status == "ok" and (problem := impossible(result)) is not None:
        return None, str(State.UNREADABLE), problem
    if result is not None and result.status == "ok":
        return result, str(State.OK), None
    return result, str(folder.state()), printable(result.reason) if result and result.reason else None


def schema_problem(file: Path, readable: int = SCHEMA_VERSION) -> str | None:
    """Why a file that its model refuses is not one of the schema that is read here; None where it says it is."""
    try:
        noted = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError):
        return "not JSON: half-written or foreign"
    version = noted.get("schema_version") if isinstance(noted, dict) else None
    return None if version == readable else _of_schema(version, readable)


def _of_schema(version: object, readable: int = SCHEMA_VERSION) -> str:
    return printable(f"{OTHER_SCHEMA} {version!r:.40}; this program reads {readable}")


def _said_once(problems: list[Problem], cells: Path) -> list[Problem]:
    """With the cells of another schema as one problem: a folder that was used by two versions has many."""
    other = [problem for problem in problems if problem.reason.startswith(OTHER_SCHEMA)]
    if len(other) < 2:
        return problems
    rest = [problem for problem in problems if problem not in other]
    return [*rest, Problem(str(cells), f"{len(other)} cells of {other[0].reason}; run again into another folder")]


def _with_shards(cells: dict[str, DistillCell]) -> dict[str, DistillCell]:
    """The sets, told of failed shards, and the shards of those that are not there yet."""
    failed = {
        cell_id(cell.spec.whole): cell
        for cell in cells.values()
        if cell.spec.shard is not None and cell.state in FAILURES
    }
    kept = {}
    for id, cell in cells.items():
        if cell.spec.shard is None:
            kept[id] = replace(cell, failed_shard=failed[id]) if id in failed else cell
        elif (whole := cells.get(cell_id(cell.spec.whole))) is None or whole.state != State.OK:
            kept[id] = cell
    return kept


def _joined(cell: EvaluateCell, distills: dict[str, DistillCell]) -> EvaluateCell:
    """The student with its distill cell; stale if the images are no longer those it was trained on."""
    images = cell.spec.images
    if isinstance(images, DistilledBy):
        distill = distills.get(images.cell)
        now = distill.result.image_set_sha256 if distill is not None and distill.result is not None else None
    else:
        distill, now = None, images.image_set_sha256
    joined = replace(cell, distill=distill)
    then = cell.result.image_set_sha256 if cell.result is not None else None
    if not cell.ok:
        return joined
    if then is None:
        return replace(joined, state=str(State.UNREADABLE), reason="its result names no images")
    if now is not None and now != then:
        return replace(
            joined, state=STALE, reason=f"trained on images {then[:16]}, but the set now has images {now[:16]}"
        )
    return joined


def _one_name_a_method(cells: Mapping[str, EvaluateCell]) -> dict[str, EvaluateCell]:
    """With one name for all students of a method whose images were made elsewhere: what was said last of its first set,
    here rather than by those whose results were merged. Its students may have been trained under several names."""
    said: dict[tuple[str, str], EvaluateCell] = {}

    def order(cell: EvaluateCell) -> tuple[bool, bool, str, str]:
        finished = "" if cell.result is None else cell.result.finished_at or ""
        return cell.images_sha256 == cell.method_sha256, cell.provenance is None, finished, cell.label

    for cell in cells.values():
        if cell.method_sha256 is not None:
            key = (cell.spec.dataset.name, cell.method_sha256)
            said[key] = max(said.get(key, cell), cell, key=order)
    labels = {key: cell.label for key, cell in said.items()}
    return {
        id: cell
        if cell.method_sha256 is None
        else replace(cell, label=labels[cell.spec.dataset.name, cell.method_sha256])
        for id, cell in cells.items()
    }


def one_each(cells: Iterable[EvaluateCell]) -> list[EvaluateCell]:
    """One cell for each student: those that train the same one, to look at it on other shifted test sets, have the same
    accuracy. A finished one counts, and of several the one that looks at none."""
    chosen: dict[str, EvaluateCell] = {}
    for cell in cells:
        before = chosen.get(cell.student_id)
        if before is None or (cell.ok, not cell.spec.test_on) > (before.ok, not before.spec.test_on):
            chosen[cell.student_id] = cell
    return list(chosen.values())


def _launch_label(folder: CellDir) -> str:
    try:
        return printable(folder.launch().label)
    except (OSError, ValidationError):
        return folder.id


def printable(text: str) -> str:
    """Names and reasons come from files of unknown origin: no escape sequence of theirs reaches a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def shown(model: Model, written: bytes = b"\\") -> Model:
    """A model with every text in it printable; itself where they are, as always but for a hostile file.

    Args:
        written: the JSON that it was read from, where it is at hand: ASCII without escapes needs no second look.
    """
    if written.isascii() and b"\\" not in written and b"\x7f" not in written:
        return model
    text = model.model_dump_json(exclude={"metrics"})  # JSON escapes control characters, and writes others as they are
    if text.isprintable() and "\\u" not in text and "\\r" not in text and "\\b" not in text and "\\f" not in text:
        return model
    return _shown(model)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _shown(one) for name, one in value})
    if isinstance(value, dict):
        return {_shown(key): _shown(one) for key, one in value.items()}
    return type(value)(map(_shown, value)) if isinstance(value, list | tuple) else value


def first_line(error: BaseException) -> str:
    """What an error says, in one line; of several problems with a file, the first and where it is."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return printable(f"{where}: {first['msg']}" if where else first["msg"])
    return printable(str(error)).partition("\n")[0]
