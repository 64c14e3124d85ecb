"""The contract of a method: what a contestant declares, what it may see, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationInfo

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.spec import NoTruthValues

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ddbench.datasets.base import Dataset, ImageSource, Resize
    from ddbench.methods.classifier import ClassifierRecipe, TrainedClassifier
    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.priors.metadata import PriorMetadata


class CostClass(StrEnum):
    """What a method needs besides the images it reads."""

    SELECTION = "selection"
    TRAINING_FREE = "training-free"
    NEEDS_CLASSIFIER = "needs-classifier"
    FINE_TUNES = "fine-tunes"
    EXTERNAL = "external"
    """Another program: what it needs is not known here."""


class RealImages(StrEnum):
    """How many of the real training images a method looks at, all that makes its artefacts included."""

    NONE = "none"
    CHOSEN = "chosen"
    """The images that it keeps, or guides by, drawn without looking at the others."""
    ALL = "all"


class Params(NoTruthValues):
    """Base of every method's parameters: unknown names are errors, defaults are the paper's, numbers are finite and no
    truth values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


NOTED = {"noted": True}
"""Context (pydantic's) in which parameters are validated that a result names, whoever wrote it: no file that they name
is looked at, for a report touches nothing but the results folder."""


def is_noted(info: ValidationInfo) -> bool:
    """Whether a validator must leave the machine's files alone."""
    return info.context is NOTED


@dataclass(frozen=True)
class DistilledImage:
    """One finished image, and what a greedy method needs back when a killed run goes on."""

    class_index: int
    image_index: int
    pixels: np.ndarray
    """The image, (H, W, C) uint8, C = 1 or 3."""
    latent: np.ndarray | None = None
    """The image in the prior's space, (C', H', W') float32; None for methods without one."""
    guidance_nats: Mapping[str, float] = field(default_factory=dict)
    """Guidance term -> path KL of this image in nats, an upper bound on what the term changed."""


class Made(dict[str, "np.ndarray"]):
    """Arrays for an artefact, and what else is to be kept with them. A plain mapping of arrays will do without.

    Args:
        seconds: what making them took, where that is not the time that `make` took (work done ahead by threads).
        measured: numbers that the results of all cells which use the artefact show: of each, the largest.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        seconds: float | None = None,
        measured: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(arrays)
        self.seconds, self.measured = seconds, dict(measured or {})


class ArtefactCache(Protocol):
    """Content-addressed results that outlive a cell: latents, support points, tuned priors."""

    def arrays(
        self, kind: str, key: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """The arrays made by `make`, or those that an earlier cell made under the same `kind` and `key`.

        `key` is JSON data that determines the result in full. The time that making took is recorded as a phase
        named `kind`; when the result comes from the cache, the phase says so and carries the original seconds.
        `make` may return `Made`.
        """


class TrainAt(Protocol):
    """`task.train_at`."""

    def __call__(self, image_size: int, resize: Resize = "bilinear") -> ImageSource:
        """The images of `train`, in the same order, at another side in pixels: resized from the files, never from
        `train`'s own pixels.

        Args:
            resize: `bilinear`, as students see images; `adm`, as latent priors were trained on them.

        Raises:
            UsageError: a dataset without files, at a side that it does not have.
        """


def _not_offered(*_: Any, **__: Any) -> Any:
    raise RuntimeError("this task was made without that service; the engine's tasks have all of them")


def _not_kept(_name: str, _value: Any) -> None:
    """Where nobody keeps results."""


@dataclass(frozen=True)
class DistillTask:
    """All that a contestant may see. There is no test image in it, and no protocol.

    Random draws come from `stream(purpose, class id, image index, …)` only: an image then depends neither on batch
    size, nor on the order of classes, nor on which classes are in the cell.
    """

    class_ids: tuple[str, ...]
    """The dataset's whole class list in label order, also when the cell is a shard."""
    class_indices: tuple[int, ...]
    """The classes to distill, positions in `class_ids`."""
    ipc: int | None
    """Images per class; None for a method that keeps the whole training set."""
    seed: int
    train: ImageSource
    train_hash: str
    """What identifies the training images and their resolution: the dataset's part of an artefact's key."""
    device: torch.device
    precision: str
    """Precision of the sampler: `fp32` or `bf16` (autocast; noise schedule and guidance stay in fp32)."""
    batch_size: int
    """The most images in flight at once, fixed in the cell's plan, so a resumed run has the same batches."""
    scratch: Path
    done: Mapping[tuple[int, int], DistilledImage]
    """Images committed by an earlier attempt at this cell, not to be made again, by (class index, image index)."""
    load_prior: Callable[[], Prior]
    """Loads the prior onto `device` (once); raises UsageError for a run that names none."""
    cache: ArtefactCache
    phase: Callable[[str], AbstractContextManager[None]]
    """`with task.phase("sample"):` adds the wall-clock of the block to the named phase."""
    progress: Callable[[str], None]
    """Shows a short note on what the method is doing in the live view."""
    train_at: TrainAt = _not_offered
    """The images of `train` at another side: for a prior or a classifier that works at another resolution than the
    run's. A method says in `images_at` which sides it will ask for."""
    network: Callable[..., nn.Module] = _not_offered
    """`task.network(name, image_size, *key)`: a student network for all classes with fresh weights from the stream
    ("network", name, *key), in training mode on the device."""
    trained_classifier: Callable[[ClassifierRecipe], TrainedClassifier] = _not_offered
    """A classifier trained on the real training images, an artefact that cells share; its training is a timed phase
    named "classifier"."""

    pretrained_classifier: Callable[..., TrainedClassifier] = _not_offered
    """`task.pretrained_classifier(name, image_size, sha256, class_ids=None)`: a classifier of ImageNet-1K that comes
    trained (`methods/pretrained.py`), its outputs those of the task's classes unless others of its 1000 are named."""

    record: Callable[[str, Any], None] = _not_kept
    """`task.record("peak_mib", 512.0)`: a fact about this run, plain JSON data, that goes into its result."""

    def stream(self, purpose: str, *key: seeds.Key) -> torch.Generator:
        """A CPU generator for one purpose of this distilled set; see `benchmark/core/seeds.py`."""
        return seeds.stream(self.seed, purpose, *key)


