"""What an evaluation protocol is: data that fixes everything between a distilled set and an accuracy.

A protocol is named `name@version` and hashed over everything that can change a number. Once a result cites it, it is
never edited: a fix is a new version. This module imports no torch, so that planning and listing stay fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import whole_of
from ddbench.benchmark.core.spec import brackets, digest
from ddbench.benchmark.protocols import network_names
from ddbench.benchmark.protocols.lengths import BatchTable, Data, EpochTable, LateLooks, LooksFromFirst, Updates
from ddbench.benchmark.protocols.soft.committees import Committee, Member

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Sgd(Data):
    """`torch.optim.SGD`; weight decay on every parameter."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)


class AdamW(Data):
    """`torch.optim.AdamW`, with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(ge=0)
    decay_above_dimensions: int | None = None
    """Dimensions that a tensor must exceed for weight decay: 1 leaves out norms and biases. None: it is on all."""


Optimiser = Annotated[Sgd | AdamW, Field(discriminator="kind")]


class MultiStep(Data):
    """The learning rate is multiplied by `factor` when the fraction n/d of all epochs E is over: at epoch n·E // d.

    Here and in the other schedules an epoch is an update where the protocol's length is in updates (`Updates`).
    """

    milestones: tuple[tuple[int, int], ...] = ((2, 3), (5, 6))
    factor: float = 0.2
    restarts: bool | None = None
    """Whether the optimiser forgets its momenta there, as in programs that make a new one. None: it does not."""

    def starts(self, epochs: int) -> list[int]:
        """The epochs, from 0 on, that are the first at another learning rate."""
        return [numerator * epochs // denominator for numerator, denominator in self.milestones]

    def learning_rates(self, initial: float, epochs: int) -> list[float]:
        """The learning rate of each of the `epochs` epochs."""
        starts, rates, rate = self.starts(epochs), [], initial
        for epoch in range(epochs):
            rate *= self.factor ** starts.count(epoch)
            rates.append(rate)
        return rates


class HalfCosine(Data):
    """The learning rate follows half of a cosine's fall: ½ (1 + cos(π e / 2E)) of the initial one in epoch e = 0, 1, …
    of E, so it ends at half."""

    kind: Literal["half-cosine"] = "half-cosine"

    def learning_rates(self, initial: float, epochs: int) -> list[float]:
        """The learning rate of each of the `epochs` epochs."""
        return [initial * (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2 for epoch in range(epochs)]


class Cosine(Data):
    """The learning rate falls along a cosine, by epoch: ½ (1 + cos(π e / ηE)) of the initial one in epoch e = 0, 1, …
    of E. At η = 1 it ends at 0."""

    kind: Literal["cosine"] = "cosine"
    stretch: float | None = None
    """η; None: 1."""

    def learning_rates(self, initial: float, epochs: int) -> list[float]:
        """The learning rate of each of the `epochs` epochs."""
        whole = epochs * (self.stretch or 1)
        return [initial * (1 + math.cos(math.pi * epoch / whole)) / 2 for epoch in range(epochs)]


class Linear(Data):
    """The learning rate falls along a line, by epoch: 1 − e / ηE of the initial one in epoch e = 0, 1, … of E."""

    kind: Literal["linear"] = "linear"
    stretch: float = Field(ge=1)
    """η: at 1 it ends at 0, at 2 at half."""

    def learning_rates(self, initial: float, epochs: int) -> list[float]:
        """The learning rate of each of the `epochs` epochs."""
        return [initial * (1 - epoch / (epochs * self.stretch)) for epoch in range(epochs)]


class CellRate(Data):
    """The initial learning rate, and how far the cosine is stretched, of one student on one dataset at one IPC."""

    dataset: str
    student: str
    ipc: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    stretch: float = Field(gt=0)


class CropColour(Data):
    """RandomResizedCrop, flip, colour jitter and PCA lighting; every image draws its own parameters.

    Colour operations see RGB in [0, 1] and do not clamp.
    """

    kind: Literal["crop-colour"] = "crop-colour"
    scale: tuple[float, float]
    """Area of the crop as a fraction of the image's."""
    ratio: tuple[float, float]
    """Width over height of the crop."""
    flip_probability: float = Field(ge=0, le=1)
    jitter: float = Field(ge=0)
    """Strength of changes in brightness, contrast and saturation, in random order: a lerp by α ~ U(−jitter, jitter)
    toward black, toward the mean of the grey image, toward the grey image."""
    lighting_std: float = Field(ge=0)
    """Standard deviation of PCA lighting (Krizhevsky et al., 2012): α ~ N(0, lighting_std)³; the image is shifted by P
    (α ∘ λ)."""
    lighting_eigenvalues: tuple[float, float, float] = (0.2175, 0.0188, 0.0045)
    """Eigenvalues λ of the colours' covariance."""
    lighting_eigenvectors: tuple[tuple[float, float, float], ...] = (
        (-0.5675, 0.7192, 0.4009),
        (-0.5808, -0.0045, -0.8140),
        (-0.5836, -0.6948, 0.4203),
    )
    """Eigenvectors P of the colours' covariance: one row per colour channel, one column per eigenvector."""
    grey: tuple[float, float, float] = (0.299, 0.587, 0.114)


