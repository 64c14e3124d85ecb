"""dc-convnet3: siamese augmentation image by image, normalisation by dataset, and a training against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.protocols import augmentation, base, networks
from ddbench.benchmark.protocols.augmentation import Normalise, Siamese
from ddbench.benchmark.protocols.definitions.dc_convnet3 import PROTOCOL
from ddbench.benchmark.protocols.epoch import _draw_rows
from ddbench.benchmark.protocols.trainer import EpochReport, train_student
from ddbench.datasets.foreign.normalisation import parse
from ddbench.methods.dm import siamese

CPU = torch.device("cpu")
SIDE = 16
SETTINGS = PROTOCOL.augmentation
assert isinstance(SETTINGS, base.Siamese)
NORMALISE = Normalise(PROTOCOL.mean, PROTOCOL.std, CPU)


def one_of(operation: Any, batch_size: int = 4) -> Siamese:
    settings = SETTINGS.model_copy(update={"operations": (operation,)})
    return Siamese(settings, Normalise(PROTOCOL.mean, PROTOCOL.std, CPU), batch_size)


def pictures(n: int, side: int = SIDE) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def rows_of(augment: Siamese, n: int, side: int = SIDE, seed: int = 1) -> Tensor:
    return augment.draw(n, side, torch.Generator().manual_seed(seed))


def by_the_method(operation: str, u: list[float], side: int) -> siamese.Augmentation:
    """The operation as DM's program has it for a whole batch, from the same uniform draws."""
    if operation == "color":
        return lambda x: siamese.colour(x, u[0] - 0.5, 2 * u[1], 0.5 + u[2])
    if operation == "crop":
        furthest = int(0.125 * side + 0.5)
        down, right = (math.floor((2 * furthest + 1) * value) - furthest for value in (u[1], u[0]))
        return lambda x: siamese.shift(x, -down, -right)
    if operation == "cutout":
        size = int(0.5 * side + 0.5)
        row, column = (math.floor((side + 1 - size % 2) * value) for value in u[:2])
        return lambda x: siamese.cutout(x, size, row, column)
    if operation == "flip":
        return lambda x: x.flip(3) if u[0] < 0.5 else x
    if operation == "scale":
        x_scale, y_scale = (1 / 1.2 + (1.2 - 1 / 1.2) * value for value in u[:2])
        return lambda x: siamese.resample(x, ((x_scale, 0.0), (0.0, y_scale)))
    angle = math.radians(15 * (2 * u[0] - 1))
    return lambda x: siamese.resample(x, ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))


