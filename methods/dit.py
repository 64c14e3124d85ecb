"""The plain prior at the scale of classifier-free guidance that is best on the dataset's validation part.

`dit` samples at the papers' scale, 4, also where another one makes better images to train on. A method that beats it
there may only beat an untuned baseline; this is the tuned one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages
from ddbench.methods.diffusion.params import PAPER_STEPS, Steps

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset


class TunedDiT(Method):
    """DiT sampling with a tuned CFG scale: at the scale of `dit` the images are those of `dit`, bit for bit."""

    name = "dit-tuned"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True

    class Params(base.Params):
        steps: Steps = PAPER_STEPS
        cfg_scale: Annotated[
            float | None,
            Field(
                ge=0,
                description="Scale of classifier-free guidance; 1 switches it off. It is tuned for a dataset and its "
                "own prior on the validation part and stands in the dataset's defaults; null: none was tuned.",
            ),
        ] = None

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if self.params.cfg_scale is None:
            return (
                f"no CFG scale has been tuned on {dataset.name}'s validation part; use dit, or give the scale that you "
                f"found there: {self.name}[cfg_scale=…]"
            )
        return None

    def reads_real_images(self) -> RealImages:
        return RealImages.NONE

    def shows_real_images(self) -> bool:
        return False

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome, sample

        p, prior = self.params, task.load_prior()

        def sample_batch(batch: Batch) -> SampleOutcome:
            noise = StreamNoise(task.stream, batch.images)
            return sample(prior, batch.images, [], noise, steps=p.steps, cfg_scale=p.cfg_scale, on_step=batch.on_step)

        return sample_rounds(task, prior, p.steps, sample_batch)
