"""What can be set of ManifoldGD. Defaults are those of the released scripts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ddbench.methods import base
from ddbench.methods.diffusion.params import PAPER_STEPS, CfgScale, Steps, at_the_same_times


class ManifoldGDParams(base.Params):
    steps: Steps = PAPER_STEPS
    cfg_scale: CfgScale = 4.0
    guidance_scale: Annotated[
        float, Field(ge=0, description="λ of the pull λ·σ_k·(mode - x̂0) to an image's mode, as in MGD3; 0: none.")
    ] = 0.1
    stop_step: Annotated[
        int,
        Field(
            ge=0,
            description="Steps k of the respaced chain (0 is the cleanest) with k > stop_step are guided. Not given "
            "with another number of steps: the step nearest in time.",
        ),
    ] = 25
    modes: Annotated[
        Literal["bisecting", "kmeans"],
        Field(
            description="Leaves of a tree of 2-means splits, the leaf of largest inertia split next (the program's "
            "scripts), or centroids of k-means."
        ),
    ] = "bisecting"
    manifold_scale: Annotated[
        float, Field(ge=0, description="Length of the step along the normal of the data near the mode; 0: none.")
    ] = 0.1
    manifold_radius: Annotated[
        float, Field(gt=0, description="Distance from the mode, in latents, up to which points stand for the data.")
    ] = 0.1
    density_bandwidth: Annotated[
        float,
        Field(gt=0, description="Distance from these points at which tanh(distance / bandwidth) of the step is taken."),
    ] = 0.1
    tangent_dimensions: Annotated[
        int, Field(ge=1, le=11, description="Principal directions of the nearest points that the step leaves alone.")
    ] = 3
    warm_steps: Annotated[
        int,
        Field(ge=0, description="First executed steps over which the radius shrinks from radius_factor times its own."),
    ] = 5
    radius_factor: Annotated[float, Field(ge=1, description="How many times as large the radius is at first.")] = 2.0

    @model_validator(mode="before")
    @classmethod
    def _stop_at_the_same_time(cls, given: Any) -> Any:
        return at_the_same_times(cls, given, "stop_step")

    @model_validator(mode="after")
    def _stop_within_the_chain(self) -> ManifoldGDParams:
        if self.stop_step >= self.steps:
            raise ValueError(
                f"expected stop_step ≤ steps - 1 = {self.steps - 1}, an index of the respaced chain, got "
                f"{self.stop_step}"
            )
        return self
