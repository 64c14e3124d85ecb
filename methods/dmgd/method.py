"""DMGD: Dual Matching Guided Diffusion (arXiv 2605.03877, CVPR 2026). Training-free.

A frozen class-conditional prior is sampled under two guidances: Semantic Matching (`semantic.py`) decides what label
each step follows, Distribution Matching (`distribution.py`) pulls a class's images, one after the other, towards
weighted points (`support.py`) that stand for its real images. `lockstep.py` runs them over many classes at once.
Defaults are those of the authors' released program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages
from ddbench.methods.dmgd.params import DMGDParams

if TYPE_CHECKING:
    import numpy as np

    from ddbench.datasets.base import Dataset, Resize
    from ddbench.methods.diffusion.priors.metadata import PriorMetadata


class DMGD(Method):
    """DMGD and, by its parameters, every ablation of it down to the plain prior."""

    name = "dmgd"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True
    Params = DMGDParams

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if self.params.semantic_matching and len(dataset.class_ids) < 2:
            return "semantic matching mixes in the label of another class, and this dataset has one class"
        return None

    def images_at(self, resolution: int, prior: PriorMetadata | None) -> Sequence[tuple[int, Resize]]:
        return prior.real_images if prior is not None and self.params.distribution_matching else ()

    def reads_real_images(self) -> RealImages:
        return RealImages.ALL if self.params.distribution_matching else RealImages.NONE

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Encode the real images and find the support points of each class.

        Raises:
            UsageError: a class with fewer images than support points.
        """
        self._support: Mapping[int, Mapping[str, np.ndarray]] = {}
        if not self.params.distribution_matching:
            return
        needed = 1 if self.params.support == "mean" else self.params.support_points
        for class_index in task.class_indices:
            found = len(task.train.of_class(class_index))
            if found < needed:
                raise UsageError(
                    f"class {task.class_ids[class_index]} has {found} training images, fewer than "
                    f"support_points={needed}; set support_points={found} or fewer, or support=mean"
                )
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.dmgd.support import class_supports

        self._support = class_supports(task, self.params, task.class_indices)

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        from ddbench.methods.dmgd.lockstep import Lockstep

        yield from Lockstep(task, self.params, self._support).rounds()
