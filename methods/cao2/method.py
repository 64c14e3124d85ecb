"""CaO2: rectifying inconsistencies in diffusion-based dataset distillation (ICCV 2025). Needs a classifier.

More images of a class are sampled than are wanted; those that a classifier is surest of are kept (`selection.py`), and
their latents optimised until the prior denoises them well without a label (`refinement.py`). Defaults are the
program's for ImageNet-1K and ImageWoof; its ImageNette script samples fewer and refines none, which is that dataset's
default here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.classifier import Network
from ddbench.methods.observer_params import ObserverParams

if TYPE_CHECKING:
    from torch import Tensor

    from ddbench.datasets.base import Dataset
    from ddbench.methods.diffusion.noise import ImageKey


class CaO2(Method):
    """A pool of samples, the best of them, refined."""

    name = "cao2"
    version = 1
    cost_class = CostClass.NEEDS_CLASSIFIER
    needs_prior = True
    check_params: ClassVar = {"epochs": 1, "pool": 2, "refine_steps": 5}

    class Params(ObserverParams):
        steps: Annotated[int, Field(ge=2, le=1000, description="Length of the respaced DDPM chain.")] = 50
        cfg_scale: Annotated[
            float, Field(ge=0, description="Scale of classifier-free guidance; 1 switches it off.")
        ] = 2.7
        pool: Annotated[
            int,
            Field(ge=1, description="Samples for each image that is kept. Program: 4; ImageNette and ImageNet-100 2."),
        ] = 4
        order: Annotated[
            Literal["descending", "ascending"],
            Field(
                description="Which of the samples that the classifier gets right are kept: the surest, or the least "
                "sure (program, for ImageNet-100). Where they are too few, wrong ones follow in the same order."
            ),
        ] = "descending"
        classifier_input: Annotated[
            Literal["normalised", "raw"],
            Field(
                description="What the classifier sees: pixels normalised as in its training, or raw in [-1, 1] "
                "(program, whose classifier was trained on normalised ones)."
            ),
        ] = "normalised"
        refine_steps: Annotated[
            int, Field(ge=0, description="Steps of Adam on each latent; 0: none (program, for ImageNette).")
        ] = 100
        refine_rate: Annotated[float, Field(gt=0, description="Its learning rate.")] = 6e-4
        refine_part: Annotated[
            int,
            Field(
                ge=2,
                description="Each step is at an index k of the respaced chain, uniform on 1 … steps//refine_part - 1, "
                "at least 1: with 4, k = 1 … 11 of 50. Program, for ImageNet-100: 8, k = 1 … 5.",
            ),
        ] = 4
        refine_time: Annotated[
            Literal["timestep", "index"],
            Field(
                description="The time that the denoiser is told: the timestep of the noise level, or the index k in "
                "its place (program, so that the noise is 20 times as late as the denoiser is told)."
            ),
        ] = "timestep"
        max_weight: Annotated[
            float, Field(ge=0, description="Weight of ‖ε̂ - ε‖∞ in the loss, besides the mean squared error.")
        ] = 10.0
        noise_bank: Annotated[
            int, Field(ge=1, description="Noises of which each latent gets one, which it keeps through all steps.")
        ] = 1024
        network: Annotated[
            Network,
            Field(
                description="Network of the classifier, at the run's side. Program: torchvision's ResNet-18, trained "
                "on all of ImageNet-1K; here on the classes of the dataset."
            ),
        ] = "resnet18_bn"

        @property
        def refine_last(self) -> int:
            """The noisiest index k of the refinement."""
            return max(1, self.steps // self.refine_part - 1)

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        return self.params.unsupported(dataset)

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Train the classifier, or fetch it."""
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.observer import observer

        self._observer = observer(task, self.params)

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        import torch

        from ddbench.methods.cao2.refinement import refine
        from ddbench.methods.cao2.selection import probabilities, select
        from ddbench.methods.diffusion.noise import ImageKey

        assert task.ipc is not None
        p, prior, ipc, pool = self.params, task.load_prior(), task.ipc, self.params.pool * task.ipc
        together = max(1, task.batch_size // pool)
        for first in range(0, len(task.class_indices), together):
            classes = task.class_indices[first : first + together]
            wanted = [(c, i) for c in classes for i in range(ipc)]
            if all(key in task.done for key in wanted):
                continue
            candidates = [ImageKey(task.class_ids[c], j) for c in classes for j in range(pool)]
            with task.phase("sample"):
                latents = self._sample(task, candidates)
            with task.phase("select"):
                seen = probabilities(task, prior, self._observer, latents, raw=p.classifier_input == "raw")
                kept = [
                    row * pool + j
                    for row, c in enumerate(classes)
                    for j in select(seen[row * pool : (row + 1) * pool], c, ipc, p.order)
                ]
            with task.phase("refine"):
                refined = refine(task, prior, p, [candidates[j] for j in kept], latents[torch.tensor(kept)])
            with task.phase("decode"):
                pixels = prior.decode(refined)
            made = zip(wanted, pixels, refined.cpu().numpy(), strict=True)
            yield [DistilledImage(*key, image, latent) for key, image, latent in made if key not in task.done]

    def _sample(self, task: DistillTask, candidates: list[ImageKey]) -> Tensor:
        """(B, C, h, w), in batches."""
        import torch

        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import sample

        p, parts = self.params, []
        for start in range(0, len(candidates), task.batch_size):
            task.progress(f"sampling the pool of {candidates[start].class_id}: {start} of {len(candidates)} images")
            images = candidates[start : start + task.batch_size]
            noise = StreamNoise(task.stream, images)
            parts.append(sample(task.load_prior(), images, [], noise, steps=p.steps, cfg_scale=p.cfg_scale).latents)
        return torch.cat(parts)