@pytest.mark.parametrize("side", [15, 16, 32])
@pytest.mark.parametrize("operation", SETTINGS.operations)
def test_each_image_is_as_the_methods_augmentation_has_it(operation: str, side: int) -> None:
    """DM's own code is for whole batches and gradients: a second implementation."""
    augment, n = one_of(operation), 24
    generator = torch.Generator().manual_seed(1)
    found = augment.apply(pictures(n, side), augment.draw(n, side, generator))
    generator = torch.Generator().manual_seed(1)
    torch.randint(1, (-(-n // 4),), generator=generator)
    u = torch.rand(n, 3, generator=generator, dtype=torch.float64).tolist()
    images = augment.normalise(pictures(n, side))
    for index in range(n):
        expected = by_the_method(operation, u[index], side)(images[index : index + 1])[0]
        assert torch.allclose(found[index], expected, atol=2e-5), index


def test_a_batch_shares_its_operation_and_no_parameters() -> None:
    augment = Siamese(SETTINGS, Normalise(PROTOCOL.mean, PROTOCOL.std, CPU), 5)
    rows = rows_of(augment, 1003)
    plain = torch.tensor([0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0], dtype=torch.float32)
    changed = rows != plain
    kinds = torch.stack(
        [changed[:, :3].any(1), changed[:, 3:7].any(1), changed[:, [9, 12]].any(1), changed[:, [8, 10]].any(1)], 1
    ).int()
    for batch in kinds.split(5):
        assert (batch.sum(1) <= 1).all(), "one operation"
        assert (batch.amax(0).sum() <= 1).all(), "the same for all"
    assert len(rows.unique(dim=0)) > 500, "flips, crops and squares repeat"
    share = torch.tensor([kinds[:, 0].float().mean(), kinds[:, 1].float().mean(), kinds[:, 3].float().mean()])
    assert torch.allclose(share, torch.tensor(1 / 6), atol=0.08)


def test_a_step_has_one_operation_however_many_images_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws of an epoch come in blocks, which begin where a step does."""
    monkeypatch.setattr("ddbench.benchmark.protocols.epoch.DRAWN_TOGETHER", 64)
    augment = Siamese(SETTINGS.model_copy(update={"operations": ("color", "rotate")}), NORMALISE, 10)
    rows = _draw_rows(augment, 300, SIDE, torch.Generator().manual_seed(0))
    colours = (rows[:, 0] != 0).view(30, 10)
    assert (colours.all(1) | ~colours.any(1)).all()
    assert 5 < colours[:, 0].sum() < 25


@pytest.mark.parametrize(
    ("operation", "columns", "low", "high"),
    [
        ("color", [0], -0.5, 0.5),
        ("color", [1], 0, 2),
        ("color", [2], 0.5, 1.5),
        ("scale", [7, 11], 1 / 1.2, 1.2),
        ("rotate", [10], -math.sin(math.radians(15)), math.sin(math.radians(15))),
        ("crop", [9, 12], -2 * 2 / SIDE, 2 * 2 / SIDE),
        ("cutout", [3, 4], -4, SIDE - 4),
    ],
)
def test_parameters_fill_their_ranges(operation: str, columns: list[int], low: float, high: float) -> None:
    values = rows_of(one_of(operation), 4000)[:, columns]
    assert values.min() >= low - 1e-6
    assert values.max() <= high + 1e-6
    assert values.min() <= low + 0.02 * (high - low)
    assert values.max() >= high - 0.02 * (high - low)


def test_normalisation_is_the_datasets_own_where_it_has_one() -> None:
    assert PROTOCOL.normalisation("cifar10")[0] == (0.4914, 0.4822, 0.4465)
    assert PROTOCOL.normalisation("cifar100")[1] == (0.2673, 0.2564, 0.2762)
    for name in ("cifar10", "cifar100"):  # what sets of floats are said to be made with
        said = parse(name, 3)
        assert (said.mean, said.std) == PROTOCOL.normalisation(name)
    assert PROTOCOL.normalisation("cifar10:validation") == PROTOCOL.normalisation("cifar10")
    assert PROTOCOL.normalisation("nette") == PROTOCOL.normalisation(None) == (PROTOCOL.mean, PROTOCOL.std)
    plain = PROTOCOL.with_overrides({"augmentation": False})
    images = pictures(2)
    found = augmentation.build(plain, CPU, "cifar10").apply(images, torch.empty(2, 0))
    mean, std = (torch.tensor(values)[:, None, None] for values in PROTOCOL.normalisation("cifar10"))
    assert torch.allclose(found, (images / 255 - mean) / std, atol=1e-5)


def test_its_length_and_its_rates() -> None:
    """Epochs 0 to 1000; a tenth after the one with the number 501."""
    epochs = PROTOCOL.epochs_for(10, 10)
    assert epochs == PROTOCOL.epochs_for(1, 100) == 1001
    rates = PROTOCOL.schedule.learning_rates(0.01, epochs)
    assert rates[:502] == [0.01] * 502
    assert rates[502:] == pytest.approx([0.001] * 499)
    assert PROTOCOL.look_epochs(epochs) == [1001]


@pytest.mark.parametrize("dataset", ["cifar10", None])
def test_a_training_equals_a_plain_loop(dataset: str | None) -> None:
    """With a new optimiser where the rate falls, as the program makes one."""
    small = PROTOCOL.with_overrides(
        {"epochs": 6, "width": 8, "batch_size": 16, "augmentation": False, "learning_rate": 0.1}
    )
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8) for n in (40, 20))
    labels, test_labels = np.arange(40) % 10, np.arange(20) % 10
    reports: list[EpochReport] = []
    found = train_student(
        small, "convnet3", train, labels, test, test_labels, num_classes=10, ipc=4, seed=3, dataset=dataset,
        on_epoch=reports.append,
    )  # fmt: skip

    network = networks.build("convnet3", 10, SIDE, 3, 8, seeds.stream(3, "student-init"))
    mean, std = (torch.tensor(values)[:, None, None] for values in small.normalisation(dataset))
    x, x_test = ((torch.from_numpy(some).permute(0, 3, 1, 2) / 255 - mean) / std for some in (train, test))
    y, losses, rate = torch.from_numpy(labels), [], 0.1
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=0.0005)
    assert isinstance(small.schedule, base.MultiStep)
    (falls,) = small.schedule.starts(6)
    assert falls == 3
    for epoch in range(6):
        if epoch == falls:
            optimiser = torch.optim.SGD(network.parameters(), lr=rate / 10, momentum=0.9, weight_decay=0.0005)
        total = 0.0
        for batch in torch.randperm(40, generator=seeds.stream(3, "shuffle", epoch + 1)).split(16):
            optimiser.zero_grad()
            loss = F.cross_entropy(network(x[batch]), y[batch])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / 40)
    assert [report.train_loss for report in reports] == pytest.approx(losses, rel=2e-5)
    with torch.no_grad():
        assert np.array_equal(network(x_test).argmax(1).numpy(), found.predictions)


def test_it_matters_that_the_momenta_are_forgotten() -> None:
    """Else the test above says nothing."""
    keeps = PROTOCOL.schedule.model_copy(update={"restarts": None})
    small = PROTOCOL.with_overrides({"epochs": 6, "width": 8, "augmentation": False, "learning_rate": 0.1})
    images = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    labels, last = np.arange(40) % 10, []
    for protocol in (small, small.model_copy(update={"schedule": keeps})):
        reports: list[EpochReport] = []
        train_student(
            protocol, "convnet3", images, labels, images, labels, num_classes=10, ipc=4, seed=3,
            on_epoch=reports.append,
        )  # fmt: skip
        last.append(reports[-1].train_loss)
    assert abs(last[0] - last[1]) > 1e-3 * last[0]


def test_a_resumed_training_is_the_same(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right before and right after the optimiser begins anew."""
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    small = PROTOCOL.with_overrides({"epochs": 6, "width": 8})
    images = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(40) % 10

    class Killed(Exception):
        pass

    def run(checkpoint: Any, stop_after: int | None = None) -> Any:
        def maybe(report: EpochReport) -> None:
            if report.epoch == stop_after:
                raise Killed

        return train_student(
            small, "convnet3", images, labels, images, labels, num_classes=10, ipc=4, seed=3, checkpoint=checkpoint,
            on_epoch=maybe,
        )  # fmt: skip

    whole = run(None)
    for stop_after in (3, 4):
        file = tmp_path / f"{stop_after}.pt"
        with pytest.raises(Killed):
            run(file, stop_after)
        assert np.array_equal(run(file).predictions, whole.predictions)
