"""The results folder: one directory per cell, every file written whole or not at all. Imports no torch.

    <out>/cells/<id>/   spec.json launch.json environment.json log.txt progress.json result.json attempts.jsonl lease/
    <out>/sets/<sha>/   <class id>/<00000>.png manifest.json      distilled sets, named by their images; of floats:
                        images.npy labels.npy manifest.json
    <out>/artefacts/    what cells share: latents, support points
    <out>/student-seeds/    <of>/<number>: which set's students have the seeds of that number, among sets of one method
    <out>/plans/        what was asked for, so that completed/expected is known
    <out>/at-work/      the runs that are at it; plan.lease/: the one that is planning
    <out>/superseded/   <id>.<content hash>/: cells that were run on other images than the dataset has now

`result.json` is written last: a cell without one is unfinished, whatever else lies there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import read_regular, remove_strays, write_json, write_unless
from ddbench.benchmark.core.reading import Reading
from ddbench.benchmark.core.result import (
    RETRIED,
    SCHEMA_VERSION,
    DistillResult,
    EvaluateResult,
    SetSource,
    SoftLabelsRecord,
)
from ddbench.benchmark.core.sharing.at_work import AtWork, at_work, runs_at_work
from ddbench.benchmark.core.sharing.attempts import Attempts, Cause
from ddbench.benchmark.core.sharing.file_system import require_fit
from ddbench.benchmark.core.sharing.holder import Holder, own_name
from ddbench.benchmark.core.sharing.lease import (
    Lease,
    believe_dead,
    believe_ended,
    holder_of,
    require_mine,
    stood_still,
)
from ddbench.benchmark.core.sharing.locks import lock, lock_or_refuse
from ddbench.benchmark.core.spec import CELL_SPEC, Compile, DistillSpec, EvaluateSpec, Model, cell_id
from ddbench.benchmark.core.subsets import SubsetOf

ANY_RESULT: TypeAdapter[DistillResult | EvaluateResult] = TypeAdapter(
    Annotated[DistillResult | EvaluateResult, Field(discriminator="kind")]
)
OUTSIDE_CAUSES = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM,
    errno.ESTALE, errno.ETIMEDOUT, errno.ENOTEMPTY,
}  # fmt: skip
"""Operating-system errors that say nothing about the cell itself: running it again may well work."""


DATASET = "dataset.json"
"""File in a cell's directory: the dataset as its first attempt found it."""
OF_SCHEMA_1 = "distil-"
"""How the names of schema 1's distill cells begin."""
RESULT, LOOK = "result.json", "look"
LATEST_SECONDS = 60.0
"""How long a network file system may go on denying a file that is there: NFS asks anew after a minute at most."""
AT_WORK = "at-work"
LEASE = "lease"
"""Folder in a cell's directory that says who is at it; see `sharing/lease.py`."""
WHAT_IT_IS = ("spec.json", "launch.json", LEASE)
"""The files of a cell's directory that no attempt at it has made."""


class State(StrEnum):
    """What a cell's directory says of it."""

    ABSENT = "absent"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PREEMPTED = "preempted"
    """A scheduler took its machine away; it goes on with the next run."""
    LOST = "lost"
    """Its process, or its machine, ended without a word; it goes on with the next run."""
    OK = "ok"
    FAILED = "failed"
    OOM = "oom"
    TIMEOUT = "timeout"
    KILLED = "killed"
    UNREADABLE = "unreadable"


class Launch(Model):
    """How a cell is to be run here: all that is not part of its identity."""

    label: str
    prior: str | None = None
    """Name or folder of the prior."""
    images: str | None = None
    """Folder with a foreign distilled set."""
    subset: SubsetOf | None = None
    """Which images of that folder count; None: all."""
    reading: Reading | None = Field(default=None, exclude_if=lambda value: value is None)
    """How that folder is read; None: as it stands."""
    test_images: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """Test images among those that count, where the set was taken with them; None: not looked for."""
    source: SetSource | None = None
    """Where that set came from, if not from a folder on this machine."""
    soft_labels: SoftLabelsRecord | None = None
    """Soft labels that came with it; those that are used lie in `Store.soft_labels`."""
    data_dir: Path | None = None
    test_data: dict[str, Path] = Field(default={}, exclude_if=lambda value: not value)
    """Shifted test set -> the folder of its files."""
    device: str = "cpu"
    threads: int = 1
    timeout_seconds: float | None = Field(default=None, exclude_if=lambda value: value is None)
    """Seconds that this attempt may take; None: any."""
    replaces: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Hash of the result that whoever starts the cell has seen, and wants another one for."""
    stood_still: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """What the cell's last holder wrote last, where whoever starts it has seen that holder dead: that takes minutes of
    watching, which a new process has not done."""
    cells_at_once: int = Field(default=1, exclude_if=lambda value: value == 1)
    """Cells that may run side by side on this one's CPU or GPU, itself counted."""
    compile: Compile = "never"
    """Whether a student's or a prior's network goes through `torch.compile`, until the cell has begun."""
    batch_size: int | None = None
    """Images in flight; None: the cell chooses at its first start and keeps to it."""
    shards: tuple[str, ...] = ()
    """Finished shard cells that make up this one's set."""
    plugins: tuple[str, ...] = ()


