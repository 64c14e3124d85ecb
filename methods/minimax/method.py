"""Minimax Diffusion (Gu et al., CVPR 2024, arXiv 2311.15529): the prior is fine-tuned, then sampled plainly.

A few weights of the prior (`difffit.py`) learn to denoise the training images under two further losses on memories of
each class (`memories.py`): a prediction must be like even the farthest real image, and unlike earlier predictions.
Defaults are those of the authors' released program. The tuned prior is an artefact: cells with other IPC share it, and
`minimax(PRIOR)` names it for any other method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.minimax.params import MinimaxParams, Tuning

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
    tuning = Tuning
    check_params: ClassVar = {"steps": 8, "tuning_steps": 4, "ema": 0.5}
    Params = MinimaxParams

    def images_at(self, resolution: int, prior: PriorMetadata | None) -> Sequence[tuple[int, Resize]]:
        return () if prior is None else prior.real_images

    def shows_real_images(self) -> bool:
        return False

    def tuned_prior(self, task: DistillTask, prior: Prior) -> Prior:
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.minimax.tune import tuned_prior

        recipe = Tuning.model_validate(self.params.model_dump(include=set(Tuning.model_fields)))
        return tuned_prior(task, prior, recipe)

    def prepare(self, task: DistillTask) -> None:
        self._prior = self.tuned_prior(task, task.load_prior())

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        """Sample the tuned prior, with classifier-free guidance and no other."""
        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome, sample

        p, prior = self.params, self._prior

        def sample_batch(batch: Batch) -> SampleOutcome:
            noise = StreamNoise(task.stream, batch.images)
            return sample(prior, batch.images, [], noise, steps=p.steps, cfg_scale=p.cfg_scale, on_step=batch.on_step)

        return sample_rounds(task, prior, p.steps, sample_batch)
