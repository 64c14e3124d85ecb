"""What can be set of MGD3, and of what extends it. Defaults are the paper's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ddbench.methods import base
from ddbench.methods.diffusion.params import PAPER_STEPS, CfgScale, Steps, at_the_same_times


class ModeGuidedParams(base.Params):
    """Of every method that draws an image towards its own mode."""

    steps: Steps = PAPER_STEPS
    cfg_scale: CfgScale = 4.0
    guidance_scale: Annotated[
        float,
        Field(
            ge=0,
            description="λ of the shift λ·σ_k·(mode - x̂0) that is added to the mean of a step (program). Eq. 6 "
            "of MGD3's paper adds it to the predicted noise instead, which read literally pushes away from the mode; "
            "that form is not offered. 0: the plain prior.",
        ),
    ] = 0.1
    stop_step: Annotated[
        int,
        Field(
            ge=0,
            description="Steps k of the respaced chain (0 is the cleanest) with k > stop_step are guided; 0 guides "
            "all but the last, which has no noise. Paper and the program's scripts: 25 of 50, the program's own "
            "default is 0. Not given with another number of steps: the step nearest in time.",
        ),
    ] = 25

    @model_validator(mode="before")
    @classmethod
    def _stop_at_the_same_time(cls, given: Any) -> Any:
        return at_the_same_times(cls, given, "stop_step")

    @model_validator(mode="after")
    def _stop_within_the_chain(self) -> Self:
        if self.stop_step >= self.steps:
            raise ValueError(
                f"expected stop_step ≤ steps - 1 = {self.steps - 1}, an index of the respaced chain, got "
                f"{self.stop_step}"
            )
        return self


class MGD3Params(ModeGuidedParams):
    modes: Annotated[
        Literal["centroid", "nearest", "random"],
        Field(
            description="Centroids of k-means, the real images nearest to them, or real images drawn at random "
            "(the paper's Table 7)."
        ),
    ] = "centroid"
    latents: Annotated[
        Literal["mean", "sample"],
        Field(
            description="Latents of the real images: posterior means of the images as they are (the program flips "
            "half of them left to right), or posterior samples of randomly flipped images."
        ),
    ] = "mean"
