"""hard-nodistill: its numbers against its program's formulae, and a training against a plain loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import augmentation, networks
from ddbench.benchmark.protocols.base import IMAGENET_MEAN, IMAGENET_STD
from ddbench.benchmark.protocols.definitions.dc_convnet3 import PROTOCOL as DC
from ddbench.benchmark.protocols.definitions.hard_nodistill import PROTOCOL
from ddbench.benchmark.protocols.images import fit
from ddbench.benchmark.protocols.trainer import EpochReport, train_student

SIDE = 16
SMALL = PROTOCOL.with_overrides({"epochs": 5, "image_size": SIDE, "batch_size": 8, "learning_rate": 0.001})
RNG = np.random.default_rng(0)
TRAIN, TEST, LABELS = *(RNG.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8) for n in (20, 12)), np.arange(20) % 4


def train(**given: Any) -> Any:
    return train_student(SMALL, "convnet3", TRAIN, LABELS, TEST, LABELS[:12], num_classes=4, ipc=5, seed=3, **given)


def test_its_numbers() -> None:
    known = {ipc: PROTOCOL.rate_of("imagenet-1k", "resnet18_bn", ipc) for ipc in (1, 10, 50, 100, 200)}
    assert [rate.learning_rate for rate in known.values() if rate] == [1e-3, 5e-3, 5e-3, 5e-3, 2e-3]
    with pytest.raises(UsageError, match=r"none for resnet18_bn on nette at IPC 10.*hard-nodistill\[learning_rate=…\]"):
        PROTOCOL.rate_of("nette", "resnet18_bn", 10)
    assert {PROTOCOL.epochs_for(ipc, 1000) for ipc in (1, 50, None)} == {3001}
    assert PROTOCOL.look_epochs(3001) == [1, *range(201, 3002, 200)], "after the epochs 200, 400, … counted from 0"
    rates = PROTOCOL.schedule.learning_rates(5e-3, 3001)
    assert rates == pytest.approx([5e-3 * 0.5 * (1 + math.cos(math.pi * step / 3000)) for step in range(3001)])
    assert rates[3000] == pytest.approx(0, abs=1e-12)
    assert PROTOCOL.augmentation == DC.augmentation
    image = np.zeros((256, 256, 3), np.uint8)
    image[16:240, 16:240] = 9
    assert (fit(PROTOCOL, image, 256, test=True) == 9).all(), "256, and the centre of 224"


def test_a_training_equals_a_plain_loop() -> None:
    """Each step's operation drawn for its batch; decay on every parameter; unfused AdamW."""
    reports: list[EpochReport] = []
    found = train(on_epoch=reports.append)
    network = networks.build("convnet3", 4, SIDE, generator=seeds.stream(3, "student-init"))
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=0.01, fused=False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    augment = augmentation.build(SMALL, torch.device("cpu"), None, 8)
    x, x_test = (torch.from_numpy(images).permute(0, 3, 1, 2) for images in (TRAIN, TEST))
    y, losses = torch.from_numpy(LABELS), []
    for epoch in range(5):
        for group in optimiser.param_groups:
            group["lr"] = 0.001 * 0.5 * (1 + math.cos(math.pi * epoch / (5 * 3000 / 3001)))
        network.train()
        order = torch.randperm(20, generator=seeds.stream(3, "shuffle", epoch + 1))
        rows, total = augment.draw(20, SIDE, seeds.stream(3, "augment", epoch + 1)), 0.0
        for batch, mine in zip(order.split(8), rows.split(8), strict=True):
            optimiser.zero_grad()
            loss = F.cross_entropy(network(augment.apply(x[batch], mine)), y[batch])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / 20)
    assert [report.train_loss for report in reports] == pytest.approx(losses, rel=1e-3)
    with torch.no_grad():
        given = network.eval()((x_test / 255 - mean) / std).argmax(1)
    assert np.array_equal(given.numpy(), found.predictions)


def test_a_resumed_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")

    class Killed(Exception):
        pass

    def stop(report: EpochReport) -> None:
        if report.epoch == 3:
            raise Killed

    whole, rest = list[EpochReport](), list[EpochReport]()
    expected = train(on_epoch=whole.append)
    with pytest.raises(Killed):
        train(checkpoint=tmp_path / "c.pt", on_epoch=stop)
    assert np.array_equal(train(checkpoint=tmp_path / "c.pt", on_epoch=rest.append).predictions, expected.predictions)
    assert [report.train_loss for report in rest] == [report.train_loss for report in whole[3:]]
