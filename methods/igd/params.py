"""What can be set of IGD: the paper's parameters (Table 7), the program's constants."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from ddbench.methods.classifier import ClassifierRecipe, ObserverNetwork
from ddbench.methods.diffusion.params import PAPER_STEPS, CfgScale, Steps, at_the_same_times, check_window
from ddbench.methods.observer_params import COMES_TRAINED, ClassifierParams, CutMix, PixelStatistics
from ddbench.methods.pretrained import Pretrained

STEP = re.compile(r"(?P<low>[^@+]+)@(?P<ipc>[0-9]+)\+(?P<high>[^@+]+)")
"""`low@ipc+high`: one value up to an IPC, another above."""
COSINE = re.compile(r"cosine<(?P<cosine>-?[0-9]*\.?[0-9]+)@(?P<epochs>[0-9]+)")
"""`cosine<0.7@50`: which checkpoints of how many epochs are taken."""
WEIGHTS = "sha256:"
"""Begins `checkpoints` of a network that comes trained."""


class IGDParams(ClassifierParams):
    """The classifier is the surrogate."""

    steps: Steps = PAPER_STEPS
    cfg_scale: CfgScale = 4.0
    influence_scale: Annotated[
        float,
        Field(
            ge=0,
            description="k of the shift -k·ρ·g, g the gradient of the influence loss; 0 switches it off. Paper "
            "(Table 7): 5 for DiT; for the prior that Minimax tunes 15 on ImageNette, 10 on ImageWoof and "
            "ImageNet-1K. The program's own default, 0.02, is stale.",
        ),
    ] = 5.0
    deviation_scale: Annotated[
        str,
        Field(
            coerce_numbers_to_str=True,
            description="γ of the shift -γ·∇cos(z, nearest finished latent): a number, 0 to switch it off, or "
            "low@ipc+high, one up to an IPC and another above. Paper (Table 7): 50@10+120 for DiT, 120 on ImageNet-1K; "
            "for the prior that Minimax tunes 10 on ImageNette, 50@10+100 on ImageWoof, 100 on ImageNet-1K.",
        ),
    ] = "50@10+120"
    memory: Annotated[
        int,
        Field(ge=1, description="The most finished latents of a class that deviation looks at: the latest ones."),
    ] = 64
    step_size: Annotated[
        float,
        Field(
            ge=0,
            description="s in ρ = s·RMS(ε̂)/RMS(g)·√(1 - ᾱ), which makes influence independent of the size of its "
            "gradient.",
        ),
    ] = 0.0015
    window_first: Annotated[
        int,
        Field(
            ge=0,
            description="Last step of both guidances to be executed, as index k of the respaced chain (0 is the "
            "cleanest). Not given with another number of steps: the step nearest in time.",
        ),
    ] = 30
    window_last: Annotated[
        int, Field(ge=0, description="First step of both guidances to be executed, an index as window_first.")
    ] = 45
    real_images: Annotated[
        int,
        Field(
            ge=1,
            description="Real images of a class whose loss gradients are averaged: the first by sorted file name.",
        ),
    ] = 200
    checkpoints: Annotated[
        str,
        Field(
            coerce_numbers_to_str=True,
            description="Epochs of the surrogate's training after which its weights are looked at, 0 the random "
            "ones, joined by +; it is trained up to the last. Or cosine<0.7@50, the program's rule: of 50 epochs the "
            "random weights, then each epoch where the cosine of the loss gradient with that of the one taken before, "
            "averaged over the classes, is below 0.7. The program ships what it found, 0+2+11+40 for ImageNette, "
            "0+5+16+40 for ImageWoof, 0+5+18+52 (sic) for ImageNet-1K. Weights that come with the network: their hash.",
        ),
    ] = "0+2+11+40"
    network: Annotated[
        ObserverNetwork,
        Field(description=f"Network of the surrogate, at the side of the prior's images. {COMES_TRAINED}"),
    ] = "convnet6"
    learning_rate: Annotated[float, Field(gt=0, description="Learning rate of the surrogate's training, constant.")] = (
        0.01
    )
    cutmix: CutMix = False
    normalisation: PixelStatistics = "half"

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the weights that come with the network; None: it is trained."""
        return self.checkpoints.removeprefix(WEIGHTS) if self.checkpoints.startswith(WEIGHTS) else None

    @property
    def cosine_below(self) -> float | None:
        """The cosine below which a checkpoint is taken; None: they are named."""
        found = COSINE.fullmatch(self.checkpoints)
        return None if found is None else float(found["cosine"])

    @property
    def epochs(self) -> tuple[int, ...]:
        """The checkpoints that are kept, in ascending order: those that are named, or all from which to choose."""
        if found := COSINE.fullmatch(self.checkpoints):
            return tuple(range(int(found["epochs"]) + 1))
        return tuple(sorted({int(epoch) for epoch in self.checkpoints.split("+")}))

    @classmethod
    def as_it_comes(cls, known: Pretrained, given: Mapping[str, Any]) -> dict[str, Any]:
        noted = str(given.get("checkpoints", ""))
        own = {"checkpoints": noted if noted.startswith(WEIGHTS) else WEIGHTS + known.planned_sha256()}
        return super().as_it_comes(known, given) | own

    def deviation_at(self, ipc: int) -> float:
        """γ."""
        low, limit, high = _parts(self.deviation_scale)
        return low if ipc <= limit else high

    def recipe(self, image_size: int) -> ClassifierRecipe:
        """How the surrogate is trained."""
        *kept, last = self.epochs
        return self.classifier_recipe(image_size, last, schedule="constant", keep_epochs=tuple(kept))

    @field_validator("deviation_scale")
    @classmethod
    def _number_or_step(cls, given: str) -> str:
        try:
            low, _, high = _parts(given)
        except ValueError:
            low = high = math.nan
        if not (0 <= low < math.inf and 0 <= high < math.inf):
            raise ValueError(f"expected a number of at least 0, or low@ipc+high such as 50@10+120, got {given!r}")
        return f"{low:g}" if low == high else given

    @field_validator("checkpoints")
    @classmethod
    def _epochs_joined(cls, given: str) -> str:
        if COSINE.fullmatch(given) or all(part.isascii() and part.isdigit() for part in given.split("+")):
            return given
        if given.startswith(WEIGHTS):  # noted where the network comes trained, and refused below where it does not
            return given
        raise ValueError(f"expected epochs joined by +, such as 0+2+11+40, or cosine<0.7@50, got {given!r}")

    @model_validator(mode="before")
    @classmethod
    def _window_at_the_same_times(cls, given: Any) -> Any:
        return at_the_same_times(cls, given, "window_first", "window_last")

    @model_validator(mode="after")
    def _weights_of_their_network(self) -> IGDParams:
        if self.weights_sha256 and not self.comes_trained:
            raise ValueError(f"checkpoints: {self.network} is trained here and comes without weights; name epochs")
        return self

    @model_validator(mode="after")
    def _window_in_order(self) -> IGDParams:
        check_window(self, "window_first", "window_last")
        return self


def _parts(written: str) -> tuple[float, float, float]:
    """(value up to the IPC, the IPC, value above); ValueError where it is written otherwise."""
    if found := STEP.fullmatch(written):
        return float(found["low"]), float(found["ipc"]), float(found["high"])
    return float(written), math.inf, float(written)
