"""Merging bundles: looked at as a whole in a folder of its own first, then each cell taken over in one rename.

What lies in the results folder stays as it is: a cell that is there already is compared, never replaced.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pydantic import ValidationError

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.provenance import PROVENANCE, Origin, Provenance, provenance_of
from ddbench.benchmark.core.result import EvaluateResult, Result
from ddbench.benchmark.core.sharing.lease import Lease
from ddbench.benchmark.core.sharing.locks import is_locked, lock
from ddbench.benchmark.core.spec import DistillSpec, digest
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.transfer import texts
from ddbench.benchmark.transfer.bundle import file_sha256
from ddbench.benchmark.transfer.contents import MOST_CHARACTERS, Index, without_folders
from ddbench.benchmark.transfer.data_at_hand import DataAtHand, same_arrays, test_labels_file
from ddbench.benchmark.transfer.proof import Proof, prove
from ddbench.benchmark.transfer.unpack import LIMITS, Limits, unpack

STAGING = ".ddbench-merging-"
"""How the folder begins in which a bundle is looked at, in the results folder or where that is to be."""


@dataclass
class Merged:
    """What became of a bundle's cells."""

    bundle: Path
    origin: Origin
    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    """The very result is here already."""
    agreeing: list[str] = field(default_factory=list)
    """The cell was run here too, and gave the same numbers; the one from here stays."""
    conflicts: list[str] = field(default_factory=list)
    """Cells that are here with other numbers, and what differs; those from here stay."""
    unfinished: list[str] = field(default_factory=list)
    """Cells that are begun here; they stay."""
    sets: int = 0
    proof: Proof = field(default_factory=Proof)


