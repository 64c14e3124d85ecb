"""Three epochs of the trainer beside the released programs of the soft protocols, which were run with the same draws.

`golden_small/soft/trainings.json` holds what their own functions gave: labelling, where labels are stored; loading,
mixing, loss, parts, optimiser, schedule, running mean. Each was run on a CPU in float64 on ten images of 16 px of five
classes, with the networks below in place of its own (their weights are formulas), as its script calls it but for the
length (3 epochs), the batch, and IPC 1 of Nette where a rate hangs on the cell; G-VBSM's two processes were two, with
PyTorch's own DistributedDataParallel. What they drew is in the file: of every image its place, crop (top, left, height,
width), flip, swapped columns and rows; of every batch its box and partners. So nothing but the order of sums is left.

Programs that store labels, and D3HR's, crop and resize Pillow images, whose values are rounded to 8 bits. Here crops
stay as they are (docs/protocols.md); to compare the rest, the crops of those programs are made with Pillow below.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as F

from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.protocols.augmentation import Cut
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.epoch import build_optimiser
from ddbench.benchmark.protocols.soft.committees import Committee
from ddbench.benchmark.protocols.soft.outputs import CommitteeOutput
from ddbench.benchmark.protocols.trainer import StudentResult, train_student

SIDE, CLASSES, PER_CLASS, EPOCHS = 16, 5, 2, 3
CASES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden_small" / "soft" / "trainings.json").read_text("utf-8")
)
PILLOW = ("D3HR", "SRe2L", "DWA", "FADRM", "FADRM+", "CV-DD", "G-VBSM")
TWICE = ("RDED", "D3HR")
"""Programs that send a batch through the student a second time."""
REGISTERED = {"EDC": "soft-edc-linear"}
"""The protocol of a program that has two."""
FLOAT64 = 1e-9
"""Relative. Measured: at most 2e-12, of numbers that the file has with twelve digits."""


def image(i: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8."""
    c, y, x = np.mgrid[0:3, 0:SIDE, 0:SIDE]
    waves = 60 * np.sin(0.7 * (i + 1) + 0.35 * x * (1 + c % 2) + 0.2 * y) + 50 * np.cos(0.31 * (i + 2) * y - 0.5 * c)
    return (128 + waves + (i * 37 + x * y * 11 + c * 53) % 29).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


class Tiny(nn.Module):
    """Two convolutions with BatchNorm, the mean over places, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x).mean((2, 3)))


def network(number: int, outputs: float = 1.0) -> nn.Module:
    """Number 0 is the student; teachers have the numbers from 1 on and larger outputs."""
    tiny = Tiny().double()
    norms = [module for module in tiny.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for k, p in enumerate(tiny.parameters()):
            angles = (number + 1) * (1.3 + k) * np.arange(1, p.numel() + 1) + number
            wave = torch.from_numpy(np.cos(angles)).view(p.shape)
            norm_weight = any(p is norm.weight for norm in norms)
            p.copy_(wave / p[0].numel() ** 0.5 if p.ndim > 1 else 0.1 * wave + norm_weight)
        for k, norm in enumerate(norms):
            features = np.arange(norm.num_features)
            norm.running_mean.copy_(0.2 * torch.from_numpy(np.sin(number + features + k)))
            norm.running_var.copy_(0.6 + 0.3 * torch.from_numpy(np.cos(number + k + features)))
        tiny.fc.weight.mul_(outputs)
    return tiny


def with_pillow(images: Tensor, crops: Tensor, flips: Tensor) -> Tensor:
    """`augmentation.resized_crop` of 8-bit images, as torchvision does it of Pillow's."""
    made = []
    for pixels, crop, flip in zip(images, crops.long().tolist(), flips.tolist(), strict=True):
        cropped = F.resized_crop(Image.fromarray(pixels.permute(1, 2, 0).byte().numpy()), *crop, [SIDE, SIDE])
        made.append(F.pil_to_tensor(F.hflip(cropped) if flip else cropped))
    return torch.stack(made).double()