class CellPlan(Model):
    """What a cell chose at its first start; a resumed cell keeps to it, so that its batches and sums are the same."""

    batch_size: int
    threads: int
    oom_batch_sizes: tuple[int, ...] = ()
    """Batch sizes at which GPU memory ran out, in order; what is tried next is half of the last."""
    compile: Compile = "never"
    """Whether a prior's network goes through `torch.compile`; what a student's does, its checkpoint says."""

    def halved(self) -> CellPlan:
        tried = (*self.oom_batch_sizes, self.batch_size)
        return self.model_copy(update={"batch_size": max(1, self.batch_size // 2), "oom_batch_sizes": tried})


@dataclass(frozen=True)
class CellDir:
    """One cell's directory."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    def spec(self) -> DistillSpec | EvaluateSpec:
        """Raises RunError if the file is missing or not a specification."""
        try:
            return CELL_SPEC.validate_json(read_regular(self.path / "spec.json"))
        except (OSError, ValidationError) as error:
            raise RunError(f"{self.path / 'spec.json'} is not a cell specification: {error}") from error

    def launch(self) -> Launch:
        return Launch.model_validate_json(read_regular(self.path / "launch.json"))

    def result(self) -> DistillResult | EvaluateResult | None:
        """The result, or None if the cell has none or an unreadable one (see `problem`)."""
        return self._result_or_problem()[0]

    def problem(self) -> str | None:
        """Why `result.json` cannot be read, or None if it can or does not exist."""
        return self._result_or_problem()[1]

    def _result_or_problem(self) -> tuple[DistillResult | EvaluateResult | None, str | None]:
        file = self.path / RESULT
        try:
            return ANY_RESULT.validate_json(read_regular(file)), None
        except FileNotFoundError:
            return None, None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return None, f"{file}: {where + ': ' if where else ''}{first['msg']}"
        except OSError as error:
            return None, f"{file}: {error}"

    def result_seen(self) -> DistillResult | EvaluateResult | None:
        """The result, also where this machine remembers that there was none, as network file systems do for a while.
        For whoever is about to act on there being none; waits where the folder lists a result that cannot be read yet.
        """
        deadline = time.monotonic() + LATEST_SECONDS
        while (result := self.result()) is None:
            with contextlib.suppress(OSError):  # a change of one's own makes the machine ask anew what is in the folder
                probe = self.path / f".{LOOK}.{own_name()}.tmp"
                probe.touch()
                probe.unlink()
            if (result := self.result()) is not None or self.problem() is not None:
                return result
            if not _lists(self.path, RESULT) or time.monotonic() > deadline:
                return None
            time.sleep(0.1)
        return result

    def result_sha256(self) -> str | None:
        """Hash of the result's file; None if there is none that can be read."""
        try:
            return hashlib.sha256(read_regular(self.path / RESULT)).hexdigest()
        except OSError:
            return None

    def commit(self, result: DistillResult | EvaluateResult) -> bool:
        """Make a result visible. Never over one that is `ok`; returns whether this one is there now.

        Raises:
            LeaseLost: this process was taken for dead, and another one is at the cell.
        """
        self.require_lease()
        return write_unless(self.path / RESULT, result.model_dump(mode="json"), self._is_ok)

    def require_lease(self) -> None:
        """Raises LeaseLost if this process held the cell's lease, and another one does now."""
        require_mine(self.path / LEASE)

    def sweep(self) -> None:
        """Remove unfinished files of holders that were killed; what `add` writes may be another run's just now."""
        remove_strays(self.path, but=("spec.json", "launch.json"))

    def _is_ok(self) -> bool:
        result = self.result_seen()
        return result is not None and result.status == "ok"

    @property
    def attempts(self) -> Attempts:
        """The attempts at it, of all runs."""
        return Attempts(self.path)

    def schema_version(self) -> int | None:
        """The schema that its result says it has; None if there is no result or it does not say."""
        version = _noted(self.path / RESULT).get("schema_version")
        return version if isinstance(version, int) and not isinstance(version, bool) else None

    def state(self) -> State:
        result, problem = self._result_or_problem()
        if self.running():
            return State.RUNNING
        if result is not None:
            return State(result.status)
        if problem is not None:
            return State.UNREADABLE
        return self.unfinished()

    def unfinished(self) -> State:
        """Where a cell stands that has no result and runs nowhere: absent, interrupted, preempted or lost."""
        attempts = self.attempts.all()
        if attempts and attempts[-1].cause in (None, Cause.LOST):
            return State.LOST
        if attempts and attempts[-1].cause is Cause.PREEMPTED:
            return State.PREEMPTED
        return State.INTERRUPTED if (self.path / "spec.json").exists() else State.ABSENT

    def finished(self, *, retry_failed: bool = False) -> bool:
        """Whether `--reuse missing` leaves this cell alone."""
        result = self.result()
        if result is None or result.retriable or result.status in RETRIED:
            return False
        return result.status == "ok" or not retry_failed

    def lock(self, on_lost: Callable[[], None] = lambda: None) -> AbstractContextManager[Lease]:
        """Held by the cell's process while it lives, whatever machine it is on.

        Args:
            on_lost: called where this process was taken for dead and another one goes on with the cell.

        Raises:
            Busy: another process holds it; the message names it.
        """
        advice = "; wait for it or stop it, then the same command goes on"
        return lock_or_refuse(self.path / LEASE, f"cell {self.id} is running", advice, on_lost=on_lost)

    def running(self) -> bool:
        """Whether a process holds its lock."""
        return self.holder() is not None

    def holder(self) -> Holder | None:
        """The process that is at it, on this machine or another."""
        return holder_of(self.path / LEASE)

    def stood_still(self) -> str | None:
        """What its dead holder wrote last, where it was another machine's; for `Launch`."""
        return stood_still(self.path / LEASE)

    def believe_dead(self, text: str) -> None:
        """Take its holder for dead that wrote this last, unless it moves."""
        believe_dead(self.path / LEASE, text)

    def believe_ended(self, host: str) -> None:
        """Take its holder for dead, where that is a process of a machine on which it was seen to end."""
        believe_ended(self.path / LEASE, host)

    def content_hash(self) -> str | None:
        """`SplitData.content_hash` of the dataset as the cell's attempts have seen it; None before it was opened."""
        noted = _noted(self.path / DATASET)
        if "content_hash" in noted:
            return str(noted["content_hash"])
        result = self.result()
        return None if result is None or result.dataset is None else result.dataset.content_hash

    def progress(self) -> dict[str, Any]:
        """The last progress note of the cell's process; empty if there is none. What is not of the type that a cell
        writes is left out, so that whoever watches may count with it."""
        noted = _noted(self.path / "progress.json")
        return {key: value for key, value in noted.items() if _may_be(key, value)}

    def clear(self) -> None:
        """Forget all results and checkpoints (`--reuse never`); what the cell is stays, and so does its lease.

        Raises:
            Busy: a process is running the cell; nothing is touched.
        """
        if not self.path.exists():
            return
        with self.lock():
            self.require_lease()
            (self.path / RESULT).unlink(missing_ok=True)  # first: what is half cleared has none
            for entry in self.path.iterdir():
                if entry.name in WHAT_IT_IS:
                    continue
                self.require_lease()
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()


def _lists(folder: Path, name: str) -> bool:
    try:
        return any(path.name == name for path in folder.iterdir())
    except OSError:
        return False


def _may_be(key: str, value: object) -> bool:
    """Whether a cell writes such a progress note."""
    if key == "note":
        return isinstance(value, str)
    if key == "accuracy":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _noted(file: Path) -> dict[str, Any]:
    """What a JSON file says; empty if it is not there, not readable or no object."""
    try:
        noted = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


class Store:
    """A results folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.cells, self.sets = out / "cells", out / "sets"
        self.artefacts, self.plans = out / "artefacts", out / "plans"
        self.superseded = out / "superseded"

    def create(self) -> None:
        """Make the folders.

        Raises:
            RunError: the place cannot be written, with the system's reason, or results would not be safe in it.
            UsageError: there are results of another schema in it.
        """
        self.require_schema()
        try:
            for folder in (self.cells, self.sets, self.artefacts, self.plans):
                folder.mkdir(parents=True, exist_ok=True)
            require_fit(self.out)
        except OSError as error:
            raise RunError(
                f"cannot write results to {self.out}: {error.strerror}. Choose another folder with --out."
            ) from error

    def planning(
        self, waiting: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> AbstractContextManager[Lease]:
        """Held by whoever changes more than single cells: a run while it decides what is to be made, a merge.

        Args:
            waiting: entered while another process holds it.
        """
        return lock(self.out / "plan.lease", waiting=waiting)

    def at_work(self, run: str) -> AbstractContextManager[None]:
        """Held by a run of that name for its whole life, entered while it is `planning`. Any number may be at work at
        once: they share the cells."""
        return at_work(self.out / AT_WORK, run)

    def runs_at_work(self, *, sweep: bool = False) -> list[AtWork]:
        """The runs that are at work here, on this machine or another.

        Args:
            sweep: remove what killed ones left; only while `planning`.
        """
        return runs_at_work(self.out / AT_WORK, sweep=sweep)

    def cell(self, cell: str) -> CellDir:
        return CellDir(self.cells / cell)

    def add(self, spec: DistillSpec | EvaluateSpec, launch: Launch) -> CellDir:
        """The directory of a cell, with its specification and launch file written."""
        cell = self.cell(cell_id(spec))
        cell.path.mkdir(parents=True, exist_ok=True)
        try:
            cell.spec()
        except RunError:  # there is none yet, or a damaged one
            write_json(cell.path / "spec.json", spec.model_dump(mode="json"))
        write_json(cell.path / "launch.json", launch.model_dump(mode="json"))
        return cell

    def put_aside(self, cell: CellDir, content_hash: str) -> None:
        """Keep a cell that was run on other images, where it neither counts nor is lost.

        Raises:
            Busy: a process is running the cell; nothing is touched.
        """
        self.superseded.mkdir(exist_ok=True)
        target = self.set_aside(cell.id, content_hash).path
        with cell.lock() as lease:
            if target.exists():
                shutil.rmtree(target)  # of the same cell on the same images
            lease.require()
            cell.path.rename(target)
            lease.moved(target / LEASE)

    def set_aside(self, cell: str, content_hash: str) -> CellDir:
        """Where a cell lies, if at all, that was put aside."""
        return CellDir(self.superseded / f"{cell}.{content_hash[:16]}")

    def cell_dirs(self) -> list[CellDir]:
        """Every cell directory, sorted by name."""
        if not self.cells.is_dir():
            return []
        with os.scandir(self.cells) as entries:  # which knows of most entries what they are
            names = sorted(entry.name for entry in entries if entry.is_dir())
        return [CellDir(self.cells / name) for name in names]

    def student_seeds(self, dataset: str, ipc: int, founder: str) -> Path:
        """Where sets made elsewhere that are of one method claim the numbers of their students' seeds.

        Args:
            founder: image hash of the first of them.
        """
        return self.out / "student-seeds" / f"{dataset}-{ipc}-{founder[:16]}"

    def set_dir(self, image_set_sha256: str) -> Path:
        """Where a distilled set lies: 16 hexadecimal digits of its hash name it."""
        return self.sets / image_set_sha256[:16]

    def soft_labels(self, sha256: str) -> Path:
        """Where soft labels that students are trained with lie: (N, K) float32, rows in the set's order."""
        return self.artefacts / "soft-labels" / f"{sha256[:16]}.npy"

    def require_there(self) -> None:
        """Raises RunError if the folder has gone since it was made: nothing is made in its stead."""
        if not self.cells.is_dir():
            raise RunError(
                f"the results folder {self.out} was moved or deleted while cells ran. Put it back, or name its new "
                "place with --out, and the same command goes on with what it holds."
            )

    def require(self) -> None:
        """Raises UsageError if this is not a results folder, or one of another schema."""
        if not self.cells.is_dir():
            raise UsageError(
                f"{self.out} holds no results (no folder {self.cells}); run `bench run` first, or name "
                "another folder with --runs."
            )
        self.require_schema()

    def require_schema(self) -> None:
        """Refuse a folder of another version of ddbench as a whole: its cells would neither be read nor reused.

        A folder that also has results of this schema is read; its readers list what is not.

        Raises:
            UsageError: its results are of another schema, in one sentence.
        """
        other: int | None = None
        for cell in self.cell_dirs():
            version = 1 if cell.id.startswith(OF_SCHEMA_1) else cell.schema_version()
            if version == SCHEMA_VERSION:
                return
            other = other or version
        if other is not None:
            raise UsageError(
                f"{self.out} holds results of schema {other}, and this version of ddbench reads and writes schema "
                f"{SCHEMA_VERSION}: read them with the version that made them, and run again into another folder."
            )
