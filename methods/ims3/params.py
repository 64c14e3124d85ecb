"""What can be set of IMS3's two halves. Defaults are those of the released script."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddbench.methods.classifier import ObserverNetwork
from ddbench.methods.diffusion.params import PAPER_STEPS, CfgScale, Steps
from ddbench.methods.minimax.params import MinimaxParams, Tuning
from ddbench.methods.observer_params import COMES_TRAINED, ObserverParams


class IMTuning(Tuning):
    """Minimax's tuning with inversion matching."""

    tuning_steps: Annotated[
        int, Field(ge=1, description="Optimiser steps. The program samples with its checkpoint at step 8,000.")
    ] = 8000
    inversion_weight: Annotated[
        float,
        Field(
            ge=0,
            description="λ of inversion matching, 1 - λ·(mean cosine of denoised and inverted latents); 0: Minimax.",
        ),
    ] = 0.002


class IMParams(IMTuning, MinimaxParams):
    """The same, and how the tuned prior is sampled."""


class IMS3Params(ObserverParams):
    steps: Steps = PAPER_STEPS
    cfg_scale: CfgScale = 4.0
    groups: Annotated[int, Field(ge=1, description="G, groups of IPC samples of each class, of which one is kept.")] = 5
    proximity_weight: Annotated[
        float,
        Field(ge=0, description="α of -log d(group's centroid, real centroid of the class), summed over classes."),
    ] = 0.4
    separation_weight: Annotated[
        float, Field(ge=0, description="β of log d(centroids of two classes), summed over all pairs of classes.")
    ] = 0.9
    real_images: Annotated[
        int, Field(ge=1, description="The most random real images of a class whose mean feature is its real centroid.")
    ] = 200
    first_choice: Annotated[
        Literal["nearest", "random"],
        Field(
            description="Where the ascent begins: each class's group nearest to its real centroid (program), or a "
            "random one (paper, Algorithm 2)."
        ),
    ] = "nearest"
    sweeps: Annotated[
        int, Field(ge=0, description="Most sweeps of the ascent over all classes; it ends with one that changes none.")
    ] = 5
    network: Annotated[
        ObserverNetwork,
        Field(
            description="Network whose features are compared, at the run's side. Program: torchvision's ResNet-18, "
            f"trained on all of ImageNet-1K; here on the classes of the dataset. {COMES_TRAINED}"
        ),
    ] = "resnet18_bn"
