"""IGD: Influence-Guided Diffusion for dataset distillation (ICLR 2025). Training-free but for its surrogate.

A frozen prior is sampled under two guidances. Influence (`influence.py`) draws a step towards images on which a
surrogate would be trained as on the real ones: it aligns their loss gradients, at several checkpoints of the
surrogate's training. Deviation (`deviation.py`) pushes an image away from the finished ones of its class. Formulas and
constants are the program's, parameters the paper's (Table 7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.igd.params import IGDParams

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset, Resize
    from ddbench.methods.diffusion.priors.metadata import PriorMetadata


class IGD(Method):
    """Images of a class one after the other, guided by the class's loss gradients and by those before."""

    name = "igd"
    version = 1
    cost_class = CostClass.NEEDS_CLASSIFIER
    needs_prior = True
    check_params: ClassVar = {"checkpoints": "0+1", "real_images": 20}
    Params = IGDParams

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if self.params.influence_scale and len(dataset.class_ids) < 2:
            return "influence follows gradients of a classifier, which are 0 for a dataset of one class"
        return self.params.unsupported(dataset)

    def images_at(self, resolution: int, prior: PriorMetadata | None) -> Sequence[tuple[int, Resize]]:
        if prior is None or not self.params.influence_scale or prior.resolution == resolution:
            return ()
        return ((prior.resolution, "bilinear"),)

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Train the surrogate, or fetch it, and the class gradients of the real images."""
        self._surrogate = None
        if not self.params.influence_scale:
            return
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.igd.influence import Surrogate

        self._surrogate = Surrogate(task, self.params, image_size=task.load_prior().metadata.resolution)
        for class_index in task.class_indices:
            self._surrogate.class_gradient(class_index)

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        from ddbench.methods.diffusion.batches import Batch, Finished, greedy_rounds
        from ddbench.methods.diffusion.guidance import Guidance
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome, sample
        from ddbench.methods.igd.deviation import Deviation
        from ddbench.methods.igd.influence import Influence

        assert task.ipc is not None
        p, prior, deviation_scale = self.params, task.load_prior(), self.params.deviation_at(task.ipc)
        window = (p.window_first, p.window_last)

        def sample_batch(batch: Batch, finished: Finished) -> SampleOutcome:
            terms: list[Guidance] = []
            if deviation_scale:
                memory = [finished[c][-p.memory :] for c, _ in batch.keys]
                terms.append(Deviation(memory, scale=deviation_scale, window=window, device=prior.device))
            if self._surrogate is not None:
                terms.append(
                    Influence(
                        prior,
                        batch.images,
                        [self._surrogate.alignment(c) for c, _ in batch.keys],
                        cfg_scale=p.cfg_scale,
                        scale=p.influence_scale,
                        step_size=p.step_size,
                        window=window,
                    )
                )
            noise = StreamNoise(task.stream, batch.images)
            return sample(
                prior, batch.images, terms, noise, steps=p.steps, cfg_scale=p.cfg_scale, on_step=batch.on_step
            )

        return greedy_rounds(task, prior, p.steps, sample_batch)
