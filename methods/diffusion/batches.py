"""Sampling in full batches: of images that do not depend on each other, or of the next image of many classes.

A batch is a round: it is committed whole, and a resumed run makes the batches that are missing, composed as before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.guidance import Step
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.sampler import SampleOutcome


@dataclass(frozen=True)
class Batch:
    """What a method is asked to sample at once."""

    keys: tuple[tuple[int, int], ...]
    """(class index, image index) of each image."""
    images: tuple[ImageKey, ...]
    """The same images by class id, as the sampler takes them."""
    on_step: Callable[[Step, Tensor], None]
    """Callback for the sampler that tells the live view how far the batch is."""


def sample_rounds(
    task: DistillTask,
    prior: Prior,
    steps: int,
    sample_batch: Callable[[Batch], SampleOutcome],
    *,
    whole_classes: bool = False,
) -> Iterator[list[DistilledImage]]:
    """Rounds of at most `task.batch_size` finished images, class by class, leaving out those in `task.done`.

    Args:
        steps: how many steps `sample_batch` executes.
        whole_classes: all images of a class are in one batch, which may be larger than `task.batch_size` therefore.
    """
    assert task.ipc is not None
    size = max(1, task.batch_size // task.ipc) * task.ipc if whole_classes else task.batch_size
    keys = [(class_index, index) for class_index in task.class_indices for index in range(task.ipc)]
    for first in range(0, len(keys), size):
        chosen = tuple(keys[first : first + size])
        missing = [row for row, key in enumerate(chosen) if key not in task.done]
        if not missing:
            continue
        which = f"images {first + 1} to {first + len(chosen)} of {len(keys)}"
        made = _round(task, prior, steps, chosen, which, sample_batch)
        yield [made[row] for row in missing]


Finished = Mapping[int, Sequence[Tensor]]
"""Class index -> its finished latents (C, h, w) in the order of the images, on the CPU."""


def greedy_rounds(
    task: DistillTask, prior: Prior, steps: int, sample_batch: Callable[[Batch, Finished], SampleOutcome]
) -> Iterator[list[DistilledImage]]:
    """Rounds of the next image of each of at most `task.batch_size` classes, leaving out those in `task.done`: within a
    class an image is sampled after those before it are finished; classes do not depend on each other.

    Args:
        steps: how many steps `sample_batch` executes.
    """
    assert task.ipc is not None
    for start in range(0, len(task.class_indices), task.batch_size):
        chunk = task.class_indices[start : start + task.batch_size]
        # Read by key: `items()` would read every committed image of every class.
        done = [key for key in itertools.product(chunk, range(task.ipc)) if key in task.done]
        latents = {key: torch.from_numpy(task.done[key].latent) for key in done}
        for index in range(task.ipc):
            keys = tuple((c, index) for c in chunk if (c, index) not in task.done)
            if not keys:
                continue
            finished = {c: [latents[c, before] for before in range(index)] for c, _ in keys}

            def sample_next(batch: Batch, finished: Finished = finished) -> SampleOutcome:
                return sample_batch(batch, finished)

            made = _round(task, prior, steps, keys, f"image {index + 1} of {task.ipc}", sample_next)
            latents.update({key: torch.from_numpy(image.latent) for key, image in zip(keys, made, strict=True)})
            yield made


def _round(
    task: DistillTask,
    prior: Prior,
    steps: int,
    keys: tuple[tuple[int, int], ...],
    which: str,
    sample_batch: Callable[[Batch], SampleOutcome],
) -> list[DistilledImage]:
    """One batch, sampled and decoded."""

    def report(step: Step, _: Tensor) -> None:
        if (step.n + 1) % math.ceil(steps / 10) == 0:
            task.progress(f"{which}, step {step.n + 1} of {steps}")

    images = tuple(ImageKey(task.class_ids[class_index], index) for class_index, index in keys)
    with task.phase("sample"):
        outcome = sample_batch(Batch(keys, images, report))
        latents = outcome.latents.cpu().numpy()
        nats = {term: values.tolist() for term, values in outcome.path_kl_nats.items()}
    with task.phase("decode"):
        pixels = prior.decode(outcome.latents)
    return [
        DistilledImage(*key, pixels[row], latents[row], {term: kl[row] for term, kl in nats.items()})
        for row, key in enumerate(keys)
    ]
