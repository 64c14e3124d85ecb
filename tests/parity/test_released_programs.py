"""Whole trainings beside those of the released hard-label programs, run on the same images with our draws.

Each program's own loop (data loading, augmentation, CutMix, loss, optimiser, schedule, test) was run in float64 on a
CPU, its random draws replaced by ours and its network filled with our initial weights; what it gave is kept. Here the
trainer runs in float64 too, so that nothing but the order of sums is left between them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.protocols import base
from ddbench.benchmark.protocols.definitions import dc_convnet3, hard_adamw, hard_minimax_sgd, hard_nodistill
from ddbench.benchmark.protocols.trainer import EpochReport, train_student
from ddbench.datasets.imagenet.classes import WOOF

GOLDEN = json.loads((Path(__file__).parents[1] / "golden_small" / "released-evaluators" / "losses.json").read_text())
CLASSES = 10

TWELFTHS = base.MultiStep(milestones=((8, 13),), factor=0.1, restarts=True)
"""DC's program told to train for 12 epochs trains 13, the last five at a tenth of the rate."""
PROGRAMS: dict[str, tuple[base.Protocol, dict[str, Any], dict[str, Any]]] = {
    "minimax": (hard_minimax_sgd.PROTOCOL, {"epochs": 12, "batch_size": 16, "image_size": 16}, {"looks": 12}),
    "dmgd": (hard_adamw.DMGD, {"epochs": 12, "batch_size": 16, "image_size": 16}, {"looks": 12}),
    "dc": (dc_convnet3.PROTOCOL, {"epochs": 13, "batch_size": 16}, {"schedule": TWELFTHS}),
    "nodistill": (
        hard_nodistill.PROTOCOL,
        {"epochs": 7, "batch_size": 8, "image_size": 32, "learning_rate": 0.005},
        {"schedule": base.Cosine(stretch=6 / 7), "looks": 7},
    ),
}


def pictures(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, labels, test images, labels, as the program had them: half of the class, half noise."""
    rng, side = np.random.default_rng(1), case["side"]
    of_class = rng.integers(0, 256, (CLASSES, side, side, 3))

    def picture(label: int) -> np.ndarray:
        mixed = 0.5 * of_class[label] + 0.5 * rng.integers(0, 256, (side, side, 3))
        return np.clip(mixed, 0, 255).astype(np.uint8)

    if case["files"]:  # read in the order of the sorted wnids, labelled by their place in Woof's list
        by_folder = sorted(range(CLASSES), key=lambda label: WOOF[label])
        labels = [(np.repeat(label, case["ipc"]), np.repeat(label, 3)) for label in by_folder]
    else:
        labels = [(np.repeat(np.arange(CLASSES), case["ipc"]), np.repeat(np.arange(CLASSES), 3))]
    parts = [[np.stack([picture(label) for label in of_part]) for of_part in both] for both in labels]
    train, test = (np.concatenate(part) for part in zip(*parts, strict=True))
    return train, np.concatenate([of[0] for of in labels]), test, np.concatenate([of[1] for of in labels])


@pytest.mark.parametrize("program", PROGRAMS)
def test_losses_and_accuracies_are_the_programs(program: str, float64: None) -> None:
    published, overrides, shortened = PROGRAMS[program]
    case = GOLDEN[program]
    protocol = published.with_overrides(overrides).model_copy(update=shortened)
    train, labels, test, test_labels = pictures(case)
    reports: list[EpochReport] = []
    train_student(
        protocol, "convnet3", train, labels, test, test_labels, num_classes=CLASSES, ipc=case["ipc"], seed=7,
        dataset=case["dataset"], on_epoch=reports.append,
    )  # fmt: skip
    assert [report.train_loss for report in reports] == pytest.approx(case["losses"], rel=1e-9)
    looked = [report.accuracy for report in reports if report.accuracy is not None]
    assert looked[-len(case["accuracies"]) :] == pytest.approx(case["accuracies"])
