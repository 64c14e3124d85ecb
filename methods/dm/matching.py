"""The optimisation of DM (Zhao & Bilen, WACV 2023, algorithm 1 and equation 6).

    min over S of Σ_c ‖ mean_{x ∈ B_c} φ(A(x)) − mean_{s ∈ S_c} φ(A(s)) ‖²

with a new random network φ in every iteration, and a batch B_c of real images and an augmentation A of its own for
every class c. The sum over classes falls apart: given φ, no class sees another, so an image does not depend on which
classes are optimised beside it.

Legend: B images, C channels, S side in pixels, F features, k classes of a chunk, n = IPC.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import write_atomically
from ddbench.methods.base import DistillTask
from ddbench.methods.classifier import penultimate
from ddbench.methods.dm import siamese
from ddbench.methods.dm.params import DMParams
from ddbench.methods.normalisation import Normalisation

CHECKPOINT_EVERY = 100
"""Iterations between two checkpoints: what a killed run loses at most. Each looks at the loss, which waits for the
device."""

Embed = Callable[[Tensor], Tensor]


class Matching:
    """The images of some classes on their way: a state that is kept in `task.scratch` now and then.

    The pixels lie in normalised space and are clamped only when they are done, as in the released program.
    """

    def __init__(self, task: DistillTask, params: DMParams, classes: tuple[int, ...]) -> None:
        self.task, self.params, self.classes = task, params, classes
        self.normalisation = Normalisation(params.normalisation, task.device)
        self.operations = () if params.augmentation == "none" else tuple(params.augmentation.split("_"))
        self.file = task.scratch / f"dm-{classes[0]}.safetensors"
        self.iteration = 0
        images = torch.stack([self._start(c) for c in classes])  # (k, n, C, S, S)
        self.state = {"images": images, "velocity": torch.zeros_like(images)}

    def run(self) -> dict[tuple[int, int], np.ndarray]:
        """Go on from the checkpoint, if there is one, to the last iteration.

        Returns:
            (class index, image index) -> (S, S, C) uint8.

        Raises:
            RunError: a loss that is not finite.
        """
        self._resume()
        with self.task.phase("optimise"):
            while self.iteration < self.params.iterations:
                losses = self.step()
                self.iteration += 1
                if self.iteration % CHECKPOINT_EVERY == 0 or self.iteration == self.params.iterations:
                    self._look(losses)
                    self._keep()
        pixels = self.normalisation.to_pixels(self.state["images"].flatten(0, 1))
        ipc = self.state["images"].shape[1]
        return {(c, i): pixels[k * ipc + i] for k, c in enumerate(self.classes) for i in range(ipc)}

    def step(self) -> Tensor:
        """One iteration: SGD with momentum on each class's squared distance of mean embeddings, (k,)."""
        image_size = self.params.network_image_size or self.state["images"].shape[-1]
        network = self.task.network(self.params.network, image_size, "dm", self.iteration).requires_grad_(False)
        losses = [self._step_of_class(k, network, image_size) for k in range(len(self.classes))]
        return torch.stack(losses)

    def forget(self) -> None:
        """Remove the checkpoint: its images are committed."""
        self.file.unlink(missing_ok=True)

    def _step_of_class(self, k: int, network: nn.Module, image_size: int) -> Tensor:
        class_index = self.classes[k]
        key = self.iteration, self.task.class_ids[class_index]
        augment = siamese.draw(self.operations, image_size, self.task.stream("dm augmentation", *key))

        def embed(images: Tensor) -> Tensor:
            if images.shape[-1] != image_size:
                images = F.interpolate(images, (image_size, image_size), mode="bilinear", antialias=True)
            return penultimate(network, augment(images))

        real = self._real_images(class_index, self.params.real_batch, self.task.stream("dm real images", *key))
        loss, gradient = match_means(embed, real, self.state["images"][k], self.task.batch_size, self.normalisation)
        velocity = self.state["velocity"][k].mul_(self.params.momentum).add_(gradient)
        self.state["images"][k].sub_(velocity, alpha=self.params.learning_rate)
        return loss

    def _real_images(self, class_index: int, count: int, stream: torch.Generator) -> np.ndarray:
        """At most `count` images of a class, drawn without replacement: (B, S, S, C) uint8."""
        indices = self.task.train.of_class(class_index)
        return self.task.train.read(indices[torch.randperm(len(indices), generator=stream).numpy()[:count]])

    def _start(self, class_index: int) -> Tensor:
        """(n, C, S, S), normalised."""
        class_id, ipc = self.task.class_ids[class_index], self.task.ipc
        assert ipc is not None
        from_real = self.params.init == "real"
        stream = self.task.stream("dm start", class_id)
        real = self.normalisation.from_pixels(self._real_images(class_index, ipc if from_real else 1, stream))
        if from_real:
            return real
        streams = [self.task.stream("dm noise", class_id, i) for i in range(ipc)]
        return torch.stack([torch.randn(real.shape[1:], generator=s) for s in streams]).to(self.task.device)

    def _look(self, losses: Tensor) -> None:
        finite = losses.isfinite()
        if not finite.all():
            class_index = self.classes[int((~finite).int().argmax())]
            raise RunError(
                f"dm: the loss of class {self.task.class_ids[class_index]} is not finite at iteration "
                f"{self.iteration}; choose a learning_rate below {self.params.learning_rate:g}"
            )
        self.task.progress(
            f"iteration {self.iteration:,} of {self.params.iterations:,}, loss {losses.mean().item():.4g} a class"
        )

    def _keep(self) -> None:
        where = {"classes": torch.tensor(self.classes), "iteration": torch.tensor(self.iteration)}
        write_atomically(self.file, save(where | {name: tensor.cpu() for name, tensor in self.state.items()}))

    def _resume(self) -> None:
        try:
            kept = load_file(self.file, device=str(self.task.device))
        except (OSError, SafetensorError):
            return  # none, or a damaged one: all draws are named, so starting over ends with the same images
        if kept.pop("classes").tolist() == list(self.classes):  # others after a halved batch
            self.iteration = int(kept.pop("iteration"))
            self.state = kept


def match_means(
    embed: Embed, real: np.ndarray, synthetic: Tensor, block: int, normalisation: Normalisation
) -> tuple[Tensor, Tensor]:
    """The squared distance of the mean embeddings, summed over features, and its gradient.

    Args:
        embed: (B, C, S, S) normalised -> (B, F).
        real: (B, S, S, C) uint8.
        synthetic: (n, C, S, S), normalised.
        block: the most images that are embedded at once; it bounds memory.

    Returns:
        a scalar and (n, C, S, S).
    """
    with torch.no_grad():
        blocks = [normalisation.from_pixels(real[a:b]) for a, b in spans(len(real), block)]
        target = torch.stack([embed(images).sum(0) for images in blocks]).sum(0) / len(real)
    images = synthetic.detach().requires_grad_()
    if len(images) <= block:
        mean = embed(images).mean(0)
    else:  # each block is embedded once more for its gradient, so that one block's activations are held at a time
        sums = [
            checkpoint(lambda part: embed(part).sum(0), images[a:b], use_reentrant=False, preserve_rng_state=False)
            for a, b in spans(len(images), block)
        ]
        mean = torch.stack(sums).sum(0) / len(images)
    loss = (target - mean).square().sum()
    (gradient,) = torch.autograd.grad(loss, images)
    return loss.detach(), gradient


def spans(count: int, block: int) -> list[tuple[int, int]]:
    """Consecutive (start, end) of at most `block` items each."""
    return list(pairwise([*range(0, count, block), count]))
