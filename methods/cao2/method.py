"""CaO2: rectifying inconsistencies in diffusion-based dataset distillation (ICCV 2025). Needs a classifier.

More images of a class are sampled than are wanted; those that a classifier is surest of are kept (`selection.py`), and
their latents optimised until the prior denoises them well without a label (`refinement.py`). Defaults are the
program's for ImageNet-1K and ImageWoof; its ImageNette script samples fewer and refines none, which is that dataset's
default here. The program's classifier is torchvision's ResNet-18 of 1000 classes, for ImageWoof and ImageNette too. No
package has those weights, so a classifier of the dataset's own classes looks (`observer.py`), in `cao2-program` too;
`network=efficientnet_lite0` is another one of all 1000 classes, of which the surest must be the image's, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.cao2.params import CaO2Params

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
    Params = CaO2Params

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        return self.params.unsupported(dataset)

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Train the classifier, or fetch it."""
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.observer import observer

        known = self.params.comes_trained
        self._observer = observer(task, self.params, None if known is None else known.class_ids)
        outputs = range(len(task.class_ids)) if known is None else known.rows(task.class_ids)
        self._output_of = dict(enumerate(outputs))

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
                    for j in select(seen[row * pool : (row + 1) * pool], self._output_of[c], ipc, p.order)
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
