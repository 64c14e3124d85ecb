"""soft-stored@1: its loss against SciPy, and against training with hard labels where soft ones say the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.protocols.augmentation import Cut
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions.soft_stored import PROTOCOL
from ddbench.benchmark.protocols.epoch import KlToStored
from ddbench.benchmark.protocols.trainer import EpochReport, train_student

SMALL = PROTOCOL.with_overrides({"epochs": 2, "batch_size": 8, "cutmix": True})
HARD = Protocol.model_validate({**SMALL.model_dump(), "loss": "cross-entropy", "stored": None})


def losses(protocol: Protocol, soft_labels: np.ndarray | None, images: np.ndarray | None = None) -> list[float]:
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 10
    if images is None:
        images = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
    test = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    reports: list[EpochReport] = []
    given: dict[str, Any] = {"num_classes": 10, "ipc": 2, "seed": 0, "on_epoch": reports.append}
    train_student(protocol, "convnet3", images, labels, test, labels[:4], soft_labels=soft_labels, **given)
    return [report.train_loss for report in reports]


def test_labels_that_are_certain_train_as_hard_ones() -> None:
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(10)[np.arange(20) % 10])
    assert losses(SMALL, certain) == pytest.approx(losses(HARD, None), rel=1e-5)
    unsure = np.log(np.eye(10)[np.arange(20) % 10] * 0.5 + 0.05)
    assert losses(SMALL, unsure) != pytest.approx(losses(HARD, None), rel=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_loss_is_kl_of_the_mixed_labels(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits, stored = rng.normal(0, 5, (2, 6, 10))
    partners = torch.tensor([5, 4, 3, 2, 1, 0])
    cut = Cut(0, 0, 4, 4, partners)  # a quarter of 8×8
    p, q = softmax(stored / temperature, 1), log_softmax(logits / temperature, 1)
    own, other = (rel_entr(target, np.exp(q)).sum() / 6 for target in (p, p[partners.numpy()]))
    loss = KlToStored(temperature)
    arguments = torch.tensor(logits), torch.zeros(6, 3, 8, 8), torch.tensor(p)
    assert loss(*arguments, None).item() == pytest.approx(own)
    assert loss(*arguments, cut).item() == pytest.approx(0.75 * own + 0.25 * other)


def test_floats_that_are_8_bit_values_train_as_uint8() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 8, 8, 3), np.uint8)
    assert losses(HARD, None, pixels.astype(np.float32)) == losses(HARD, None, pixels)
    beyond = pixels.astype(np.float32) * 1.5 - 40
    assert losses(HARD, None, beyond) != losses(HARD, None, beyond.clip(0, 255))


def test_cosine_ends_near_zero() -> None:
    rates = PROTOCOL.schedule.learning_rates(1e-3, 100)
    assert rates == pytest.approx([5e-4 * (1 + math.cos(math.pi * epoch / 100)) for epoch in range(100)])


def test_labels_are_given_where_they_belong_and_nowhere_else() -> None:
    with pytest.raises(ValueError, match="trains with stored labels: soft_labels were"):
        losses(SMALL, None)
    with pytest.raises(ValueError, match="trains with hard labels: soft_labels were"):
        losses(HARD, np.zeros((20, 10)))
    with pytest.raises(ValueError, match="expected 20 rows"):
        losses(SMALL, np.zeros((19, 10)))


def test_what_may_be_changed() -> None:
    warmer = PROTOCOL.with_overrides({"temperature": 20})
    assert (warmer.label, warmer.hash != PROTOCOL.hash) == ("soft-stored[temperature=20.0]@1", True)
    with pytest.raises(Problems, match="has no teacher, so it has no second_pass"):
        PROTOCOL.with_overrides({"second_pass": True})
