"""What can be set of ManifoldGD. Defaults are those of the released scripts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddbench.methods.mgd3.params import ModeGuidedParams


class ManifoldGDParams(ModeGuidedParams):
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
