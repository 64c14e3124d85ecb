"""DM: Dataset Condensation with Distribution Matching (Zhao & Bilen, WACV 2023). Optimises pixels.

The pixels of a class's images are moved until random networks embed them, on average, where they embed the class's
real images: `matching.py`, under the augmentation of `siamese.py`. Defaults are those of the authors' released program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.dm.params import DMParams
from ddbench.methods.enough_images import check_enough_images

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset


class DM(Method):
    """Distribution matching of real and synthetic images in the embeddings of random networks.

    Training-free in the sense of `CostClass`: no weights are trained, only pixels. That is long work all the same.
    """

    name = "dm"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    check_params: ClassVar = {"iterations": 2, "network_image_size": 8}
    Params = DMParams

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if self.params.normalisation == "imagenet" and dataset.channels != 3:
            return f"normalisation=imagenet is for RGB images and these have {dataset.channels} channel(s)"
        return None

    def shows_real_images(self) -> bool:
        return True

    def prepare(self, task: DistillTask) -> None:
        """Raises UsageError: a class has fewer images to start from than IPC."""
        assert task.ipc is not None
        if self.params.init == "real":
            check_enough_images(
                task,
                task.ipc,
                f"the {task.ipc} to start from",
                lambda found: f"choose --ipc {found} or less, or init=noise",
            )

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        from ddbench.methods.dm.matching import Matching

        assert task.ipc is not None
        # The classes of a chunk are optimised side by side, and all their images are finished together.
        classes = max(1, task.batch_size // task.ipc)
        for start in range(0, len(task.class_indices), classes):
            grid = [(c, i) for c in task.class_indices[start : start + classes] for i in range(task.ipc)]
            missing = [key for key in grid if key not in task.done]
            if missing:
                matching = Matching(task, self.params, tuple(dict.fromkeys(c for c, _ in missing)))
                pixels = matching.run()
                yield [DistilledImage(c, i, pixels[c, i]) for c, i in missing]
                matching.forget()
