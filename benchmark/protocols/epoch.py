"""One pass over training images, and one look at others: what every training here is made of.

Shapes: N images, B of a batch, C channels, S side in pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.gpu_errors import memory_ran_out
from ddbench.benchmark.core.transfers import Arriving, send
from ddbench.benchmark.protocols import augmentation
from ddbench.benchmark.protocols.augmentation import Cut
from ddbench.benchmark.protocols.base import AdamW, Sgd
from ddbench.benchmark.protocols.pixels import Pixels

TEST_BATCH = 128
"""Images per forward pass of a test. It changes no result beyond float error, so it is no part of a protocol."""
TEST_PIXELS = TEST_BATCH * 112**2
"""Pixels per forward pass of a test on a GPU, which 128 small images would leave idle; 128 of 224 px have four times as
many. Free memory has no say: it would be another one in the next run."""
DRAWN_TOGETHER = 1 << 16
"""Images whose augmentation is drawn at once: what bounds the memory of the draws."""

Streams = Callable[..., torch.Generator]
"""(purpose, *key) -> the CPU generator of that stream, `seeds.stream` of a training's seed."""


class Loss(Protocol):
    """What a training makes small."""

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor, cut: Cut | None) -> Tensor:
        """The mean loss of a batch.

        Args:
            logits: (B, K) of `images`.
            images: (B, C, S, S) as the network took them: augmented, normalised, mixed.
            labels: (B or more,) classes, or (B or more, K) probabilities, of the images before they were mixed; behind
                B come those of images that `cut` has partners in and that are not among these.
            cut: how they were mixed; None: they were not.
        """


@runtime_checkable
class LossOfBatch(Protocol):
    """A `Loss` that has to see a whole batch before its parts."""

    def of_batch(self, images: Tensor, at_once: int) -> Callable[[slice], Loss]:
        """The loss of each part of a batch (B, C, S, S), which passes in pieces of `at_once`."""


def cross_entropy(logits: Tensor, images: Tensor, labels: Tensor, cut: Cut | None) -> Tensor:
    """`Loss` against hard labels; mixed images have two, weighted by the area."""
    own_labels = labels[: len(logits)]
    if cut is None:
        return F.cross_entropy(logits, own_labels)
    own = cut.own_share(images.shape[-1])
    return own * F.cross_entropy(logits, own_labels) + (1 - own) * F.cross_entropy(logits, labels[cut.partners])


class SoftLabels:
    """`Loss` against the outputs of a teacher (`base.Teacher`), or of several together (`soft.outputs`).

    Args:
        teacher: in evaluation mode, its parameters frozen; it takes images normalised as the student's are.
        half: round its outputs to half precision, in which programs that store them do.
    """

    def __init__(self, teacher: nn.Module, temperature: float, *, half: bool = False) -> None:
        self.teacher, self.temperature, self.half = teacher, temperature, half

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor, cut: Cut | None) -> Tensor:
        with torch.no_grad():
            outputs = self.teacher(images)
            if self.half:
                outputs = outputs.half().to(outputs.dtype)
            target = F.log_softmax(outputs / self.temperature, dim=1)
        given = F.log_softmax(logits / self.temperature, dim=1)
        return F.kl_div(given, target, reduction="batchmean", log_target=True)


class KlToStored:
    """`Loss` against the soft labels of the images (`base.StoredLabels`), which are probabilities here."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor, cut: Cut | None) -> Tensor:
        given = F.log_softmax(logits / self.temperature, dim=1)
        loss = F.kl_div(given, labels[: len(logits)], reduction="batchmean")
        if cut is None:
            return loss
        own = cut.own_share(images.shape[-1])
        return own * loss + (1 - own) * F.kl_div(given, labels[cut.partners], reduction="batchmean")


EACH_IMAGE_ALONE = (
    nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.ReLU, nn.GELU, nn.SiLU, nn.AvgPool2d, nn.MaxPool2d,
    nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Sequential,
)  # fmt: skip
"""Layers in which no image of a batch meets another, and which draw nothing; an empty sequence is one."""


def each_image_alone(network: nn.Module) -> bool:
    """Whether all its layers are such."""
    layers = (module for module in network.modules() if not any(True for _ in module.children()))
    return all(isinstance(each, EACH_IMAGE_ALONE) for each in layers)


class MicroBatches:
    """How many images of a batch pass through the network at once. Where GPU memory runs out, half as many do: the
    gradient is still the whole batch's, up to the order of sums, as long as each layer takes each image alone.
    BatchNorm does not, and dropout would draw otherwise."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.too_large: list[int] = []

    def halve(self, network: nn.Module, error: RuntimeError) -> bool:
        """Whether it can go on with half, after that error."""
        if self.size == 1 or not memory_ran_out(error) or not each_image_alone(network):
            return False
        self.too_large.append(self.size)
        self.size //= 2
        print(f"out of GPU memory with {self.too_large[-1]} images at once; going on with {self.size}", flush=True)
        return True


