"""Six steps of the trainer beside the arithmetic of the released hard-label programs: plain PyTorch, image by image.

Both take the same draws. Here everything after a draw is written from the programs' formulas: which crop ten tries
give, crop, flip, colour jitter, lighting, normalisation, CutMix, both networks, loss, PyTorch's unfused optimisers and
its MultiStepLR. Of ours, only the trainer that is tested takes part, and the initial weights, which are copied.

Where both compute in float64, nothing but the order of sums is left between them, and any other formula stands out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.trainer import StudentResult, train_student

SEED, CLASSES, TESTED = 5, 10, 20
FLOAT64 = 1e-7
"""Of how far the weights came in six steps, at most this is between both (greatest difference over greatest move).
Measured: 4e-15 and 1e-14 with SGD; 7e-12 and 3e-9 with AdamW, which divides by the size of a gradient: those of the
biases before an instance norm are 0, and what rounding leaves of them is all that moves them. The least of the
mistakes below makes 9e-2."""
FLOAT32 = 1e-3
"""The relative difference between losses when the trainer computes as it really does. Measured: 2e-9 before the first
step; after it at most 4e-7, and 2e-4 where AdamW trains `resnet_ap10`."""

GREY = [0.299, 0.587, 0.114]
EIGENVALUES = [0.2175, 0.0188, 0.0045]
EIGENVECTORS = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def double(values: list[float] | list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# What is drawn


@dataclass
class OfImage:
    """The draws of one image."""

    index: int
    areas: list[float]
    log_ratios: list[float]
    corner: list[float]
    """Where the crop lies between the first place and the last, down and across, each in [0, 1)."""
    flipped: bool
    alphas: list[float]
    """Of brightness, contrast, saturation."""
    order: list[int]
    """Of the three."""
    light: list[float]


@dataclass
class OfStep:
    """The draws of one batch. The edges of the box are pixels, the last ones excluded."""

    images: list[OfImage]
    rows: list[int]
    columns: list[int]
    partners: list[int]


def draws_of_epoch(epoch: int, n: int, batch_size: int, side: int) -> list[OfStep]:
    """What the trainer draws in an epoch (1, 2, …), in the order in which it draws."""
    order = torch.randperm(n, generator=seeds.stream(SEED, "shuffle", epoch)).tolist()
    augment, cutmix = seeds.stream(SEED, "augment", epoch), seeds.stream(SEED, "cutmix", epoch)

    def uniform(low: float, high: float, count: int) -> list[list[float]]:
        return (low + (high - low) * torch.rand(n, count, generator=augment, dtype=torch.float64)).tolist()

    of_images = (
        order,
        uniform(0.5, 1, 10),
        uniform(math.log(3 / 4), math.log(4 / 3), 10),
        uniform(0, 1, 2),
        [value < 0.5 for (value,) in uniform(0, 1, 1)],
        uniform(-0.4, 0.4, 3),
        [sorted(range(3), key=row.__getitem__) for row in uniform(0, 1, 3)],
        (0.1 * torch.randn(n, 3, generator=augment, dtype=torch.float64)).tolist(),
    )
    images = [OfImage(*row) for row in zip(*of_images, strict=True)]
    steps = []
    for start in range(0, n, batch_size):
        batch = images[start : start + batch_size]
        cut = int(side * math.sqrt(1 - torch.rand((), generator=cutmix, dtype=torch.float64).item()))
        rows, columns = (
            [max(centre - cut // 2, 0), min(centre + cut // 2, side)]
            for centre in torch.randint(side, (2,), generator=cutmix).tolist()
        )
        steps.append(OfStep(batch, rows, columns, torch.randperm(len(batch), generator=cutmix).tolist()))
    return steps


# What the programs make of it


def augmented(image: np.ndarray, draw: OfImage) -> Tensor:
    """One image (S, S, 3) uint8 as the network gets it before it is mixed, (3, S, S)."""
    x, side = torch.from_numpy(image).permute(2, 0, 1).double() / 255, len(image)
    top, left, height, width = crop_of(draw, side)
    x = x[None, :, top : top + height, left : left + width]
    x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)[0]
    if draw.flipped:
        x = x.flip(-1)
    for kind in draw.order:
        grey = sum(weight * channel for weight, channel in zip(GREY, x, strict=True))
        toward = [torch.zeros(()), grey.mean(), grey][kind]
        x = (1 - draw.alphas[kind]) * x + draw.alphas[kind] * toward
    x = x + (double(EIGENVECTORS) @ (double(draw.light) * double(EIGENVALUES)))[:, None, None]
    return (x - double(MEAN)[:, None, None]) / double(STD)[:, None, None]


def crop_of(draw: OfImage, side: int) -> tuple[int, int, int, int]:
    """Top, left, height, width: the first of ten tries that fits, or else the whole of a square image."""
    for area, log_ratio in zip(draw.areas, draw.log_ratios, strict=True):
        width = round(math.sqrt(area * side**2 * math.exp(log_ratio)))
        height = round(math.sqrt(area * side**2 / math.exp(log_ratio)))
        if 0 < width <= side and 0 < height <= side:
            down, across = draw.corner
            return int(down * (side - height + 1)), int(across * (side - width + 1)), height, width
    return 0, 0, side, side


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean((2, 3), keepdim=True)
    x = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    return weight[:, None, None] * x + bias[:, None, None]


def convnet3(weights: list[Tensor], x: Tensor) -> Tensor:
    convolutions, norms, linear = weights[:6], weights[6:12], weights[12:]
    for i in (0, 2, 4):
        x = F.conv2d(x, convolutions[i], convolutions[i + 1], padding=1)
        x = F.avg_pool2d(instance_norm(x, norms[i], norms[i + 1]).relu(), 2)
    return x.flatten(1) @ linear[0].T + linear[1]


def resnet_ap10(weights: list[Tensor], x: Tensor) -> Tensor:
    """Its form for sides up to 64."""
    take: Iterator[Tensor] = iter(weights)

    def convolved_and_normed(x: Tensor, pool: int = 1) -> Tensor:
        kernel = next(take)
        x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        return instance_norm(F.avg_pool2d(x, pool), next(take), next(take))

    x = convolved_and_normed(x).relu()
    for stride in (1, 2, 2, 2):
        y = F.avg_pool2d(convolved_and_normed(x).relu(), stride)
        y = convolved_and_normed(y)
        x = (y + (convolved_and_normed(x, stride) if stride > 1 else x)).relu()
    return x.mean((2, 3)) @ next(take).T + next(take)


NETWORKS = {"convnet3": convnet3, "resnet_ap10": resnet_ap10}


# Both, over six steps


@dataclass(frozen=True)
class Case:
    protocol: str
    student: str
    side: int
    width: int
    epochs: int
    batch_size: int
    n: int

    def images(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.integers(256, size=(n, self.side, self.side, 3), dtype=np.uint8), rng.integers(CLASSES, size=n)

    def draws(self) -> list[list[OfStep]]:
        return [draws_of_epoch(epoch, self.n, self.batch_size, self.side) for epoch in range(1, self.epochs + 1)]

    def initial(self) -> list[Tensor]:
        network = networks.build(
            self.student, CLASSES, self.side, width=self.width, generator=seeds.stream(SEED, "student-init")
        )
        return [parameter.detach() for parameter in network.parameters()]


@dataclass(frozen=True)
class Trained:
    weights: list[Tensor]
    losses: list[float]
    """Mean of an image in each epoch."""
    predictions: list[int]


def as_programs_do(case: Case, initial: list[Tensor], draws: list[list[OfStep]], late: int = 0) -> Trained:
    """late: epochs by which the learning rate falls too late."""
    weights, network = [weight.double().clone().requires_grad_() for weight in initial], NETWORKS[case.student]
    optimiser: torch.optim.Optimizer
    if case.protocol == "hard-minimax-sgd":
        optimiser = torch.optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=5e-4, foreach=False)
    else:
        optimiser = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, foreach=False)
    milestones = [2 * case.epochs // 3 + late, 5 * case.epochs // 6 + late]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.2)
    images, labels = case.images(case.n, 1)
    losses = []
    for epoch in draws:
        total = 0.0
        for step in epoch:
            plain = torch.stack([augmented(images[draw.index], draw) for draw in step.images])
            y = torch.from_numpy(labels[[draw.index for draw in step.images]])
            (top, bottom), (left, right) = step.rows, step.columns
            x = plain.clone()
            x[:, :, top:bottom, left:right] = plain[step.partners, :, top:bottom, left:right]
            own, logits = 1 - (bottom - top) * (right - left) / case.side**2, network(weights, x)
            loss = own * F.cross_entropy(logits, y) + (1 - own) * F.cross_entropy(logits, y[step.partners])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(y)
        schedule.step()
        losses.append(total / case.n)
    tests = torch.from_numpy(case.images(TESTED, 2)[0]).permute(0, 3, 1, 2).double() / 255
    logits = network(weights, (tests - double(MEAN)[:, None, None]) / double(STD)[:, None, None])
    return Trained([weight.detach() for weight in weights], losses, logits.argmax(1).tolist())


def as_we_do(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    settings = {"image_size": case.side, "epochs": case.epochs, "width": case.width, "batch_size": case.batch_size}
    protocol, file = PROTOCOLS.load(case.protocol).with_overrides(settings), folder / "state.pt"
    result: StudentResult = train_student(
        protocol,
        case.student,
        *case.images(case.n, 1),
        *case.images(TESTED, 2),
        num_classes=CLASSES,
        ipc=1,
        seed=SEED,
        checkpoint=file,
    )
    assert result.steps == 6
    weights = [weight.double() for weight in torch.load(file, weights_only=True)["network"].values()]
    return Trained(weights, [look.train_loss for look in result.curve], result.predictions.tolist())


def flat(weights: list[Tensor]) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights])


def differ(ours: Trained, theirs: Trained, initial: list[Tensor]) -> float:
    """How far apart the weights ended, in units of how far they came."""
    difference, moved = flat(ours.weights) - flat(theirs.weights), flat(theirs.weights) - flat(initial)
    return float(difference.abs().max() / moved.abs().max())


# Three epochs of two steps, the second of a partial batch; six of one, which see both drops of the learning rate.
CASES = [
    Case(protocol, *shape)
    for protocol in ("hard-minimax-sgd", "hard-dmgd-adamw")
    for shape in (("convnet3", 32, 128, 3, 4, 7), ("resnet_ap10", 64, 8, 6, 3, 3))
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.protocol}-{case.student}")


@each_case
def test_six_steps_end_where_the_programs_end(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float64: None
) -> None:
    initial = case.initial()
    ours, theirs = as_we_do(case, tmp_path, monkeypatch), as_programs_do(case, initial, case.draws())
    assert differ(ours, theirs, initial) < FLOAT64
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-9)
    assert ours.predictions == theirs.predictions


@each_case
def test_losses_are_the_programs_in_float32(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = as_we_do(case, tmp_path, monkeypatch), as_programs_do(case, case.initial(), case.draws())
    assert ours.losses == pytest.approx(theirs.losses, rel=FLOAT32)


def test_one_mistake_would_show(float64: None) -> None:
    """In the first step: a box one pixel smaller; contrast and saturation of one image that have taken each other's α;
    partners one place on. And a learning rate that falls an epoch late."""
    case = CASES[0]
    initial, draws = case.initial(), [case.draws() for _ in range(3)]
    box, colour, partners = (each[0][0] for each in draws)
    box.rows[1] -= 1
    alphas = colour.images[0].alphas
    alphas[1], alphas[2] = alphas[2], alphas[1]
    partners.partners.append(partners.partners.pop(0))
    wrong = [as_programs_do(case, initial, each) for each in draws]
    wrong.append(as_programs_do(case, initial, case.draws(), late=1))
    right = as_programs_do(case, initial, case.draws())
    assert min(differ(each, right, initial) for each in wrong) > 1e5 * FLOAT64


def test_order_of_jitter_changes_nothing() -> None:
    """Without clamping, brightness, contrast and saturation commute: each is made of two projections, onto the grey
    image and onto its mean, of which the second lies within the first."""
    case = CASES[0]
    image, draw = case.images(1, 1)[0][0], case.draws()[0][0].images[0]
    expected = augmented(image, draw)
    for order in itertools.permutations(range(3)):
        draw.order = list(order)
        torch.testing.assert_close(augmented(image, draw), expected, rtol=0, atol=1e-13)
