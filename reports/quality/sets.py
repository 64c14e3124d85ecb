"""The distilled sets of a results folder that can be measured, by the images that they were distilled from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddbench.benchmark.core.reading import Reading
from ddbench.benchmark.core.result import DatasetRecord
from ddbench.benchmark.core.spec import ForeignImages, digest
from ddbench.benchmark.core.store import State, Store
from ddbench.benchmark.core.subsets import SubsetOf
from ddbench.datasets.validation import is_tuning
from ddbench.reports.results.rows import DistillCell, EvaluateCell, Problem, Results, printable


@dataclass(frozen=True)
class Maker:
    """What all sets of one row have in common; its fields tell rows with one label apart."""

    label: str
    method: str
    """Digest of the method's specification; of images made elsewhere, their hash."""
    version: int | None = None
    prior: str | None = None
    """`name (8 of its hash)`."""
    precision: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class FinishedSet:
    """A distilled set on disk."""

    image_set_sha256: str
    folder: Path
    dataset: DatasetRecord
    """What the set was distilled from; for images made elsewhere, what its students were tested on."""
    ipc: int
    maker: Maker
    subset: SubsetOf | None = None
    reading: Reading | None = None
    data_dir: Path | None = None


def finished_sets(results: Results, methods: Sequence[str] = ()) -> tuple[list[FinishedSet], list[Problem]]:
    """Every finished set once, in the order of plans, and those that cannot be measured.

    Left out without a word: the whole training set, tuning runs, priors with random weights, shards.

    Args:
        methods: labels; empty: all.
    """
    found: dict[tuple[str, Maker], FinishedSet] = {}
    problems: list[Problem] = []
    here = [_distilled(results.store, cell) for cell in results.distills.values()]
    elsewhere = [_foreign(results.store, cell, problems) for cell in results.evaluates.values()]
    for made in (*here, *elsewhere):
        if made is None or (methods and made.maker.label not in methods):
            continue
        if not made.folder.is_dir():
            problems.append(Problem(printable(str(made.folder)), f"the images of {made.maker.label} are not there"))
            continue
        found.setdefault((made.image_set_sha256, made.maker), made)
    return list(found.values()), problems


def by_dataset(sets: Sequence[FinishedSet]) -> dict[str, list[FinishedSet]]:
    """Those that are measured against the same real images together."""
    groups: dict[str, list[FinishedSet]] = defaultdict(list)
    for made in sets:
        groups[digest(made.dataset.model_dump(mode="json", exclude={"warning"}))].append(made)
    return dict(groups)


def _distilled(store: Store, cell: DistillCell) -> FinishedSet | None:
    result, spec = cell.result, cell.spec
    if cell.state != State.OK or result is None or result.dataset is None or result.image_set_sha256 is None:
        return None
    if spec.shard is not None or spec.ipc is None or is_tuning(spec.dataset.name):
        return None
    if result.prior is not None and result.prior.timing_only:
        return None
    try:
        data_dir = store.cell(cell.id).launch().data_dir
    except (OSError, ValueError):
        data_dir = None
    prior = None if result.prior is None else f"prior {result.prior.name} ({result.prior.sha256[:8]})"
    return FinishedSet(
        image_set_sha256=result.image_set_sha256,
        folder=store.set_dir(result.image_set_sha256),
        dataset=result.dataset,
        ipc=spec.ipc,
        maker=Maker(
            label=cell.label,
            method=digest(spec.method.model_dump(mode="json")),
            version=spec.method.version,
            prior=prior,
            precision=spec.precision if prior else None,
            device=spec.device_type,
        ),
        data_dir=None if data_dir is None else Path(data_dir),
    )


def _foreign(store: Store, cell: EvaluateCell, problems: list[Problem]) -> FinishedSet | None:
    student = cell.student
    if student is None or not isinstance(cell.spec.images, ForeignImages) or cell.spec.ipc is None:
        return None
    if is_tuning(cell.spec.dataset.name):
        return None
    try:
        launch = store.cell(cell.id).launch()
    except (OSError, ValueError) as error:
        reason = printable(f"no launch file says where its images lie: {error}").partition("\n")[0]
        problems.append(Problem(str(store.cell(cell.id).path), reason))
        return None
    if launch.images is None:
        return None
    return FinishedSet(
        image_set_sha256=cell.spec.images.image_set_sha256,
        folder=Path(launch.images),
        dataset=student.data,
        ipc=cell.spec.ipc,
        maker=Maker(label=cell.label, method=cell.spec.images.image_set_sha256),
        subset=launch.subset,
        reading=launch.reading,
        data_dir=launch.data_dir,
    )
