"""The soft protocols: their numbers against RDED's formulae, their loss against SciPy, their trainer against a loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.protocols import augmentation, base, networks
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import soft_rded
from ddbench.benchmark.protocols.epoch import SoftLabels, build_optimiser, train_epoch
from ddbench.benchmark.protocols.images import fit
from ddbench.benchmark.protocols.lengths import BatchTable
from ddbench.benchmark.protocols.pixels import Resident
from ddbench.benchmark.protocols.trainer import EpochReport, StudentResult, train_student

CPU = torch.device("cpu")
FAMILY = [soft_rded.SHUFFLE, soft_rded.HALF, soft_rded.CROP]
SMALL = soft_rded.SHUFFLE.with_overrides({"epochs": 3, "image_size": 16, "batch_size": 8})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Numbers


@pytest.mark.parametrize("protocol", FAMILY)
def test_recipe_is_rdeds(protocol: Protocol) -> None:
    assert (protocol.image_size, protocol.test_image_size_for(0), protocol.epochs_for(10, 10), protocol.cutmix) == (
        224,
        256,
        300,
        True,
    )
    assert {ipc: protocol.batch_size_for(10, ipc) for ipc in (1, 9, 10, 20, 49, 50, 100, None)} == {
        1: 10, 9: 10, 10: 50, 20: 50, 49: 50, 50: 100, 100: 100, None: 100
    }  # fmt: skip
    assert [protocol.batch_size_for(k, 10) for k in (10, 99, 100, 1000)] == [50, 50, 100, 100]
    assert protocol.look_epochs(300) == [250, 260, 270, 280, 290, 300]
    assert protocol.look_epochs(25) == [25]
    assert protocol.look_epochs(7) == [7]
    rates = protocol.schedule.learning_rates(1e-3, 300)
    assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * epoch / 600)) for epoch in range(300)])
    assert (rates[0], rates[-1]) == (1e-3, pytest.approx(0.5e-3, rel=0.01))
    own = {
        name: protocol.optimiser_for(10, name).learning_rate for name in ("resnet18_bn", "timm:vit_tiny", "timm:swin_t")
    }
    assert own == {"resnet18_bn": 1e-3, "timm:vit_tiny": 1e-4, "timm:swin_t": 1e-4}
    assert protocol.teacher is not None
    assert protocol.teacher.imagenet_1k.startswith("f37072fd")  # as the file's name says


def test_the_three_differ_in_their_crops_alone() -> None:
    texts = {"name", "summary", "augmentation"}
    assert len({p.model_dump_json(exclude=texts) for p in FAMILY}) == 1
    crops = [p.augmentation for p in FAMILY]
    assert all(isinstance(crop, base.Crop) for crop in crops)
    assert [(crop.shuffle, crop.scale) for crop in crops] == [(True, (0.5, 1)), (False, (0.5, 1)), (False, (0.08, 1))]  # type: ignore[union-attr]


def test_overrides_of_teachers() -> None:
    changed = soft_rded.HALF.with_overrides(
        {"temperature": "4", "teacher": "convnet3", "second_pass": "true", "learning_rate": 0.01}
    )
    assert changed.teacher is not None
    assert (changed.teacher.temperature, changed.teacher.network, changed.second_pass) == (4, "convnet3", True)
    assert changed.optimiser_for(10, "timm:vit_tiny").learning_rate == 0.01
    assert changed.label == "soft-rded-half[learning_rate=0.01,second_pass=true,teacher=convnet3,temperature=4.0]@1"
    assert Protocol.model_validate_json(changed.model_dump_json()) == changed
    assert not soft_rded.HALF.with_overrides({"second_pass": False}).modified
    with pytest.raises(Problems) as caught:
        PROTOCOLS.load("quick").with_overrides({"temperature": 4, "second_pass": True})
    assert all("has no teacher" in problem for problem in caught.value.problems)
    with pytest.raises(Problems, match="override teacher=resnet_18: unknown network"):
        soft_rded.HALF.with_overrides({"teacher": "resnet_18"})


def test_teacher_and_loss_go_together() -> None:
    with pytest.raises(ValidationError, match="go together"):
        Protocol.model_validate({**soft_rded.HALF.model_dump(), "teacher": None})
    with pytest.raises(ValidationError, match="go together"):
        Protocol.model_validate({**PROTOCOLS.load("quick").model_dump(), "loss": "kl-to-teacher"})


def test_batch_table_below_its_first_row() -> None:
    assert BatchTable(at=((10, 50), (50, 100))).images(1, 1000) == 50


# Images


def test_test_images_are_resized_beyond_the_crop() -> None:
    """256 for 224, and in the same ratio at other sides; the crop is the centre."""
    image = np.zeros((256, 256, 3), np.uint8)
    image[16:240, 16:240] = 200
    assert np.array_equal(fit(soft_rded.HALF, image, 256, test=True), np.full((224, 224, 3), 200, np.uint8))
    small = soft_rded.HALF.with_overrides({"image_size": 28})
    assert small.test_image_size_for(0) == 32
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 64, 3)).copy()
    cropped = fit(small, ramp, 64, test=True)
    assert cropped.shape == (28, 28, 3)
    # Columns 2 … 29 of 32, each the mean place of two of 64: 4 · (2 j + ½).
    np.testing.assert_allclose(cropped[5, 1:-1, 0], 4 * (2 * np.arange(3, 29) + 0.5), atol=2)
    assert fit(small, ramp, 64).shape == (28, 28, 3)
    assert not np.array_equal(fit(small, ramp, 64), cropped)


@pytest.mark.parametrize("image_size", [6, 7])
def test_shuffling_permutes_the_four_patches_by_strips(image_size: int) -> None:
    half = image_size // 2
    image = torch.arange(image_size * image_size * 3, dtype=torch.float32).view(3, image_size, image_size)
    swaps = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    shuffled = augmentation.swap_halves(image.expand(4, -1, -1, -1), swaps)
    for (columns, rows), ours in zip(swaps.tolist(), shuffled, strict=True):
        expected = torch.cat([image[..., half:], image[..., :half]], -1) if columns else image
        expected = torch.cat([expected[:, half:], expected[:, :half]], 1) if rows else expected
        assert torch.equal(ours, expected)
    assert len(torch.unique(shuffled, dim=0)) == 4


def test_half_of_the_images_change_columns_and_half_of_them_rows() -> None:
    settings = soft_rded.SHUFFLE.augmentation
    assert isinstance(settings, base.Crop)
    normalise = augmentation.Normalise((0.5,), (0.5,), CPU)
    rows = augmentation.Crop(settings, normalise).draw(4000, 224, torch.Generator().manual_seed(0))
    counts = np.unique(rows[:, 5:].numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 4
    assert abs(counts - 1000).max() < 150
    area = (rows[:, 2] * rows[:, 3] / 224**2).numpy()
    assert 0.49 < area.min() < 0.52
    whole = augmentation.Crop(settings.model_copy(update={"shuffle": False}), normalise)
    assert not whole.draw(100, 224, torch.Generator()).numpy()[:, 5:].any()


# Training


def test_loss_equals_scipys_divergence() -> None:
    rng = np.random.default_rng(0)
    given, wanted = (rng.normal(0, 30, (5, 7)) for _ in range(2))
    teacher = Fixed(torch.tensor(wanted))
    loss = SoftLabels(teacher, 20.0)(torch.tensor(given), torch.zeros(5, 3, 2, 2), torch.zeros(5), None)
    p, q = softmax(wanted / 20, axis=1), np.exp(log_softmax(given / 20, axis=1))
    assert float(loss) == pytest.approx(rel_entr(p, q).sum(1).mean(), rel=1e-9)


class Fixed(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(x)]


def teacher_of(num_classes: int = 10) -> nn.Module:
    network = networks.build("resnet18_bn", num_classes, 16, generator=torch.Generator().manual_seed(9))
    return network.eval().requires_grad_(False)


def sets(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), np.uint8), np.arange(n) % 10


def train(
    protocol: Protocol = SMALL, teacher: nn.Module | None = None, student: str = "convnet3", **given: Any
) -> StudentResult:
    images, labels = sets()
    return train_student(
        protocol, student, images, labels, images, labels, num_classes=10, ipc=2, seed=0,
        teacher=teacher_of() if teacher is None else teacher, **given,
    )  # fmt: skip


def plain_losses(protocol: Protocol, teacher: nn.Module) -> list[float]:
    """Mean loss of every epoch by the protocol's text: unfused AdamW, torch's own schedule, probabilities by hand."""
    images, _ = sets()
    network = networks.build("convnet3", 10, 16, generator=seeds.stream(0, "student-init"))
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}], lr=1e-3, fused=False
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 6)))
    augment = augmentation.build(protocol, CPU)
    tensors, losses = torch.from_numpy(images).permute(0, 3, 1, 2), []
    for epoch in (1, 2, 3):
        order = torch.randperm(20, generator=seeds.stream(0, "shuffle", epoch))
        rows, cuts = augment.draw(20, 16, seeds.stream(0, "augment", epoch)), seeds.stream(0, "cutmix", epoch)
        total = 0.0
        for start in (0, 8, 16):
            batch = order[start : start + 8]
            x = augmentation.draw_cut(len(batch), 16, cuts).apply(
                augment.apply(tensors[batch], rows[start : start + 8])
            )
            p = torch.softmax(teacher(x) / 20, 1)
            q = torch.softmax(network(x) / 20, 1)
            loss = (p * (p.log() - q.log())).sum() / len(batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        scheduler.step()
        losses.append(total / 20)
    return losses


@pytest.mark.parametrize("published", [soft_rded.SHUFFLE, soft_rded.WHOLE_64], ids=lambda p: p.name)
def test_training_equals_a_plain_loop(published: Protocol) -> None:
    reports: list[EpochReport] = []
    teacher, small = teacher_of(), published.with_overrides({"epochs": 3, "image_size": 16, "batch_size": 8})
    train(small, teacher, on_epoch=reports.append)
    # Divergences of 1e-4 are sums of terms around 1: float32 leaves 1e-7 of them.
    assert [report.train_loss for report in reports] == pytest.approx(plain_losses(small, teacher), rel=1e-3, abs=2e-7)


def test_teacher_is_not_updated() -> None:
    teacher = teacher_of()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    train(teacher=teacher)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_soft_labels_need_a_teacher_and_hard_ones_take_none() -> None:
    images, labels = sets()
    given: dict[str, Any] = {"num_classes": 10, "ipc": 2, "seed": 0}
    with pytest.raises(ValueError, match="trains with a teacher's labels, and no teacher was given"):
        train_student(SMALL, "convnet3", images, labels, images, labels, **given)
    hard = PROTOCOLS.load("hard-minimax-sgd").with_overrides({"epochs": 1, "image_size": 16})
    with pytest.raises(ValueError, match="trains with hard labels, and a teacher was given"):
        train_student(hard, "resnet18", images, labels, images, labels, **given, teacher=teacher_of())


def test_weight_decay_spares_vectors() -> None:
    network = networks.build("resnet18_bn", 10, 16, generator=torch.Generator())
    recipe = soft_rded.HALF.optimiser_for(10)
    groups = build_optimiser(recipe, network, CPU).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        vector = name.endswith("bias") or ".bn" in name or name.startswith("bn") or "downsample.1" in name
        assert decay[id(parameter)] == (0 if vector else 0.01), name


def test_second_pass_moves_batchnorms_statistics_twice_a_step_and_nothing_else() -> None:
    """One step on one batch: m ← 0.9 m + 0.1 b twice is 0.81 m + 0.19 b, with the same b."""
    images, labels = sets(8)

    def after(second_pass: bool) -> dict[str, torch.Tensor]:
        network = networks.build("resnet18_bn", 10, 16, generator=torch.Generator().manual_seed(1))
        optimiser = build_optimiser(SMALL.optimiser_for(10), network, CPU)
        train_epoch(
            network, optimiser, Resident(torch.from_numpy(images)), torch.from_numpy(labels),
            augmentation.build(SMALL, CPU), SoftLabels(teacher_of(), 20.0),
            cutmix=True, batch_size=8, streams=partial(seeds.stream, 0), epoch=1, second_pass=second_pass,
        )  # fmt: skip
        return network.state_dict()

    once, twice = after(False), after(True)
    for name, tensor in twice.items():
        match name.rpartition(".")[2]:
            case "running_mean":
                torch.testing.assert_close(tensor, once[name] * 0.19 / 0.1, rtol=1e-3, atol=1e-6)
            case "running_var":
                torch.testing.assert_close(tensor - 0.81, (once[name] - 0.9) * 0.19 / 0.1, rtol=1e-3, atol=1e-5)
            case "num_batches_tracked":
                assert (int(tensor), int(once[name])) == (2, 1)
            case _:
                torch.testing.assert_close(tensor, once[name], rtol=1e-5, atol=1e-6)
