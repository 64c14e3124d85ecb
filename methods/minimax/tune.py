"""Tuning a prior (Minimax Diffusion, arXiv 2311.15529): training steps, moving average, checkpoint, artefact.

Legend: B batch, N training images, C latent channels, h = w latent side.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import whole_file
from ddbench.benchmark.core.gpu_errors import memory_ran_out
from ddbench.benchmark.core.transfers import send
from ddbench.datasets.base import Subset
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.latents import real_images
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.training import add_noise, predict_noise
from ddbench.methods.diffusion.schedule import alpha_bar
from ddbench.methods.minimax.denoising import DenoisingLoss
from ddbench.methods.minimax.difffit import DiffFit, folded
from ddbench.methods.minimax.inversion import InversionMatching
from ddbench.methods.minimax.memories import Memory, minimax_losses
from ddbench.methods.minimax.params import Tuning, untunable

ARTEFACT = "tune prior"
CHECKPOINT = "tuning.pt"
CHECKPOINT_STEPS = 250
REPORT_STEPS = 25
"""Steps between two looks at the losses, so that a GPU is waited for rarely."""
LOSSES = "losses"
"""Name in the artefact, beside the weights', of the losses: (steps, 3) denoising, representativeness, diversity, the
last two unweighted; with inversion matching a fourth, the mean cosine."""
NAMES = ("denoising", "representativeness", "diversity", "inversion")


def tuned_prior(task: DistillTask, prior: Prior, recipe: Tuning, classes: Sequence[int] | None = None) -> Prior:
    """`prior` with weights tuned on all classes of the task, whichever of them it distills; or on some of them alone,
    as if the dataset had no others.

    The trained weights alone are the artefact; the prior is put together from them and from `prior`, which stays as
    it is. Its hash is that of its content.

    Args:
        classes: positions in `task.class_ids`; None: all.

    Raises:
        UsageError: fewer training images than a batch, a prior of velocities, or one whose network is no DiT.
        RunError: a loss became infinite or NaN; it names the step.
    """
    if (reason := untunable(prior.metadata)) is not None:
        raise UsageError(reason)
    chosen = range(len(task.class_ids)) if classes is None else sorted(classes)
    key = _key(task, prior, recipe, chosen)
    made = task.cache.arrays(ARTEFACT, key, lambda: _Tuner(task, prior, recipe, chosen, key).run())
    weights = {name: np.array(made[name]) for name in sorted(made) if name != LOSSES}
    content = hashlib.sha256(str(prior.sha256).encode())
    for name, array in weights.items():
        content.update(name.encode() + array.tobytes())
    tensors = {name: torch.from_numpy(array).to(prior.device) for name, array in weights.items()}
    return prior.with_network(folded(_dit(prior), tensors), content.hexdigest())


def _dit(prior: Prior) -> DenoisingNetwork:
    assert isinstance(prior.network, DenoisingNetwork), "`untunable` lets no other pass"
    return prior.network


def _key(task: DistillTask, prior: Prior, recipe: Tuning, classes: Sequence[int]) -> dict[str, Any]:
    if prior.sha256 is None:
        raise ValueError("expected a prior loaded from files; one without a hash cannot key an artefact")
    images = real_images(task, prior)
    return {
        "tuner": ["minimax", 1],
        "prior": prior.sha256,
        "train": [images.class_sha256(c) or task.train_hash for c in classes],
        "class_ids": [task.class_ids[c] for c in classes],
        "recipe": recipe.model_dump(mode="json", exclude={"tuning_seed"}),
        "seed": _seed(task, recipe),
        "precision": prior.precision,
        "device": prior.device.type,
    }


def _seed(task: DistillTask, recipe: Tuning) -> int:
    return task.seed if recipe.tuning_seed is None else recipe.tuning_seed


class _Tuner:
    """One tuning: DiffFit's weights, their average, optimiser and memories, which together are the checkpoint.

    Every step draws from a stream of its own, so a killed run goes on with the same draws.
    """

    def __init__(
        self, task: DistillTask, prior: Prior, recipe: Tuning, classes: Sequence[int], key: Mapping[str, Any]
    ) -> None:
        self.task, self.prior, self.recipe, self.key = task, prior, recipe, json.dumps(key, sort_keys=True)
        images = real_images(task, prior)
        whole = len(classes) == len(task.class_ids)
        self.train = images if whole else Subset(images, np.flatnonzero(np.isin(images.labels, classes)))
        if len(self.train) < recipe.tuning_batch:
            raise UsageError(
                f"there are {len(self.train)} training images, fewer than tuning_batch={recipe.tuning_batch}; "
                f"set tuning_batch={len(self.train)} or fewer"
            )
        self.seed = _seed(task, recipe)
        self.labels = torch.tensor([prior.label_of(class_id) for class_id in task.class_ids])
        self.difffit = DiffFit(_dit(prior))
        self.weights = list(self.difffit.trained.values())
        self.average = [weight.detach().clone() for weight in self.weights]
        self.update_average = get_ema_multi_avg_fn(recipe.ema)
        self.optimiser = torch.optim.AdamW(self.weights, lr=recipe.learning_rate, weight_decay=0)
        self.real, self.generated = Memory(recipe.memory), Memory(recipe.memory)
        self.denoising = DenoisingLoss(prior.metadata.schedule, prior.device)
        self.matching = InversionMatching(prior.metadata.schedule, prior.device) if recipe.inversion_weight else None
        self.signal = alpha_bar(prior.metadata.schedule).to(prior.device)
        self.losses: list[list[float]] = []
        self._order = -1, torch.empty(0)

    @torch.enable_grad()
    def run(self) -> dict[str, np.ndarray]:
        """Go on from the checkpoint if there is one; returns the averaged weights by name, and the losses."""
        steps = self.recipe.tuning_steps
        self._resume()
        recent: list[Tensor] = []
        for step in range(len(self.losses), steps):
            recent.append(self._step(step))
            done = step + 1
            if len(recent) == REPORT_STEPS or done % CHECKPOINT_STEPS == 0 or done == steps:
                self.losses += self._looked_at(torch.stack(recent), first=done - len(recent))
                recent = []
                denoising, *others = self.losses[-1]
                named = "".join(f", {name} {loss:.3f}" for name, loss in zip(NAMES[1:], others, strict=False))
                self.task.progress(
                    f"tuning the prior: step {done} of {steps}, losses: denoising {denoising:.4f}{named}"
                )
            if done % CHECKPOINT_STEPS == 0 and done < steps:
                self._save()
        made = dict(zip(self.difffit.trained, (tensor.cpu().numpy() for tensor in self.average), strict=True))
        return made | {LOSSES: np.array(self.losses, np.float32)}

    def _step(self, step: int) -> Tensor:
        """One optimiser step; returns its losses, (3,) or (4,)."""
        draw = seeds.stream(self.seed, "minimax tuning", step)
        # The host draws while a GPU works on the steps before, and nothing here waits for it.
        x, classes = self._batch(step, draw)
        dropped = torch.rand(len(classes), generator=draw) < self.recipe.label_dropout
        labels = self.labels[classes].where(~dropped, self.prior.null_label)
        t = send(torch.randint(len(self.signal), (len(classes),), generator=draw), x.device)
        noise = send(torch.randn(x.shape, generator=draw), x.device)
        x_t = add_noise(x, noise, self.signal[t])

        output = self._output(x_t, t, labels)
        denoised = self.denoising(output, x, x_t, noise, t)
        predicted, rows = denoised.x0.flatten(1), classes.tolist()
        representativeness, diversity = minimax_losses(predicted, rows, self.real, self.generated)
        self.real.push(rows, x.flatten(1))
        self.generated.push(rows, predicted)

        loss = (
            denoised.loss
            + self.recipe.representativeness_weight * representativeness
            + self.recipe.diversity_weight * diversity
        )
        losses = [denoised.loss, representativeness, diversity]
        if self.matching is not None:
            inverted = self._inverted(x, t, classes, draw)
            cosine = self.matching.cosine(self.denoising.posterior_mean(denoised.x0, x_t, t), inverted)
            loss = loss + 1 - self.recipe.inversion_weight * cosine
            losses.append(cosine)
        self.optimiser.zero_grad()
        with self.prior.products():
            loss.backward()
        self.optimiser.step()
        self.update_average(self.average, self.weights, None)
        return torch.stack(losses).detach()

    @torch.no_grad()
    def _inverted(self, x: Tensor, t: Tensor, classes: Tensor, draw: torch.Generator) -> Tensor:
        """Clean latents one step of DDIM inversion up, whose label is dropped by a draw of its own (as in IMS3's
        program): (B, C, h, w)."""
        assert self.matching is not None
        dropped = torch.rand(len(classes), generator=draw) < self.recipe.label_dropout
        labels = self.labels[classes].where(~dropped, self.prior.null_label)
        epsilon = self._output(x, t, labels)[:, : x.shape[1]]
        return self.matching.inverted(epsilon, x, t)

    def _output(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The network at (B, C, h, w) latents and their (B,) times, in float32."""
        with (
            self.prior.products(),
            torch.autocast(x.device.type, torch.bfloat16, enabled=self.prior.precision == "bf16"),
        ):
            return predict_noise(self.difffit.network, x, t, send(labels, x.device)).float()

    def _batch(self, step: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) drawn from the autoencoder's posterior, and class indices (B,).

        An epoch goes through the images in an order of its own and leaves out what does not fill a batch.
        """
        size = self.recipe.tuning_batch
        epoch, position = divmod(step, len(self.train) // size)
        if self._order[0] != epoch:
            generator = seeds.stream(self.seed, "minimax order", epoch)
            self._order = epoch, torch.randperm(len(self.train), generator=generator)
        rows = self._order[1][position * size : (position + 1) * size].numpy()
        images = self.train.read(rows)
        mirrored = torch.rand(size, generator=draw).numpy() < 0.5
        if self.recipe.flip:
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        mean, std = self.prior.encode(images, self.recipe.encoder)
        if std is not None:
            mean = mean + std * send(torch.randn(mean.shape, generator=draw), mean.device)
        return mean, torch.from_numpy(self.train.labels[rows])

    def _looked_at(self, losses: Tensor, first: int) -> list[list[float]]:
        """The losses as numbers; RunError if one is not finite."""
        values = losses.tolist()
        for step, of_step in enumerate(values, start=first + 1):
            if not np.isfinite(of_step).all():
                raise RunError(
                    f"tuning the prior broke down: at step {step} of {self.recipe.tuning_steps} the losses are "
                    f"{of_step} ({', '.join(NAMES[: len(of_step)])}). Lower learning_rate (now "
                    f"{self.recipe.learning_rate:g}), or use --precision fp32."
                )
        return values

    def _save(self) -> None:
        state = {
            "key": self.key,
            "weights": [weight.detach() for weight in self.weights],
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "real": self.real.of_class,
            "generated": self.generated.of_class,
            "losses": self.losses,
        }
        with whole_file(self.task.scratch / CHECKPOINT) as file:
            torch.save(state, file)

    def _resume(self) -> None:
        state = _read(self.task.scratch / CHECKPOINT)
        if state is None or state["key"] != self.key:
            return
        device = self.prior.device
        with torch.no_grad():
            for mine, kept in zip(self.weights, state["weights"], strict=True):
                mine.copy_(kept)
        self.average, self.losses = [kept.to(device) for kept in state["average"]], state["losses"]
        self.optimiser.load_state_dict(state["optimiser"])
        for memory, kept in ((self.real, state["real"]), (self.generated, state["generated"])):
            memory.of_class = {class_index: latents.to(device) for class_index, latents in kept.items()}


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint, on the CPU, or None if there is none or a power cut has damaged it.

    Raises:
        torch.OutOfMemoryError: there is no memory for it, which says nothing of the file.
    """
    try:
        # The optimiser's counts of steps stay there: it would ask a GPU for each of them at every step.
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if memory_ran_out(error):
            raise
        return None
