"""IMS3: inversion matching and selective subgroup sampling (CVPR 2026, arXiv 2603.13960).

The first half fine-tunes the prior: Minimax's tuning with a term more (`methods/minimax/inversion.py`), registered as
`ims3-im`. The second half is here: of several groups of samples of each class one is kept, by where its centroid lies
among the real images' and the other classes' (`choice.py`). `ims3` is the second on the prior of the first, `ims3-s3`
the second on the prior as it is. Defaults are those of the released program. Its features are those of torchvision's
ResNet-18 of 1000 classes, which no package has; here a classifier looks that was trained on the dataset's classes, or
one that comes trained (`network=efficientnet_lite0`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.ims3.params import IMS3Params

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset


class SubgroupSampling(Method):
    """Groups of plain samples, one of each class chosen."""

    name = "ims3-s3"
    version = 1
    cost_class = CostClass.NEEDS_CLASSIFIER
    needs_prior = True
    check_params: ClassVar = {"epochs": 1, "groups": 2, "steps": 8}
    Params = IMS3Params

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
        import numpy as np
        import torch

        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.sampler import SampleOutcome
        from ddbench.methods.ims3.choice import choose, nearest
        from ddbench.methods.ims3.groups import class_groups, real_centroid

        p, prior = self.params, task.load_prior()
        every, mine = range(len(task.class_ids)), task.class_indices
        # Its own classes first, so that cells which share a set's classes share the sampling too.
        found = {
            c: class_groups(task, prior, p, self._observer, c) for c in [*mine, *(c for c in every if c not in mine)]
        }
        groups = np.stack([found[c]["centroids"] for c in every])
        real = np.stack([real_centroid(task, p, self._observer, c) for c in every])
        if p.first_choice == "nearest":
            first = nearest(groups, real)
        else:
            streams = [task.stream("first group", class_id) for class_id in task.class_ids]
            first = [int(torch.randint(p.groups, (), generator=stream)) for stream in streams]
        weights = {"proximity_weight": p.proximity_weight, "separation_weight": p.separation_weight}
        chosen = choose(groups, real, first, sweeps=p.sweeps, **weights)

        def kept(batch: Batch) -> SampleOutcome:
            latents = np.stack([found[c]["latents"][chosen[c], i] for c, i in batch.keys])
            return SampleOutcome(torch.from_numpy(latents).to(prior.device), {})

        return sample_rounds(task, prior, p.steps, kept)