@dataclass(frozen=True)
class EpochLosses:
    """The losses of an epoch's steps. A GPU may still be computing them, and `mean` waits until they are there: a
    training that has the next epoch to give it does that first."""

    losses: Arriving
    sizes: list[int]
    """Images of each step."""
    where: str
    """Epoch and learning rate, for the message of a failure."""
    what: str
    look_at: str
    """What may be wrong where a loss is not finite, for people."""

    def mean(self) -> float:
        """The mean loss of an image.

        Raises:
            RunError: a loss that is not finite.
        """
        values = self.losses.tolist()
        for step, value in enumerate(values, start=1):
            if not math.isfinite(value):
                raise RunError(
                    f"{self.what}'s training loss became {value} at step {step} of {len(values)} in {self.where}. Look "
                    f"at {self.look_at}; if the protocol is overridden, lower learning_rate."
                )
        return sum(value * size for value, size in zip(values, self.sizes, strict=True)) / sum(self.sizes)


def shuffled(count: int, streams: Streams, epoch: int) -> Tensor:
    """(count,) the order in which an epoch's images pass, where nothing else is asked for."""
    return torch.randperm(count, generator=streams("shuffle", epoch))


def train_epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    pixels: Pixels,
    labels: Tensor,
    augment: augmentation.Augmentation,
    loss_of: Loss,
    *,
    cutmix: bool,
    batch_size: int,
    streams: Streams,
    epoch: int,
    second_pass: bool = False,
    what: str = "the student",
    look_at: str = "the training images",
    micro_batches: MicroBatches | None = None,
    batchnorm_parts: int | None = None,
    order: Tensor | None = None,
    rates: Sequence[float] | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
    after_step: Callable[[int, int], None] | None = None,
) -> EpochLosses:
    """One pass over the reshuffled images, last partial batch included. The host waits for a GPU nowhere in it.

    A last batch of a single image is left out where the network has BatchNorm.

    Args:
        order: positions of the images that pass, one after another, in place of a reshuffled pass.
        rates: the learning rate of each step; None: the optimiser's.
        batchnorm_parts: as the field of `base.Protocol`.
        labels: (N,) classes, or what else `loss_of` takes, on the device.
        streams: named by the epoch: `shuffle`, `augment`, `cutmix`, and `layers` for layers that draw (dropout).
        second_pass: a forward pass more on every mixed batch, which moves BatchNorm's running statistics a second time.
        what: is trained, for the message of a failure.
        look_at: what may be wrong where a loss is not finite.
        micro_batches: of the training; None: each batch in one piece, whatever memory it takes.
        forward: gives the network's logits; None: the network does.
        after_step: called with (steps done, steps of the epoch).

    Raises:
        RunError: a single image passes at once, of which this network's BatchNorm has no statistics.
    """
    device, image_size = labels.device, pixels.image_size
    if order is None:
        order = shuffled(len(pixels), streams, epoch)
    n, parts = len(order), _parts(micro_batches, batchnorm_parts, batch_size)
    rows = _draw_rows(augment, n, image_size, streams("augment", epoch))
    rows = rows if augment.on_host else send(rows, device)
    if _leaves_one_out(network, n, batch_size):  # another image in every epoch
        order, rows = order[:-1], rows[:-1]
    sizes = batches_of_epoch(network, n, batch_size)
    cuts = _draw_cuts(sizes, image_size, streams("cutmix", epoch), device) if cutmix else [None] * len(sizes)
    losses = torch.empty(len(sizes), device=device)
    network.train()
    with _drawing_layers(streams("layers", epoch), device):
        batches = zip(
            pixels.batches(order, batch_size),
            send(order, device).split(batch_size),
            rows.split(batch_size),
            cuts,
            strict=True,
        )
        for step, (raw, batch, batch_rows, cut) in enumerate(batches):
            images, y = augment.apply(raw, batch_rows), labels[batch]
            if cut is not None:
                images = cut.apply(images)
            if rates is not None:
                _set_rate(optimiser, rates[step])
            while True:
                optimiser.zero_grad()
                try:
                    losses[step] = _backward(network, forward or network, images, y, cut, loss_of, parts(), second_pass)
                    break
                except RuntimeError as error:
                    if micro_batches is None or not micro_batches.halve(network, error):
                        raise
                except ValueError as error:
                    if "more than 1 value per channel" not in str(error):  # PyTorch's BatchNorm
                        raise
                    raise RunError(
                        f"{what} has BatchNorm, which has no statistics of a single image where feature maps have one "
                        f"pixel: a step of {len(images)} images passes one alone. Choose a larger batch_size, a "
                        "network without BatchNorm, or larger images."
                    ) from error
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)  # the cell's peak is that of what fits
            optimiser.step()
            if after_step is not None:
                after_step(step + 1, len(sizes))
    where = f"epoch {epoch} (learning rate {optimiser.param_groups[0]['lr']:g})"
    return EpochLosses(Arriving(losses), sizes, where, what, look_at)


class Parts(NamedTuple):
    """How a batch passes through the network."""

    at_once: int | None
    """Images of a part; None: all."""
    weight: float | None
    """Of each part's mean gradient; None: its share of the batch's images, so that the sum is the batch's mean."""


