"""A plugin of methods that each break one promise of the contract; `test_check.py` says which check must notice."""

import random
from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddbench.benchmark.core.registry import Entry
from ddbench.datasets.digits import Digits
from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages


class Honest(Method):
    """Real images under a little noise."""

    name = "honest"
    version = 1
    cost_class = CostClass.TRAINING_FREE

    def start(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        """The image before noise."""
        return task.train.read(task.train.of_class(c)[[i]])[0]

    def noise(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        stream = task.stream("noise", task.class_ids[c], i)
        return torch.randint(-9, 10, (8, 8, 1), generator=stream).numpy()

    def image(self, task: DistillTask, c: int, i: int) -> DistilledImage:
        pixels = self.start(task, c, i).astype(int) + self.noise(task, c, i)
        return DistilledImage(c, i, pixels.clip(0, 255).astype(np.uint8))

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        wanted = [(c, i) for c in task.class_indices for i in range(task.ipc or 0) if (c, i) not in task.done]
        for start in range(0, len(wanted), task.batch_size):
            yield [self.image(task, c, i) for c, i in wanted[start : start + task.batch_size]]


class NoVersion(Honest):
    """Its version is no number."""

    name = "no-version"
    version = 0


class Undocumented(Honest):
    """A parameter without a description."""

    name = "undocumented"

    class Params(base.Params):
        strength: float = 1.0


class TakesAnything(Honest):
    """Parameters that nobody declared."""

    name = "takes-anything"

    class Params(BaseModel):
        model_config = ConfigDict(extra="allow", frozen=True)


class TakesNan(Honest):
    """A strength that is no number."""

    name = "takes-nan"

    class Params(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        strength: Annotated[float, Field(description="How much.")] = 1.0


class TakesInfinity(Honest):
    """A strength without bounds."""

    name = "takes-infinity"

    class Params(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        strength: Annotated[float, Field(ge=0, description="How much.")] = 1.0


class Boasts(Honest):
    """Says that it runs, and does not."""

    name = "boasts"

    def prepare(self, task: DistillTask) -> None:
        raise ValueError("needs three channels")


class NoReason(Honest):
    """Refuses without a word."""

    name = "no-reason"

    def supports(self, dataset: object, ipc: int | None) -> str | None:
        return "" if ipc == 10 else None


class IdlePrior(Honest):
    """Asks for a prior that it never loads."""

    name = "idle-prior"
    needs_prior = True


class SecretPrior(Honest):
    """Loads a prior that it did not ask for."""

    name = "secret-prior"

    def prepare(self, task: DistillTask) -> None:
        task.load_prior()


class TooFew(Honest):
    """Forgets the last image of each class."""

    name = "too-few"

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        for images in super().distill(task):
            yield [image for image in images if image.image_index == 0]


class TooSmall(Honest):
    """Half-size images."""

    name = "too-small"

    def image(self, task: DistillTask, c: int, i: int) -> DistilledImage:
        return DistilledImage(c, i, np.ascontiguousarray(super().image(task, c, i).pixels[::2, ::2]))


class Fractions(Honest):
    """Values of 0 … 1, cut to whole numbers."""

    name = "fractions"

    def image(self, task: DistillTask, c: int, i: int) -> DistilledImage:
        return DistilledImage(c, i, np.uint8(super().image(task, c, i).pixels > 127))


class OddLatents(Honest):
    """A latent of another shape for the first image of each class."""

    name = "odd-latents"

    def image(self, task: DistillTask, c: int, i: int) -> DistilledImage:
        latent = np.zeros((1, 8, 8 if i else 4), np.float32)
        return DistilledImage(c, i, super().image(task, c, i).pixels, latent)


class NextClass(Honest):
    """Every label is off by one."""

    name = "next-class"

    def start(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        return super().start(task, (c + 1) % 10, i)


class OtherClass(Honest):
    """A selection from the wrong folder."""

    name = "other-class"
    cost_class = CostClass.SELECTION

    def image(self, task: DistillTask, c: int, i: int) -> DistilledImage:
        stream = task.stream("pick", task.class_ids[c], i)
        others = task.train.of_class((c + 1) % 10)
        return DistilledImage(
            c, i, task.train.read(others[torch.randperm(len(others), generator=stream)[:1].numpy()])[0]
        )


class OwnGenerator(Honest):
    """Draws from the operating system's entropy."""

    name = "own-generator"

    def noise(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        return np.random.default_rng().integers(-9, 10, (8, 8, 1))


class GlobalGenerator(Honest):
    """Draws from NumPy's global generator."""

    name = "global-generator"

    def noise(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        return np.random.randint(-9, 10, (8, 8, 1))  # noqa: NPY002


class DeafToSeeds(Honest):
    """The same for every seed, but does not say so."""

    name = "deaf-to-seeds"

    def noise(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        return np.random.default_rng([c, i]).integers(-9, 10, (8, 8, 1))


class SecretlySeeded(Honest):
    """Says that no seed changes it."""

    name = "secretly-seeded"
    uses_seed = False


class OneStream(Honest):
    """One generator for all images, in the order in which they are made."""

    name = "one-stream"

    def prepare(self, task: DistillTask) -> None:
        self.stream = task.stream("everything")

    def noise(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        return torch.randint(-9, 10, (8, 8, 1), generator=self.stream).numpy()


class BatchNumber(Honest):
    """Noise that depends on the size of the batch."""

    name = "batch-number"

    def noise(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        return super().noise(task, c, i) + task.batch_size % 32 * 8


class OneRound(Honest):
    """All images in one round, whatever the batch size."""

    name = "one-round"

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        images = [image for round_ in super().distill(task) for image in round_]
        if images:
            yield images


class MakesAgain(Honest):
    """Does not look at what is done."""

    name = "makes-again"

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        for c in task.class_indices:
            yield [self.image(task, c, i) for i in range(task.ipc or 0)]


class Forgetful(Honest):
    """Each image builds on the one before, which it does not look up again."""

    name = "forgetful"
    before: np.ndarray | None = None

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        for c in task.class_indices:
            self.before = None
            for i in range(task.ipc or 0):
                if (c, i) not in task.done:
                    yield [self.image(task, c, i)]

    def image(self, task: DistillTask, c: int, i: int) -> DistilledImage:
        made = super().image(task, c, i).pixels
        if self.before is not None:
            made = (made // 2 + self.before // 2).astype(np.uint8)
        self.before = made
        return DistilledImage(c, i, made)


class ForgetsLate(Honest):
    """Once half of the images are done, it goes on with other ones."""

    name = "forgets-late"
    late = False

    def prepare(self, task: DistillTask) -> None:
        self.late = len(task.done) * 2 > len(task.class_indices) * (task.ipc or 0)

    def start(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        return super().start(task, c, i + self.late)


class Regroups(Honest):
    """The same images, but one at a time after an interruption."""

    name = "regroups"

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        interrupted = len(task.done) > 0
        for round_ in super().distill(task):
            yield from ([image] for image in round_) if interrupted else [round_]


class Peeks(Honest):
    """Looks at a test image, and does nothing with it."""

    name = "peeks"

    def prepare(self, task: DistillTask) -> None:
        Digits().load("default", None, 8).test.read([0])


class LearnsFromTest(Honest):
    """Mixes a test image in."""

    name = "learns-from-test"

    def start(self, task: DistillTask, c: int, i: int) -> np.ndarray:
        seen = Digits().load("default", None, 8).test.read([i])[0]
        return (super().start(task, c, i) // 2 + seen // 2).astype(np.uint8)


class CopiesTest(Honest):
    """Goes around ddbench to scikit-learn's digits, and keeps real images that it was not given."""

    name = "copies-test"
    uses_seed = False

    def image(self, task: DistillTask, c: int, i: int) -> DistilledImage:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pick = np.flatnonzero(digits.target == c)[-1 - i]
        return DistilledImage(c, i, np.rint(digits.images[pick] * (255 / 16)).astype(np.uint8)[..., None])


class LooksAround(Honest):
    """Says that it reads none but what it keeps, and chooses by all of them."""

    name = "looks-around"

    def reads_real_images(self) -> RealImages:
        return RealImages.CHOSEN

    def prepare(self, task: DistillTask) -> None:
        self.mean = task.train.read(range(len(task.train))).mean()


class SwitchesGradientsOff(Honest):
    """Leaves gradients switched off."""

    name = "switches-gradients-off"

    def prepare(self, task: DistillTask) -> None:
        torch.set_grad_enabled(False)


class Reseeds(Honest):
    """Seeds Python's generator."""

    name = "reseeds"

    def prepare(self, task: DistillTask) -> None:
        random.seed(0)


class KeepsArrays(Honest):
    """Keeps its features for ever."""

    name = "keeps-arrays"
    kept: ClassVar[list[np.ndarray]] = []

    def prepare(self, task: DistillTask) -> None:
        self.kept.append(np.zeros(100_000))


class KeepsTensors(Honest):
    """Keeps tensors for ever, which Python's own accounts do not show."""

    name = "keeps-tensors"
    kept: ClassVar[list[torch.Tensor]] = []

    def prepare(self, task: DistillTask) -> None:
        self.kept.append(torch.zeros(100_000))


class Small(Honest):
    """Takes long by default, and says how to make it short."""

    name = "small"
    check_params: ClassVar[dict[str, int]] = {"repetitions": 2}

    class Params(base.Params):
        repetitions: Annotated[int, Field(ge=1, description="How often.")] = 1000
        kept: Annotated[int, Field(ge=1, description="How many of the repetitions count.")] = 1

        @model_validator(mode="after")
        def _no_more_than_there_are(self) -> "Small.Params":
            if self.kept > self.repetitions:
                raise ValueError("expected kept ≤ repetitions")
            return self


ENTRIES = [Entry("small-all", variant_of="small", overrides={"kept": 1000}, summary="a variant that cannot be short")]
