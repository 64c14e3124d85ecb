"""What can be set of CaO2. Defaults are the program's for ImageNet-1K and ImageWoof."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddbench.methods.classifier import ObserverNetwork
from ddbench.methods.diffusion.params import PAPER_STEPS, CfgScale, Steps
from ddbench.methods.observer_params import COMES_TRAINED, ObserverParams


class CaO2Params(ObserverParams):
    steps: Steps = PAPER_STEPS
    cfg_scale: CfgScale = 2.7
    pool: Annotated[
        int,
        Field(ge=1, description="Samples for each image that is kept. Program: 4; ImageNette and ImageNet-100 2."),
    ] = 4
    order: Annotated[
        Literal["descending", "ascending"],
        Field(
            description="Which of the samples that the classifier gets right are kept: the surest, or the least "
            "sure (program, for ImageNet-100). Where they are too few, wrong ones follow in the same order."
        ),
    ] = "descending"
    classifier_input: Annotated[
        Literal["normalised", "raw"],
        Field(
            description="What the classifier sees: pixels normalised as in its training, or raw in [-1, 1] "
            "(program, whose classifier was trained on normalised ones)."
        ),
    ] = "normalised"
    refine_steps: Annotated[
        int, Field(ge=0, description="Steps of Adam on each latent; 0: none (program, for ImageNette).")
    ] = 100
    refine_rate: Annotated[float, Field(gt=0, description="Learning rate of the refinement.")] = 6e-4
    refine_part: Annotated[
        int,
        Field(
            ge=2,
            description="Each step is at an index k of the respaced chain, uniform on 1 … steps//refine_part - 1, "
            "at least 1: with 4, k = 1 … 11 of 50. Program, for ImageNet-100: 8, k = 1 … 5.",
        ),
    ] = 4
    refine_time: Annotated[
        Literal["timestep", "index"],
        Field(
            description="The time that the denoiser is told: the timestep of the noise level, or the index k in "
            "its place (program, so that the noise is 20 times as late as the denoiser is told)."
        ),
    ] = "timestep"
    max_weight: Annotated[
        float, Field(ge=0, description="Weight of ‖ε̂ - ε‖∞ in the loss, besides the mean squared error.")
    ] = 10.0
    noise_bank: Annotated[
        int, Field(ge=1, description="Noises of which each latent gets one, which it keeps through all steps.")
    ] = 1024
    network: Annotated[
        ObserverNetwork,
        Field(
            description="Network of the classifier, at the run's side. Program: torchvision's ResNet-18, trained "
            f"on all of ImageNet-1K; here on the classes of the dataset. {COMES_TRAINED} All of its 1000 "
            "outputs count here, as the program's do."
        ),
    ] = "resnet18_bn"

    @property
    def refine_last(self) -> int:
        """The noisiest index k of the refinement."""
        return max(1, self.steps // self.refine_part - 1)
