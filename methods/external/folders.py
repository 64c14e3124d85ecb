"""The folder of training images that a program reads."""

from __future__ import annotations

import shutil
from pathlib import Path

from ddbench.methods.base import DistillTask


def export_training_images(task: DistillTask, folder: Path) -> None:
    """Training images of the task's classes as <class id>/<name>.png."""
    from ddbench.datasets.image_sets import write_png

    shutil.rmtree(folder, ignore_errors=True)
    for c in task.class_indices:
        target = folder / task.class_ids[c]
        target.mkdir(parents=True)
        indices = task.train.of_class(c)
        for start in range(0, len(indices), 256):
            block = indices[start : start + 256]
            for index, pixels in zip(block, task.train.read(block), strict=True):
                write_png(target / f"{Path(task.train.names[index]).stem}.png", pixels)
