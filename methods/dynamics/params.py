"""Parameters of the coresets that a training run scores. Defaults are those of CCS's program for ImageNet-1K, but its
weight decay, augmentation and last learning rate (docs/fidelity.md)."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from ddbench.methods.classifier import TIMM, ClassifierRecipe, Network
from ddbench.methods.observer_params import ClassifierParams
from ddbench.methods.pretrained import PRETRAINED

TRAINED_HERE: tuple[str, ...] = get_args(Network)


def _trained_here(network: str) -> str:
    if network in PRETRAINED:
        raise ValueError(f"{network} comes trained; what is scored is a training")
    if network not in TRAINED_HERE and not network.startswith(TIMM):
        raise ValueError(f"expected {', '.join(TRAINED_HERE)}, or {TIMM}NAME of a network of timm, got {network!r}")
    return network


class DynamicsParams(ClassifierParams):
    """The training that scores images, and which end of the scores is kept."""

    network: Annotated[
        str,
        AfterValidator(_trained_here),
        Field(
            description=f"Network that is trained, at the run's side: {', '.join(TRAINED_HERE)}, or timm: and a name "
            "of timm's."
        ),
    ] = "timm:resnet34"  # type: ignore[assignment]  # timm's names are too many for the base's Literal
    epochs: Annotated[
        int, Field(ge=1, description="Epochs of the training, its learning rate along half a cosine.")
    ] = 60
    batch_size: Annotated[int, Field(ge=1, description="Images of a batch of the training.")] = 256
    learning_rate: Annotated[float, Field(gt=0, description="Learning rate at the beginning of the training.")] = 0.1
    cutmix: Annotated[Literal[False], Field(description="Never: a mixed image's output says nothing of one image.")] = (
        False
    )
    keep: Annotated[
        Literal["highest", "lowest"],
        Field(description="Which end of the scores is kept, class by class; the papers keep what is hard."),
    ] = "highest"

    def recipe(self, image_size: int) -> ClassifierRecipe:
        """Of the training, for images of `image_size` pixels."""
        return self.classifier_recipe(
            image_size, self.epochs, batch_size=self.batch_size, schedule="cosine", records_dynamics=True
        )


class EL2NParams(DynamicsParams):
    """Also the epochs over which errors are summed."""

    early_epochs: Annotated[int, Field(ge=1, description="Epochs over which the norms are summed, from the first.")] = (
        10
    )

    @model_validator(mode="after")
    def _within_the_training(self) -> Self:
        if self.early_epochs > self.epochs:
            raise ValueError(f"early_epochs: {self.early_epochs} of a training of {self.epochs} epochs")
        return self

    def recipe(self, image_size: int) -> ClassifierRecipe:
        return super().recipe(image_size).model_copy(update={"early_epochs": self.early_epochs})


class AUMParams(DynamicsParams):
    """The low end is the hard one here."""

    keep: Annotated[
        Literal["highest", "lowest"],
        Field(description="Which end of the scores is kept, class by class; the papers keep what is hard."),
    ] = "lowest"


class CCSParams(DynamicsParams):
    """What is left out, and into how many parts the rest is cut."""

    keep: Annotated[
        Literal["highest"], Field(description="Every stratum of the scores but the share that is left out.")
    ] = "highest"
    left_out_share: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of a class, those of lowest AUM, that is left out first (β). No program says it for a "
            "few images per class; 0.3 is that of 10 % of ImageNet-1K.",
        ),
    ] = 0.3
    strata: Annotated[int, Field(ge=1, description="Parts of equal width into which the scores are cut.")] = 50
