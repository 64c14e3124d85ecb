"""Parameters of methods that train a classifier on the real images, or look at them through one (`observer.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, model_validator

from ddbench.datasets.base import Dataset
from ddbench.methods import base
from ddbench.methods.classifier import Augmentation, ClassifierRecipe, ObserverNetwork, ObserverNormalisation, Optimiser
from ddbench.methods.pretrained import PRETRAINED, Pretrained

CutMix = Annotated[bool, Field(description="Train the classifier on CutMix of every batch.")]
PixelStatistics = Annotated[
    ObserverNormalisation,
    Field(
        description="Mean and std of pixels: ImageNet's by channel, 0.5 and 0.5, or efficientnet-lite's "
        "(x - 127) / 128 of x in 0 … 255."
    ),
]


COMES_TRAINED = (
    "efficientnet_lite0 is not trained here but comes trained on ImageNet-1K (extra `teachers`; docs/pretrained.md)."
)


OF_TRAINING = ("optimiser", "learning_rate", "augmentation", "cutmix")


class ClassifierParams(base.Params):
    """How a classifier is trained on the real images. A method overrides the defaults that its paper sets.

    One that comes trained takes none of it: `epochs` is 0 then, the normalisation its own, and the rest the defaults.
    """

    network: Annotated[
        ObserverNetwork, Field(description=f"Network of the classifier, at the run's side. {COMES_TRAINED}")
    ] = "resnet_ap10"
    optimiser: Annotated[Optimiser, Field(description="Optimiser of the classifier's training.")] = "sgd"
    learning_rate: Annotated[
        float, Field(gt=0, description="Learning rate of the classifier's training; ×0.2 at 2/3 and at 5/6 of it.")
    ] = 0.01
    augmentation: Annotated[
        Augmentation,
        Field(description="Augmentation of the classifier's training: the hard protocols', the one of quick, or none."),
    ] = "crop-colour"
    cutmix: CutMix = True
    normalisation: PixelStatistics = "imagenet"

    @property
    def comes_trained(self) -> Pretrained | None:
        """What is known of the classifier, if it is not trained here."""
        return PRETRAINED.get(self.network)

    @classmethod
    def as_it_comes(cls, known: Pretrained, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of one that comes trained, from what was given; its weights belong to what a cell is."""
        return {key: value for key, value in given.items() if key not in OF_TRAINING} | {
            "normalisation": known.normalisation
        }

    @model_validator(mode="before")
    @classmethod
    def _note_what_comes_trained(cls, given: Any) -> Any:
        known = PRETRAINED.get(str(given.get("network"))) if isinstance(given, Mapping) else None
        return given if known is None else cls.as_it_comes(known, given)

    def unsupported(self, dataset: type[Dataset]) -> str | None:
        """Why this classifier cannot look at the dataset's images, or None."""
        return None if self.comes_trained is None else self.comes_trained.unsupported(dataset)

    def classifier_recipe(self, image_size: int, epochs: int, **settings: Any) -> ClassifierRecipe:
        """The training recipe for images of `image_size` pixels; `settings` are those of its fields that are no
        parameter."""
        from ddbench.methods.normalisation import STATISTICS

        mean, std = STATISTICS[self.normalisation]
        return ClassifierRecipe(
            network=self.network,
            image_size=image_size,
            epochs=epochs,
            optimiser=self.optimiser,
            learning_rate=self.learning_rate,
            augmentation=self.augmentation,
            cutmix=self.cutmix,
            mean=mean,
            std=std,
            **settings,
        )


class ObserverParams(ClassifierParams):
    """How the observer comes to be: trained, or read from a file."""

    epochs: Annotated[int, Field(ge=0, description="Epochs for which the classifier is trained.")] = 300
    checkpoint: Annotated[
        str | None,
        Field(
            description="File with trained weights of the classifier for all classes (safetensors, or a state dict of "
            "torch.save), used instead of training it; none: it is trained."
        ),
    ] = None
    checkpoint_sha256: Annotated[
        str | None,
        Field(
            description="SHA-256 of `checkpoint`, or of the weights that come with the network; a run that leaves it "
            "out notes the one it found."
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _note_the_file(cls, given: Any, info: ValidationInfo) -> Any:
        """The weights, not only where they lie, belong to what a cell is."""
        if isinstance(given, Mapping) and given.get("checkpoint") is not None and given.get("network") in PRETRAINED:
            raise ValueError(f"checkpoint: {given['network']} comes with its own weights; leave checkpoint out")
        if not isinstance(given, Mapping) or given.get("checkpoint") is None or given.get("checkpoint_sha256"):
            return given
        if base.is_noted(info):
            return given
        path = Path(given["checkpoint"]).expanduser().resolve()
        if not path.is_file():
            raise ValueError(f"checkpoint: there is no file {path}")
        return {**given, "checkpoint": str(path), "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    @classmethod
    def as_it_comes(cls, known: Pretrained, given: Mapping[str, Any]) -> dict[str, Any]:
        own = {"epochs": 0, "checkpoint_sha256": given.get("checkpoint_sha256") or known.planned_sha256()}
        return super().as_it_comes(known, given) | own

    def recipe(self, image_size: int) -> ClassifierRecipe:
        """The training recipe of the classifier for images of `image_size` pixels."""
        return self.classifier_recipe(image_size, self.epochs)

    def unsupported(self, dataset: type[Dataset]) -> str | None:
        """Why this classifier cannot look at the dataset's images, or None."""
        if self.comes_trained:
            return super().unsupported(dataset)
        if self.checkpoint is not None and self.normalisation == "imagenet" and dataset.channels != 3:
            return f"normalisation=imagenet is for RGB images and these have {dataset.channels} channel(s)"
        return None
