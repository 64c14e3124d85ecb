"""A dataset's files before a run: found, counted, decoded once, with progress."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.run_spec import available_cores
from ddbench.benchmark.planning.setting import Setting
from ddbench.benchmark.running.reporter import Reporter
from ddbench.benchmark.running.runner import Fate, Item
from ddbench.datasets.file_dataset import FileDataset, Prepared

LEAST_PNG_SHARE = 1 / 3
"""Share of an image's bytes in memory that its PNG file takes at least: photographs of 256 px take 0.58."""


def before_run(settings: Sequence[Setting], data: Path | None, reporter: Reporter) -> None:
    """Decode what a run will read and is not decoded yet, so that no cell is charged for it; show the warnings.

    Raises:
        UsageError, RunError: as `FileDataset.prepare` and `Dataset.load`.
    """
    for setting in settings:
        dataset = setting.dataset()
        if not isinstance(dataset, FileDataset):
            # Damaged files are refused here: a cell that failed for them is not run again once they are mended.
            dataset.load(setting.spec.split, data, setting.spec.resolution)
            continue
        with reporter.progress() as progress:
            prepared = dataset.prepare(setting.spec.split, data, setting.spec.resolution, progress=progress)
            for image_size, resize in setting.images_at:
                dataset.train_at(setting.spec.split, data, image_size, resize, progress)
        if prepared.decoded:
            reporter.say(kept(prepared))
        if prepared.warning:
            reporter.warn(prepared.warning)


def before_looks(settings: Sequence[Setting], data: Path | None, reporter: Reporter) -> None:
    """Make the pixels of the shifted test sets that students will be looked at on, so that no cell has to.

    Raises:
        UsageError, RunError: as `cells.shifted.pixels_of`.
    """
    if not any(setting.test_on for setting in settings):
        return
    from ddbench.benchmark.cells.shifted import pixels_of  # and torch, which a dry run does without

    for setting in settings:
        for one in setting.test_on:
            with reporter.progress() as progress:
                pixels_of(
                    one, setting.protocol, setting.dataset, setting.spec, data, setting.test_data.get(one.name),
                    jobs=available_cores(), progress=progress,
                )  # fmt: skip


def present_contents(settings: Sequence[Setting], data: Path | None) -> dict[DatasetSpec, str]:
    """The content hash of each dataset's images as they are now, where that is known without decoding them."""
    specs = {setting.spec: setting.dataset() for setting in settings}
    found = {spec: dataset.content_hash(spec.split, data, spec.resolution) for spec, dataset in specs.items()}
    return {spec: content_hash for spec, content_hash in found.items() if content_hash is not None}


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


def kept(prepared: Prepared) -> str:
    """What was decoded and where it lies, for people."""
    return f"{prepared.decoded:,} images decoded at {prepared.resolution} px now; all are kept in {prepared.folder}"
