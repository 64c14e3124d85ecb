"""A distilled set made elsewhere, on its way into a plan: which images count, and that no test image is among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.subsets import How
from ddbench.benchmark.planning.planned_sets import Planned, plan_foreign
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.running.reporter import Reporter
from ddbench.datasets.base import Dataset
from ddbench.datasets.image_sets import choose_subset, describe_set
from ddbench.datasets.leaked_images import pixel_print, refuse_test_images


def plan_images(
    spec: RunSpec,
    images: Path,
    reporter: Reporter,
    *,
    name: str | None = None,
    ipc: int | None = None,
    subset: How | None = None,
    subset_seed: int = 0,
    dry_run: bool = False,
) -> Planned:
    """Load the plugins that are named, and plan students for a folder of images, one sub-folder per class, named by
    class id.

    Args:
        spec: names the one dataset whose classes and test images count.
        name: what leaderboards call it; None: the folder's name.
        ipc: images per class that count; None: all.
        subset: which, where there are more.
        subset_seed: seed of `subset="random"`.
        dry_run: decode nothing to look for test images; their names are looked for all the same.

    Raises:
        UsageError: no such set, too few images, or test images among them.
    """
    for file in spec.plugins:
        load_plugin(file)
    declared: type[Dataset] = DATASETS.load(spec.datasets[0])
    chosen = choose_subset(images, declared.class_ids, ipc, subset, subset_seed)
    image_size = spec.resolution or declared.resolution
    prints: dict[Path, str | None] = {}

    def look(path: Path, pixels: np.ndarray) -> None:
        prints[path] = pixel_print(pixels, image_size)

    found = describe_set(images, declared.class_ids, declared.channels, subset=chosen, look=look)
    planned = plan_foreign(spec, images, found.sha256, found.ipc, name or images.resolve().name, chosen)
    (setting,) = planned.settings
    if spec.reuse != "only-cache":  # which shows what is there, and needs no data for it
        with reporter.progress() as progress:
            refuse_test_images(prints, declared(), setting.spec, spec.data, None if dry_run else progress)
    counts = np.bincount(found.labels)
    if counts.min() < counts.max():
        note = f"classes have {counts.min()} to {counts.max()} images; the set counts as IPC {found.ipc}"
        return planned._replace(notes=[note])
    return planned
