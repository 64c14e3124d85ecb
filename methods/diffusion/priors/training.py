"""Training a small pixel-space prior: the recipe behind the bundled priors (`bench train-prior`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.files import whole_folder
from ddbench.benchmark.core.transfers import Arriving, send
from ddbench.datasets.base import ImageSource, SplitData, Subset
from ddbench.datasets.hashing import source_hash
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata, PriorMetadata, name_digits
from ddbench.methods.diffusion.schedule import alpha_bar

SCHEDULE = NoiseScheduleMetadata(kind="linear", steps=1000, beta_start=1e-4, beta_end=0.02)
NORM_EPS = 1e-6
FREQ_SHIFT = 0


@dataclass(frozen=True)
class PriorTraining:
    """The recipe: a DiT on pixels in [-1, 1] that predicts ε, in the original DiT's conventions (`PriorMetadata`).

    The defaults are the digits prior's.
    """

    hidden: int = 96
    """Width of the network, a multiple of `heads`."""
    heads: int = 4
    layers: int = 4
    patch: int = 2
    """Side of a patch in pixels; divides the resolution."""
    steps: int = 4000
    batch: int = 128
    learning_rate: float = 1e-3
    """Highest learning rate: after a linear warm-up it falls to zero along half a cosine."""
    warmup_steps: int = 100
    weight_decay: float = 0.01
    label_dropout: float = 0.1
    """Share of training images whose label is replaced by the null label, for classifier-free guidance."""
    min_snr: float | None = 5.0
    """γ of the weight min(SNR, γ)/SNR on the ε loss (Hang et al. 2023, "Efficient Diffusion Training via Min-SNR
    Weighting Strategy", section 3.4); None weights every timestep alike."""
    ema: float = 0.9995
    """Decay of the weights' moving average, which is what is saved; (1 + n)/(10 + n) after n steps while smaller."""
    flip: bool = False
    """Whether half of the training images are mirrored; for data where a mirrored image is still of its class."""
    withhold_validation: bool = True
    """Whether the split's validation part is left out: what is tuned on it is then tuned on images that the prior never
    saw."""

    def problems(self, shape: tuple[int, int, int]) -> list[str]:
        """What is wrong with these settings for images of that (H, W, C); empty if nothing."""
        height, width, _ = shape
        checks = [
            (height == width, f"expected square images, got {height}×{width}"),
            (height % self.patch == 0, f"patch {self.patch} does not divide the side {height}"),
            (self.hidden % self.heads == 0, f"hidden {self.hidden} is not a multiple of heads {self.heads}"),
            (self.steps >= 1, f"expected at least 1 step, got {self.steps}"),
            (self.batch >= 1, f"expected a batch of at least 1, got {self.batch}"),
            (0 < self.label_dropout < 1, f"label_dropout {self.label_dropout} is not between 0 and 1"),
            (0 <= self.ema < 1, f"ema {self.ema} is not in [0, 1)"),
            (self.min_snr is None or self.min_snr > 0, f"min_snr {self.min_snr} is not positive"),
        ]
        return [message for fine, message in checks if not fine]


@dataclass(frozen=True)
class PriorTrainingReport:
    """What a training run measured. Losses are mean squared errors of ε per pixel, of the weights as they were saved,
    unweighted (`denoising_error`)."""

    images: int
    loss: float
    """Loss on images that the network was trained on, as many as are held out, evenly spaced."""
    held_out_loss: float | None
    """Loss on the validation part; None if it was not withheld."""
    seconds: float
    parameters: int
    """Number of the network's parameters, with its one embedder."""


OnStep = Callable[[int, int, float], None]
"""Called after each step: steps done, steps in all, this batch's weighted loss."""


def train_prior(
    split: SplitData,
    class_ids: Sequence[str],
    settings: PriorTraining,
    out: Path,
    *,
    seed: int,
    trained_on: str,
    names_of: str = "",
    device: torch.device | str = "cpu",
    on_step: OnStep = lambda done, steps, loss: None,
) -> PriorTrainingReport:
    """Train a prior on a split's training images and write it as a folder that `find_prior` reads.

    The split's test images are not read. Every draw comes from a named stream: on one machine, device and number of
    threads, a seed gives the same folder, bit for bit. The folder appears when it is whole.

    Args:
        split: images of any side and number of channels.
        class_ids: the dataset's class list in label order; the null label comes after the last.
        out: the folder to make; its parents are made too.
        trained_on: the data in words; the number of images is added.
        names_of: the datasets in which the images' names are those images (`run_prior.names_of`); empty: not to be
            noted.

    Raises:
        UsageError: `out` exists already, or the settings do not fit the images.
    """
    if out.exists():
        raise UsageError(f"{out} exists already: name another folder for the prior, or remove this one")
    everything = np.arange(len(split.train))
    withheld = split.validation if settings.withhold_validation else everything[:0]
    source, held_out = Subset(split.train, np.setdiff1d(everything, withheld)), Subset(split.train, withheld)
    image_size, _, channels = shape = source.read([0]).shape[1:]
    if problems := settings.problems(shape):
        raise Problems([f"the prior cannot be trained: {problem}" for problem in problems])

    started = time.perf_counter()
    network = build_network(settings, channels, image_size, len(class_ids), seed).to(device)
    average = build_network(settings, channels, image_size, len(class_ids), seed).to(device)
    _optimise(network, average, *load_pixels(source), len(class_ids), settings, seed, on_step)
    seconds = time.perf_counter() - started

    average.half().float()  # what is measured is what is saved
    probe = Subset(source, np.linspace(0, len(source) - 1, len(held_out) or len(source)).astype(np.int64))
    report = PriorTrainingReport(
        images=len(source),
        loss=denoising_error(average, *load_pixels(probe)),
        held_out_loss=denoising_error(average, *load_pixels(held_out)) if len(held_out) else None,
        seconds=seconds,
        parameters=sum(parameter.numel() for parameter in average.parameters()),
    )
    part = f"training part without its {len(held_out)} validation images" if len(held_out) else "training part"
    metadata = PriorMetadata(
        space=f"pixels, {channels} channel{'s' * (channels > 1)} in [-1, 1], no autoencoder",
        resolution=image_size,
        prediction="epsilon",
        learned_variance=False,
        schedule=SCHEDULE,
        freq_shift=FREQ_SHIFT,
        norm_eps=NORM_EPS,
        guided_channels="all",
        clip_denoised=True,
        latent_scale=1.0,
        class_ids=tuple(class_ids),
        null_label=len(class_ids),
        trained_on=f"{trained_on}, {part}: {report.images} images",
        train_split_hashes=(split.split_hash,),
        train_hash=source_hash(source),
        train_images="".join(sorted(name_digits(names_of, name) for name in source.names)) if names_of else "",
        training={"seed": seed, **asdict(settings), "loss": report.loss, "held_out_loss": report.held_out_loss},
    )
    _save(average, metadata, out)
    return report


def load_pixels(source: ImageSource) -> tuple[Tensor, Tensor]:
    """All images of a source as (N, C, H, W) float32 in [-1, 1], and their labels (N,) int64."""
    pixels = torch.from_numpy(source.read(np.arange(len(source)))).permute(0, 3, 1, 2)
    return pixels.float().div(127.5).sub(1), torch.from_numpy(source.labels)


def build_network(settings: PriorTraining, channels: int, image_size: int, classes: int, seed: int) -> DenoisingNetwork:
    """An untrained network, initialised as DiT's authors do (Peebles & Xie, arXiv 2212.09748, section 3.2): blocks
    start as the identity, the output as zero."""
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights, which are all drawn anew below
        transformer: Any = DiTTransformer2DModel(
            num_attention_heads=settings.heads,
            attention_head_dim=settings.hidden // settings.heads,
            in_channels=channels,
            out_channels=channels,
            num_layers=settings.layers,
            sample_size=image_size,
            patch_size=settings.patch,
            num_embeds_ada_norm=classes,
            norm_eps=NORM_EPS,
        )
    blocks = transformer.transformer_blocks
    for block in blocks[1:]:
        block.norm1.emb = blocks[0].norm1.emb
    network = DenoisingNetwork(transformer, FREQ_SHIFT)

    zero = ("norm1.linear.weight", "proj_out_1.weight", "proj_out_2.weight")
    small = ("linear_1.weight", "linear_2.weight", "embedding_table.weight")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            generator = seeds.stream(seed, "prior initialisation", name)
            if parameter.dim() == 1 or name.endswith(zero):
                nn.init.zeros_(parameter)
            elif name.endswith(small):
                nn.init.normal_(parameter, std=0.02, generator=generator)
            else:
                nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
    return network


def _optimise(
    network: DenoisingNetwork,
    average: DenoisingNetwork,
    images: Tensor,
    labels: Tensor,
    null_label: int,
    settings: PriorTraining,
    seed: int,
    on_step: OnStep,
) -> None:
    """Train `network`; `average` becomes the moving average of its weights."""
    device = next(network.parameters()).device
    signal = alpha_bar(SCHEDULE)
    snr = signal / (1 - signal)
    weight = torch.ones_like(snr) if settings.min_snr is None else snr.clamp(max=settings.min_snr) / snr
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _learning_rate_factor(step, settings))
    draw = {what: seeds.stream(seed, "prior training", what) for what in ("image", "mirror", "label", "time", "noise")}
    before: Arriving | None = None
    for step in range(settings.steps):
        rows = torch.randint(len(images), (settings.batch,), generator=draw["image"])
        x, y = images[rows], labels[rows]
        if settings.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, generator=draw["mirror"]) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        y = y.where(torch.rand(len(y), generator=draw["label"]) >= settings.label_dropout, null_label)
        t = torch.randint(SCHEDULE.steps, (len(x),), generator=draw["time"])
        noise = torch.randn(x.shape, generator=draw["noise"])

        noisy, of_step, t_on, y_on, noise_on = (
            send(one, device) for one in (add_noise(x, noise, signal[t]), weight[t].float(), t, y, noise)
        )
        error = (predict_noise(network, noisy, t_on, y_on) - noise_on).square().flatten(1).mean(1)
        loss = (of_step * error).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            keep = min(settings.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
        if before is not None:  # read a step late, so that a GPU never waits to be asked for more
            on_step(step, settings.steps, before.tolist()[0])
        before = Arriving(loss.detach()[None])
    if before is not None:
        on_step(settings.steps, settings.steps, before.tolist()[0])


def _learning_rate_factor(step: int, settings: PriorTraining) -> float:
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def add_noise(x: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """√ᾱ·x + √(1-ᾱ)·noise for (N, C, H, W) images and (N,) ᾱ."""
    signal = signal.view(-1, 1, 1, 1)
    return signal.sqrt().float() * x + (1 - signal).sqrt().float() * noise


def predict_noise(network: DenoisingNetwork, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """ε(x, t, y) for (N, C, H, W) noisy images, (N,) timesteps and (N,) labels."""
    return network(x, network.embed_time(t) + network.embed_labels(y))


@torch.no_grad()
def denoising_error(network: DenoisingNetwork, images: Tensor, labels: Tensor) -> float:
    """Mean squared error of ε per pixel, given the label, over t = 25, 75 … 975 under one fixed draw of noise."""
    device = next(network.parameters()).device
    generator = seeds.stream(0, "prior denoising error")
    signal = alpha_bar(SCHEDULE)
    errors = []
    for t in range(25, SCHEDULE.steps, 50):
        times = torch.full((len(images),), t)
        noise = torch.randn(images.shape, generator=generator)
        noisy = add_noise(images, noise, signal[times]).to(device)
        predicted = predict_noise(network, noisy, times.to(device), labels.to(device))
        errors.append((predicted.cpu() - noise).square().mean().item())
    return sum(errors) / len(errors)


def _save(network: DenoisingNetwork, metadata: PriorMetadata, out: Path) -> None:
    with whole_folder(out, existing="refuse") as partial:
        network.save(partial, metadata, torch.float16)
        for file in partial.iterdir():
            file.chmod(0o644)
