"""What can be set of DMGD. Defaults are those of the authors' released program."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ddbench.methods import base
from ddbench.methods.diffusion.params import PAPER_STEPS, CfgScale, Steps, at_the_same_times, check_window


class DMGDParams(base.Params):
    steps: Steps = PAPER_STEPS
    cfg_scale: CfgScale = 4.0

    semantic_matching: Annotated[bool, Field(description="Dynamic label; false: the class's own throughout.")] = True
    label_noise_weight: Annotated[float, Field(ge=0, description="β_n, weight of the noise on the label.")] = 0.06
    label_mix_weight: Annotated[float, Field(ge=0, description="β_s, weight of another class's label.")] = 0.01
    label_noise: Annotated[
        Literal["uniform", "normal"], Field(description="Noise on the label: U(0, 1) (program) or N(0, 1).")
    ] = "uniform"
    label_weights: Annotated[
        Literal["sqrt", "linear"],
        Field(description="Weights of label and perturbation: √λ, √(1-λ) (program) or λ, 1-λ (notes on the paper)."),
    ] = "sqrt"
    perturb_null: Annotated[bool, Field(description="Perturb the null label too (program).")] = True
    renormalise: Annotated[
        bool, Field(description="Give the perturbed pair the mean and std of the clean one (program).")
    ] = True
    label_t_lower: Annotated[
        int, Field(ge=0, le=1000, description="Original timestep below which the label is the class's own.")
    ] = 500
    label_t_upper: Annotated[
        int, Field(ge=1, le=1000, description="Original timestep above which the label is pure noise.")
    ] = 900
    exploration: Annotated[
        bool, Field(description="Pure noise as the label above label_t_upper; false: the class's own.")
    ] = True

    distribution_matching: Annotated[bool, Field(description="Guide by optimal transport to the support points.")] = (
        True
    )
    ot_scale: Annotated[
        float,
        Field(
            ge=0,
            description="ρ, weight of the transport guidance. The program's default is 0.5; its README uses 0.05 "
            "for Nette, a note on the paper says 0.05 for Woof and 0.5 for Nette.",
        ),
    ] = 0.5
    ot_gradient: Annotated[
        Literal["unrolled", "envelope"],
        Field(description="Differentiate through the scalings (program), or hold the plan constant (paper)."),
    ] = "unrolled"
    ot_sigma: Annotated[bool, Field(description="Multiply the shift by σ_k (program; not in the paper's formula).")] = (
        True
    )
    ot_epsilon: Annotated[float, Field(gt=0, description="Entropic regularisation of the plan.")] = 0.1
    ot_iterations: Annotated[int, Field(ge=1, description="Number of Sinkhorn scalings.")] = 5
    ot_window_first: Annotated[
        int,
        Field(
            ge=0,
            description="Last step of the transport guidance to be executed, as index k of the respaced chain "
            "(0 is the cleanest). Not given with another number of steps: the step nearest in time.",
        ),
    ] = 30
    ot_window_last: Annotated[
        int,
        Field(ge=0, description="First step of the transport guidance to be executed, an index as ot_window_first."),
    ] = 45
    greedy: Annotated[
        bool,
        Field(description="One image of a class after the other (program); false: all of them jointly."),
    ] = True
    support: Annotated[
        Literal["kmeans", "mean", "density"],
        Field(description="What stands for a class's real images: k-means, their mean, or a density sample."),
    ] = "kmeans"
    support_points: Annotated[int, Field(ge=1, description="K, number of support points (`mean` has one).")] = 10
    support_latents: Annotated[
        Literal["mean", "sample"],
        Field(
            description="Latents of the real images: posterior means, or posterior samples of randomly flipped "
            "images (program)."
        ),
    ] = "mean"
    support_init: Annotated[
        Literal["k-means++", "random"],
        Field(description="Start of k-means; random: points drawn with replacement, 100 iterations (program)."),
    ] = "k-means++"

    @model_validator(mode="before")
    @classmethod
    def _window_at_the_same_times(cls, given: Any) -> Any:
        return at_the_same_times(cls, given, "ot_window_first", "ot_window_last")

    @model_validator(mode="after")
    def _windows_in_order(self) -> DMGDParams:
        if self.label_t_lower >= self.label_t_upper:
            raise ValueError(
                f"expected label_t_lower < label_t_upper, got {self.label_t_lower} and {self.label_t_upper}"
            )
        check_window(self, "ot_window_first", "ot_window_last")
        return self
