"""MGD3: Mode-Guided Dataset Distillation using Diffusion Models (arXiv 2505.18963, ICML 2025). Training-free.

The latents of a class's real images are clustered into as many modes as images are wanted (mode discovery); each
image is sampled from a frozen prior that is pulled towards its own mode (mode guidance), until a stop step after which
the prior finishes it alone (stop guidance). Defaults are the paper's; formulas are the program's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.enough_images import check_enough_images
from ddbench.methods.mgd3.params import MGD3Params, ModeGuidedParams
from ddbench.methods.selection import kept_images

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ddbench.methods.diffusion.batches import Batch
    from ddbench.methods.diffusion.guidance import Guidance


class MGD3(Method):
    """Mode guidance: image j of a class is drawn towards mode j."""

    name = "mgd3"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True
    reads_latents = True
    Params: ClassVar[type[ModeGuidedParams]] = MGD3Params

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Mode discovery.

        Raises:
            UsageError: a class with fewer images, or fewer distinct ones, than IPC.
        """
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.diffusion.clustering import cluster_classes
        from ddbench.methods.mgd3.modes import class_modes

        assert task.ipc is not None
        check_enough_images(task, task.ipc, f"the {task.ipc} clusters asked for")
        if self.params.modes != "random":
            cluster_classes(task, task.load_prior(), task.ipc, self.params.latents)
        self._modes: dict[int, np.ndarray] = {
            c: class_modes(task, task.load_prior(), self.params, c) for c in task.class_indices
        }

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        import torch

        from ddbench.methods.diffusion.batches import sample_rounds
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome, sample

        p, prior = self.params, task.load_prior()

        def sample_batch(batch: Batch) -> SampleOutcome:
            modes = torch.stack([torch.tensor(self._modes[c][j]) for c, j in batch.keys]).to(prior.device)
            terms = self._terms(task, batch, modes)
            noise = StreamNoise(task.stream, batch.images)
            return sample(
                prior, batch.images, terms, noise, steps=p.steps, cfg_scale=p.cfg_scale, on_step=batch.on_step
            )

        return sample_rounds(task, prior, p.steps, sample_batch)

    def _terms(self, task: DistillTask, batch: Batch, modes: Tensor) -> list[Guidance]:
        """The guidance of a batch; modes: (B, C, h, w), of each of its images."""
        from ddbench.methods.mgd3.modes import ModeGuidance

        p, clip = self.params, task.load_prior().metadata.clip_denoised
        return [ModeGuidance(modes, scale=p.guidance_scale, stop_step=p.stop_step, clip=clip)]


class ModesAlone(Method):
    """MGD3 without its sampler: the real images nearest to the modes (so we read the first row of its Table 5)."""

    name = "mgd3-modes"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True
    reads_latents = True
    uses_seed = False

    def shows_real_images(self) -> bool:
        return True

    def prepare(self, task: DistillTask) -> None:
        """Mode discovery; raises UsageError as MGD3's."""
        from ddbench.methods.diffusion.clustering import cluster_classes
        from ddbench.methods.mgd3.modes import nearest_to_centroids

        assert task.ipc is not None
        check_enough_images(task, task.ipc, f"the {task.ipc} clusters asked for")
        cluster_classes(task, task.load_prior(), task.ipc)
        self._chosen: dict[int, np.ndarray] = {
            c: nearest_to_centroids(task, task.load_prior(), c, "mean") for c in task.class_indices
        }

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        for c in task.class_indices:
            yield from kept_images(task, c, task.train.of_class(c)[self._chosen[c]])
