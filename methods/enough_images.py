"""Whether the classes are as large as a method needs them."""

from __future__ import annotations

from collections.abc import Callable

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import DistillTask


def check_enough_images(
    task: DistillTask,
    needed: int,
    needs: str,
    remedy: Callable[[int], str] = lambda found: f"choose --ipc {found} or less",
) -> None:
    """Refuse a task with a class that has fewer training images than are needed.

    Args:
        needs: what they are needed for, such as "the 10 clusters asked for".
        remedy: number of images that the class has -> what the user can do.

    Raises:
        UsageError: "class A has 6 training images, fewer than the 10 clusters asked for; choose --ipc 6 or less".
    """
    for class_index in task.class_indices:
        found = len(task.train.of_class(class_index))
        if found < needed:
            has = f"{found} training image{'' if found == 1 else 's'}"
            raise UsageError(f"class {task.class_ids[class_index]} has {has}, fewer than {needs}; {remedy(found)}")
