"""A dataset's files before a run: found, counted, decoded once, with progress."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.setting import Setting
from ddbench.benchmark.running.runner import Fate, Item
from ddbench.datasets.base import Dataset
from ddbench.datasets.file_dataset import FileDataset, Inspection, Prepared

ALL_CLASSES = 100
"""Up to so many classes a table shows each; beyond, those with another number of images than expected."""
LEAST_PNG_SHARE = 1 / 3
"""Of an image's bytes in memory, what its PNG file takes at least: photographs of 256 px take 0.58."""
PLAIN_STEPS = 10
"""Lines of progress where the output is no terminal."""


def prepare(
    name: str, split: str | None, source: Path | None, resolution: int | None, *, skip_corrupt: bool, console: Console
) -> None:
    """`bench prepare`: index, check and remember a source; with a resolution, decode it.

    Raises:
        UsageError: unknown dataset or split, no files, or not all of them.
        RunError: corrupt images, or too little free disk.
    """
    dataset: Dataset = DATASETS.load(name)()
    if not isinstance(dataset, FileDataset):
        _say(console, f"{name} needs no preparing.")
        return
    split = split or dataset.splits[0]
    with ShownProgress(console) as progress:
        prepared = dataset.prepare(
            split, source, resolution, skip_corrupt=skip_corrupt, remember=True, progress=progress
        )
    _say(console, f"{name}, split {split}: {prepared.n_train:,} training and {prepared.n_test:,} test images")
    _say(console, f"source {prepared.source}, remembered for runs that name none")
    _say(console, f"split hash {prepared.split_hash}")
    for left_out in prepared.skipped:
        _say(console, f"left out: {left_out}")
    if resolution is None:
        _say(
            console, f"Not decoded; the first run does it, or `bench prepare {name} --resolution {dataset.resolution}`."
        )
    else:
        _say(console, _kept(prepared))
    if prepared.warning:
        _say(console, f"Warning: {prepared.warning}")


def prepare_prior(name: str, source: Path | None, vae: Path | None, revision: str | None, *, console: Console) -> None:
    """`bench prepare prior`: install a prior in the cache.

    Raises:
        UsageError, RunError: as `prior_install.install`.
    """
    from ddbench.methods.diffusion.priors.install import install

    files = install(name, source, vae, revision, say=lambda line: _say(console, line))
    _say(console, f"{name}: {files.metadata.resolution} px, {len(files.metadata.class_ids)} classes, in {files.folder}")
    _say(console, f"SHA-256 {files.sha256}")
    _say(console, f"trained on {files.trained_on}")
    _say(console, f"`bench run --prior {name} …` uses it; export DDBENCH_PRIOR={name} makes it the default.")


def before_run(settings: Sequence[Setting], data: Path | None, console: Console) -> None:
    """Decode what a run will read and is not decoded yet, so that no cell is charged for it; show the warnings.

    Raises:
        UsageError, RunError: as `FileDataset.prepare`.
    """
    for setting in settings:
        dataset = setting.dataset()
        if not isinstance(dataset, FileDataset):
            continue
        with ShownProgress(console) as progress:
            prepared = dataset.prepare(setting.spec.split, data, setting.spec.resolution, progress=progress)
            for image_size, resize in setting.images_at:
                dataset.train_at(setting.spec.split, data, image_size, resize, progress)
        if prepared.decoded:
            _say(console, _kept(prepared))
        if prepared.warning:
            _say(console, f"Warning: {prepared.warning}")


def present_contents(settings: Sequence[Setting], data: Path | None) -> dict[DatasetSpec, str]:
    """The content hash of each dataset's images as they are now, where that is known without decoding them."""
    found = {setting.spec: _content_hash(setting, data) for setting in settings}
    return {spec: content_hash for spec, content_hash in found.items() if content_hash is not None}


def _content_hash(setting: Setting, data: Path | None) -> str | None:
    return setting.dataset().content_hash(setting.spec.split, data, setting.spec.resolution)


