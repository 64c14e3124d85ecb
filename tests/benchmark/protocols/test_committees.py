"""The evaluators with several teachers against their arithmetic in plain PyTorch, and what is refused of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.augmentation import build as build_augmentation
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import soft_bssl, soft_edc, soft_fkd, soft_gvbsm
from ddbench.benchmark.protocols.pixels import Resident
from ddbench.benchmark.protocols.soft.averaging import RunningMean
from ddbench.benchmark.protocols.soft.committees import Committee
from ddbench.benchmark.protocols.soft.outputs import CommitteeOutput, SquaredErrors
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION
from ddbench.benchmark.protocols.trainer import EpochReport, StudentResult, train_student

N, CLASSES, SIDE, BATCH, EPOCHS, RATE = 22, 5, 16, 8, 3, 0.05
CPU = torch.device("cpu")


class Small(nn.Module):
    """A network with BatchNorm in double precision, in which two ways to one number end at the same."""

    def __init__(self, seed: int, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.convolution, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.dropout, self.last = nn.Dropout(dropout), nn.Linear(32, CLASSES)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.norm(self.convolution(x.double()))), 2)
        return self.last(self.dropout(x.flatten(1)))


@pytest.fixture(autouse=True)
def small_students(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "build", lambda *_: Small(99))


def teacher(seed: int, dropout: float = 0.0) -> nn.Module:
    network = Small(seed, dropout)
    for parameter in network.last.parameters():
        parameter.data *= 8 * (seed + 1)  # outputs of other norms
    return network.eval().requires_grad_(False)


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)

    def of_a_colour(n: int) -> np.ndarray:
        noise = rng.integers(64, size=(n, SIDE, SIDE, 3), dtype=np.uint8)
        return rng.integers(192, size=(n, 1, 1, 3), dtype=np.uint8) + noise

    train, test = of_a_colour(N), of_a_colour(200)
    return train, rng.integers(CLASSES, size=N), test, rng.integers(CLASSES, size=200)


def changed(protocol: Protocol) -> Protocol:
    given: dict[str, float] = {"epochs": EPOCHS, "batch_size": BATCH, "image_size": SIDE, "learning_rate": RATE}
    return protocol.with_overrides(given).model_copy(update={"looks": EPOCHS})


def train(
    protocol: Protocol,
    committee: nn.Module,
    *,
    student: str = "resnet18_bn",
    checkpoint: Path | None = None,
    killed_at: int | None = None,
) -> StudentResult:
    def kill(report: EpochReport) -> None:
        if report.epoch == killed_at:
            raise KeyboardInterrupt

    return train_student(
        protocol, student, *images(), num_classes=CLASSES, ipc=4, seed=0,
        teacher=committee, checkpoint=checkpoint, on_epoch=kill,
    )  # fmt: skip


Labels = Callable[[Tensor], Tensor]
"""A mixed batch (B, C, S, S) -> its labels (B, K)."""


def plain(
    protocol: Protocol,
    labels_of: Labels,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    rate: Callable[[int], float],
    parts: int,
    decay: float | None = None,
) -> tuple[list[float], np.ndarray]:
    """Losses by epoch and predictions of the same student, trained by a loop as the programs have it.

    Args:
        loss_of: (outputs, labels, own classes) -> mean loss of a part.
        rate: epoch 0, 1, … -> learning rate.
        decay: of the running mean of weights that is tested.
    """
    train_images, classes, test, _ = images()
    raw, own = torch.from_numpy(train_images).permute(0, 3, 1, 2), torch.from_numpy(classes)
    student = Small(99)
    mean = copy.deepcopy(student)
    decayed = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE, foreach=False)
    augment = build_augmentation(protocol, CPU)
    found = []
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(N, generator=seeds.stream(0, "shuffle", epoch))
        rows, cuts = augment.draw(N, SIDE, seeds.stream(0, "augment", epoch)), seeds.stream(0, "cutmix", epoch)
        losses = []
        for group in optimiser.param_groups:
            group["lr"] = rate(epoch - 1)
        with torch.random.fork_rng():
            torch.manual_seed(seeds.stream(0, "layers", epoch).initial_seed())
            for batch, batch_rows in zip(order.split(BATCH), rows.split(BATCH), strict=True):
                x = augment.apply(raw[batch], batch_rows)
                cut = int(SIDE * math.sqrt(1 - torch.rand((), generator=cuts, dtype=torch.float64).item()))
                row, column = torch.randint(SIDE, (2,), generator=cuts).tolist()
                partners = torch.randperm(len(batch), generator=cuts)
                down = slice(max(row - cut // 2, 0), min(row + cut // 2, SIDE))
                across = slice(max(column - cut // 2, 0), min(column + cut // 2, SIDE))
                x[:, :, down, across] = x[partners][:, :, down, across]
                labels = labels_of(x).half().double()
                optimiser.zero_grad()
                student.train()
                pieces = (given.split(BATCH // parts) for given in (x, labels, own[batch]))
                for part, label, y in zip(*pieces, strict=True):
                    loss = loss_of(student(part), label, y)
                    (loss / parts).backward()
                    losses.append(loss.item() * len(part))
                optimiser.step()
                if decay is not None:
                    for averaged, now in zip(mean.parameters(), student.parameters(), strict=True):
                        averaged.data.mul_(decay).add_(now.data, alpha=1 - decay)
        found.append(sum(losses) / N)
    tested = student.eval()
    if decay is not None:
        state = student.state_dict()
        parameters = dict(mean.named_parameters())
        tested.load_state_dict({name: parameters.get(name, value) for name, value in state.items()})
    normal = (torch.from_numpy(test).permute(0, 3, 1, 2) / 255 - torch.tensor(protocol.mean)[:, None, None]) / (
        torch.tensor(protocol.std)[:, None, None]
    )
    with torch.no_grad():
        return found, tested(normal).argmax(1).numpy()


def agree(ours: StudentResult, theirs: tuple[list[float], np.ndarray]) -> None:
    losses, predictions = theirs
    assert [look.train_loss for look in ours.curve] == pytest.approx(losses, rel=1e-5)
    assert np.array_equal(ours.predictions, predictions)
    assert len(np.unique(predictions)) > 1


def kl(outputs: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    return nn.KLDivLoss(reduction="batchmean")(F.log_softmax(outputs / 20, dim=1), F.softmax(labels / 20, dim=1))


@pytest.mark.parametrize(
    ("published", "dataset", "scores"),
    [
        (soft_bssl.FIVE, "imagenet-1k", (56.4, 42.3, 52.5, 44.2, 40.6)),
        (soft_bssl.FIVE_64, "tiny-imagenet", (46.5, 28.3, 43.6, 44.8, 41.5)),
    ],
    ids=["soft-bssl-5", "soft-bssl-5-64"],
)
def test_soft_bssl_5_is_the_programs(published: Protocol, dataset: str, scores: tuple[float, ...]) -> None:
    """Five weighted teachers in training mode, dropout and all, on the halves of a batch."""
    five = [teacher(seed, dropout=0.3 * (seed == 3)) for seed in range(5)]
    members = published.teachers_for(dataset, 10)
    assert isinstance(published.teacher, Committee)
    shares = published.teacher.shares(members)
    protocol = changed(published)
    ours = train(protocol, CommitteeOutput(five, shares), student=published.default_student)
    assert all(network.training for network in five)

    w = np.array(scores) / 10
    weights = np.exp(w) / np.sum(np.exp(w))
    assert shares == pytest.approx(weights)
    halves = [copy.deepcopy(network).train() for network in five]

    def labels_of(x: Tensor) -> Tensor:
        # The stream of dropout passes from half to half here, from teacher to teacher there: only one has any.
        with torch.no_grad():
            return torch.stack(
                [torch.cat([net(half) for half in x.split(BATCH // 2)]) * weights[i] for i, net in enumerate(halves)]
            ).sum(0)

    agree(ours, plain(protocol, labels_of, kl, lambda e: RATE / 2 * (1 + math.cos(math.pi * e / EPOCHS)), parts=2))


def test_soft_gvbsm_is_the_programs() -> None:
    """Outputs of whole batches at one norm, though students see them in halves; and a tenth of the cross-entropy."""
    four = [teacher(seed) for seed in range(4)]
    protocol = changed(soft_gvbsm.PROTOCOL)
    ours = train(protocol, CommitteeOutput(four, (0.25,) * 4, scaled=True))

    def labels_of(x: Tensor) -> Tensor:
        output = torch.stack([network(x) for network in four])
        norm = torch.sqrt((output**2).sum(dim=(1, 2), keepdim=True))
        assert float(norm.max() / norm.min()) > 1.5
        return (output / norm * norm.mean()).mean(0)

    def loss_of(outputs: Tensor, labels: Tensor, own: Tensor) -> Tensor:
        return ((outputs - labels) ** 2).mean() + 0.1 * F.nll_loss(F.log_softmax(outputs, dim=1), own)

    rates = [RATE / 2 * (1 + math.cos(math.pi * e / EPOCHS)) for e in range(EPOCHS)]
    agree(ours, plain(protocol, labels_of, loss_of, rates.__getitem__, parts=2))
    assert [soft_gvbsm.PROTOCOL.images_at_once(None, 1000, 10, f"resnet{n}_bn") for n in (18, 50, 101)] == [
        512, 128, 128,
    ]  # fmt: skip


def test_soft_edc_is_the_programs() -> None:
    """The running mean is tested; its BatchNorm statistics are the student's."""
    four = [teacher(seed) for seed in range(4)]
    protocol = changed(soft_edc.PROTOCOL)
    ours = train(protocol, CommitteeOutput(four, (0.25,) * 4))

    def labels_of(x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in four]).mean(0)

    def loss_of(outputs: Tensor, labels: Tensor, own: Tensor) -> Tensor:
        return ((outputs - labels) ** 2).mean() + 0.025 * F.nll_loss(F.log_softmax(outputs, dim=1), own)

    def rate(epoch: int) -> float:
        return RATE / 2 * (1 + math.cos(math.pi * epoch / (2 * EPOCHS)))

    expected = plain(protocol, labels_of, loss_of, rate, parts=1, decay=0.99)
    agree(ours, expected)
    student = train(protocol.model_copy(update={"weight_average": None}), CommitteeOutput(four, (0.25,) * 4))
    assert student.curve[-1].train_loss == ours.curve[-1].train_loss, "the mean has no part in the training"
    assert (student.predictions != ours.predictions).mean() > 0.1
    again = ours.look(Resident(torch.from_numpy(images()[2])), 1)
    assert np.array_equal(again[:, 0], ours.predictions), "further test sets are shown to the mean too"


