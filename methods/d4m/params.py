"""What can be set of D4M. Defaults are the program's where they are not bound to Stable Diffusion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddbench.methods import base
from ddbench.methods.diffusion.params import PAPER_STEPS, SampledLatents, Steps


class D4MParams(base.Params):
    steps: Steps = PAPER_STEPS
    strength: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Share of the chain that is run, rounded down to whole steps, at least one: 0.7 of 50 are "
            "35 steps from k = 34, t = 693. The program's, for Stable Diffusion; our choice for other priors.",
        ),
    ] = 0.7
    cfg_scale: Annotated[
        float,
        Field(
            ge=0,
            description="Scale of classifier-free guidance; 1 switches it off. Our choice, that of plain sampling: "
            "the program's 8 belongs to prompts and Stable Diffusion.",
        ),
    ] = 4.0
    clustering: Annotated[
        Literal["kmeans", "mini-batch"],
        Field(description="k-means (k-means++), or one pass of mini-batch k-means (program)."),
    ] = "kmeans"
    batch_factor: Annotated[
        int,
        Field(ge=1, description="Latents in a step of clustering=mini-batch, in multiples of IPC (program: 1)."),
    ] = 1
    latents: SampledLatents = "mean"

    @property
    def steps_run(self) -> int:
        """How many steps of the chain are executed."""
        return max(1, int(self.steps * self.strength + 1e-9))  # 50 · 0.58 is 28.999… in floats
