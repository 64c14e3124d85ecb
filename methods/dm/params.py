"""What can be set of DM. Defaults are those of the authors' released program."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ddbench.methods import base
from ddbench.methods.classifier import Normalisation

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""Names of the augmentation's operations (`siamese.py`)."""


def _known_operations(augmentation: str) -> str:
    unknown = [name for name in augmentation.split("_") if name not in OPERATIONS]
    if unknown and augmentation != "none":
        raise ValueError(f"unknown operation {unknown[0]!r}; expected none or some of {'_'.join(OPERATIONS)}")
    return augmentation


class DMParams(base.Params):
    iterations: Annotated[int, Field(ge=1, description="Steps of the optimiser, each with a new network.")] = 20_000
    learning_rate: Annotated[
        float,
        Field(
            gt=0,
            description="Learning rate of SGD on the pixels. The program's README uses 10 from IPC 100 on (CIFAR-10).",
        ),
    ] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1, description="Momentum of SGD on the pixels.")] = 0.5
    real_batch: Annotated[
        int, Field(ge=1, description="Real images of a class in a step, drawn without replacement.")
    ] = 256
    network: Annotated[
        Literal["convnet3", "convnet6", "resnet_ap10", "resnet18"],
        Field(
            description="Network whose embedding is matched: what its last linear layer takes. The program's is "
            "convnet3, for images of 32 px; which one made the published numbers at 256 px is unknown."
        ),
    ] = "convnet3"
    network_image_size: Annotated[
        int | None,
        Field(ge=8, description="Side to which images are resized (bilinearly) for the network; none: the run's."),
    ] = None
    init: Annotated[
        Literal["real", "noise"], Field(description="Start from real images of the class, or from N(0, 1).")
    ] = "real"
    augmentation: Annotated[
        str,
        AfterValidator(_known_operations),
        Field(description="Operations of the siamese augmentation, one of which is drawn in a step; or none."),
    ] = "_".join(OPERATIONS)
    normalisation: Annotated[
        Normalisation,
        Field(description="Mean and std of pixels: ImageNet's by channel (RGB only), or 0.5 and 0.5."),
    ] = "imagenet"
