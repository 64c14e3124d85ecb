"""D3HR: Taming Diffusion for Dataset Distillation with High Representativeness (ICML 2025, arXiv 2505.18399).
Training-free.

The real latents of a class are taken up to a noise level by DDIM inversion, where they are nearly Gaussian (domain
mapping). Groups of IPC latents are drawn from the Gaussian with their mean and variance, the group whose own statistics
are closest is kept (representative sampling), and DDIM takes it down to images again.

The draws' numbers are independent, as in the paper, whose latents are an autoencoder's. At a prior of photographs' own
pixels, which are alike where they are neighbours, such draws denoise to fog: `covariance=full` is for these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.d3hr.params import D3HRParams
from ddbench.methods.enough_images import check_enough_images

if TYPE_CHECKING:
    import numpy as np


class D3HR(Method):
    """Image j of a class is the j-th latent of the class's best group, denoised.

    Inversion and sampling both walk the levels t = 0, 20, …, 980 (`methods/diffusion/ddim.py`); the real latents count
    as level 0, and sampling ends there (the program's last two steps end at t = 1).
    """

    name = "d3hr"
    version = 2
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True
    reads_latents = True
    check_params: ClassVar = {"steps": 8, "groups": 500}
    Params = D3HRParams

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Invert the real images and choose a group for each class.

        Raises:
            UsageError: a class with fewer than two images, which have no variance.
        """
        check_enough_images(task, 2, f"the 2 whose variance {self.name} can take", lambda _: "choose another method")
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.d3hr.inversion import class_group

        self._groups: dict[int, np.ndarray] = {
            c: class_group(task, task.load_prior(), self.params, c) for c in task.class_indices
        }

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        import torch

        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.ddim import ddim_levels, walk
        from ddbench.methods.diffusion.sampler import SampleOutcome

        p, prior = self.params, task.load_prior()
        downwards = ddim_levels(prior.metadata.schedule.steps, p.steps)[p.start_level :: -1]

        def sample_batch(batch: Batch) -> SampleOutcome:
            z = torch.stack([torch.tensor(self._groups[c][j]) for c, j in batch.keys]).to(prior.device)
            z = walk(prior, batch.images, z, downwards, cfg_scale=p.cfg_scale, on_step=batch.on_step)
            return SampleOutcome(z, {})

        return sample_rounds(task, prior, p.start_level, sample_batch)