def _parts(micro_batches: MicroBatches | None, batchnorm_parts: int | None, batch_size: int) -> Callable[[], Parts]:
    """The parts of the next batch: they get smaller where GPU memory runs out."""
    if batchnorm_parts is not None:
        return lambda: Parts(-(-batch_size // batchnorm_parts), 1 / batchnorm_parts)
    return lambda: Parts(None if micro_batches is None else micro_batches.size, None)


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _backward(
    network: nn.Module,
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    cut: Cut | None,
    loss_of: Loss,
    parts: Parts,
    second_pass: bool,
) -> Tensor:
    """The mean loss of a batch, whose gradient is summed over parts."""
    n, losses = len(images), []
    at_once = parts.at_once or n
    of_part = loss_of.of_batch(images, at_once) if isinstance(loss_of, LossOfBatch) else None
    for start in range(0, n, at_once):
        here = slice(start, start + at_once)
        x, y, mixed = images[here], labels[here], cut
        if cut is not None and len(x) < n:
            y = torch.cat([y, labels[cut.partners[here]]])
            mixed = cut._replace(partners=torch.arange(len(x), len(y), device=y.device))
        if second_pass:
            with torch.no_grad():
                network(x)
        of_this = loss_of if of_part is None else of_part(here)
        loss, share = of_this(forward(x), x, y, mixed), len(x) / n
        weight = share if parts.weight is None else parts.weight
        (loss if weight == 1 else loss * weight).backward()
        losses.append(loss.detach() if share == 1 else loss.detach() * share)
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _leaves_one_out(network: nn.Module, n: int, batch_size: int) -> bool:
    """Whether the last batch would be a single image, of which BatchNorm has no statistics."""
    return n > 1 and n % batch_size == 1 and _has_batchnorm(network)


def batches_of_epoch(network: nn.Module, n: int, batch_size: int) -> list[int]:
    """Images of each step that `train_epoch` takes over n images."""
    return _split(n - _leaves_one_out(network, n, batch_size), batch_size)


def most_in_test(pixels: Pixels, device: torch.device) -> int:
    """The most images of a forward pass in which `top_classes` looks at them."""
    return TEST_BATCH if device.type == "cpu" else max(TEST_BATCH, TEST_PIXELS // pixels.image_size**2)


def batches_of_test(pixels: Pixels, device: torch.device) -> list[int]:
    """Images of each of those passes."""
    return _split(len(pixels), most_in_test(pixels, device))


def _split(n: int, size: int) -> list[int]:
    return [min(size, n - start) for start in range(0, n, size)]


def _draw_rows(augment: augmentation.Augmentation, n: int, image_size: int, generator: torch.Generator) -> Tensor:
    together = max(DRAWN_TOGETHER // augment.batch_size, 1) * augment.batch_size  # whole steps
    starts = range(0, n, together)
    return torch.cat([augment.draw(min(together, n - start), image_size, generator) for start in starts])


def _draw_cuts(sizes: list[int], image_size: int, generator: torch.Generator, device: torch.device) -> list[Cut]:
    """An epoch's, with the partners on the device in one copy."""
    cuts = [augmentation.draw_cut(size, image_size, generator) for size in sizes]
    partners = send(torch.cat([cut.partners for cut in cuts]), device).split(sizes)
    return [cut._replace(partners=mine) for cut, mine in zip(cuts, partners, strict=True)]


@contextmanager
def _drawing_layers(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """PyTorch's global generators at the start of a named stream: dropout and stochastic depth draw from no other."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield


@torch.inference_mode()
def top_classes(
    network: nn.Module,
    normalise: augmentation.Normalise,
    pixels: Pixels,
    most: int = 5,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """(N, min(most, K)) class indices by falling logit, in evaluation mode; `forward` as `train_epoch` takes it."""
    network.eval()
    top = []
    device = next(network.parameters()).device
    for raw in pixels.batches(torch.arange(len(pixels)), most_in_test(pixels, device)):
        logits = (forward or network)(normalise(raw))
        top.append(logits.topk(min(most, logits.shape[1]), dim=1).indices)
    return torch.cat(top).cpu().numpy()


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, in the memory layout for it."""
    # BatchNorm networks run channels_last on a GPU; instance norm's kernel would copy the maps back at every layer.
    if device.type == "cuda" and _has_batchnorm(network):
        return network.to(device).to(memory_format=torch.channels_last)
    return network.to(device)


def _has_batchnorm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())


def build_optimiser(recipe: Sgd | AdamW, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser that `recipe` describes, fused where PyTorch has it."""
    fused = device.type in ("cpu", "cuda")
    decay, rate = recipe.weight_decay, recipe.learning_rate
    if isinstance(recipe, Sgd):
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=fused)
    parameters = list(network.parameters())
    groups: list[dict[str, object]] = [{"params": parameters, "weight_decay": decay}]
    if recipe.decay_above_dimensions is not None:
        decayed = [p for p in parameters if p.ndim > recipe.decay_above_dimensions]
        others = [p for p in parameters if p.ndim <= recipe.decay_above_dimensions]
        groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=recipe.betas, fused=fused)
