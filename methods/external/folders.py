"""The folders between which a program works: training images that it reads, class folders that it writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ddbench.benchmark.core.errors import RunError
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


def class_folders(class_order: str, root: Path) -> Callable[[str], Path | None]:
    """Class id -> the folder of its images, or None where the class list has no such class."""
    if not class_order:
        return lambda class_id: root / class_id
    try:
        lines = Path(class_order).expanduser().read_text().split("\n")
    except OSError as error:
        raise RunError(f"class_order {class_order}: {error.strerror}") from error
    rows = [line.split() for line in lines if line.strip()]
    named = {row[1]: row[0] for row in rows if len(row) == 2}
    numbered = {row[0]: position for position, row in enumerate(rows) if len(row) == 1}
    if len(named) + len(numbered) != len(rows) or (named and numbered):
        raise RunError(f"class_order {class_order}: expected distinct lines `folder class-id`, or one class id a line")
    if named:
        return lambda class_id: root / named[class_id] if class_id in named else None
    folders = {int(path.name): path for path in root.iterdir() if path.is_dir() and path.name.isdigit()}
    return lambda class_id: folders.get(numbered.get(class_id, -1))
