"""DMGD: Dual Matching Guided Diffusion (arXiv 2605.03877, CVPR 2026). Training-free.

A frozen class-conditional prior is sampled under two guidances: Semantic Matching (`semantic.py`) decides what label
each step follows, Distribution Matching (`distribution.py`) pulls a class's images, one after the other, towards
weighted points (`support.py`) that stand for its real images. Classes do not depend on each other, so a batch holds the
next image of each of many classes. Defaults are those of the authors' released program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages
from ddbench.methods.dmgd.params import DMGDParams
from ddbench.methods.enough_images import check_enough_images

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
        check_enough_images(
            task,
            needed,
            f"support_points={needed}",
            lambda found: f"set support_points={found} or fewer, or support=mean",
        )
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.dmgd.support import class_supports

        self._support = class_supports(task, self.params, task.class_indices)

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        """Greedy Progressive Matching: within a class, image after image, each towards what those before it leave to
        match; or all images of a class jointly."""
        from ddbench.methods.diffusion.batches import Batch, Finished, greedy_rounds, sample_rounds
        from ddbench.methods.diffusion.guidance import Guidance
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome, sample
        from ddbench.methods.dmgd.terms import distribution_matching, semantic_matching

        p, prior = self.params, task.load_prior()

        def sample_batch(batch: Batch, finished: Finished) -> SampleOutcome:
            noise = StreamNoise(task.stream, batch.images)
            terms: list[Guidance] = []
            if p.semantic_matching:
                terms.append(semantic_matching(task, prior, p, batch, noise))
            if p.distribution_matching:
                terms.append(distribution_matching(prior, p, self._support, batch, finished))
            return sample(
                prior, batch.images, terms, noise, steps=p.steps, cfg_scale=p.cfg_scale, on_step=batch.on_step
            )

        if p.greedy:
            return greedy_rounds(task, prior, p.steps, sample_batch)
        return sample_rounds(task, prior, p.steps, lambda batch: sample_batch(batch, {}), whole_classes=True)