Trained = tuple[StudentResult, dict[str, Any], list[float]]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, float64: None) -> Callable[..., Trained]:
    """The trainer with a program's draws: its result, its last checkpoint, the loss of every step."""

    def run(program: str, protocol: Protocol | None = None, *, pillow: bool | None = None) -> Trained:
        case = CASES[program]
        epochs: list[dict[str, Any]] = case["epochs"]
        protocol = protocol or protocol_of(program)
        now: dict[str, Any] = {}
        steps: list[tuple[int, Any]] = []

        def order(count: int, streams: Any, epoch: int) -> Tensor:
            now.update(rows=epochs[epoch - 1]["images"], cuts=iter(epochs[epoch - 1]["cuts"]))
            return torch.tensor([row[0] for row in now["rows"]])

        def cut(batch: int, side: int, generator: torch.Generator) -> Cut:
            top, left, bottom, right, *partners = next(now["cuts"])
            return Cut(top, left, bottom, right, torch.tensor(partners))

        def backward(*given: Any) -> Tensor:
            steps.append(original(*given))
            return steps[-1]

        from ddbench.benchmark.protocols import epoch as of_epoch

        original = of_epoch._backward
        with monkeypatch.context() as patch:
            module = "ddbench.benchmark.protocols"
            patch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
            patch.setattr(f"{module}.epoch.shuffled", order)
            patch.setattr(f"{module}.epoch._backward", backward)
            patch.setattr(f"{module}.augmentation.draw_cut", cut)
            rows = lambda *_: torch.tensor([row[1:] for row in now["rows"]], dtype=torch.float64)  # noqa: E731
            patch.setattr(f"{module}.augmentation.Crop.draw", rows)
            patch.setattr(f"{module}.networks.build", lambda *_: network(0))
            if program in PILLOW if pillow is None else pillow:
                patch.setattr(f"{module}.augmentation.resized_crop", with_pillow)
            images = np.stack([image(i) for i in range(CLASSES * PER_CLASS)])
            labels, file = np.arange(CLASSES * PER_CLASS) // PER_CLASS, tmp_path / "state.pt"
            file.unlink(missing_ok=True)
            result = train_student(
                protocol, "resnet18_bn", images, labels, images, labels, num_classes=CLASSES, ipc=case["ipc"], seed=0,
                dataset="nette", teacher=teacher_of(protocol, case["teachers"]), checkpoint=file,
            )  # fmt: skip
        return result, torch.load(file, weights_only=True), [float(loss) for loss in steps]

    return run


def protocol_of(program: str) -> Protocol:
    case = CASES[program]
    published: Protocol = PROTOCOLS.load(REGISTERED.get(program, case["protocol"]))
    changed: dict[str, Any] = {"epochs": EPOCHS, "image_size": SIDE}
    if published.batch_size_for(CLASSES, case["ipc"]) != case["batch"]:
        changed["batch_size"] = case["batch"]
    return published.with_overrides(changed | ({"second_pass": True} if program in TWICE else {}))


def teacher_of(protocol: Protocol, count: int) -> nn.Module:
    teachers = [network(number, 8.0).requires_grad_(False) for number in range(1, count + 1)]
    if not isinstance(protocol.teacher, Committee):
        return teachers[0]
    shares = protocol.teacher.shares(protocol.teachers_for("nette", 1))
    return CommitteeOutput(teachers, shares, scaled=bool(protocol.teacher.scaled))


def flat(weights: Tensor) -> list[float]:
    return weights.flatten()[:6].tolist()


@pytest.mark.parametrize("program", CASES)
def test_training_is_the_programs(program: str, train: Callable[..., Trained]) -> None:
    case = CASES[program]
    _, state, losses = train(program)
    weights = state["network"]
    assert losses == pytest.approx(case["losses"], rel=FLOAT64)
    assert flat(weights["fc.weight"]) + flat(weights["layers.0.weight"]) == pytest.approx(case["weight"], rel=1e-8)
    if "tested_weight" in case:
        assert flat(state["average"]["fc.weight"]) == pytest.approx(case["tested_weight"], rel=FLOAT64)
    running = weights["layers.1.running_mean"].tolist() + weights["layers.4.running_var"].tolist()
    if program != "G-VBSM":  # whose first process alone moves them
        assert running == pytest.approx(case["running"], rel=FLOAT64)


@pytest.mark.parametrize("program", CASES)
def test_learning_rates_are_the_programs(program: str) -> None:
    case, protocol = CASES[program], protocol_of(program)
    rate = protocol.rate_of("nette", "resnet18_bn", case["ipc"])
    schedule = protocol.schedule if rate is None else protocol.schedule.model_copy(update={"stretch": rate.stretch})
    initial = build_optimiser(protocol.optimiser_for(CLASSES), network(0), torch.device("cpu")).defaults["lr"]
    rates = schedule.learning_rates(initial if rate is None else rate.learning_rate, EPOCHS)
    assert rates == pytest.approx(case["rates"], rel=FLOAT64)


def test_edcs_cosine_is_not_what_its_program_runs(train: Callable[..., Trained]) -> None:
    cosine = PROTOCOLS.load("soft-edc").with_overrides({"epochs": EPOCHS, "image_size": SIDE, "batch_size": 4})
    _, _, losses = train("EDC", cosine)
    first_epoch, behind = 3, CASES["EDC"]["losses"]
    assert losses[:first_epoch] == pytest.approx(behind[:first_epoch], rel=FLOAT64)
    assert losses[first_epoch + 1] != pytest.approx(behind[first_epoch + 1], rel=1e-4)


@pytest.mark.parametrize("program", ["D3HR", "SRe2L"])
def test_8_bit_crops_are_a_small_difference(program: str, train: Callable[..., Trained]) -> None:
    _, _, losses = train(program, pillow=False)
    assert losses == pytest.approx(CASES[program]["losses"], rel=0.02)
    assert losses != pytest.approx(CASES[program]["losses"], rel=FLOAT64)
