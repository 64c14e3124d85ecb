"""Minimax Diffusion (Gu et al., CVPR 2024, arXiv 2311.15529): the prior is fine-tuned, then sampled plainly.

A few weights of the prior (`difffit.py`) learn to denoise the training images under two further losses on memories of
each class (`memories.py`): a prediction must be like even the farthest real image, and unlike earlier predictions.
Defaults are those of the authors' released program. The tuned prior is an artefact: cells with other IPC share it, and
`minimax(PRIOR)` names it for any other method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method

if TYPE_CHECKING:
    from ddbench.datasets.base import Resize
    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.priors.files import PriorMetadata


class Tuning(base.Params):
    """What the tuned weights depend on, besides prior and images."""

    tuning_steps: Annotated[
        int,
        Field(
            ge=1,
            description="Optimiser steps. The program runs 8 epochs of ImageNet-Woof (12,448 steps) and samples with "
            "its checkpoint at step 12,000.",
        ),
    ] = 12_000
    tuning_batch: Annotated[int, Field(ge=1, description="Training images in an optimiser step.")] = 8
    learning_rate: Annotated[float, Field(gt=0, description="Of AdamW, constant, without weight decay.")] = 1e-3
    representativeness_weight: Annotated[
        float, Field(ge=0, description="λ_r, weight of the loss on the farthest real latent of a class.")
    ] = 0.002
    diversity_weight: Annotated[
        float, Field(ge=0, description="λ_d, weight of the loss on the nearest earlier prediction of a class.")
    ] = 0.008
    memory: Annotated[int, Field(ge=1, description="Latents in each of a class's two memories.")] = 64
    label_dropout: Annotated[
        float, Field(ge=0, lt=1, description="Probability of training an image under the null label.")
    ] = 0.1
    ema: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Decay of the weights' moving average, which starts at the untuned weights and is what is "
            "sampled. At 0.9999, 30 % of the untuned weights are left after 12,000 steps, as in the program.",
        ),
    ] = 0.9999
    encoder: Annotated[
        Literal["vae", "vae_ema"],
        Field(
            description="Which autoencoder encodes the training images: the one that decodes, or the prior's further "
            "one (program: ft-ema encodes, ft-mse decodes). A pixel prior has neither."
        ),
    ] = "vae_ema"
    flip: Annotated[bool, Field(description="Mirror half of the training images.")] = True
    tuning_seed: Annotated[
        int | None,
        Field(
            ge=0,
            description="Seed of the tuning; null: the distilled set's own, so that sets differ by all that is random "
            "in the method. A number: all sets share one tuned prior, as the program's do.",
        ),
    ] = None


class Minimax(Method):
    """Minimax Diffusion."""

    name = "minimax"
    version = 1
    cost_class = CostClass.FINE_TUNES
    needs_prior = True
    reads_latents = True
    tuning = Tuning
    check_params: ClassVar = {"steps": 8, "tuning_steps": 4, "ema": 0.5}

    class Params(Tuning):
        steps: Annotated[int, Field(ge=2, le=1000, description="Length of the respaced DDPM chain.")] = 50
        cfg_scale: Annotated[
            float, Field(ge=0, description="Scale of classifier-free guidance; 1 switches it off.")
        ] = 4.0

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