def check_room(store: Store, items: Sequence[Item], settings: Sequence[Setting], data: Path | None) -> None:
    """Check that the sets to be made can fit on the disk of the results.

    Raises:
        RunError: they surely cannot.
    """
    needed = 0
    for setting in settings:
        dataset, resolution = setting.dataset, setting.spec.resolution
        image_size = min(resolution, setting.prior_image_size or resolution)  # images keep their prior's side
        for item in items:
            spec = item.spec
            if not isinstance(spec, DistillSpec) or spec.dataset != setting.spec or item.merges:
                continue
            if item.fate is not Fate.WAITING:
                continue
            if spec.ipc is None:
                images = sum(dataset().train_counts(spec.dataset.split, data).values())
            else:
                images = spec.ipc * len(spec.classes(len(dataset.class_ids)))
            images -= int(item.cell.progress().get("images_done", 0))
            needed += int(LEAST_PNG_SHARE * images * image_size**2 * dataset.channels)
    free = shutil.disk_usage(store.out).free
    if free < needed:
        raise RunError(
            f"the sets to be made need at least {needed / 2**30:.2f} GiB in {store.out}, where {free / 2**30:.2f} GiB "
            "are free. Make room, or choose another folder with --out."
        )


def _kept(prepared: Prepared) -> str:
    return f"{prepared.decoded:,} images decoded at {prepared.resolution} px now; all are kept in {prepared.folder}"


def verify(name: str, split: str | None, source: Path | None, *, console: Console) -> bool:
    """`bench verify`: show a split's images class by class; True if it is whole.

    Raises:
        UsageError: unknown dataset or split, or no files.
    """
    dataset: Dataset = DATASETS.load(name)()
    split = split or dataset.splits[0]
    found = dataset.inspect(split, source) if isinstance(dataset, FileDataset) else _opened(dataset, split, source)
    _say(console, f"{name}, split {split}, from {found.source}")
    _class_table(dataset, found, console)
    for part, counts in (("training", found.train), ("test", found.test)):
        _say(console, f"{sum(counts.values()):,} {part} images")
    expected = found.expected_split_hash
    compared = (
        "" if expected is None else " (as expected)" if expected == found.split_hash else f" (expected {expected})"
    )
    _say(console, f"split hash {found.split_hash}{compared}")
    if isinstance(dataset, FileDataset):
        sides = ", ".join(f"{image_size} px" for image_size in found.decoded)
        _say(console, f"decoded: {sides or 'at no resolution yet'}")
    for note in found.notes:
        _say(console, f"note: {note}")
    for problem in found.problems:
        console.print(f"[red]wrong:[/] {problem}", highlight=False, soft_wrap=True)
    _say(console, "This is not the whole split." if found.problems else "All there.")
    return not found.problems


def _opened(dataset: Dataset, split: str, source: Path | None) -> Inspection:
    """A dataset that checks its own files when it is opened."""
    if split not in dataset.splits:
        raise UsageError(f"{dataset.name} has no split {split!r}; known: {', '.join(dataset.splits)}")
    data = dataset.load(split, source, dataset.resolution)
    train, test = (
        {class_id: Counter(part.labels.tolist())[label] for label, class_id in enumerate(dataset.class_ids)}
        for part in (data.train, data.test)
    )
    return Inspection(
        source="the dataset itself" if source is None else str(source),
        split=split,
        train=train,
        test=test,
        expected_train=None,
        expected_test=test,
        split_hash=data.split_hash,
        expected_split_hash=None,
        problems=(),
        notes=() if data.warning is None else (data.warning,),
        decoded=(),
    )


def _class_table(dataset: Dataset, found: Inspection, console: Console) -> None:
    table = Table("class", "name", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("train", "expected", "test", "expected"):
        table.add_column(column, justify="right")
    named = dict(zip(dataset.class_ids, dataset.class_names, strict=True))
    hidden = 0
    for class_id, class_name in named.items():
        train, test = found.train[class_id], found.test[class_id]
        expected_train = None if found.expected_train is None else found.expected_train[class_id]
        expected_test = found.expected_test[class_id]
        right = train == (train if expected_train is None else expected_train) and test == expected_test
        if right and len(named) > ALL_CLASSES:
            hidden += 1
            continue
        style = "" if right else "red"
        known = "–" if expected_train is None else str(expected_train)
        table.add_row(class_id, class_name, str(train), known, str(test), str(expected_test), style=style)
    if table.row_count:
        console.print(table)
    if hidden:
        _say(console, f"{hidden} classes with the expected number of images are not shown")


class ShownProgress:
    """A `Progress` of `file_dataset.py` for people: a bar on a terminal, a few plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console) if console.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._step: dict[str, int] = {}

    def __enter__(self) -> ShownProgress:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bars is None:
            step = PLAIN_STEPS * done // total if total else 0
            if step > self._step.get(what, -1):
                self._step[what] = step
                _say(self.console, f"{what}: {done:,} of {total:,}" if total else f"{what} …")
            return
        if what not in self._tasks:
            self._bars.start()
            self._tasks[what] = self._bars.add_task(what, total=total or None)
        self._bars.update(self._tasks[what], completed=done)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