@pytest.mark.parametrize("protocol", [soft_edc.PROTOCOL, soft_bssl.FOUR], ids=lambda p: p.name)
def test_a_killed_training_ends_bit_for_bit_as_an_undisturbed_one(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")

    def committee() -> nn.Module:
        return CommitteeOutput([teacher(0), teacher(1, dropout=0.5)], (0.5, 0.5))

    used = changed(protocol)
    whole = train(used, committee())
    with pytest.raises(KeyboardInterrupt):
        train(used, committee(), checkpoint=tmp_path / "state.pt", killed_at=2)
    resumed = train(used, committee(), checkpoint=tmp_path / "state.pt")
    assert resumed.curve == whole.curve
    assert np.array_equal(resumed.predictions, whole.predictions)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert ("average" in state) == (protocol.weight_average is not None)


def test_running_mean_in_closed_form() -> None:
    """After three steps: d³θ₀ + (1 − d) Σ d³⁻ⁱ θᵢ."""
    student = nn.Sequential(nn.Linear(2, 2, dtype=torch.float64), nn.BatchNorm1d(2, dtype=torch.float64))
    weights = torch.arange(16, dtype=torch.float64).view(4, 2, 2) ** 2
    student[0].weight.data = weights[0].clone()
    mean = RunningMean(student, 0.9)
    for step in (1, 2, 3):
        student[0].weight.data = weights[step].clone()
        mean.after_step(step, 3)
    student[1].running_mean += 5
    expected = 0.9**3 * weights[0] + 0.1 * sum(0.9 ** (3 - i) * weights[i] for i in (1, 2, 3))
    tested = mean.tested()
    torch.testing.assert_close(tested[0].weight, expected)
    assert torch.equal(tested[1].running_mean, student[1].running_mean)
    assert torch.equal(student[0].weight, weights[3])


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_labels_are_the_batchs_in_whatever_parts_it_passes(at_once: int) -> None:
    """So a batch that does not fit a GPU has the loss of one that does."""
    x = torch.randn(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    loss_of = SquaredErrors(CommitteeOutput([teacher(0), teacher(1)], (0.5, 0.5), scaled=True), cross_entropy=0.3)
    outputs, classes = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(1)), torch.arange(8) % CLASSES
    whole = loss_of(outputs, x, classes, None)
    of_part, parts = loss_of.of_batch(x, at_once), []
    for start in range(0, 8, at_once):
        here = slice(start, start + at_once)
        parts.append(of_part(here)(outputs[here], x[here], classes[here], None) * len(x[here]) / 8)
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


# As data


def test_who_labels_where() -> None:
    def networks_of(protocol: Protocol, dataset: str, ipc: int) -> list[str]:
        return [member.network for member in protocol.teachers_for(dataset, ipc)]

    three = ["resnet18_bn", "shufflenet_v2_x1_0", "mobilenet_v2"]
    assert networks_of(soft_bssl.FOUR, "imagenet-1k", 1) == [*three, "alexnet"]
    for dataset, ipc in (("imagenet-1k", 10), ("woof", 1), ("nette", 50)):
        assert networks_of(soft_bssl.FOUR, dataset, ipc) == [*three, "densenet121"]
    assert networks_of(soft_fkd.FKD, "woof", 1) == ["resnet18_bn"]
    committee = soft_bssl.FIVE.teacher
    assert isinstance(committee, Committee)
    for dataset, printed in (
        ("imagenet-1k", (0.41, 0.10, 0.28, 0.12, 0.09)),
        ("nette", (0.31, 0.11, 0.18, 0.13, 0.26)),
    ):
        assert committee.shares(soft_bssl.FIVE.teachers_for(dataset, 10)) == pytest.approx(printed, abs=0.006)
        assert soft_bssl.FIVE.teachers_for(f"{dataset}:validation", 10) == soft_bssl.FIVE.teachers_for(dataset, 10)
    with pytest.raises(UsageError, match="weights are known for imagenet-1k, nette, and not for woof; choose one of"):
        soft_bssl.FIVE.teachers_for("woof", 10)
    for protocol in (soft_bssl.FOUR, soft_bssl.FIVE, soft_gvbsm.PROTOCOL, soft_edc.PROTOCOL):
        assert Protocol.model_validate_json(protocol.model_dump_json()) == protocol
        assert protocol.stored_label_bytes(1000, 10) == 1000 * (2 * 10 + 29), "of their common output"


def test_rates_and_looks_of_cvdds_program() -> None:
    five, one = soft_bssl.FIVE, soft_bssl.ONE_BY_CVDD
    for dataset, student, ipc, expected in (
        ("imagenet-1k", "resnet101_bn", 1, (1e-3, 2)),
        ("imagenet-1k", "resnet101_bn", 50, (5e-4, 2)),
        ("nette", "resnet50_bn", 10, (1e-3, 1)),
        ("nette", "resnet101_bn", 10, (5e-4, 2)),
    ):
        rate = five.rate_of(dataset, student, ipc)
        assert rate is not None
        assert (rate.learning_rate, rate.stretch) == expected
        assert one.rate_of(dataset, student, ipc) == rate
        assert five.rate_of(f"{dataset}:validation", student, ipc) == rate, "what is tuned is trained as it will be"
    with pytest.raises(UsageError, match="none for resnet18_bn on woof"):
        five.rate_of("woof", "resnet18_bn", 10)
    assert five.look_epochs(300) == one.look_epochs(300) == [e + 1 for e in range(300) if e % 10 == 0 or e == 299]
    assert soft_bssl.FOUR.look_epochs(300) == [e + 1 for e in range(300) if e >= 240 and e % 10 == 9]
    assert soft_edc.PROTOCOL.look_epochs(300) == [e + 1 for e in range(300) if e % 30 == 0 or e == 299]


def test_a_committee_of_ones_own() -> None:
    own = soft_bssl.FIVE.with_overrides({"teacher": "resnet50_bn+convnet3", "learning_rate": 1e-3})
    members = own.teachers_for("digits", 3)
    assert [(m.network, m.weight) for m in members] == [("resnet50_bn", 1), ("convnet3", 1)]
    assert [m.imagenet_1k for m in members] == [TORCHVISION["resnet50_bn"].sha256, None]
    assert isinstance(own.teacher, Committee)
    assert own.teacher.shares(members) == (0.5, 0.5)
    assert own.teacher.mode == "train"
    with pytest.raises(Problems, match="unknown network 'resnet18'|unknown network 'nothing'"):
        soft_edc.PROTOCOL.with_overrides({"teacher": "resnet18_bn+nothing"})
    with pytest.raises(Problems, match="unknown network 'resnet18_bn\\+convnet3'"):
        soft_fkd.FKD.with_overrides({"teacher": "resnet18_bn+convnet3"})
    with pytest.raises(Problems, match="soft-edc@1 has no temperature to override: its loss is mse-to-teacher"):
        soft_edc.PROTOCOL.with_overrides({"temperature": 4})


@pytest.mark.parametrize(
    ("protocol", "update", "why"),
    [
        (soft_edc.PROTOCOL, {"loss": "kl-to-teacher", "cross_entropy_weight": None}, "a temperature goes with kl"),
        (soft_bssl.FOUR, {"loss": "mse-to-teacher"}, "a temperature goes with kl"),
        (soft_bssl.FOUR, {"cross_entropy_weight": 0.1}, "cross_entropy_weight goes with mse-to-teacher"),
        (soft_edc.PROTOCOL, {"teacher": None}, "loss and labels go together"),
    ],
)
def test_what_does_not_go_together(protocol: Protocol, update: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Protocol.model_validate(protocol.model_copy(update=update).model_dump())


@pytest.mark.parametrize(
    ("protocol", "update", "why"),
    [(soft_edc.PROTOCOL, {"mode": "train"}, "labels whole batches"), (soft_bssl.FOUR, {"scaled": True}, "norms are a")],
)
def test_what_committees_cannot_do(protocol: Protocol, update: dict[str, object], why: str) -> None:
    assert isinstance(protocol.teacher, Committee)
    committee = protocol.teacher.model_copy(update=update)
    with pytest.raises(ValidationError, match=why):
        Protocol.model_validate(protocol.model_copy(update={"teacher": committee}).model_dump())


def test_torchvisions_files_are_as_it_publishes_them() -> None:
    for network, known in TORCHVISION.items():
        weights = torchvision.models.get_weight(known.weights)
        assert weights.url.rpartition("/")[2] == known.file
        digits = known.file.removesuffix(".pth").rpartition("-")[2]
        assert known.sha256.startswith(digits), "the file's name holds the first digits of its hash"
        assert len(known.sha256) in (len(digits), 64)
        assert weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] == known.accuracy
        assert torchvision.models.get_model(network.removesuffix("_bn"), weights=None) is not None
