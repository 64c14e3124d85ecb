"""SRe2L's evaluator against its arithmetic in plain PyTorch, and trainings whose length is in updates."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import Problems, RunError, UsageError
from ddbench.benchmark.protocols import base, networks
from ddbench.benchmark.protocols.augmentation import Normalise, Plain
from ddbench.benchmark.protocols.augmentation import build as build_augmentation
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import hard_rethinkdc, soft_bssl, soft_budget, soft_fkd
from ddbench.benchmark.protocols.epoch import SoftLabels, build_optimiser, train_epoch
from ddbench.benchmark.protocols.lengths import Updates
from ddbench.benchmark.protocols.passes import Passes, in_permutations
from ddbench.benchmark.protocols.pixels import Resident
from ddbench.benchmark.protocols.trainer import EpochReport, StudentResult, train_student

STREAMS = partial(seeds.stream, 3)
CPU = torch.device("cpu")


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(4, 5))


# SRe2L's evaluator


def test_numbers_of_the_family() -> None:
    for protocol in (soft_fkd.FKD, soft_fkd.FKD_128, hard_rethinkdc.PROTOCOL):
        assert protocol.epochs_for(10, 1000) == 300
        rates = protocol.schedule.learning_rates(1e-3, 300)
        assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * epoch / 300)) for epoch in range(300)])
        assert isinstance(protocol.optimiser, base.AdamW)
        assert (protocol.optimiser.weight_decay, protocol.optimiser.decay_above_dimensions) == (0.01, 1)
        crop = protocol.augmentation
        assert isinstance(crop, base.Crop)
        assert (crop.scale, crop.shuffle, crop.flip_probability) == ((0.08, 1), False, 0.5)
        assert Protocol.model_validate_json(protocol.model_dump_json()) == protocol
    assert [p.batch_size_for(1000, 10) for p in (soft_fkd.FKD, soft_fkd.FKD_128)] == [1024, 128]
    assert (hard_rethinkdc.PROTOCOL.labels, hard_rethinkdc.PROTOCOL.cutmix) == ("hard labels", False)


def test_looks_begin_with_the_first_epoch() -> None:
    """The programs look where their epochs 0, 10, … (or 0, 50, …) end, and at the last."""
    assert soft_fkd.FKD.look_epochs(300) == [e + 1 for e in range(300) if e % 10 == 0 or e == 299]
    assert hard_rethinkdc.PROTOCOL.look_epochs(300) == [e + 1 for e in range(300) if e % 50 == 0 or e == 299]


def test_bytes_of_the_labels_that_the_program_stores() -> None:
    """5.67 GiB at IPC 10 of ImageNet-1K, which its authors print as GB."""
    stored = soft_fkd.FKD.stored_label_bytes(10_000 * 300, 1000)
    assert stored == 10_000 * 300 * (2 * 1000 + 29)
    assert stored / 2**30 == pytest.approx(5.67, abs=0.005)
    assert soft_fkd.FKD_128.stored_label_bytes(10_000 * 300, 1000) is None, "labelled as students train"


@pytest.mark.parametrize("n", [3, 8, 11, 16])
def test_steps_are_the_programs(n: int) -> None:
    """Batches of 8, of which BatchNorm sees 4 at once; a part's mean loss counts a half, whatever its size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 6, 6), generator=generator, dtype=torch.uint8)
    teacher = network(1).double().eval().requires_grad_(False)
    ours, theirs = network(2).double(), network(2).double()
    recipe = soft_fkd.FKD.optimiser
    optimiser = build_optimiser(recipe, ours, CPU)
    normalise = Normalise((0.5,), (0.25,), CPU)

    class Double(Plain):
        def apply(self, images: Tensor, rows: Tensor) -> Tensor:
            return super().apply(images, rows).double()

    losses = train_epoch(
        ours,
        optimiser,
        Resident(images.permute(0, 2, 3, 1).contiguous()),
        torch.zeros(n, dtype=torch.int64),
        Double(normalise),
        SoftLabels(teacher, 20.0, half=True),
        cutmix=True,
        batch_size=8,
        streams=STREAMS,
        epoch=1,
        batchnorm_parts=2,
    )

    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=1e-3, foreach=False)
    order = torch.randperm(n, generator=seeds.stream(3, "shuffle", 1))
    cuts, expected = seeds.stream(3, "cutmix", 1), []
    for batch in order.split(8):
        x = (images[batch].double() / 255 - 0.5) / 0.25
        cut = int(6 * math.sqrt(1 - torch.rand((), generator=cuts, dtype=torch.float64).item()))
        row, column = torch.randint(6, (2,), generator=cuts).tolist()
        partners = torch.randperm(len(batch), generator=cuts)
        down = slice(max(row - cut // 2, 0), min(row + cut // 2, 6))
        across = slice(max(column - cut // 2, 0), min(column + cut // 2, 6))
        x[:, :, down, across] = x[partners][:, :, down, across]
        stored = teacher(x).half()
        plain.zero_grad()
        for part, label in zip(x.split(4), stored.split(4), strict=True):
            given = F.log_softmax(theirs(part) / 20, dim=1)
            loss = nn.KLDivLoss(reduction="batchmean")(given, F.softmax(label.double() / 20, dim=1))
            (loss / 2).backward()
            expected.append((loss.item(), len(part)))
        plain.step()
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        # Pixels are normalised in single precision.
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert losses.mean() == pytest.approx(sum(loss * size for loss, size in expected) / n, rel=1e-5)


# FADRM's evaluator


def test_rates_of_fadrms_cells() -> None:
    bssl = soft_bssl.PROTOCOL
    rate = bssl.rate_of("woof", "resnet50_bn", 10)
    assert rate is not None
    assert (rate.learning_rate, rate.stretch) == (5e-3, 1)
    assert len(bssl.rates or ()) == 3 * 9 - 1
    for dataset, student, ipc in (
        ("nette", "resnet101_bn", 10),
        ("imagenet-100", "resnet18_bn", 10),
        ("woof", "resnet18_bn", None),
    ):
        with pytest.raises(UsageError, match=f"none for {student} on {dataset} at IPC {ipc or 'full'}"):
            bssl.rate_of(dataset, student, ipc)
    changed = bssl.with_overrides({"learning_rate": 1e-3})
    assert changed.rate_of("imagenet-100", "resnet18_bn", 10) is None
    assert soft_fkd.FKD.rate_of("anything", "resnet18_bn", 3) is None
    assert bssl.look_epochs(300) == [e + 1 for e in range(300) if e >= 240 and e % 10 == 9]
    assert [(bssl.batch_size_for(k, 10), bssl.images_at_once(None, k)) for k in (10, 1000)] == [(10, 5), (16, 8)]


def test_a_stretched_cosine_does_not_reach_its_end() -> None:
    found = base.Cosine(stretch=2).learning_rates(1.0, 4)
    assert found == pytest.approx([(1 + math.cos(math.pi * e / 8)) / 2 for e in range(4)])
    assert base.Cosine().learning_rates(1.0, 4) == base.Cosine(stretch=1).learning_rates(1.0, 4)


def test_a_teacher_in_training_mode_labels_by_the_batchs_statistics() -> None:
    """The loss of a student without BatchNorm, against a teacher in training mode on the halves of the batch."""
    protocol = soft_bssl.PROTOCOL.with_overrides({"epochs": 1, "batch_size": 8, "image_size": 16, "cutmix": False})
    teacher = network(1).eval().requires_grad_(False)
    rng = np.random.default_rng(1)
    images, labels = rng.integers(256, size=(8, 16, 16, 3), dtype=np.uint8), rng.integers(5, size=8)
    losses = []
    for mode in ("train", None):
        assert protocol.teacher is not None
        used = protocol.model_copy(
            update={"teacher": protocol.teacher.model_copy(update={"mode": mode}), "rates": None}
        )
        result = train_student(
            used, "convnet3", images, labels, images, labels, num_classes=5, ipc=1, seed=0, teacher=teacher
        )
        assert teacher.training == (mode == "train")
        losses.append(result.curve[-1].train_loss)

    initial = networks.build("convnet3", 5, 16, 3, None, seeds.stream(0, "student-init"))
    order = torch.randperm(8, generator=seeds.stream(0, "shuffle", 1))
    augment = build_augmentation(protocol, CPU)
    rows = augment.draw(8, 16, seeds.stream(0, "augment", 1))
    x = augment.apply(torch.from_numpy(images).permute(0, 3, 1, 2)[order], rows)
    expected = []
    with torch.no_grad():
        for half in x.split(4):
            label = F.softmax(teacher.train()(half).half().float() / 20, dim=1)
            expected.append(nn.KLDivLoss(reduction="batchmean")(F.log_softmax(initial(half) / 20, dim=1), label).item())
    assert losses[0] == pytest.approx(sum(expected) / 2, rel=2e-3)
    assert losses[1] != pytest.approx(sum(expected) / 2, rel=2e-3)


# Lengths in updates


@given(st.integers(1, 30), st.integers(0, 100), st.integers(1, 60))
def test_images_pass_in_whole_permutations(n: int, start: int, count: int) -> None:
    row = in_permutations(n, 0, start + count, STREAMS)
    assert torch.equal(in_permutations(n, start, count, STREAMS), row[start:])
    for index in range(len(row) // n):
        assert sorted(row[index * n : (index + 1) * n].tolist()) == list(range(n))


@pytest.mark.parametrize(("updates", "per_epoch"), [(9, 4), (8, 4), (3, 100)])
def test_epochs_of_updates(updates: int, per_epoch: int) -> None:
    length = Updates(updates=updates, per_epoch=per_epoch)
    found = [length.of_epoch(epoch) for epoch in range(1, length.epochs(10, 10) + 1)]
    assert [update for epoch in found for update in epoch] == list(range(updates))
    protocol = soft_budget.PROTOCOL.model_copy(update={"epochs": length, "batch_size": 5})
    passes = Passes(protocol, 7, len(found), 5, 1e-3, protocol.schedule, STREAMS)
    orders = [passes.order(epoch) for epoch in range(1, len(found) + 1)]
    seen = Counter(int(image) for order in orders if order is not None for image in order)
    assert sum(seen.values()) == 5 * updates
    assert max(seen.values()) - min(seen.values()) <= 1, "each image as often as every other"
    rates = [rate for epoch in range(1, len(found) + 1) for rate in passes.rates(epoch, 0)]
    assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * u / updates)) for u in range(updates)])


def test_a_budget_is_the_same_at_every_ipc() -> None:
    for protocol, updates in (
        (soft_budget.SHORT, 3_000), (soft_budget.PROTOCOL, 30_000), (soft_budget.LONG, 190_000),
    ):  # fmt: skip
        for ipc, classes in ((1, 10), (10, 10), (50, 1000), (None, 1000)):
            assert protocol.images_seen(10 * classes, ipc, classes) == updates * 100
            assert protocol.epochs_for(ipc, classes) * soft_budget.PER_EPOCH == updates
            assert len(protocol.look_epochs(protocol.epochs_for(ipc, classes))) == 10
        assert not protocol.comparable_with_papers
        assert protocol.images_at_once(10, 10, 1) == 100, "a whole batch, though the set has ten images"


def test_what_counts_updates_takes_no_epochs() -> None:
    changed = soft_budget.PROTOCOL.with_overrides({"updates": "150"})
    assert (changed.label, changed.epochs_for(10, 10)) == ("soft-budget[updates=150]@1", 2)
    with pytest.raises(Problems, match="counts updates: say updates= in place of epochs="):
        soft_budget.PROTOCOL.with_overrides({"epochs": 3})
    with pytest.raises(Problems, match="counts epochs: say epochs= in place of updates="):
        soft_fkd.FKD.with_overrides({"updates": 3})


def train(
    protocol: Protocol,
    n: int,
    *,
    checkpoint: Path | None = None,
    killed_at: int | None = None,
    seed: int = 0,
    logits_times: float = 1.0,
) -> StudentResult:
    rng = np.random.default_rng(1)
    teacher = network(1).eval().requires_grad_(False)
    for parameter in teacher[-1].parameters():
        parameter *= logits_times

    def kill(report: EpochReport) -> None:
        if report.epoch == killed_at:
            raise KeyboardInterrupt

    return train_student(
        protocol,
        "resnet18_bn",
        rng.integers(256, size=(n, 16, 16, 3), dtype=np.uint8),
        rng.integers(5, size=n),
        rng.integers(256, size=(6, 16, 16, 3), dtype=np.uint8),
        rng.integers(5, size=6),
        num_classes=5,
        ipc=1,
        seed=seed,
        teacher=teacher,
        checkpoint=checkpoint,
        on_epoch=kill,
    )


def test_a_budget_is_trained_and_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    protocol = soft_budget.SHORT.with_overrides({"updates": 5, "batch_size": 4, "image_size": 16}).model_copy(
        update={"epochs": Updates(updates=5, per_epoch=2)}
    )
    whole = train(protocol, 3)
    assert (whole.steps, whole.epochs, whole.images_seen) == (5, 3, 20)
    with pytest.raises(KeyboardInterrupt):
        train(protocol, 3, checkpoint=tmp_path / "state.pt", killed_at=2)
    resumed = train(protocol, 3, checkpoint=tmp_path / "state.pt")
    assert [look.train_loss for look in resumed.curve] == [look.train_loss for look in whole.curve]
    assert np.array_equal(resumed.predictions, whole.predictions)


def test_a_teacher_beyond_half_precision_is_suspected(tmp_path: Path) -> None:
    """As one of a single epoch of training is, whose running statistics are not its network's."""
    protocol = soft_fkd.FKD.with_overrides({"epochs": 1, "batch_size": 4, "image_size": 16})
    with pytest.raises(RunError, match="rounded to half precision, which ends at 65504"):
        train(protocol, 8, logits_times=1e7)
    online = soft_fkd.FKD_128.with_overrides({"epochs": 1, "batch_size": 4, "image_size": 16})
    assert train(online, 8, logits_times=1e7).steps == 2, "labels that are not stored are not rounded"


@pytest.mark.parametrize(("batch_size", "n"), [(1, 3), (4, 7)])
def test_a_single_image_without_statistics_is_one_message(batch_size: int, n: int) -> None:
    """Batches of one; a last batch of three in parts of two."""
    protocol = soft_fkd.FKD.with_overrides({"epochs": 1, "batch_size": batch_size, "image_size": 16})
    with pytest.raises(RunError, match="no statistics of a single image.*Choose a larger batch_size"):
        train(protocol, n)
