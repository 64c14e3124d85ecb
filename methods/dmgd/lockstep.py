"""Greedy Progressive Matching (DMGD, arXiv 2605.03877) over many classes at once.

Within a class, an image is sampled after those before it are finished and frozen. Classes do not depend on each
other, so one batch holds the next image of each of many classes: the same images, in full batches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.guidance import Guidance, Step
from ddbench.methods.diffusion.noise import ImageKey, NoiseSource, StreamNoise
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.dmgd.distribution import DistributionMatching, Support
from ddbench.methods.dmgd.params import DMGDParams
from ddbench.methods.dmgd.semantic import SemanticMatching

Key = tuple[int, int]
"""(class index, image index)."""


class Lockstep:
    """Makes the images of a task, round by round.

    A round is the next image of every class of a chunk of at most `batch_size` classes, or, if not greedy, all images
    of as many classes as fit. Neither chunks nor the order of classes change an image.

    Args:
        support: class index -> `points` (K, D) and `masses` (K,); read only with distribution matching.
    """

    def __init__(self, task: DistillTask, params: DMGDParams, support: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        assert task.ipc is not None
        self.task, self.params, self.support, self.ipc = task, params, support, task.ipc
        self.prior = task.load_prior()

    def rounds(self) -> Iterator[list[DistilledImage]]:
        """Finished images, leaving out those in `task.done`."""
        task = self.task
        if self.params.greedy:
            chunk_size, together = task.batch_size, [[index] for index in range(self.ipc)]
        else:
            chunk_size, together = max(1, task.batch_size // self.ipc), [list(range(self.ipc))]
        for start in range(0, len(task.class_indices), chunk_size):
            chunk = task.class_indices[start : start + chunk_size]
            # Read by key: `items()` would read every committed image of every class.
            done = [key for key in itertools.product(chunk, range(self.ipc)) if key in task.done]
            images = ((key, task.done[key].latent) for key in done)
            latents = {key: torch.from_numpy(latent) for key, latent in images if latent is not None}
            for indices in together:
                classes = [c for c in chunk if any((c, index) not in task.done for index in indices)]
                if classes:
                    yield self._round(classes, indices, latents)

    def _round(
        self, classes: Sequence[int], indices: Sequence[int], latents: dict[Key, Tensor]
    ) -> list[DistilledImage]:
        """Make the images `indices` of each of `classes`, and add their latents to `latents`."""
        task, p = self.task, self.params
        keys = [(class_index, image_index) for class_index in classes for image_index in indices]
        images = [ImageKey(task.class_ids[class_index], image_index) for class_index, image_index in keys]
        which = f"image {indices[0] + 1} of {self.ipc}" if p.greedy else f"all {self.ipc} images"

        def report(step: Step, _: Tensor) -> None:
            if (step.n + 1) % math.ceil(p.steps / 10) == 0:
                task.progress(f"{which} of {len(classes)} classes, step {step.n + 1} of {p.steps}")

        with task.phase("sample"):
            noise = self.noise(images)
            memory = [[latents[c, index] for index in range(indices[0])] for c in classes]
            terms = self.terms(keys, memory, noise)
            outcome = sample(self.prior, images, terms, noise, steps=p.steps, cfg_scale=p.cfg_scale, on_step=report)
            made = outcome.latents.cpu()
            nats = {term: values.tolist() for term, values in outcome.path_kl_nats.items()}
        with task.phase("decode"):
            pixels = self.prior.decode(outcome.latents)
        latents.update(zip(keys, made, strict=True))
        return [
            DistilledImage(*key, pixels[row], made[row].numpy(), {term: values[row] for term, values in nats.items()})
            for row, key in enumerate(keys)
            if key not in task.done
        ]

    def noise(self, images: Sequence[ImageKey]) -> NoiseSource:
        """The draws of one round."""
        return StreamNoise(self.task.stream, images)

    def terms(self, keys: Sequence[Key], memory: Sequence[Sequence[Tensor]], noise: NoiseSource) -> list[Guidance]:
        """The guidance of one round.

        Args:
            keys: the round's images, class by class.
            memory: for each class its finished latents, (C, h, w), as many as for the others.
        """
        terms: list[Guidance] = []
        if self.params.semantic_matching:
            terms.append(self._semantic(keys, noise))
        if self.params.distribution_matching:
            terms.append(self._distribution(list(dict.fromkeys(c for c, _ in keys)), memory))
        return terms

    def _semantic(self, keys: Sequence[Key], noise: NoiseSource) -> SemanticMatching:
        p, class_ids = self.params, self.task.class_ids
        own = torch.tensor([class_index for class_index, _ in keys])
        other = noise.choice(len(class_ids) - 1)
        other += other >= own  # uniform on the other classes of the whole list
        labels = torch.tensor([self.prior.label_of(class_ids[c]) for c in other.tolist()])
        r = self.prior.embed_labels(labels)
        return SemanticMatching(
            noise.labels(p.steps, r.shape[1], p.label_noise).to(self.prior.device),
            r,
            noise_weight=p.label_noise_weight,
            mix_weight=p.label_mix_weight,
            lower=p.label_t_lower,
            upper=p.label_t_upper,
            exploration=p.exploration,
            weights=p.label_weights,
            perturb_null=p.perturb_null,
            renormalise=p.renormalise,
        )

    def _distribution(self, classes: Sequence[int], memory: Sequence[Sequence[Tensor]]) -> DistributionMatching:
        p, device = self.params, self.prior.device
        points, masses = (
            torch.from_numpy(np.stack([self.support[c][part] for c in classes])).float().to(device)
            for part in ("points", "masses")
        )
        none = torch.zeros(0, points.shape[2])
        finished = torch.stack([torch.stack(list(latents)).flatten(1) if latents else none for latents in memory])
        return DistributionMatching(
            Support(points, masses),
            finished.to(device),
            scale=p.ot_scale,
            epsilon=p.ot_epsilon,
            iterations=p.ot_iterations,
            window=(p.ot_window_first, p.ot_window_last),
            gradient=p.ot_gradient,
            times_sigma=p.ot_sigma,
        )
