"""D4M: Dataset Distillation via Disentangled Diffusion Model (CVPR 2024), on a class-conditional prior. Training-free.

The latents of a class's real images are clustered; each centre, a prototype, is noised to an intermediate level and
denoised from there under the class's label. The authors' program does so with Stable Diffusion and prompts; this is
the form in which MGD3's paper (arXiv 2505.18963, Table 1) compares it on DiT, whose code was not released: noise level
and CFG scale there are our choices. D4M's soft labels are a protocol's business and left out, as in that comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.d4m.params import D4MParams
from ddbench.methods.enough_images import check_enough_images

if TYPE_CHECKING:
    import numpy as np


class D4M(Method):
    """Image j of a class is prototype j, partly noised and denoised again."""

    name = "d4m"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True
    reads_latents = True
    Params = D4MParams

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Find the prototypes.

        Raises:
            UsageError: a class with fewer images, or fewer distinct ones, than IPC.
        """
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.d4m.prototypes import class_prototypes
        from ddbench.methods.diffusion.clustering import cluster_classes

        assert task.ipc is not None
        check_enough_images(task, task.ipc, f"the {task.ipc} clusters asked for")
        if self.params.clustering == "kmeans":
            cluster_classes(task, task.load_prior(), task.ipc, self.params.latents)
        self._prototypes: dict[int, np.ndarray] = {
            c: class_prototypes(task, task.load_prior(), self.params, c) for c in task.class_indices
        }

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        import torch

        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome, Start, sample

        p, prior = self.params, task.load_prior()
        first = p.steps_run - 1
        alpha_bar = float(prior.schedule(p.steps).alpha_bar[first])

        def sample_batch(batch: Batch) -> SampleOutcome:
            noise = StreamNoise(task.stream, batch.images)
            prototypes = torch.stack([torch.tensor(self._prototypes[c][j]) for c, j in batch.keys])
            noised = alpha_bar**0.5 * prototypes + (1 - alpha_bar) ** 0.5 * noise.initial(prior.latent_shape)
            start = Start(first, noised.to(prior.device))
            return sample(
                prior,
                batch.images,
                [],
                noise,
                steps=p.steps,
                cfg_scale=p.cfg_scale,
                start=start,
                on_step=batch.on_step,
            )

        return sample_rounds(task, prior, p.steps_run, sample_batch)
