"""`prior.json`: what a prior's weights and config do not say. Imports no torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import Resize


def _below_the_folder(file: str) -> str:
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
        raise ValueError(f"{file!r} is not below the prior's folder")
    return file


def _absent(value: Any) -> bool:
    return not value


class NoiseScheduleMetadata(BaseModel):
    """The training noise schedule: `steps` values of β from `beta_start` to `beta_end`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["linear", "scaled_linear"] = "linear"
    """What is equally spaced: β; or √β (latent diffusion, Stable Diffusion)."""
    steps: Annotated[int, Field(ge=2, le=10**6)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02


class TextConditioning(BaseModel):
    """What a text-to-image network is told of each class, in words. The encoded texts lie beside it
    (`files.PROMPTS`): runs need no text encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: Annotated[tuple[str, ...], Field(min_length=1)]
    """A class's text, in label order."""
    negative: str = ""
    """The text of "no class", for classifier-free guidance."""
    encoder_sha256: str | None = None
    """SHA-256 of the text encoder's files. It names the encoded texts in the prior's hash, whose own bits depend on the
    processor that they were made on; None: their file does."""


DIGITS = 12


def name_digits(whose: str, name: str) -> str:
    """What stands for an image in `PriorMetadata.train_images`.

    Args:
        whose: the datasets in which that name is that image.
    """
    return hashlib.sha256(f"{whose}/{name}".encode()).hexdigest()[:DIGITS]


class PriorMetadata(BaseModel):
    """`prior.json`: what a prior's weights and config do not say. Further, descriptive keys are kept and ignored."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    space: Annotated[str, Field(pattern="^(pixels|latents)\\b")]
    """What the network denoises: "pixels…" (images scaled to [-1, 1], no autoencoder) or "latents…"."""
    resolution: PositiveInt
    """Size of its images in pixels."""
    prediction: Literal["epsilon", "velocity"]
    """What the network predicts: the noise ε of DDPM's chain; or the velocity x₁ − ε of the linear path from noise to
    data, at a time in [0, 1] that enters the embedding as it is (`linear_path.py`). `schedule` then says at which noise
    levels DDPM's chain asks it."""
    learned_variance: bool
    """Whether the network also predicts v, which interpolates log σ² between log β̃ and log β; otherwise σ² = β̃."""
    schedule: NoiseScheduleMetadata
    freq_shift: NonNegativeFloat
    """Shift in the timestep embedding's frequencies exp(-ln(10000)·i/(128 - freq_shift)): 0 for the original DiT
    convention, 1 for weights trained with `diffusers`' own."""
    norm_eps: PositiveFloat
    """ε of the layer norm before each block's MLP (`norm3`); it overrides the config's."""
    guided_channels: Literal["all"] | PositiveInt
    """Number of leading channels that classifier-free guidance changes: 3 of DiT's 4, all of a pixel prior's."""
    clip_denoised: bool
    """Whether x̂0 is clipped to [-1, 1] in the posterior mean."""
    latent_scale: PositiveFloat
    """Factor from the autoencoder's output to the latent; 1 for a pixel prior."""
    class_ids: Annotated[tuple[str | None, ...], Field(min_length=1)]
    """Ids of all classes of the network, in label order: a class's label is its position here. None: a label whose
    class is not known; a file may give a map instead, class id -> label (`class_labels.py`)."""
    null_label: NonNegativeInt
    """The label of "no class", for classifier-free guidance: the one after the last class's."""
    trained_on: str = "unknown"
    """The training data in words, for result tables."""
    train_hash: str | None = None
    """Hash of the training images themselves (`datasets.hashing.source_hash`), where known."""
    training: dict[str, Any] = {}
    """The training's recipe and its losses, where known."""
    train_split_hashes: tuple[str, ...] = ()
    """Dataset splits (`SplitData.split_hash`) of which the network saw the training part and no test image."""
    train_images: Annotated[str, Field(pattern=r"^([0-9a-f]{12})*$")] = Field(default="", exclude_if=_absent)
    """Which images it was trained on: of each 12 digits (`name_digits`), one after another; empty where that is not
    known."""
    seen_test_split_hashes: tuple[str, ...] = ()
    """Dataset splits of whose test images the network saw some: runs on those are refused."""
    num_heads: PositiveInt | None = Field(default=None, exclude_if=_absent)
    """Attention heads, beside an original checkpoint only: no tensor's shape tells them."""
    conditioning: TextConditioning | None = Field(default=None, exclude_if=_absent)
    """The texts of a text-to-image network's classes; None for a network with a table of labels."""
    dropped_channels: NonNegativeInt = Field(default=0, exclude_if=_absent)
    """Trailing channels of the network's output that mean nothing: half of SiT's."""
    licence: str | None = Field(default=None, exclude_if=_absent)
    source: dict[str, str] | str = Field(default={}, exclude_if=_absent)
    """Where an installed prior's parts came from, in words."""
    checksums: dict[Annotated[str, AfterValidator(_below_the_folder)], str] = Field(default={}, exclude_if=_absent)
    """File below the folder -> SHA-256 when it was installed."""

    @field_validator("class_ids")
    @classmethod
    def _distinct(cls, class_ids: tuple[str | None, ...]) -> tuple[str | None, ...]:
        repeated = sorted(c for c, times in Counter(class_ids).items() if c is not None and times > 1)
        if repeated:
            raise ValueError(f"expected distinct class ids, got {', '.join(repeated)} more than once")
        if not any(class_ids):
            raise ValueError("expected the id of at least one class")
        return class_ids

    @model_validator(mode="after")
    def _of_one_kind(self) -> PriorMetadata:
        if self.prediction == "velocity" and self.learned_variance:
            raise ValueError("a prior of velocities predicts no variance: learned_variance must be false")
        if self.conditioning is not None:
            texts = len(self.conditioning.prompts)
            if not texts == len(self.class_ids) == self.null_label:
                raise ValueError(
                    f"expected a prompt for each class and null_label after the last, got {texts} prompts, "
                    f"{len(self.class_ids)} class_ids and null_label {self.null_label}"
                )
        return self

    def label_of(self, class_id: str) -> int:
        """The prior's label of a class, looked up by its id (wnid), never by a folder's position.

        Raises:
            UsageError: the prior was not trained on that class.
        """
        try:
            return self._labels[class_id]
        except KeyError:
            known = ", ".join([*self._labels][:5]) + (", …" if len(self._labels) > 5 else "")
            raise UsageError(
                f"the prior does not know class {class_id!r}; it knows {len(self._labels)} classes ({known}). "
                "Choose a prior trained on this dataset's classes."
            ) from None

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {class_id: label for label, class_id in enumerate(self.class_ids) if class_id is not None}

    def trained_on_of(self, whose: str, names: Iterable[str]) -> list[str] | None:
        """Those of some images that it was trained on; None where that is not known. `whose` as `name_digits`."""
        if not self.train_images:
            return None
        return [name for name in names if name_digits(whose, name) in self._trained_on]

    @cached_property
    def _trained_on(self) -> frozenset[str]:
        starts = range(0, len(self.train_images), DIGITS)
        return frozenset(self.train_images[start : start + DIGITS] for start in starts)

    def saw_test_images(self, split_hash: str) -> bool | None:
        """Whether the prior was trained on test images of this split; None where its metadata does not say."""
        if split_hash in self.seen_test_split_hashes:
            return True
        return False if split_hash in self.train_split_hashes else None

    @property
    def of_pixels(self) -> bool:
        """Whether it denoises images, not latents of them."""
        return self.space.startswith("pixels")

    @property
    def real_images(self) -> tuple[tuple[int, Resize], ...]:
        """Size in pixels, and kind of resizing, of the real images that its autoencoder is to see
        (`DistillTask.train_at`); empty for a pixel prior, which sees the run's own."""
        return () if self.of_pixels else ((self.resolution, "adm"),)

    def what_makes_images(self) -> dict[str, Any]:
        """The fields that can change an image: the metadata's part of the prior's hash."""
        described = {"space", "trained_on", "train_hash", "training", "train_split_hashes", "train_images"}
        described |= {"seen_test_split_hashes", "num_heads", "licence", "source", "checksums"}
        return self.model_dump(mode="json", include=set(type(self).model_fields) - described)
