"""Plain sampling on the linear path between noise and data: how SiT's program samples (Ma et al., arXiv 2401.08740).

It takes any prior: one that predicts noise gives a velocity too (`diffusion/linear_path.py`), within the noise levels
that it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages
from ddbench.methods.diffusion.params import CfgScale


class Flow(Method):
    """The probability-flow ODE, or SiT's SDE, from noise to images; no guidance but classifier-free."""

    name = "flow"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True

    class Params(base.Params):
        sampler: Annotated[
            Literal["sde", "euler", "dopri5"],
            Field(
                description="sde: SiT's default; euler: the ODE in equal steps; dopri5: the ODE in steps of the "
                "solver's choice, one image at a time, so that no image depends on others."
            ),
        ] = "sde"
        steps: Annotated[
            int, Field(ge=2, le=1000, description="Points of the SDE or of Euler's ODE; dopri5 chooses its own.")
        ] = 250
        cfg_scale: CfgScale = 4.0

    def reads_real_images(self) -> RealImages:
        return RealImages.NONE

    def shows_real_images(self) -> bool:
        return False

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.diffusion.batches import Batch, sample_rounds
        from ddbench.methods.diffusion.flow_batch import sample_flow
        from ddbench.methods.diffusion.sampler import SampleOutcome

        p, prior = self.params, task.load_prior()

        def sample_batch(batch: Batch) -> SampleOutcome:
            return sample_flow(prior, batch, task.stream, sampler=p.sampler, steps=p.steps, cfg_scale=p.cfg_scale)

        return sample_rounds(task, prior, p.steps, sample_batch)
