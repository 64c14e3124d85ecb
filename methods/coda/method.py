"""CoDA (arXiv 2512.03844). Training-free.

The latents of a class's real images are clustered by density, in UMAP's embedding, into as many clusters as images are
wanted; each gives a representative, a real image (`clusters.py`). Each image is then sampled from a frozen
text-to-image prior whose prediction for the class is pulled to its representative until shortly before the end
(`sampling.py`). Any prior with a "no class" can be pulled so; CoDA's is SDXL (`--prior sdxl`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.coda.params import CoDAParams, RepresentativeParams
from ddbench.methods.enough_images import check_enough_images
from ddbench.methods.selection import kept_images

if TYPE_CHECKING:
    import numpy as np

    from ddbench.datasets.base import Dataset


class Representatives(Method):
    """The real images that CoDA pulls to, without its sampler: what its released script trains students on."""

    name = "coda-real"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True
    reads_latents = True
    uses_seed = False
    check_params: ClassVar = {"embedding": "none", "min_cluster_size": 3}
    Params: ClassVar[type[RepresentativeParams]] = RepresentativeParams

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        return self.params.unsupported()

    def shows_real_images(self) -> bool:
        return True

    def prepare(self, task: DistillTask) -> None:
        """Find the representatives.

        Raises:
            UsageError: a class with fewer images than IPC or than UMAP needs, or with too few clusters.
        """
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.coda.embedding import class_representatives

        assert task.ipc is not None
        check_enough_images(task, task.ipc, f"the {task.ipc} clusters asked for")
        needed, needs = self.params.images_needed()
        check_enough_images(task, needed, needs, lambda _: "set smaller ones, or embedding=none, which is not CoDA's")
        self._chosen: dict[int, np.ndarray] = {
            c: class_representatives(task, task.load_prior(), self.params, c) for c in task.class_indices
        }

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        for c in task.class_indices:
            yield from kept_images(task, c, task.train.of_class(c)[self._chosen[c]])


class CoDA(Representatives):
    """Image j of a class is sampled, and pulled towards representative j."""

    name = "coda"
    uses_seed = True
    Params = CoDAParams

    def shows_real_images(self) -> bool:
        return False

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        import torch

        from ddbench.methods.coda.sampling import sample_pulled
        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.latents import class_latents
        from ddbench.methods.diffusion.noise import StreamNoise
        from ddbench.methods.diffusion.sampler import SampleOutcome

        p, prior = self.params, task.load_prior()
        targets = {c: torch.from_numpy(class_latents(task, prior, c)[self._chosen[c]]) for c in task.class_indices}

        def sample_batch(batch: Batch) -> SampleOutcome:
            return sample_pulled(
                prior,
                batch.images,
                torch.stack([targets[c][j] for c, j in batch.keys]).to(prior.device),
                StreamNoise(task.stream, batch.images),
                steps=p.steps,
                cfg_scale=p.cfg_scale,
                guidance_scale=p.guidance_scale,
                guided_from=p.guided_from,
                guided_share=p.guided_share,
                on_step=batch.on_step,
            )

        return sample_rounds(task, prior, p.steps, sample_batch)