class Affine(Data):
    """A random shift and zoom about the centre; what comes in from outside repeats the border."""

    kind: Literal["affine"] = "affine"
    shift: float = Field(ge=0)
    """Largest shift on either axis, ~ U(−shift, shift), as a fraction of the image size."""
    scale: tuple[float, float]
    """Range of the zoom, ~ U(scale)."""


class RandAugment(Data):
    """RandAugment (Cubuk et al., NeurIPS 2020) on 8-bit images, by timm's program of it (`rand_augment.py`)."""

    config: str
    """What timm is told: `m` the magnitude of 10, `n` operations one after another, each of which is done with
    probability ½, `mstd` the standard deviation of the magnitude that it draws for itself."""
    fill: tuple[int, int, int]
    """Colour of what it uncovers."""


class Crop(Data):
    """The four patches of a collage shuffled where asked, RandAugment where asked, RandomResizedCrop, flip."""

    kind: Literal["crop"] = "crop"
    shuffle: bool
    """Whether the left and right halves of an image change places with probability ½, then the upper and lower ones."""
    scale: tuple[float, float]
    """Area of the crop as a fraction of the image's."""
    ratio: tuple[float, float]
    """Width over height of the crop."""
    flip_probability: float = Field(ge=0, le=1)
    rand_augment: RandAugment | None = None
    """What is done to every image before its crop. None: nothing."""


class Siamese(Data):
    """Differentiable siamese augmentation (Zhao & Bilen, ICML 2021) as evaluators use it: one of its operations is
    drawn for a batch, and every image has parameters of its own, all uniform. It works on normalised images, clamps
    nothing, and fills what it uncovers with 0, the normalised mean."""

    kind: Literal["siamese"] = "siamese"
    operations: tuple[Literal["color", "crop", "cutout", "flip", "scale", "rotate"], ...] = Field(min_length=1)
    brightness: float = Field(ge=0)
    """color: x + b, b ~ U(−½, ½) · brightness; then"""
    saturation: float = Field(ge=0)
    """away from the pixel's mean over channels by U(0, 1) · saturation; then"""
    contrast: float = Field(ge=0)
    """away from the image's mean by U(0, 1) + contrast."""
    crop_padding: float = Field(ge=0)
    """crop: the largest shift on either axis, as a fraction of the side; whole pixels."""
    cutout: float = Field(gt=0, le=1)
    """cutout: side of the square, as a fraction of the image's."""
    flip_probability: float = Field(ge=0, le=1)
    scale: float = Field(ge=1)
    """scale: on each axis by a factor of U(1/scale, scale)."""
    rotation_degrees: float = Field(ge=0)
    """rotate: by U(−1, 1) · rotation_degrees."""


