"""Influence guidance (IGD, ICLR 2025): align the loss gradients of images in the making with those of the real ones.

The paper derives it from influence functions; what its program computes is the cosine of gradients. That program also
averages in the images of a second, unguided half of its batch, which ends up in no image; here only an image's own x̂0
counts.

Legend: B images, C latent channels, h = w latent side, E checkpoints, P parameters of the surrogate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cosine_similarity, cross_entropy

from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.guidance import ShiftGuidance, State
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.sampler import guided_prediction, label_pairs
from ddbench.methods.igd.checkpoints import take_checkpoints
from ddbench.methods.igd.params import IGDParams
from ddbench.methods.normalisation import unit_range

REAL_CHUNK = 50
"""Real images whose loss gradient is taken at once (program); fixed, so that sums do not depend on the batch size."""
DENOISER_CHUNK = 4
"""Images through whose denoising is differentiated at once: DiT-XL/2 keeps about a GiB for each half of one."""

Alignment = Callable[[Tensor], Tensor]
"""(C, H, W), an image about [-1, 1] -> (), the influence loss of its class; differentiable twice."""


class Influence(ShiftGuidance):
    """shift = -k·ρ·g at the steps of the window:

        g = ∇_z L(decode(x̂0(z)))        ρ = s·RMS(ε̂)/RMS(g)·√(1 - ᾱ)

    with L the image's alignment; through surrogate, decoder, classifier-free guidance and denoiser. x̂0 is not clipped,
    also where the prior clips it, for a clipped value has no gradient.

    Args:
        prior: whose denoiser and decoder are differentiated through.
        images: the batch, as the sampler has it.
        alignments: L of each image.
        cfg_scale: as the sampler's.
        scale: k.
        step_size: s.
        window: indices k in the respaced chain of the cleanest and of the noisiest step that it guides.
    """

    name = "influence"

    def __init__(
        self,
        prior: Prior,
        images: Sequence[ImageKey],
        alignments: Sequence[Alignment],
        *,
        cfg_scale: float,
        scale: float,
        step_size: float,
        window: tuple[int, int],
    ) -> None:
        self.prior, self.pairs, self.alignments = prior, label_pairs(prior, images), alignments
        self.cfg_scale, self.scale, self.step_size, self.window = cfg_scale, scale, step_size, window

    def shift(self, state: State) -> Tensor | None:
        first, last = self.window
        if not first <= state.step.k <= last:
            return None
        g = self.gradient(state)
        size = rms(g)
        direction = torch.where(size == 0, g, g / size)  # a surrogate that is certain has no gradient, so no direction
        return -self.scale * self.step_size * rms(state.epsilon) * (1 - state.alpha_bar) ** 0.5 * direction

    def gradient(self, state: State) -> Tensor:
        """(B, C, h, w) g, by the chain rule at x̂0: image by image above it, in chunks below it."""
        above = torch.stack([self._above(x0, align) for x0, align in zip(state.x0, self.alignments, strict=True)])
        chunks = zip(*(part.split(DENOISER_CHUNK) for part in (state.z, self.pairs, above)), strict=True)
        return torch.cat([self._below(state, *chunk) for chunk in chunks])

    def _above(self, x0: Tensor, alignment: Alignment) -> Tensor:
        with torch.enable_grad():
            x0 = x0.detach().requires_grad_()
            loss = alignment(self.prior.to_images(x0[None])[0])
            with self.prior.products():
                return torch.autograd.grad(loss, x0)[0]

    def _below(self, state: State, z: Tensor, pairs: Tensor, above: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            prior = self.prior
            epsilon, _ = guided_prediction(prior, z, state.step.t, pairs, self.cfg_scale, prior.guided_channels)
            x0 = z / state.alpha_bar**0.5 - (1 / state.alpha_bar - 1) ** 0.5 * epsilon
            with prior.products():
                return torch.autograd.grad(x0, z, above)[0]


def rms(x: Tensor) -> Tensor:
    """(B, …) -> (B, 1, …, 1): root mean square of each."""
    return x.square().flatten(1).mean(1).sqrt().view(-1, *[1] * (x.ndim - 1))


class Surrogate:
    """The classifier at its checkpoints, and how the real images of a class would train it there.

    Args:
        image_size: of the images that it sees, the prior's.
    """

    def __init__(self, task: DistillTask, params: IGDParams, image_size: int) -> None:
        self.task, self.params = task, params
        self.images = task.train if task.train.read([0]).shape[1] == image_size else task.train_at(image_size)
        if params.comes_trained:
            self.classifier = task.pretrained_classifier(params.network, image_size, params.weights_sha256)
        else:
            self.classifier = task.trained_classifier(params.recipe(image_size))
        self.chosen = None if params.cosine_below is None else self._chosen(params.cosine_below)
        kept = [None] if params.comes_trained else self.chosen or params.epochs
        self.networks = [self.classifier.network(epoch) for epoch in kept]
        self._gradients: dict[int, np.ndarray] = {}

    def class_gradient(self, class_index: int) -> np.ndarray:
        """(E, P) float32: ∇_θ of the mean cross-entropy over the class's first `real_images` by sorted name. An
        artefact that cells share; 12 MB a class for convnet6 at four checkpoints."""

        def make() -> dict[str, np.ndarray]:
            return {"gradient": self._gradient(self.networks, class_index).numpy()}

        key = {**self._key(), "class_id": self.task.class_ids[class_index]}
        if self.chosen is not None:
            key["epochs"] = self.chosen
        if class_index not in self._gradients:
            self._gradients[class_index] = self.task.cache.arrays("class-gradient", key, make)["gradient"]
        return self._gradients[class_index]

    def _key(self) -> dict[str, Any]:
        return {
            "train": self.task.train_hash,
            "classifier": self.classifier.sha256,
            "image_size": self.classifier.recipe.image_size,
            "real_images": self.params.real_images,
            "device": self.task.device.type,
        }

    def _gradient(self, networks: Sequence[nn.Module], class_index: int) -> Tensor:
        """(E, P) on the CPU, image by image in chunks."""
        chosen = sorted(self.images.of_class(class_index), key=lambda i: self.images.names[i])
        chosen = chosen[: self.params.real_images]
        total = torch.zeros(len(networks), sum(p.numel() for p in networks[0].parameters()))
        for start in range(0, len(chosen), REAL_CHUNK):
            self.task.progress(f"class gradient of {self.task.class_ids[class_index]}: {start} of {len(chosen)}")
            block = chosen[start : start + REAL_CHUNK]
            x = self.classifier.normalise(unit_range(self.images.read(block), self.task.device))
            for row, network in zip(total, networks, strict=True):
                row += len(block) / len(chosen) * loss_gradient(network, x, class_index).cpu()
        return total

    def _chosen(self, below: float) -> list[int]:
        """The epochs that the program's rule takes, over all classes of the dataset: an artefact that cells share."""
        task, epochs = self.task, self.params.epochs

        def gradients(epoch: int) -> Tensor:
            network = [self.classifier.network(epoch)]
            return torch.cat([self._gradient(network, c) for c in range(len(task.class_ids))])

        def make() -> dict[str, np.ndarray]:
            return {"epochs": np.array(take_checkpoints(gradients, epochs, below))}

        key = {**self._key(), "class_ids": list(task.class_ids), "epochs": list(epochs), "below": below}
        return [int(epoch) for epoch in task.cache.arrays("checkpoints", key, make)["epochs"]]

    def alignment(self, class_index: int) -> Alignment:
        """Mean over the checkpoints of 1 - cos(∇_θ CE(f(image), class), the class's gradient)."""
        targets = torch.tensor(self.class_gradient(class_index), device=self.task.device)

        def loss(image: Tensor) -> Tensor:
            x = self.classifier.normalise((image[None] + 1) / 2)
            return alignment_loss(self.networks, x, class_index, targets)

        return loss


def alignment_loss(networks: Sequence[nn.Module], x: Tensor, class_index: int, targets: Tensor) -> Tensor:
    """Images as the networks take them (N, C, H, W), and target gradients (E, P) -> ()."""
    found = torch.stack([loss_gradient(network, x, class_index, create_graph=True) for network in networks])
    return (1 - cosine_similarity(found, targets)).mean()


def loss_gradient(network: nn.Module, x: Tensor, class_index: int, *, create_graph: bool = False) -> Tensor:
    """(P,): ∇_θ of the mean cross-entropy of images of one class, over all parameters in their order."""
    with torch.enable_grad():
        # Copies take the gradient: the network's own parameters stay frozen, and others use them.
        parameters = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
        labels = torch.full((len(x),), class_index, device=x.device)
        loss = cross_entropy(functional_call(network, parameters, (x,)), labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=create_graph)
    return torch.cat([gradient.flatten() for gradient in gradients])
