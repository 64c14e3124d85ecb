"""What can be set of D3HR. Defaults are the paper's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ddbench.methods import base
from ddbench.methods.diffusion.params import PAPER_STEPS, SampledLatents, at_the_same_times


class D3HRParams(base.Params):
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
    covariance: Annotated[
        Literal["diagonal", "full"],
        Field(
            description="Covariance of the groups' draws: none between the numbers of a latent (paper), or that of the "
            "inverted latents. Neighbouring pixels of photographs are alike, so at a prior of their pixels (no "
            "autoencoder) independent draws denoise to fog; on 8 px digits they do not. full costs a matrix product "
            "for each group."
        ),
    ] = "diagonal"
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
    latents: SampledLatents = "mean"

    @model_validator(mode="before")
    @classmethod
    def _level_at_the_same_time(cls, given: Any) -> Any:
        return at_the_same_times(cls, given, "level", to_the_last=False)

    @model_validator(mode="after")
    def _levels_on_the_grid(self) -> D3HRParams:
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