Augmentation = Annotated[CropColour | Affine | Crop | Siamese, Field(discriminator="kind")]


class Statistics(Data):
    """Mean and standard deviation of a dataset's training pixels in [0, 1], per channel."""

    dataset: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Whitening(Data):
    """ZCA whitening of training and test images by the dataset's whole training set (`datasets/whitening.py`)."""

    epsilon: float = Field(gt=0)
    """What is added to each variance of pixels in [0, 1]."""


LARGEST_WHITENED = 64
"""Side in pixels up to which images are whitened: the matrix has (3 · 64²)² numbers there."""


class Teacher(Data):
    """A network, trained on the dataset's real training images, whose outputs are the labels of a distilled set.

    It sees every augmented and mixed batch, in evaluation mode where nothing else is said; nothing is stored here. The
    loss is the KL divergence of the student's softened outputs from the teacher's, KL(softmax(teacher / T) ‖
    softmax(student / T)), summed over classes and averaged over the batch, without a factor T² and without hard labels.
    """

    network: str
    temperature: float = Field(gt=0)
    imagenet_1k: str | None = None
    """SHA-256 of the file with the weights for ImageNet-1K; for other datasets a teacher is trained here. None: it is
    trained here for all."""
    mode: Literal["train"] | None = None
    """`train`: its BatchNorm takes the statistics of what it sees, in the parts in which the student sees a batch.
    None: its running ones."""
    stored_bits: Literal[16] | None = None
    """Bits of each output as the program stores it before students train; outputs are rounded to so many here, where
    nothing is stored. None: the program keeps them in memory."""


class StoredLabels(Data):
    """The labels that come with a distilled set: one row of K values an image, whatever is drawn for it.

    The loss is the Kullback-Leibler divergence of the student's outputs from the labels, KL(p ‖ softmax(student / T)),
    summed over classes and averaged over the batch, without a factor T² and without hard labels. p is softmax(z / T) of
    logits z; of probabilities q, the same of log q, so that they are themselves at T = 1. Under CutMix an image has two
    labels, weighted by the area.
    """

    temperature: float = Field(gt=0)


OVERRIDES: dict[str, tuple[Any, str]] = {
    "epochs": (Annotated[int, Field(ge=1, le=100_000)], "epochs at every IPC, 1 to 100000"),
    "updates": (Annotated[int, Field(ge=1, le=10_000_000)], "updates of the weights, 1 to 10000000"),
    "batch_size": (Annotated[int, Field(ge=1, le=65_536)], "images per step at any class count, 1 to 65536"),
    "learning_rate": (Annotated[float, Field(gt=0, le=100)], "initial learning rate, above 0 to 100"),
    "weight_decay": (Annotated[float, Field(ge=0, le=100)], "weight decay, 0 to 100"),
    "image_size": (Annotated[int, Field(ge=8, le=2048)], "side of the images in pixels, 8 to 2048"),
    "width": (Annotated[int, Field(ge=1, le=4096)], "channels of the student's first stage, 1 to 4096"),
    "looks": (Annotated[int, Field(ge=1, le=100_000)], "looks at the test set, 1 to 100000"),
    "cutmix": (bool, "CutMix in every batch, true or false"),
    "augmentation": (bool, "augmentation of training images, true (the protocol's own) or false"),
    "temperature": (Annotated[float, Field(gt=0, le=10_000)], "T of soft labels and of the student's outputs, above 0"),
    "teacher": (str, "the teacher's network, see `bench list networks`; of a committee, all of them joined by +"),
    "second_pass": (bool, "a second forward pass in training mode on every batch, true or false"),
}
"""What a user may change of a protocol: key -> type and range, and what it says. The copy is marked as modified."""


