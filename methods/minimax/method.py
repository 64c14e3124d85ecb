"""Minimax Diffusion (Gu et al., CVPR 2024, arXiv 2311.15529): the prior is fine-tuned, then sampled plainly.

A few weights of the prior (`difffit.py`) learn to denoise the training images under two further losses on memories of
each class (`memories.py`): a prediction must be like even the farthest real image, and unlike earlier predictions.
Defaults are those of the authors' released program. The tuned prior is an artefact: cells with other IPC share it, and
`minimax(PRIOR)` names it for any other method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.minimax.params import MinimaxParams, Tuning, untunable

if TYPE_CHECKING:
    from ddbench.datasets.base import Resize
    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.priors.metadata import PriorMetadata


class Minimax(Method):
    """Minimax Diffusion."""

    name = "minimax"
    version = 1
    cost_class = CostClass.FINE_TUNES
    needs_prior = True
    reads_latents = True
    tuning: ClassVar[type[Tuning]] = Tuning
    check_params: ClassVar = {"steps": 8, "tuning_steps": 4, "ema": 0.5}
    Params = MinimaxParams

    def supports_prior(self, prior: PriorMetadata) -> str | None:
        return untunable(prior)

    def images_at(self, resolution: int, prior: PriorMetadata | None) -> Sequence[tuple[int, Resize]]:
        return () if prior is None else prior.real_images

    def shows_real_images(self) -> bool:
        return False

    def tunes_several(self) -> str | None:
        if self.params.chunk_classes is None:
            return None
        return "chunk_classes tunes a prior for each chunk of classes, and other methods take one for all; leave it out"

    def tuned_prior(self, task: DistillTask, prior: Prior, classes: Sequence[int] | None = None) -> Prior:
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.minimax.tune import tuned_prior

        recipe = self.tuning.model_validate(self.params.model_dump(include=set(self.tuning.model_fields)))
        return tuned_prior(task, prior, recipe, classes)

    def prepare(self, task: DistillTask) -> None:
        """Tune the prior, or fetch it; the priors of chunks are tuned when their classes are sampled, since memory may
        not hold more than one."""
        self._prior = None if self.params.chunk_classes else self.tuned_prior(task, task.load_prior())

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        if self._prior is not None:
            yield from self._sampled(task, self._prior)
            return
        assert task.ipc is not None
        size = self.params.chunk_classes
        for start in range(0, len(task.class_ids), size):
            chunk = range(start, min(start + size, len(task.class_ids)))
            here = tuple(c for c in task.class_indices if c in chunk)
            if any((c, i) not in task.done for c in here for i in range(task.ipc)):
                tuned = self.tuned_prior(task, task.load_prior(), chunk)
                yield from self._sampled(replace(task, class_indices=here), tuned)

    def _sampled(self, task: DistillTask, prior: Prior) -> Iterator[list[DistilledImage]]:
        """Sample the tuned prior, with classifier-free guidance and no other."""
        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome, sample

        p = self.params

        def sample_batch(batch: Batch) -> SampleOutcome:
            noise = StreamNoise(task.stream, batch.images)
            return sample(prior, batch.images, [], noise, steps=p.steps, cfg_scale=p.cfg_scale, on_step=batch.on_step)

        return sample_rounds(task, prior, p.steps, sample_batch)
