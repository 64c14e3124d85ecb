"""Methods that invert classifiers: SRe2L (Yin et al., NeurIPS 2023) and what was made of it. One loop, `inverting.py`;
the others are its parameters (`methods/builtin.py`).

Images are optimised until a classifier takes them for their class and the inputs of its BatchNorm layers have, over
the batch, the means and variances that those layers keep of the real images (in G-VBSM and EDC those of convolutions
too). The papers' labels are the protocols'
part. Where the programs read classifiers from their authors' drives, here they are trained on the set by the recipe of
RDED's observer, read from a file (`checkpoint`), or come trained (`network=efficientnet_lite0`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages
from ddbench.methods.inversion.batches import batches
from ddbench.methods.inversion.params import InversionParams

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset


class Inversion(Method):
    """Images from the statistics and the logits of classifiers."""

    name = "sre2l"
    version = 1
    cost_class = CostClass.NEEDS_CLASSIFIER
    check_params: ClassVar = {
        "epochs": 1,
        "start": "real",
        "steps": 8,
        "image_learning_rate": 0.005,
        "batch": 5,
        "pool": 20,
    }
    Params = InversionParams

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        p = self.params
        if p.starts_from_collages and ipc is not None:
            from ddbench.methods.rded.params import RDEDParams

            crops = ipc * RDEDParams().factor_at(dataset.resolution) ** 2
            if crops > p.pool:
                return f"IPC {ipc} starts from {crops} crops of different images, and pool={p.pool} are looked at"
        return p.unsupported(dataset)

    def reads_real_images(self) -> RealImages:
        p = self.params
        trains = p.comes_trained is None and p.checkpoint is None
        looks = p.looks_at_real_statistics or p.barycentre_weight > 0
        if trains or looks or p.starts_from_collages or p.start == "median":
            return RealImages.ALL
        return RealImages.CHOSEN if p.start == "real" else RealImages.NONE

    def shows_real_images(self) -> bool:
        return self.params.start != "noise"

    def prepare(self, task: DistillTask) -> None:
        """Train the teachers, or fetch them, and look at the real images through them."""
        from ddbench.methods.inversion.starts import Starts, check_start
        from ddbench.methods.inversion.targets import load_targets
        from ddbench.methods.inversion.teachers import load_teachers

        check_start(task, self.params)
        self._teachers = load_teachers(task, self.params)
        self._targets = [
            load_targets(task, self.params, teacher, name)
            for teacher, name in zip(self._teachers, self.params.teachers, strict=True)
        ]
        self._starts = Starts(task, self.params, self._teachers[0])

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        from ddbench.methods.inversion.inverting import BatchInversion
        from ddbench.methods.rded.crops import through_jpeg

        assert task.ipc is not None
        p, mine = self.params, set(task.class_indices)
        finish = through_jpeg if p.jpeg else lambda image: image
        for keys in batches(p.order, p.batch, len(task.class_ids), task.ipc):
            missing = [key for key in keys if key[0] in mine and key not in task.done]
            if missing:
                inversion = BatchInversion(task, p, self._teachers, self._targets, self._starts, keys)
                pixels = inversion.run()
                yield [DistilledImage(*key, finish(pixels[key])) for key in missing]
                inversion.forget()