OF_TEACHERS = ("teacher", "second_pass")
"""Overrides of protocols with a teacher only; those of stored labels have a temperature too."""


class Protocol(Data):
    """One evaluation protocol. Everything except the texts is hashed."""

    name: str
    version: int = Field(ge=1)
    summary: str
    comparable_with_papers: bool
    notice: str = ""
    """Warning shown wherever a number of this protocol is shown; empty: nothing to warn of."""

    # Images
    image_size: int | None
    """Size in pixels of training and test images; None: the dataset's own resolution."""
    channels: Literal[3] | None
    """Channels of what students see. 3: greyscale images are repeated into RGB. None: as the dataset has them."""
    interpolation: Literal["bilinear"] = "bilinear"
    antialias: bool = True
    """Whether the resize on the way in filters against aliasing: shorter side to `image_size`, then the centre crop."""
    test_resize: tuple[int, int] | None = None
    """What the shorter side of a test image is resized to before the centre crop: n/d of `image_size`, (n, d)."""
    mean: tuple[float, ...]
    """Mean of pixels in [0, 1] that normalisation takes off, per channel, or one for all."""
    std: tuple[float, ...]

    statistics: tuple[Statistics, ...] | None = None
    """Those of datasets that are normalised by their own; None: all are by `mean` and `std`."""

    whitening: Whitening | None = None
    """What comes behind `mean` and `std`, before augmentation. None: nothing."""

    # Students
    students: tuple[str, ...] = Field(min_length=1)
    """Networks that may be trained, besides timm's; the first is the default."""
    width: int | None = None
    """Channels of the student's first stage; None: the network's default."""
    students_per_set: int = Field(ge=1)

    # Training
    optimiser: Optimiser
    optimiser_beyond_100_classes: Optimiser | None = None
    """Optimiser with more than 100 classes; None: the same."""
    learning_rate_of: tuple[tuple[str, float], ...] | None = None
    """Initial learning rates of students that train at another than the optimiser's: (how a student's name begins, its
    rate); the first that fits counts."""
    rates: tuple[CellRate, ...] | None = None
    """Learning rates of a program that tunes them for each cell; the protocol trains in no other cells."""
    batch_size: Annotated[int, Field(ge=1)] | BatchTable
    """Images per step. They are reshuffled every epoch, and the last partial batch is kept (but one of a single image,
    for a student with BatchNorm)."""
    batch_size_beyond_100_classes: int | None = None
    """Images per step with more than 100 classes; None: the same."""
    batchnorm_parts: Annotated[int, Field(ge=2)] | None = None
    """Equal parts in which a whole batch passes, so that BatchNorm sees one at a time: each part's mean gradient counts
    as much, and one step follows. A batch with fewer images has fewer parts, or a smaller last one. None: one."""
    batchnorm_parts_of: tuple[tuple[str, Annotated[int, Field(ge=2)]], ...] | None = None
    """Parts of students that have others: (how a student's name begins, its parts); the first that fits counts."""
    weight_average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running mean of the student's parameters, which moves after every step and is tested in their place,
    with BatchNorm's running statistics the student's own. None: the student itself is tested."""
    schedule: MultiStep | HalfCosine | Cosine | Linear = MultiStep()
    epochs: EpochTable | Updates
    augmentation: Augmentation | None
    """What is drawn for every training image. None: they are normalised and no more."""
    cutmix: bool
    """Whether CutMix (Yun et al., ICCV 2019) is in every batch, β = 1 (so λ ~ U(0, 1)), the loss weighted by the true
    area."""
    cutmix_box: Literal["even-side"] = "even-side"
    """CutMix's box: twice ⌊cut/2⌋ on each axis around a pixel, clipped, where cut = ⌊side · √(1 − λ)⌋."""
    loss: Literal["cross-entropy", "kl-to-teacher", "mse-to-teacher", "kl-to-stored"] = "cross-entropy"
    """What the student's outputs are held against: the images' classes, a teacher's outputs, or the set's own soft
    labels."""
    cross_entropy_weight: Annotated[float, Field(gt=0)] | None = None
    """Under `mse-to-teacher`, the weight of a second term: the cross-entropy to an image's own class, whatever CutMix
    laid over it. None: there is none."""
    teacher: Teacher | Committee | None = None
    stored: StoredLabels | None = None
    second_pass: bool | None = None
    """Whether the student sees a batch once more before its step, without gradients and in training mode: that changes
    nothing but BatchNorm's running statistics, which move twice a step. None: it does not."""

    # Reporting
    looks: Annotated[int, Field(ge=1)] | LateLooks | LooksFromFirst
    """Looks at the test set: every max(1, E // looks) epochs, and after the last."""
    looks_of_full: LateLooks | None = None
    """Looks of students of the whole training split; None: the same."""

    # Arithmetic
    precision: Literal["fp32"] = "fp32"
    tf32_convolutions: bool
    """TF32 in GPU convolutions."""
    tf32_matmul: bool
    cudnn_benchmark: bool

    overrides: dict[str, int | float | bool | str] = Field(default_factory=dict)
    """What was changed from the published protocol; set by `with_overrides`."""

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if isinstance(self.augmentation, CropColour) and self.channels != 3:
            raise ValueError("colour jitter and PCA lighting are defined on RGB: channels must be 3")
        if self.whitening is not None and (isinstance(self.augmentation, CropColour) or self.teacher is not None):
            raise ValueError("whitened images have no colours to jitter, and no teacher has learnt them")
        if self.whitening is not None and (self.statistics or (*self.mean, *self.std) != (0.0, 1.0)):
            raise ValueError("whitening is of pixels in [0, 1]: mean must be 0 and std 1")
        channels = self.channels or 1
        if not {len(self.mean), len(self.std)} <= {1, channels}:
            raise ValueError(f"mean and std need 1 or {channels} values, got {len(self.mean)} and {len(self.std)}")
        for student in self.students:
            network_names.find(student)
        given = ("-to-teacher", self.teacher), ("-to-stored", self.stored)
        if any(self.loss.endswith(loss) != (labels is not None) for loss, labels in given):
            raise ValueError("loss and labels go together: kl-to-teacher with teacher, kl-to-stored with stored")
        squared = self.loss == "mse-to-teacher"
        if self.teacher is not None and squared != (self.teacher.temperature is None):
            raise ValueError("a temperature goes with kl-to-teacher, and none with mse-to-teacher")
        if squared and self.teacher is not None and self.teacher.mode is not None:
            raise ValueError("mse-to-teacher labels whole batches, so its teachers are in evaluation mode")
        if not squared and isinstance(self.teacher, Committee) and self.teacher.scaled:
            raise ValueError("norms are a whole batch's, and only mse-to-teacher labels whole batches")
        if self.cross_entropy_weight is not None and not squared:
            raise ValueError("cross_entropy_weight goes with mse-to-teacher")
        return self

    def normalisation(self, dataset: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation for images of a dataset, of its validation part too; None: of no dataset that has
        its own."""
        of_its_own = next((one for one in self.statistics or () if one.dataset == whole_of(dataset)), None)
        return (self.mean, self.std) if of_its_own is None else (of_its_own.mean, of_its_own.std)

    @property
    def id(self) -> str:
        """`name@version` of the published protocol, also when this is a modified copy of it."""
        return f"{self.name}@{self.version}"

    @property
    def modified(self) -> bool:
        return bool(self.overrides)

    @property
    def label(self) -> str:
        """`name@version`, or `name[epochs=60]@version` when modified: what a table shows."""
        return f"{self.name}{brackets(self.overrides)}@{self.version}"

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of everything that can change a number.

        Fields that are None are left out, so that a field added later with default None changes no published hash; so
        is CutMix's box where there is no CutMix.
        """
        left_out = {"summary", "notice", "comparable_with_papers", "overrides"}
        if not self.cutmix:
            left_out.add("cutmix_box")
        return digest(self.model_dump(mode="json", exclude=left_out, exclude_none=True))

    @property
    def labels(self) -> str:
        """What students are trained with: hard labels, a teacher's outputs, or the set's own soft labels."""
        if self.teacher is not None:
            return "a teacher's labels"
        return "hard labels" if self.stored is None else "stored labels"

    @property
    def default_student(self) -> str:
        return self.students[0]

    def epochs_for(self, ipc: int | None, num_classes: int) -> int:
        """Epochs for `ipc` images per class; None is the whole training split.

        Raises:
            UsageError: an IPC below 1.
        """
        if ipc is not None and ipc < 1:
            raise UsageError(f"IPC (images per class) must be at least 1, got {ipc}.")
        return self.epochs.epochs(ipc, num_classes)

    def optimiser_for(self, num_classes: int, student: str | None = None) -> Sgd | AdamW:
        """The optimiser at that number of classes, with the student's own learning rate where it has one."""
        beyond = self.optimiser_beyond_100_classes
        optimiser = beyond if beyond is not None and num_classes > 100 else self.optimiser
        for begins, rate in self.learning_rate_of or ():
            if student is not None and student.startswith(begins):
                return optimiser.model_copy(update={"learning_rate": rate})
        return optimiser

    def rate_of(self, dataset: str | None, student: str, ipc: int | None) -> CellRate | None:
        """The rate of a cell, that of the dataset on its validation part too; None under a protocol that has the same
        for all.

        Raises:
            UsageError: the protocol has rates of other cells alone.
        """
        if self.rates is None:
            return None
        for rate in self.rates:
            if (rate.dataset, rate.student, rate.ipc) == (whole_of(dataset), student, ipc):
                return rate
        known = dict.fromkeys(f"{rate.dataset} IPC {rate.ipc}" for rate in self.rates if rate.student == student)
        raise UsageError(
            f"protocol {self.id} has a learning rate for each of its program's cells, and none for {student} on "
            f"{dataset} at IPC {'full' if ipc is None else ipc}; for {student} it has {', '.join(known) or 'none'}. "
            f"Choose one of these, another protocol, or a modified copy with one rate: {self.name}[learning_rate=…]"
        )

    def teachers_for(self, dataset: str | None, ipc: int | None) -> tuple[Member, ...]:
        """The networks that label on a dataset, and on its validation part, at `ipc` images per class; none under hard
        or stored labels.

        Raises:
            UsageError: a committee that has no weights for this dataset.
        """
        if self.teacher is None:
            return ()
        if isinstance(self.teacher, Teacher):
            return (Member(network=self.teacher.network, imagenet_1k=self.teacher.imagenet_1k),)
        return self.teacher.members_for(whole_of(dataset), ipc)

    def parts_for(self, student: str) -> int | None:
        """Equal parts in which a whole batch passes through a student (`batchnorm_parts`)."""
        for begins, parts in self.batchnorm_parts_of or ():
            if student.startswith(begins):
                return parts
        return self.batchnorm_parts

    def batch_size_for(self, num_classes: int, ipc: int | None = None, student: str = "") -> int:
        """Images per step for `ipc` images per class; None is the whole training split."""
        if isinstance(self.batch_size, BatchTable):
            return self.batch_size.images(ipc, num_classes, student)
        beyond = self.batch_size_beyond_100_classes
        return beyond if beyond is not None and num_classes > 100 else self.batch_size

    def look_epochs(self, epochs: int, *, full: bool = False) -> list[int]:
        """The epochs (1 … epochs) after which the test set is looked at; the last is always among them.

        Args:
            full: the student's training images are the whole training split.
        """
        looks = self.looks_of_full if full and self.looks_of_full is not None else self.looks
        if isinstance(looks, LateLooks | LooksFromFirst):
            return sorted({*looks.epochs(epochs), epochs})
        every = max(1, epochs // looks)
        return sorted({*range(every, epochs + 1, every), epochs})

    def images_at_once(self, images: int | None, num_classes: int, ipc: int | None = None, student: str = "") -> int:
        """The most images of a set of `images` (None: of more than a batch) that pass at once in training."""
        batch = self.batch_size_for(num_classes, ipc, student)
        whole = batch if images is None or isinstance(self.epochs, Updates) else min(images, batch)
        return min(whole, -(-batch // (self.parts_for(student) or 1)))

    def images_seen(self, images: float, ipc: int | None, num_classes: int) -> float:
        """Images that a student is trained on, each as often as it passes, of a set of `images`."""
        if isinstance(self.epochs, Updates):
            return self.epochs.updates * self.batch_size_for(num_classes, ipc)
        return images * self.epochs_for(ipc, num_classes)

    def stored_label_bytes(self, images_seen: int, num_classes: int) -> int | None:
        """Bytes of the labels that the protocol's program stores for one student: of every image at every pass its
        outputs, and 29 bytes of crop, flip and partner. None: it stores none."""
        if self.teacher is None or self.teacher.stored_bits is None:
            return None
        return images_seen * (num_classes * self.teacher.stored_bits // 8 + 29)

    def image_size_for(self, resolution: int) -> int:
        """Side in pixels of the images, for a dataset of that resolution."""
        return resolution if self.image_size is None else self.image_size

    def test_image_size_for(self, resolution: int) -> int:
        """What the shorter side of a test image is resized to, for a dataset of that resolution."""
        image_size = self.image_size_for(resolution)
        return image_size if self.test_resize is None else round(image_size * self.test_resize[0] / self.test_resize[1])

    def check_student(self, student: str, resolution: int) -> None:
        """Refuse a student that this protocol cannot train on a dataset of that resolution.

        A published protocol trains its own networks, and timm's by name for tables across architectures; a modified
        one trains any.

        Raises:
            UsageError: a network that is unknown, not one of this protocol's, or too deep for the images.
        """
        network = network_names.find(student)
        if network.comes_trained:
            raise UsageError(
                f"{student} comes trained and is no student; untrained it is --student {network_names.TIMM}"
                f"{network.layout}. As the teacher of a protocol with soft labels: --teacher {student}"
            )
        if student not in self.students and not self.modified and not network_names.is_timm(student):
            raise UsageError(
                f"protocol {self.label} trains {', '.join(self.students)}; got --student {student}. "
                f"Choose one of them, a network of timm ({network_names.TIMM}NAME), another protocol (`bench list "
                "protocols`), or a modified copy of this one, such as "
                f"{self.name}[{self._halved}], which trains any network."
            )
        if self.width is not None and not network.widths:
            raise UsageError(
                f"protocol {self.label} sets the student's width to {self.width}, but network {student} has one width "
                "only; choose another student or another protocol."
            )
        image_size = self.image_size_for(resolution)
        if self.whitening is not None and image_size > LARGEST_WHITENED:
            raise UsageError(
                f"protocol {self.label} whitens images of up to {LARGEST_WHITENED} px, got {image_size} px; choose "
                f"--resolution {LARGEST_WHITENED} or less, or {self.name}[image_size={LARGEST_WHITENED}]"
            )
        network_names.check_image_size(student, image_size)

    @property
    def _halved(self) -> str:
        """An override of its length, for an example."""
        if isinstance(self.epochs, Updates):
            return f"updates={self.epochs.updates // 2}"
        return f"epochs={self.epochs_for(10, 10) // 2}"

    def with_overrides(self, overrides: Mapping[str, Any]) -> Protocol:
        """A modified copy with its own hash and label; values may be text, as they come from a command line.

        An override that states what the protocol says anyway changes nothing and is not counted as one.

        Raises:
            Problems: every unknown key and every value out of range, with what is allowed.
            ValueError: this copy is modified already.
        """
        if self.modified:
            raise ValueError(f"{self.label} is modified already; give all overrides at once")
        values, problems = {}, []
        for key, value in overrides.items():
            if key not in OVERRIDES:
                length = "epochs" if isinstance(self.epochs, Updates) else "updates"
                known = {name: meaning for name, (_, meaning) in OVERRIDES.items() if name != length}
                allowed = "; ".join(f"{name} ({meaning})" for name, meaning in known.items())
                problems.append(f"protocol {self.id} has nothing called {key!r} to override; allowed: {allowed}.")
                continue
            soft = self.teacher or (self.stored if key == "temperature" else None)
            if key in (*OF_TEACHERS, "temperature") and soft is None:
                problems.append(f"protocol {self.id} has no teacher, so it has no {key} to override.")
                continue
            if key == "temperature" and soft is not None and soft.temperature is None:
                problems.append(f"protocol {self.id} has no temperature to override: its loss is {self.loss}.")
                continue
            if key in ("epochs", "updates") and (key == "updates") != isinstance(self.epochs, Updates):
                other = "updates" if key == "epochs" else "epochs"
                problems.append(f"protocol {self.id} counts {other}: say {other}= in place of {key}=.")
                continue
            kind, meaning = OVERRIDES[key]
            try:
                # Strict, so that YAML's `epochs: true` is not one epoch; but text is how a command line says 60.
                values[key] = TypeAdapter(kind).validate_python(value, strict=not isinstance(value, str))
                if key == "teacher":
                    joined = isinstance(self.teacher, Committee)
                    for network in values[key].split("+") if joined else [values[key]]:
                        network_names.find(network)
            except UsageError as error:
                problems.append(f"protocol {self.id}, override teacher={value}: {error}")
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                problems.append(f"protocol {self.id}, override {key}={value}: expected {meaning}. {reason}.")
        if problems:
            raise Problems(problems)
        changed: Protocol = self
        for key, value in values.items():
            copy = changed._with(key, value)
            if copy != changed:
                texts = {"comparable_with_papers": False, "notice": "modified: not comparable with papers"}
                changed = copy.model_copy(update={**texts, "overrides": {**changed.overrides, key: value}})
        return Protocol.model_validate(changed.model_dump())

    def _with(self, key: str, value: Any) -> Protocol:
        fields = {key: value}
        match key:
            case "learning_rate" | "weight_decay":
                beyond = self.optimiser_beyond_100_classes
                fields = {
                    "optimiser": self.optimiser.model_copy(update=fields),
                    "optimiser_beyond_100_classes": beyond and beyond.model_copy(update=fields),
                    "learning_rate_of": None if key == "learning_rate" else self.learning_rate_of,
                    "rates": None if key == "learning_rate" else self.rates,
                }
            case "batch_size":
                fields["batch_size_beyond_100_classes"] = None
            case "looks":
                fields["looks_of_full"] = None
            case "epochs":
                fields[key] = EpochTable.constant(value)
            case "updates":
                fields = {"epochs": self.epochs.model_copy(update={key: value})}
            case "second_pass":
                fields[key] = value or None
            case "augmentation":
                fields[key] = self.augmentation if value else None
            case "temperature" if self.stored is not None:
                fields = {"stored": self.stored.model_copy(update={key: value})}
            case "teacher" if isinstance(self.teacher, Committee):
                fields = {"teacher": self.teacher.of_networks(value)}
            case "temperature" | "teacher":
                of_teacher: dict[str, Any] = {"network" if key == "teacher" else key: value}
                fields = {"teacher": self.teacher and self.teacher.model_copy(update=of_teacher)}
        return self.model_copy(update=fields)
