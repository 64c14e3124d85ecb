"""IGD: Influence-Guided Diffusion for dataset distillation (ICLR 2025). Training-free but for its surrogate.

A frozen prior is sampled under two guidances. Influence (`influence.py`) draws a step towards images on which a
surrogate would be trained as on the real ones: it aligns their loss gradients, at several checkpoints of the
surrogate's training. Deviation (`deviation.py`) pushes an image away from the finished ones of its class. Formulas and
constants are the program's, parameters the paper's (Table 7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.classifier import Augmentation, Network, Normalisation, Optimiser

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset, Resize
    from ddbench.methods.classifier import ClassifierRecipe
    from ddbench.methods.diffusion.priors.files import PriorMetadata

PAPER_STEPS = 50
PAPER_DEVIATION = {10: 50.0, 50: 120.0}
"""IPC -> γ of DiT-IGD on ImageNette and ImageWoof; 100 has that of 50."""


class IGD(Method):
    """Images of a class one after the other, guided by the class's loss gradients and by those before."""

    name = "igd"
    version = 1
    cost_class = CostClass.NEEDS_CLASSIFIER
    needs_prior = True
    check_params: ClassVar = {"checkpoints": "0+1", "real_images": 20}

    class Params(base.Params):
        steps: Annotated[int, Field(ge=2, le=1000, description="Length of the respaced DDPM chain.")] = PAPER_STEPS
        cfg_scale: Annotated[
            float, Field(ge=0, description="Scale of classifier-free guidance; 1 switches it off.")
        ] = 4.0
        influence_scale: Annotated[
            float,
            Field(
                ge=0,
                description="k of the shift -k·ρ·g, g the gradient of the influence loss; 0 switches it off. Paper "
                "(Table 7): 5 for DiT; for the prior that Minimax tunes 15 on ImageNette, 10 on ImageWoof and "
                "ImageNet-1K. The program's own default, 0.02, is stale.",
            ),
        ] = 5.0
        deviation_scale: Annotated[
            float | None,
            Field(
                ge=0,
                description="γ of the shift -γ·∇cos(z, nearest finished latent); 0 switches it off. Null: the paper's "
                "for DiT (Table 7), 50 up to IPC 10 and 120 above; it has 120 throughout on ImageNet-1K, and for the "
                "prior that Minimax tunes 10 on ImageNette, 50 (IPC 10) and 100 on ImageWoof, 100 on ImageNet-1K.",
            ),
        ] = None
        memory: Annotated[
            int,
            Field(ge=1, description="The most finished latents of a class that deviation looks at: the latest ones."),
        ] = 64
        step_size: Annotated[
            float,
            Field(
                ge=0,
                description="Of ρ = step_size·RMS(ε̂)/RMS(g)·√(1 - ᾱ), which makes influence independent of the size of "
                "its gradient.",
            ),
        ] = 0.0015
        window_first: Annotated[
            int,
            Field(
                ge=0,
                description="Last step of both guidances to be executed, as index k of the respaced chain (0 is the "
                "cleanest). Not given with another number of steps: the step nearest in time.",
            ),
        ] = 30
        window_last: Annotated[
            int, Field(ge=0, description="First step of both guidances to be executed; as window_first.")
        ] = 45
        real_images: Annotated[
            int,
            Field(
                ge=1,
                description="Real images of a class whose loss gradients are averaged: the first by sorted file name.",
            ),
        ] = 200
        checkpoints: Annotated[
            str,
            Field(
                coerce_numbers_to_str=True,
                description="Epochs of the surrogate's training after which its weights are looked at, 0 the random "
                "ones, joined by +; it is trained up to the last. The program takes those of 50 epochs where the "
                "cosine of the loss gradient with that of the one taken before falls below 0.7, and ships 0+2+11+40 "
                "for ImageNette, 0+5+16+40 for ImageWoof, 0+5+18+52 (sic) for ImageNet-1K.",
            ),
        ] = "0+2+11+40"
        network: Annotated[
            Network,
            Field(description="Network of the surrogate, at the side of the prior's images."),
        ] = "convnet6"
        optimiser: Annotated[Optimiser, Field(description="Optimiser of its training.")] = "sgd"
        learning_rate: Annotated[float, Field(gt=0, description="Its learning rate, constant.")] = 0.01
        augmentation: Annotated[
            Augmentation,
            Field(description="Augmentation of its training: the hard protocols', the one of quick, or none."),
        ] = "crop-colour"
        cutmix: Annotated[bool, Field(description="Train on CutMix of every batch.")] = False
        normalisation: Annotated[
            Normalisation,
            Field(description="Mean and std of pixels: ImageNet's by channel, or 0.5 and 0.5."),
        ] = "half"

        @property
        def epochs(self) -> tuple[int, ...]:
            """The checkpoints, in ascending order."""
            return tuple(sorted({int(epoch) for epoch in self.checkpoints.split("+")}))

        def deviation_at(self, ipc: int) -> float:
            """γ."""
            return PAPER_DEVIATION[10 if ipc <= 10 else 50] if self.deviation_scale is None else self.deviation_scale

        def recipe(self, image_size: int) -> ClassifierRecipe:
            """How the surrogate is trained."""
            from ddbench.methods.classifier import ClassifierRecipe
            from ddbench.methods.normalisation import STATISTICS

            mean, std = STATISTICS[self.normalisation]
            return ClassifierRecipe(
                network=self.network,
                image_size=image_size,
                epochs=self.epochs[-1],
                optimiser=self.optimiser,
                learning_rate=self.learning_rate,
                schedule="constant",
                augmentation=self.augmentation,
                cutmix=self.cutmix,
                mean=mean,
                std=std,
                keep_epochs=self.epochs[:-1],
            )

        @field_validator("checkpoints")
        @classmethod
        def _epochs_joined(cls, given: str) -> str:
            if not all(part.isascii() and part.isdigit() for part in given.split("+")):
                raise ValueError(f"expected epochs joined by +, such as 0+2+11+40, got {given!r}")
            return given

        @model_validator(mode="before")
        @classmethod
        def _window_at_the_same_times(cls, given: Any) -> Any:
            """The paper's window is in indices of 50 steps; in a chain of another length, the same part of it."""
            try:
                scale = (int(given["steps"]) - 1) / (PAPER_STEPS - 1)
            except (TypeError, KeyError, ValueError):
                return given
            ends = ("window_first", "window_last")
            return {end: round(cls.model_fields[end].default * scale) for end in ends} | given

        @model_validator(mode="after")
        def _window_in_order(self) -> IGD.Params:
            if not self.window_first <= self.window_last < self.steps:
                raise ValueError(
                    f"expected window_first ≤ window_last ≤ steps - 1 = {self.steps - 1}, indices of the respaced "
                    f"chain, got {self.window_first} and {self.window_last}"
                )
            return self

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if self.params.influence_scale and len(dataset.class_ids) < 2:
            return "influence follows gradients of a classifier, which are 0 for a dataset of one class"
        return None

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
                terms.append(Deviation(memory, scale=deviation_scale, window=window))
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
