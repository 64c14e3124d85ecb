"""D3HR: distillation by inversion statistics and group sampling (ICML 2025). Training-free.

The real latents of a class are taken up to a noise level by DDIM inversion, where they are nearly Gaussian (domain
mapping). Groups of IPC latents are drawn from the Gaussian with their mean and variance, the group whose own statistics
are closest is kept (representative sampling), and DDIM takes it down to images again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method

if TYPE_CHECKING:
    import numpy as np

PAPER_STEPS = 50


class D3HR(Method):
    """Image j of a class is the j-th latent of the class's best group, denoised.

    Inversion and sampling both walk the levels t = 0, 20, …, 980 (`methods/diffusion/ddim.py`); the real latents count
    as level 0, and sampling ends there (the program's last two steps end at t = 1).
    """

    name = "d3hr"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True
    reads_latents = True
    check_params: ClassVar = {"steps": 8, "groups": 500}

    class Params(base.Params):
        steps: Annotated[
            int, Field(ge=2, le=1000, description="Levels of the DDIM grid: t = i·(training steps // steps).")
        ] = PAPER_STEPS
        cfg_scale: Annotated[
            float,
            Field(
                ge=0,
                description="Scale of classifier-free guidance, at inversion and at sampling, on all channels; 1 "
                "switches it off.",
            ),
        ] = 4.0
        level: Annotated[
            int,
            Field(
                ge=1,
                description="Level i at which the statistics are taken; 30 of 50 is t = 600. Not given with another "
                "number of steps: the level nearest in time.",
            ),
        ] = 30
        start_offset: Annotated[
            int,
            Field(
                ge=0,
                description="Levels above that of the statistics at which sampling starts; 0 is exact. The program's "
                "start_step=18 is 1: latents of t = 600 are denoised as if they were of t = 620.",
            ),
        ] = 0
        groups: Annotated[
            int,
            Field(
                ge=1,
                description="Groups drawn, of which the best is kept. The paper says 1e6, the program's default comes "
                "to 1e8; draws are made on the CPU, about 1e8 numbers a second (groups × IPC × numbers in a latent).",
            ),
        ] = 1_000_000
        skew_weight: Annotated[
            float, Field(ge=0, description="λ, weight of the skewness in a group's score: 0.5 (paper); program: 0.1.")
        ] = 0.5
        real_images: Annotated[
            int | None,
            Field(
                ge=2,
                description="Real images of a class, the first by file name, whose inversions give the statistics; "
                "null: all (paper). Inverting one takes about as long as sampling one.",
            ),
        ] = None
        latents: Annotated[
            Literal["mean", "sample"],
            Field(
                description="Latents of the real images: posterior means, or posterior samples of randomly flipped "
                "images (the program samples, but does not flip)."
            ),
        ] = "mean"

        @model_validator(mode="before")
        @classmethod
        def _level_at_the_same_time(cls, given: Any) -> Any:
            """The paper's level is an index of 50 steps; in a grid of another length, the same time."""
            try:
                scale = int(given["steps"]) / PAPER_STEPS
            except (TypeError, KeyError, ValueError):
                return given
            return {"level": round(cls.model_fields["level"].default * scale)} | given

        @model_validator(mode="after")
        def _levels_on_the_grid(self) -> D3HR.Params:
            if self.start_level >= self.steps:
                raise ValueError(
                    f"expected level + start_offset ≤ steps - 1 = {self.steps - 1}, an index of the DDIM grid, got "
                    f"{self.level} + {self.start_offset}"
                )
            return self

        @property
        def start_level(self) -> int:
            """Level as which sampling takes the latents of a group."""
            return self.level + self.start_offset

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Invert the real images and choose a group for each class.

        Raises:
            UsageError: a class with fewer than two images, which have no variance.
        """
        for class_index in task.class_indices:
            if (found := len(task.train.of_class(class_index))) < 2:
                raise UsageError(
                    f"class {task.class_ids[class_index]} has {found} training image(s); {self.name} takes the "
                    "variance of at least 2"
                )
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
