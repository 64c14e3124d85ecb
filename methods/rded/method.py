"""RDED: Realistic, Diverse and Efficient Dataset distillation (Sun et al., CVPR 2024). Selects crops.

Of many random crops, the ones that a classifier (the observer) finds most like their class are put together, four to an
image (small images are one crop). The paper's soft labels are the protocol's part (`soft-rded-shuffle`), with the same
classifier as the teacher.

The program draws images and crops without a seed; here they are of named streams. It cuts crops out of the files at
their own size; here they come from the centre squares that every method sees, at the run's side, where crops of less
than a quarter of the area (18 % of them) are enlarged, or at a multiple of it (`source_scale`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.enough_images import check_enough_images
from ddbench.methods.rded.params import RDEDParams

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset


class RDED(Method):
    """Collages of the crops that the observer classifies best."""

    name = "rded"
    version = 1
    cost_class = CostClass.NEEDS_CLASSIFIER
    check_params: ClassVar = {"epochs": 1, "pool": 20}
    Params = RDEDParams

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        p, crops_per_image = self.params, self.params.factor_at(dataset.resolution) ** 2
        if ipc is not None and ipc * crops_per_image > p.pool:
            return (
                f"IPC {ipc} takes {ipc * crops_per_image} crops of different images (factor² an image), and "
                f"pool={p.pool} are looked at"
            )
        return p.unsupported(dataset)

    def shows_real_images(self) -> bool:
        return True

    def prepare(self, task: DistillTask) -> None:
        """Train the observer, or fetch it.

        Raises:
            UsageError: the side is no multiple of the factor, or a class has too few images for the IPC.
        """
        from ddbench.methods.observer import image_size_of, observer

        assert task.ipc is not None
        image_size = image_size_of(task.train)
        factor = self.params.factor_at(image_size)
        if image_size % factor:
            raise UsageError(
                f"rded: {image_size} px cannot be divided by factor={factor}; choose another factor or resolution"
            )
        crops = task.ipc * factor**2
        check_enough_images(
            task,
            crops,
            f"the {crops} crops that {task.ipc} image{'' if task.ipc == 1 else 's'} of factor={factor} take",
            lambda found: _remedy(found, factor),
        )
        self._image_size, self._factor, self._observer = image_size, factor, observer(task, self.params)
        scale = self.params.source_scale
        self._source = task.train if scale == 1 else task.train_at(scale * image_size)

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        from ddbench.methods.rded.crops import best_crops, collages, through_jpeg

        assert task.ipc is not None
        for class_index in task.class_indices:
            missing = [i for i in range(task.ipc) if (class_index, i) not in task.done]
            if not missing:
                continue
            best = best_crops(task, self.params, self._source, self._image_size, self._observer, class_index)
            images = collages(self._source, best, task.ipc, self._factor, self._image_size, task.device)
            finish = through_jpeg if self.params.jpeg else lambda image: image
            yield [DistilledImage(class_index, i, finish(images[i])) for i in missing]


def _remedy(found: int, factor: int) -> str:
    """What can be made of the images that a class has."""
    if found < factor**2:
        return f"choose factor=1 and --ipc {found} or less" if found else "a class without images has no crops"
    return f"choose --ipc {found // factor**2} or less, or a smaller factor"
