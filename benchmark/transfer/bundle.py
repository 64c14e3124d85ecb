"""Writing a bundle: what others need to check the numbers of a results folder, and no folder of this machine."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zstandard

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import read_regular, whole_file, write_json
from ddbench.benchmark.core.provenance import PROVENANCE
from ddbench.benchmark.core.result import TIME, DistillResult, EvaluateResult
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec, ForeignImages, cell_id, digest
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.transfer import texts
from ddbench.benchmark.transfer.contents import (
    INDEX,
    MOST_CHARACTERS,
    SUFFIX,
    Index,
    Member,
    dumped,
    kind_of,
    launch_of,
)
from ddbench.benchmark.transfer.data_at_hand import AtHand, DataAtHand, test_labels_file
from ddbench.benchmark.transfer.proof import prove
from ddbench.datasets.image_sets import image_name, read_set, write_png
from ddbench.reports.results.paths import without_paths

CELL_FILES = ("spec.json", "result.json", "environment.json", PROVENANCE)


@dataclass
class Bundled:
    """What a bundle was made of."""

    file: Path
    sha256: str = ""
    cells: int = 0
    sets: int = 0
    files: int = 0
    notes: list[str] = field(default_factory=list)
    """What is not in it, and why."""


@dataclass(frozen=True)
class _Cell:
    dir: CellDir
    spec: DistillSpec | EvaluateSpec
    result: DistillResult | EvaluateResult


def write_bundle(
    store: Store,
    out: Path,
    *,
    datasets: Collection[str] = (),
    images: bool = True,
    by: str | None = None,
    data: DataAtHand | None = None,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> Bundled:
    """Put finished and failed cells of a results folder into one file.

    Equal results make equal files: names, times and order of the members are fixed.

    Args:
        datasets: only theirs; empty: all.
        images: the distilled sets too. The whole training set never is one of them.
        by: who made it, for those who read it.
        done: called with (cells that were checked, cells).

    Raises:
        UsageError: not a results folder, nothing in it to bundle, or a name for the file that is not `*.tar.zst`.
        RunError: results that are wrong (`prove`): nobody could merge them.
    """
    if not out.name.endswith(SUFFIX):
        raise UsageError(f"--out {out}: expected a file name that ends with {SUFFIX}")
    if by is not None:
        texts.check(by, "--by")
        if len(by) > MOST_CHARACTERS:
            raise UsageError(f"--by: {len(by)} characters, more than {MOST_CHARACTERS}")
    store.require()
    made = Bundled(out)
    cells = list(_cells(store, datasets, made.notes))
    if not cells:
        raise UsageError(f"{store.out} has no finished cells{' of ' + ', '.join(datasets) if datasets else ''}")
    data, seen = data or DataAtHand(), iter(range(1, len(cells) + 1))
    proof = prove(store, [cell.dir for cell in cells], data, lambda: done(next(seen), len(cells)))
    if proof.wrong:
        raise RunError("\n".join(["these results would be refused wherever they are merged:", *map(str, proof.wrong)]))
    with tempfile.TemporaryDirectory(prefix="ddbench-bundle-") as scratch:
        files = dict(sorted(_files(store, cells, Path(scratch), data, images=images, made=made)))
        index = Index(
            by=by,
            made_at=max(_finished_at(cell) for cell in cells),
            ddbench=version("ddbench"),
            members={name: _member(path) for name, path in files.items()},
        )
        first = Path(scratch) / INDEX
        write_json(first, index.model_dump(mode="json"))
        _write(out, {INDEX: first, **files})
    if paths := sum(map(_names_folders, cells)):
        made.notes.append(
            f"{paths} of the results name a folder (in a parameter, a prior, a source or a reason), and travel as they "
            "are; `bench report --public` shows the last part of such a name"
        )
    made.cells, made.files, made.sha256 = len(cells), len(files), file_sha256(out)
    return made


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cells(store: Store, datasets: Collection[str], notes: list[str]) -> Iterator[_Cell]:
    unfinished = 0
    for cell in store.cell_dirs():
        try:
            spec = cell.spec()
        except RunError as error:
            notes.append(f"left out: {str(error).partition(chr(10))[0]}")
            continue
        if datasets and spec.dataset.name not in datasets:
            continue
        if isinstance(spec, DistillSpec) and spec.shard is not None:
            continue  # the whole set has a cell of its own, or is not finished
        result = cell.result()
        if result is None or cell.running() or cell_id(spec) != cell.id:
            unfinished += 1
        else:
            yield _Cell(cell, spec, result)
    if unfinished:
        notes.append(f"{unfinished} cells have no readable result and are left out; `bench status` lists them")


def _finished_at(cell: _Cell) -> str:
    """As the result says, else when its file was written."""
    written = (cell.dir.path / "result.json").stat().st_mtime
    return cell.result.finished_at or datetime.fromtimestamp(written, UTC).strftime(TIME)


def _files(
    store: Store, cells: list[_Cell], scratch: Path, data: DataAtHand, *, images: bool, made: Bundled
) -> Iterator[tuple[str, Path]]:
    """(member, the file that it is) of everything."""
    for cell in cells:
        where = f"cells/{cell.dir.id}"
        names = [*CELL_FILES, *(["predictions.npy"] if _predictions(cell.result) else [])]
        yield from ((f"{where}/{name}", path) for name in names if (path := cell.dir.path / name).is_file())
        yield (
            f"{where}/launch.json",
            _written(
                scratch / f"{where}/launch.json",
                dumped(launch_of(cell.dir).model_copy(update={"label": cell.result.label})),
            ),
        )
    labels = {cell.result.dataset.content_hash for cell in cells if cell.result.dataset is not None}
    for content_hash in labels:
        path = test_labels_file(store, content_hash)
        if path.is_file():
            yield f"artefacts/test-labels/{path.name}", path
    yield from _plans(store, {cell.dir.id for cell in cells}, scratch)
    if images:
        yield from _sets(store, cells, scratch, data, made)


def _names_folders(cell: _Cell) -> bool:
    value = json.loads(read_regular(cell.dir.path / "result.json"))
    return any(without_paths(text) != text for text in texts.strings(value, cell.dir.id))


def _predictions(result: DistillResult | EvaluateResult) -> bool:
    return isinstance(result, EvaluateResult) and result.predictions == "predictions.npy"


def _written(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
    return path


def _plans(store: Store, cells: Collection[str], scratch: Path) -> Iterator[tuple[str, Path]]:
    """What was asked for of the sets that have cells here: others learn what was planned and is not there."""
    for path in sorted(store.plans.glob("[!.]*.json")):
        try:
            plan = Plan.model_validate_json(read_regular(path))
        except (OSError, ValueError):  # of another version, or no file; `bench status` tells
            continue
        sets = [
            planned.model_dump(mode="json", exclude={"launch"}) | {"launch": dumped(planned.launch)}
            for planned in plan.sets
            if planned.id in cells or any(cell_id(student) in cells for student in planned.students)
        ]
        if sets:
            value = {"sets": sets}
            name = f"plans/{digest(value)[:16]}.json"
            yield name, _written(scratch / name, value)


def _sets(
    store: Store, cells: Iterable[_Cell], scratch: Path, data: DataAtHand, made: Bundled
) -> Iterator[tuple[str, Path]]:
    seen: dict[str, None] = {}
    for cell in cells:
        sha256 = cell.result.image_set_sha256
        if sha256 is None or sha256 in seen or cell.spec.ipc is None or cell.result.status != "ok":
            continue
        seen[sha256] = None
        folder = store.set_dir(sha256)
        where = f"sets/{folder.name}"
        if not folder.is_dir() and isinstance(cell.spec, EvaluateSpec) and isinstance(cell.spec.images, ForeignImages):
            elsewhere = _written_set(cell, scratch / where, data[cell.spec.dataset])
            folder = elsewhere or folder
        found = [(f"{where}/{path.relative_to(folder).as_posix()}", path) for path in sorted(folder.rglob("*"))]
        found = [(name, path) for name, path in found if path.is_file()]
        odd = [name for name, path in found if path.is_symlink() or kind_of(name) is None]
        if odd or not found:
            why = f"{texts.shown(odd[0])} is a link, or no image `<class id>/<00000>.png`" if odd else "not here"
            made.notes.append(f"images of {texts.shown(cell.result.label)} ({sha256[:16]}) are left out: {why}")
            continue
        made.sets += 1
        yield from found


def _written_set(cell: _Cell, to: Path, at_hand: AtHand | str) -> Path | None:
    """Images made elsewhere as a folder of the usual form; None where they are not at hand, or others by now."""
    launch = launch_of(cell.dir)
    if launch.images is None or isinstance(at_hand, str):
        return None
    dataset = at_hand.dataset
    try:
        images = read_set(
            Path(launch.images), dataset.class_ids, dataset.channels, subset=launch.subset, reading=launch.reading
        )
    except (UsageError, OSError):
        return None
    if images.sha256 != cell.result.image_set_sha256 or images.pixels[0].dtype != np.uint8:
        return None
    counts = [0] * len(dataset.class_ids)
    for label, pixels in zip(images.labels.tolist(), images.pixels, strict=True):
        path = to / dataset.class_ids[label] / image_name(counts[label])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, pixels)
        counts[label] += 1
    manifest = {"image_set_sha256": images.sha256, "name": cell.result.label, "dataset": cell.spec.dataset.name}
    write_json(to / "manifest.json", {**manifest, "class_ids": list(dataset.class_ids)})
    return to


def _member(path: Path) -> Member:
    return Member(size=path.stat().st_size, sha256=file_sha256(path))


def _write(out: Path, files: dict[str, Path]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    compressor = zstandard.ZstdCompressor()
    with (
        whole_file(out) as file,
        compressor.stream_writer(file, closefd=False) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                tar.addfile(header, content)
