"""dc-convnet3-zca: dc-convnet3 but for its whitening, and a training against a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import augmentation, networks
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import dc_convnet3, hard_minimax_sgd, soft_rded
from ddbench.benchmark.protocols.definitions.dc_convnet3_zca import PROTOCOL
from ddbench.benchmark.protocols.trainer import EpochReport, train_student
from ddbench.datasets import whitening
from ddbench.datasets.base import ArraySource

CPU = torch.device("cpu")
SIDE = 8
SMALL = PROTOCOL.with_overrides(
    {"epochs": 6, "width": 8, "batch_size": 16, "augmentation": False, "learning_rate": 0.1}
)
RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (200, SIDE, SIDE, 3), np.uint8) // 4 + RNG.integers(0, 192, (200, 1, 1, 1), np.uint8)
TRAIN, TEST, LABELS = REAL[:40], REAL[100:120], np.arange(40) % 10
ZCA = whitening.fit(ArraySource(REAL, np.zeros(200), [""] * 200), 0.1)


def train(protocol: Protocol = SMALL, **given: Any) -> Any:
    return train_student(
        protocol, "convnet3", TRAIN, LABELS, TEST, LABELS[:20], num_classes=10, ipc=4, seed=3,
        **{"zca": ZCA, **given},
    )  # fmt: skip


def test_it_is_dc_convnet3_but_for_its_pixels() -> None:
    pixels = {"name", "summary", "channels", "mean", "std", "statistics", "whitening", "students_per_set"}
    assert PROTOCOL.model_dump(exclude=pixels) == dc_convnet3.PROTOCOL.model_dump(exclude=pixels)
    assert PROTOCOL.whitening is not None
    assert PROTOCOL.whitening.epsilon == 0.1
    assert PROTOCOL.normalisation("cifar10") == ((0.0,), (1.0,)), "nothing but the whitening"


def white() -> tuple[torch.Tensor, torch.Tensor]:
    """Training and test images, whitened by NumPy in float64 from the real images' covariance."""
    flat = REAL.transpose(0, 3, 1, 2).reshape(200, -1) / 255
    mean = flat.mean(0)
    u, s, _ = np.linalg.svd((flat - mean).T @ (flat - mean) / 199)
    w = u @ np.diag((s + 0.1) ** -0.5) @ u.T

    def of(images: np.ndarray) -> torch.Tensor:
        x = (images.transpose(0, 3, 1, 2).reshape(len(images), -1) / 255 - mean) @ w
        return torch.from_numpy(x.reshape(-1, 3, SIDE, SIDE)).float()

    return of(TRAIN), of(TEST)


def test_a_training_equals_a_plain_loop() -> None:
    reports: list[EpochReport] = []
    found = train(on_epoch=reports.append)
    (x, x_test), y, losses, rate = white(), torch.from_numpy(LABELS), [], 0.1
    network = networks.build("convnet3", 10, SIDE, 3, 8, seeds.stream(3, "student-init"))
    for epoch in range(6):
        if epoch in (0, 3):
            optimiser = torch.optim.SGD(
                network.parameters(), lr=rate if epoch == 0 else rate / 10, momentum=0.9, weight_decay=0.0005
            )
        total = 0.0
        for batch in torch.randperm(40, generator=seeds.stream(3, "shuffle", epoch + 1)).split(16):
            optimiser.zero_grad()
            loss = F.cross_entropy(network(x[batch]), y[batch])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / 40)
    assert [report.train_loss for report in reports] == pytest.approx(losses, rel=1e-4)
    with torch.no_grad():
        assert np.array_equal(network(x_test).argmax(1).numpy(), found.predictions)


def test_siamese_augmentation_is_of_whitened_images() -> None:
    """Cut out is 0 there, the mean of the training images."""
    settings = dc_convnet3.PROTOCOL.augmentation
    assert settings is not None
    only = PROTOCOL.model_copy(update={"augmentation": settings.model_copy(update={"operations": ("cutout",)})})
    augment = augmentation.build(only, CPU, None, 4, ZCA)
    images = torch.from_numpy(TRAIN[:4]).permute(0, 3, 1, 2)
    seen = augment.apply(images, augment.draw(4, SIDE, torch.Generator().manual_seed(0)))
    kept = seen != 0
    assert 0.3 < kept.float().mean() < 1
    assert torch.allclose(seen[kept], white()[0][:4][kept], atol=1e-5)


def test_it_matters_that_images_are_whitened() -> None:
    """Else the loop above says nothing."""
    whitened, plain = list[EpochReport](), list[EpochReport]()
    train(on_epoch=whitened.append)
    train(SMALL.model_copy(update={"whitening": None}), zca=None, on_epoch=plain.append)
    assert abs(whitened[-1].train_loss - plain[-1].train_loss) > 1e-3 * plain[-1].train_loss


def test_what_goes_together() -> None:
    with pytest.raises(ValueError, match="a whitening was given, or was not"):
        train(zca=None)
    plain = dc_convnet3.PROTOCOL.with_overrides({"epochs": 1, "width": 8})
    with pytest.raises(ValueError, match="a whitening was given, or was not"):
        train(plain)
    for other in (hard_minimax_sgd.PROTOCOL, soft_rded.HALF):
        pixels = {"mean": (0,), "std": (1,), "whitening": {"epsilon": 0.1}}
        with pytest.raises(ValidationError, match="no colours to jitter, and no teacher"):
            Protocol.model_validate({**other.model_dump(), **pixels})
    with pytest.raises(ValidationError, match="mean must be 0 and std 1"):
        Protocol.model_validate({**PROTOCOL.model_dump(), "mean": (0.5,)})
    PROTOCOL.check_student("convnet3", 64)
    with pytest.raises(UsageError, match=r"whitens images of up to 64 px, got 128 px; choose --resolution 64"):
        PROTOCOL.check_student("convnet3", 128)


def test_a_resumed_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    small = PROTOCOL.with_overrides({"epochs": 6, "width": 8})

    class Killed(Exception):
        pass

    def stop(report: EpochReport) -> None:
        if report.epoch == 3:
            raise Killed

    whole: list[EpochReport] = []
    expected = train(small, on_epoch=whole.append)
    with pytest.raises(Killed):
        train(small, checkpoint=tmp_path / "c.pt", on_epoch=stop)
    rest: list[EpochReport] = []
    assert np.array_equal(
        train(small, checkpoint=tmp_path / "c.pt", on_epoch=rest.append).predictions, expected.predictions
    )
    assert [report.train_loss for report in rest] == [report.train_loss for report in whole[3:]]