class Method(ABC):
    """A method of dataset distillation. Subclass, declare, yield rounds of images.

    `distill` yields *rounds*: lists of images that belong together (one batch of the sampler). The engine commits a
    round at once, files and latents, before it asks for the next, so a killed run resumes after the last whole round.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Number of the method's version, raised whenever the images for given parameters and seed change; old results then
    stay what they were."""
    cost_class: ClassVar[CostClass]
    needs_prior: ClassVar[bool] = False
    reads_latents: ClassVar[bool] = False
    """Whether it looks at latents of the real images, of which a latent prior has its own size."""
    selects: ClassVar[bool] = False
    """Whether it picks real images without replacement, so that IPC cannot exceed the smallest class."""
    uses_seed: ClassVar[bool] = True
    """Whether sets of different seeds differ; if not, one is made."""
    whole_set: ClassVar[bool] = False
    """Whether it keeps the whole training set, whatever the IPC (the upper reference)."""
    check_params: ClassVar[Mapping[str, Any]] = {}
    """Parameters with which `bench check` runs it, where its defaults would take more than seconds on digits."""

    tuning: ClassVar[type[BaseModel] | None] = None
    """For a method that tunes the prior, the model of those of its parameters that the tuned weights depend on, a base
    of its `Params`. `<method>(<prior>)` then names a prior for any other method."""

    Params: ClassVar[type[BaseModel]] = Params
    """The parameters that can be set, a model derived from `Params` of this module."""

    def __init__(self, params: BaseModel | None = None) -> None:
        self.params: Any = self.Params() if params is None else params

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        """A reason why this method cannot run there, or None."""
        return None

    def supports_prior(self, prior: PriorMetadata) -> str | None:
        """A reason why this method cannot run with that prior, or cannot tune it, or None."""
        return None

    def images_at(self, resolution: int, prior: PriorMetadata | None) -> Sequence[tuple[int, Resize]]:
        """What it will ask `task.train_at` for: decoded before the run, so that no cell is charged for it.

        Args:
            resolution: the run's.
            prior: the run's, None for a method without one.
        """
        return prior.real_images if self.reads_latents and prior is not None else ()

    def tuned_prior(self, task: DistillTask, prior: Prior) -> Prior:
        """`prior`, tuned on the task's training images of all classes: an artefact that cells share. Only for methods
        with `tuning`; what else of the task may count is its seed."""
        raise NotImplementedError(f"{self.name} tunes no prior")

    def tunes_several(self) -> str | None:
        """Why, with these parameters, it tunes no one prior that could be given to other methods, or None."""
        return None

    def reads_real_images(self) -> RealImages | None:
        """What it must look at, with these parameters and a prior that nobody tuned; None: not known (another
        program)."""
        return RealImages.ALL

    def shows_real_images(self) -> bool | None:
        """Whether real images, or parts of them, can be seen in what it gives: `bench report --public` leaves those
        sets' pictures out, and those of methods that do not say (None)."""
        return True if self.selects or self.whole_set else None

    def prepare(self, task: DistillTask) -> None:
        """Work done once per cell before the first image (k-means, fine-tuning); use `task.cache` for results
        that other cells can share."""

    @abstractmethod
    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        """Yield rounds of finished images, leaving out those in `task.done`."""
