"""What can be set of Minimax Diffusion. Defaults are those of the authors' released program."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddbench.methods import base
from ddbench.methods.diffusion.params import PAPER_STEPS, CfgScale, Steps
from ddbench.methods.diffusion.priors.metadata import PriorMetadata


def untunable(prior: PriorMetadata) -> str | None:
    """Why a prior cannot be tuned so, or None."""
    another = "Choose another prior (`bench list priors`), or a method that tunes none"
    if prior.prediction != "epsilon":
        return f"Minimax tunes a prior that predicts noise, by a loss on it; this one predicts velocities. {another}"
    if prior.conditioning is not None:
        return f"Minimax tunes scales of a DiT's layers (DiffFit); this prior is a text-to-image network. {another}"
    return None


class Tuning(base.Params):
    """What the tuned weights depend on, besides prior and images."""

    tuning_steps: Annotated[
        int,
        Field(
            ge=1,
            description="Optimiser steps. The program runs 8 epochs of ImageNet-Woof (12,448 steps) and samples with "
            "its checkpoint at step 12,000.",
        ),
    ] = 12_000
    tuning_batch: Annotated[int, Field(ge=1, description="Training images in an optimiser step.")] = 8
    learning_rate: Annotated[
        float, Field(gt=0, description="Learning rate of AdamW, constant, without weight decay.")
    ] = 1e-3
    representativeness_weight: Annotated[
        float, Field(ge=0, description="λ_r, weight of the loss on the farthest real latent of a class.")
    ] = 0.002
    diversity_weight: Annotated[
        float, Field(ge=0, description="λ_d, weight of the loss on the nearest earlier prediction of a class.")
    ] = 0.008
    inversion_weight: Annotated[
        float,
        Field(
            ge=0,
            exclude_if=lambda value: value == 0,  # cells and tuned priors from before this parameter keep their ids
            description="λ of IMS3's inversion matching, 1 - λ·(mean cosine of denoised and inverted latents); 0: "
            "Minimax without it.",
        ),
    ] = 0.0
    memory: Annotated[int, Field(ge=1, description="Latents in each of a class's two memories.")] = 64
    label_dropout: Annotated[
        float, Field(ge=0, lt=1, description="Probability of training an image under the null label.")
    ] = 0.1
    ema: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Decay of the weights' moving average, which starts at the untuned weights and is what is "
            "sampled. At 0.9999, 30 % of the untuned weights are left after 12,000 steps, as in the program.",
        ),
    ] = 0.9999
    encoder: Annotated[
        Literal["vae", "vae_ema"],
        Field(
            description="Which autoencoder encodes the training images: the one that decodes, or the prior's further "
            "one (program: ft-ema encodes, ft-mse decodes). A pixel prior has neither."
        ),
    ] = "vae_ema"
    flip: Annotated[bool, Field(description="Mirror half of the training images.")] = True
    tuning_seed: Annotated[
        int | None,
        Field(
            ge=0,
            description="Seed of the tuning; null: the distilled set's own, so that sets differ by all that is random "
            "in the method. A number: all sets share one tuned prior, as the program's do.",
        ),
    ] = None


class MinimaxParams(Tuning):
    steps: Steps = PAPER_STEPS
    cfg_scale: CfgScale = 4.0
    chunk_classes: Annotated[
        int | None,
        Field(
            ge=1,
            exclude_if=lambda value: value is None,  # cells from before this parameter keep their ids
            description="Classes that are tuned together, in the dataset's order; each chunk starts from the untuned "
            "prior, takes tuning_steps of its own, and samples its own classes. Null: all classes at once. The program "
            "does ImageNet-100 and -1K so (`--nclass`, by default 10, and `--phase`).",
        ),
    ] = None
