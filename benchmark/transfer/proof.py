"""What of a results folder can be recomputed, and whether it agrees: ids, hashes, accuracies.

A finding is either *wrong* (recomputed, and it differs) or *not verified* (what it would be recomputed from is not
here). What nobody can recompute from files, such as the curve before its last look, times and memory, is not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ddbench.benchmark.cells.failures import identity
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.result import DistillResult, EvaluateResult, impossible
from ddbench.benchmark.core.spec import DatasetSpec, DistilledBy, DistillSpec, EvaluateSpec, ForeignImages, cell_id
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.transfer import texts
from ddbench.benchmark.transfer.contents import launch_of
from ddbench.benchmark.transfer.data_at_hand import AtHand, DataAtHand, array, labels_of, whole_training_set
from ddbench.benchmark.transfer.registered import Unknown, label_problems, protocol_problems
from ddbench.datasets.file_dataset import silent
from ddbench.datasets.float_images import as_uint8
from ddbench.datasets.foreign.test_images import Print, find_test_images, print_of
from ddbench.datasets.image_sets import SetRecord, describe_set

EXACT = 1e-6
"""Percent points that arithmetic may differ by; accuracies of other programs may be rounded to two decimals."""


@dataclass(frozen=True)
class Finding:
    """Something of a cell that is wrong, or that could not be recomputed."""

    cell: str
    what: str
    """What was looked at: id, result, protocol, data, accuracy, images."""
    wrong: bool
    why: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.what} {'wrong' if self.wrong else 'not verified'}: {self.why}"


@dataclass
class Proof:
    """What became of a folder's cells."""

    agreed: Counter[str] = field(default_factory=Counter)
    """What was recomputed and agreed -> cells."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def wrong(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.wrong]

    def unverified(self, cell: str) -> tuple[str, ...]:
        """What of a cell could not be recomputed."""
        found = (finding for finding in self.findings if finding.cell == cell and not finding.wrong)
        return tuple(f"{finding.what}: {finding.why}" for finding in found)


def prove(
    store: Store,
    cells: Iterable[CellDir] | None = None,
    data: DataAtHand | None = None,
    done: Callable[[], None] = lambda: None,
) -> Proof:
    """Recompute what can be of finished cells.

    Args:
        cells: those of the folder; None: all. Cells without a result are passed over.
        data: the datasets of this machine.
        done: called after each cell.
    """
    prover = _Prover(store, data or DataAtHand())
    for cell in store.cell_dirs() if cells is None else cells:
        if not cell.id.startswith("."):
            prover.look_at(cell)
        done()
    return prover.proof


class _Prover:
    def __init__(self, store: Store, data: DataAtHand) -> None:
        self.store, self.data, self.proof = store, data, Proof()
        self._sets: dict[tuple[Path, str, bool], tuple[SetRecord | Exception, dict[Path, str]]] = {}

    def look_at(self, cell: CellDir) -> None:
        """Go through everything; a wrong id ends it, since all else is read by it."""
        result, problem = cell.result(), cell.problem()
        if result is None and problem is None:
            return
        try:
            spec = cell.spec()
        except RunError as error:
            self._add(cell, "id", True, str(error).partition("\n")[0])
            return
        if cell_id(spec) != cell.id or (result is not None and result.cell != cell.id):
            self._add(cell, "id", True, f"its specification is that of {cell_id(spec)}: a copy, or edited")
            return
        self.proof.agreed["id"] += 1
        if result is None:
            self._add(cell, "result", True, texts.shown(str(problem), 200))
            return
        self._check(cell, "result", lambda: self._says_who_it_is(cell, spec, result))
        if isinstance(spec, EvaluateSpec):
            self._check(cell, "protocol", lambda: protocol_problems(spec))
        if result.status != "ok":
            return
        self._check(cell, "data", lambda: self._data(spec.dataset, result))
        if isinstance(result, EvaluateResult):
            self._check(cell, "accuracy", lambda: self._accuracy(cell, spec.dataset, result))
        self._check(cell, "images", lambda: self._images(cell, spec, result))

    def _check(self, cell: CellDir, what: str, look: Callable[[], Iterator[str]]) -> None:
        """Note what `look` yields as wrong, and what it has not been able to recompute."""
        wrong = False
        try:
            for why in look():
                wrong = True
                self._add(cell, what, True, why)
        except Unknown as unknown:
            self._add(cell, what, False, str(unknown))
            return
        if not wrong:
            self.proof.agreed[what] += 1

    def _add(self, cell: CellDir, what: str, wrong: bool, why: str) -> None:
        self.proof.findings.append(Finding(cell.id, what, wrong, why))

    def _says_who_it_is(
        self, cell: CellDir, spec: DistillSpec | EvaluateSpec, result: DistillResult | EvaluateResult
    ) -> Iterator[str]:
        """The keys of a result that its specification settles."""
        if result.kind != spec.kind:
            yield f"a {result.kind} result in a cell that {spec.kind}s"
            return
        try:
            expected = identity(cell, spec, Launch(label=result.label))
        except (RunError, AssertionError) as error:
            raise Unknown("the cell that made its set is not here") from error
        for key, value in expected.items():
            if (said := getattr(result, key)) != value:
                yield f"{key} is {texts.shown(str(said))}, and the specification says {texts.shown(str(value))}"
        if result.status == "ok" and (problem := impossible(result)) is not None:
            yield problem
        if result.method is not None:
            yield from label_problems(result.label, result.method)
        if isinstance(spec, EvaluateSpec) and isinstance(result, EvaluateResult):
            teacher = None if result.teacher is None else result.teacher.sha256
            if result.status == "ok" and teacher != spec.teacher_sha256:
                yield "its teacher is not that of the specification"
            soft = None if result.soft_labels is None else result.soft_labels.sha256
            named = spec.images.soft_labels_sha256 if isinstance(spec.images, ForeignImages) else None
            if result.status == "ok" and soft != named:
                yield "its soft labels are not those of the specification"
            looked = [(one.name, one.sha256) for one in result.shifted]
            if result.status == "ok" and looked != [(one.name, one.sha256) for one in spec.test_on]:
                yield "its shifted test sets are not those of the specification"

    def _data(self, spec: DatasetSpec, result: DistillResult | EvaluateResult) -> Iterator[str]:
        record = result.dataset
        if record is None:
            yield "it says ok, but names no data"
            return
        if (record.name, record.split, record.resolution) != (spec.name, spec.split, spec.resolution):
            yield f"it saw {texts.shown(record.name)}, split {texts.shown(record.split)}, {record.resolution} px"
            return
        at_hand = self.data[spec]
        if isinstance(at_hand, str):
            raise Unknown(at_hand)
        if at_hand.split is None:
            raise Unknown(at_hand.why_not)
        here = at_hand.split
        if here.content_hash != record.content_hash:
            raise Unknown(
                f"{spec.name} has other images here: content hash {here.content_hash[:8]}, not "
                f"{texts.shown(record.content_hash[:8])}"
            )
        counts = record.n_train, record.n_test
        if (here.split_hash, len(here.train), len(here.test)) != (record.split_hash, *counts):
            yield f"of these images the split hash or the numbers of images are not {counts[0]} and {counts[1]}"

    def _accuracy(self, cell: CellDir, spec: DatasetSpec, result: EvaluateResult) -> Iterator[str]:
        metrics, record = result.metrics, result.dataset
        if metrics is None or record is None:
            yield "it says ok, but has no metrics or names no data"
            return
        looks = [look.accuracy for look in metrics.curve]
        if not looks or looks[-1] != metrics.acc_last or max(looks) != metrics.acc_best:
            yield "acc_last and acc_best are not the last and the best of its curve"
        if metrics.top5_last is not None and metrics.top5_last < metrics.acc_last - EXACT:
            yield "top5_last is below acc_last"
        if result.predictions is None:
            raise Unknown("it has no predictions")
        file = cell.path / Path(result.predictions).name
        predicted = array(file)
        if predicted is None and file.exists():
            yield f"{file.name} is no array of numbers, or a damaged one"
            return
        labels, why_not = labels_of(self.store, record, self.data[spec])
        if predicted is None:
            raise Unknown("its predictions are not here")
        if labels is None:
            raise Unknown(f"no labels of its test images are here {why_not.removeprefix('by the labels that came ')}")
        if predicted.dtype.kind not in "iu" or labels.dtype.kind not in "iu" or predicted.shape != (record.n_test,):
            yield f"predictions of shape {predicted.shape} and type {predicted.dtype}, for {record.n_test} test images"
        elif labels.shape != predicted.shape:
            yield f"{labels.shape} labels for predictions of shape {predicted.shape}"
        else:
            found = 100 * float((predicted.astype(np.int64) == labels).mean())
            if not same_accuracy(found, metrics.acc_last):
                yield f"its predictions are right {found:.4f} % of the time, and acc_last is {metrics.acc_last:.4f} %"
            elif why_not:
                raise Unknown(why_not)

    def _images(
        self, cell: CellDir, spec: DistillSpec | EvaluateSpec, result: DistillResult | EvaluateResult
    ) -> Iterator[str]:
        """The set's own hash, in the cell that made it or, of images made elsewhere, in those of its students."""
        said = result.image_set_sha256
        if said is None:
            yield "it says ok, but names no images"
            return
        if isinstance(spec, DistillSpec) and spec.shard is not None:
            return  # its images are in the set of the whole
        folder, launch, foreign = self.store.set_dir(said), Launch(label=""), False
        if isinstance(spec, EvaluateSpec):
            if isinstance(spec.images, DistilledBy):
                made = self.store.cell(spec.images.cell).result()
                if made is None:
                    raise Unknown("the cell that made its set is not here")
                if made.image_set_sha256 != said:
                    yield f"trained on images {said[:16]}, but its set has images {str(made.image_set_sha256)[:16]}"
                elif spec.ipc is not None and result.n_images not in (None, made.n_images):
                    yield f"trained on {result.n_images} images, and its set has {made.n_images}"
                return
            if spec.images.image_set_sha256 != said:
                yield "its images are not those of its specification"
                return
            foreign = not spec.images.with_test_images
            elsewhere = launch_of(cell)
            if not folder.is_dir() and elsewhere.images is not None:
                folder, launch = Path(elsewhere.images), elsewhere
        at_hand = self.data[spec.dataset]
        if isinstance(at_hand, str):
            raise Unknown(at_hand)
        found: SetRecord | Exception | str
        leaked: dict[Path, str]
        if folder.exists():
            found, leaked = self._read_set(folder, launch, spec.dataset, at_hand, foreign=foreign)
        elif spec.ipc is None:  # which no bundle holds
            found, leaked = whole_training_set(at_hand), {}
        else:
            raise Unknown("the set's images are not here")
        if isinstance(found, Exception):
            yield f"the images in {folder} cannot be read: {str(found).partition(chr(10))[0]}"
            return
        sha256 = found.sha256 if isinstance(found, SetRecord) else found
        if sha256 != said:
            yield f"the images in {folder} have the hash {sha256[:16]}, and the result says {said[:16]}"
            return
        if isinstance(found, SetRecord):
            yield from _number_problems(spec, result, found)
        if leaked:
            yield f"{len(leaked)} of the images are test images, and it does not say so: {next(iter(leaked.values()))}"

    def _read_set(
        self, folder: Path, launch: Launch, spec: DatasetSpec, at_hand: AtHand, *, foreign: bool
    ) -> tuple[SetRecord | Exception, dict[Path, str]]:
        """A set, or why it cannot be read; of a set made elsewhere, the test images in it too."""
        key = (folder, str(launch.subset), foreign)
        if key not in self._sets:
            dataset, prints = at_hand.dataset, dict[Path, Print]()

            def look(path: Path, pixels: np.ndarray) -> None:
                if foreign and at_hand.split is not None:
                    prints[path] = print_of(as_uint8(pixels), spec.resolution)

            try:
                found = describe_set(
                    folder, dataset.class_ids, dataset.channels,
                    subset=launch.subset, reading=launch.reading, look=look,
                )  # fmt: skip
                leaked = {}
                if prints:
                    leaked = find_test_images(prints, found.labels, dataset, spec, self.data.folder, silent)
                self._sets[key] = found, leaked
            except (UsageError, RunError, OSError) as error:
                self._sets[key] = error, {}
        return self._sets[key]


def _number_problems(
    spec: DistillSpec | EvaluateSpec, result: DistillResult | EvaluateResult, found: SetRecord
) -> Iterator[str]:
    """What its set contradicts of the numbers of images that a cell says."""
    counts = np.bincount(found.labels)
    if spec.ipc not in (None, found.ipc):
        yield f"its set has {found.ipc} images of a class, and the specification says IPC {spec.ipc}"
    if result.n_images not in (None, len(found.labels)):
        yield f"its set has {len(found.labels)} images, and the result says {result.n_images}"
    said = result.images_per_class if isinstance(result, EvaluateResult) else None
    if said not in (None, per_class := (int(counts.min()), int(counts.max()))):
        yield f"its classes have {per_class[0]} to {per_class[1]} images, and the result says {said}"


def same_accuracy(found: float, said: float) -> bool:
    """Percent: equal, or equal to the two decimals that were written."""
    return abs(found - said) < EXACT or round(found, 2) == said