def merge(
    bundle: Path,
    store: Store,
    *,
    data: DataAtHand | None = None,
    dry_run: bool = False,
    limits: Limits = LIMITS,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Take over a bundle's cells, sets, plans and test labels.

    Args:
        data: the datasets of this machine, by which it is checked.
        dry_run: check and compare, and change nothing.
        done: called with (cells that were checked, cells).

    Raises:
        UsageError: it is no bundle, or one that was made to do harm.
        RunError: something in it is wrong; nothing is merged. Or another process is writing to the folder.
    """
    if not bundle.is_file():
        raise UsageError(f"{bundle}: {'no regular file' if bundle.exists() else 'no such file'}; expected a bundle")
    with _staging(store) as folder:
        index, staged = unpack(bundle, folder, limits), Store(folder)
        _read_texts(bundle, staged, index)
        cells, data = staged.cell_dirs(), data or DataAtHand()
        seen = iter(range(1, len(cells) + 1))
        proof = prove(staged, cells, data, lambda: done(next(seen), len(cells)))
        wrong = [*map(str, proof.wrong), *_strays(staged, cells)]
        if wrong:
            raise RunError("\n".join([f"{bundle}: nothing is merged, since not all of it is right:", *wrong]))
        origin = Origin(bundle=bundle.name, sha256=file_sha256(bundle), by=index.by, made_at=index.made_at)
        merged = Merged(bundle, origin, proof=proof)
        if dry_run:
            _take_over(staged, store, merged, dry_run=True, lease=None)
        else:
            store.create()
            with store.planning() as lease:
                for run in store.runs_at_work(sweep=True):
                    raise RunError(
                        f"a run ({run.holder.name}) is at work in {store.out}: wait for it or stop it, then merge. "
                        f"If it is gone with its machine, remove {run.folder}."
                    )
                _take_over(staged, store, merged, dry_run=False, lease=lease)
    return merged


@contextmanager
def _staging(store: Store) -> Iterator[Path]:
    """An empty folder on the disk of the results folder, that is gone afterwards, whatever happens."""
    # In the folder itself where there is one: what lies beside it, or beside a link to it, may be another disk.
    there = store.out.absolute()
    while not there.is_dir():
        there = there.parent
    for old in there.glob(f"{STAGING}*"):
        if not is_locked(old / "lease"):  # of a merge that was killed
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(mkdtemp(prefix=STAGING, dir=there))
    try:
        with lock(folder / "lease"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_texts(bundle: Path, staged: Store, index: Index) -> None:
    """Every JSON file once, strictly, before anything else reads it."""
    try:
        if index.by is not None:
            texts.check(index.by, "by")
        for name in index.members:
            texts.check(name, "a file's name")
            if name.endswith(".json"):
                value = texts.parse((staged.out / name).read_bytes(), name)
                _plain_label(value, name)
                if name.startswith("plans/"):
                    _read_plan(value, name)
        for cell in staged.cell_dirs():
            _read_cell(cell)
    except UsageError as error:
        raise UsageError(f"{bundle}: {error}") from error


def _read_plan(value: Any, name: str) -> None:
    if digest(value)[:16] != Path(name).stem:
        raise UsageError(f"{name}: its name is not its hash: edited")
    try:
        plan = Plan.model_validate(value)
    except ValidationError as error:
        raise UsageError(f"{name}: not a plan: {texts.shown(error.errors()[0]['msg'])}") from error
    if any(planned.launch != without_folders(planned.launch) for planned in plan.sets):
        raise UsageError(f"{name}: it names files of another machine")


def _plain_label(value: Any, name: str) -> None:
    """Names stand in tables: one line without angle brackets."""
    label = value.get("label") if isinstance(value, dict) else None
    if not isinstance(label, str):
        return
    if not label.isprintable() or set("<>") & set(label) or len(label) > 5 * MOST_CHARACTERS:
        raise UsageError(f"{name}: a label with line breaks, angle brackets or no end: {texts.shown(label)}")


def _read_cell(cell: CellDir) -> None:
    where = f"cells/{cell.id}"
    if not (cell.path / "spec.json").is_file():
        raise UsageError(f"{where}: it has no spec.json")
    if cell.result() is None:
        problem = (cell.problem() or "").partition("result.json: ")[2] or "not there"
        raise UsageError(f"{where}/result.json: {texts.shown(problem, 200)}")
    try:
        launch = cell.launch()
    except (OSError, ValidationError) as error:
        raise UsageError(f"{where}/launch.json: not there, or not one that is read here") from error
    if launch != without_folders(launch):
        raise UsageError(f"{where}/launch.json: it names files of another machine")
    if (cell.path / PROVENANCE).exists() and provenance_of(cell.path) is None:
        raise UsageError(f"{where}/{PROVENANCE}: it does not say where the cell comes from")


def _strays(staged: Store, cells: list[CellDir]) -> Iterator[str]:
    """Sets, labels and predictions that belong to no cell of the bundle."""
    results = [result for cell in cells if (result := cell.result()) is not None]
    sets = {staged.set_dir(r.image_set_sha256).name for r in results if r.image_set_sha256 and r.status == "ok"}
    labels = {test_labels_file(staged, r.dataset.content_hash).name for r in results if r.dataset is not None}
    for folder, known in ((staged.sets, sets), (staged.artefacts / "test-labels", labels)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name not in known:
                yield f"{path.relative_to(staged.out)}: belongs to no cell of the bundle"
    for cell in cells:
        result = cell.result()
        named = isinstance(result, EvaluateResult) and result.predictions == "predictions.npy"
        if (cell.path / "predictions.npy").exists() and not named:
            yield f"cells/{cell.id}/predictions.npy: its result names none"


def _take_over(staged: Store, store: Store, merged: Merged, *, dry_run: bool, lease: Lease | None) -> None:
    """What cells need comes before them, and plans last: whoever stops it in between has whole cells."""
    _labels(staged, store, dry_run=dry_run)
    for folder in sorted(staged.sets.iterdir()) if staged.sets.is_dir() else ():
        if not (store.sets / folder.name).exists():
            merged.sets += 1
            if not dry_run:
                folder.rename(store.sets / folder.name)
    # By name: sets come before students.
    for cell in staged.cell_dirs():
        if lease is not None:
            lease.require()  # a run may be at these cells by now
        _cell(cell, store, merged, dry_run=dry_run)
    for path in sorted(staged.plans.glob("*.json")) if staged.plans.is_dir() and not dry_run else ():
        if not (store.plans / path.name).exists():
            path.rename(store.plans / path.name)


def _labels(staged: Store, store: Store, *, dry_run: bool) -> None:
    folder = staged.artefacts / "test-labels"
    target = store.artefacts / "test-labels"
    new = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in new:
        if (target / path.name).exists() and not same_arrays(path, target / path.name):
            raise RunError(
                f"the test labels {path.name} that came along are not those that are here, though both say that they "
                "are of the same images; nothing is merged"
            )
    for path in new if not dry_run else ():
        if not (target / path.name).exists():
            target.mkdir(exist_ok=True)
            path.rename(target / path.name)


def _cell(cell: CellDir, store: Store, merged: Merged, *, dry_run: bool) -> None:
    here, theirs = store.cell(cell.id), cell.result()
    assert theirs is not None
    if here.path.exists():
        ours = here.result()
        if ours is None:
            merged.unfinished.append(cell.id)
        elif ours == theirs and _same_predictions(here, cell):
            merged.same.append(cell.id)
            if not dry_run:
                _verified_anew(here, merged)
        elif differences := _differences(here, cell, ours, theirs):
            merged.conflicts.append(f"{cell.id} ({theirs.label}): {'; '.join(differences)}")
        else:
            merged.agreeing.append(cell.id)
        return
    merged.added.append(cell.id)
    if dry_run:
        return
    origin = merged.origin.model_copy(update={"unverified": merged.proof.unverified(cell.id)})
    earlier = provenance_of(cell.path)
    origins = (*(() if earlier is None else earlier.origins), origin)
    write_json(cell.path / PROVENANCE, Provenance(origins=origins).model_dump(mode="json"))
    if isinstance(cell.spec(), DistillSpec) and theirs.image_set_sha256 is not None:
        made = store.set_dir(theirs.image_set_sha256)
        if made.is_dir():
            with suppress(OSError):  # for people; some file systems have no links
                (cell.path / "images").symlink_to(f"../../sets/{made.name}")
    cell.path.rename(here.path)


def _verified_anew(here: CellDir, merged: Merged) -> None:
    """A cell that came earlier, and of which more can be recomputed now (or less: another machine's data)."""
    known = provenance_of(here.path)
    if known is not None:
        last = known.last.model_copy(update={"unverified": merged.proof.unverified(here.id)})
        write_json(here.path / PROVENANCE, Provenance(origins=(*known.origins[:-1], last)).model_dump(mode="json"))


def _same_predictions(here: CellDir, there: CellDir) -> bool:
    files = here.path / "predictions.npy", there.path / "predictions.npy"
    return not any(file.exists() for file in files) or same_arrays(*files)


def _differences(here: CellDir, there: CellDir, ours: Result, theirs: Result) -> list[str]:
    """What of two results of one cell are not the same numbers; costs and machines may differ."""
    found = []
    for key in ("status", "image_set_sha256", "method"):
        a, b = getattr(ours, key), getattr(theirs, key)
        if a != b:
            found.append(f"{key} is {texts.shown(str(a), 40)} here and {texts.shown(str(b), 40)} there")
    if ours.dataset is not None and theirs.dataset is not None and ours.dataset != theirs.dataset:
        found.append("it saw other images of the dataset")
    if isinstance(ours, EvaluateResult) and isinstance(theirs, EvaluateResult) and ours.metrics and theirs.metrics:
        a, b = ours.metrics.acc_last, theirs.metrics.acc_last
        if a != b:
            found.append(f"acc_last is {a:.2f} here and {b:.2f} there")
        elif ours.metrics != theirs.metrics or not _same_predictions(here, there):
            found.append("the same acc_last with other predictions or another curve")
    return found
