"""One pass over images, on networks small enough to follow: which images count, how much, and what layers draw."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.protocols import augmentation, epoch
from ddbench.benchmark.protocols.pixels import Resident

CPU = torch.device("cpu")
SIDE = 4


def images(n: int) -> Resident:
    """Image i has the value i everywhere."""
    return Resident(torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, SIDE, SIDE, 1).contiguous())


class Identity(augmentation.Augmentation):
    """Draws the position that it is asked for, and changes nothing."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def draw(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        self.asked.append(n)
        return torch.zeros(n, 1)

    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        assert len(images) == len(rows)
        return images.float()


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(SIDE * SIDE, 3))


class Pass:
    """A pass of `train_epoch` at a learning rate of 0, and what it looked at."""

    def __init__(self, net: nn.Module, n: int, batch_size: int, *, number: int = 1) -> None:
        self.seen: list[list[int]] = []
        self.losses: list[float] = []
        self.logits: list[Tensor] = []
        self.steps: list[tuple[int, int]] = []
        self.augment = Identity()
        with torch.random.fork_rng(devices=[]):
            self.mean_loss = epoch.train_epoch(
                net,
                torch.optim.SGD(net.parameters(), lr=0.0),
                images(n),
                torch.arange(n) % 3,
                self.augment,
                self._loss,
                cutmix=False,
                batch_size=batch_size,
                streams=partial(seeds.stream, 0),
                epoch=number,
                after_step=lambda *step: self.steps.append(step),
            ).mean()

    def _loss(self, logits: Tensor, images: Tensor, labels: Tensor, cut: Any) -> Tensor:
        self.seen.append(images[:, 0, 0, 0].long().tolist())
        assert labels.tolist() == [image % 3 for image in self.seen[-1]]
        loss = F.cross_entropy(logits, labels)
        self.losses.append(loss.item())
        self.logits.append(logits.detach())
        return loss


@pytest.mark.parametrize("n", [1, 2, 6, 7, 8])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_every_image_counts_once_and_a_lonely_one_not_under_batchnorm(n: int, batchnorm: bool) -> None:
    net = network(nn.BatchNorm2d(1)) if batchnorm else network()
    found = Pass(net, n, batch_size=3)
    left_out = batchnorm and n == 7
    counted = [image for batch in found.seen for image in batch]
    assert len(set(counted)) == len(counted) == n - left_out
    assert [len(batch) for batch in found.seen] == {
        1: [1], 2: [2], 6: [3, 3], 7: [3, 3] if left_out else [3, 3, 1], 8: [3, 3, 2]
    }[n]  # fmt: skip
    total = len(found.seen)
    assert found.steps == [(step, total) for step in range(1, total + 1)]
    assert len(epoch.batches_of_epoch(net, n, 3)) == total
    weighted = sum(loss * len(batch) for loss, batch in zip(found.losses, found.seen, strict=True))
    assert found.mean_loss == pytest.approx(weighted / len(counted), rel=1e-6)


def test_another_image_is_left_out_in_another_epoch() -> None:
    net = network(nn.BatchNorm2d(1))
    passes = [Pass(net, 7, batch_size=3, number=number) for number in range(1, 9)]
    left_out = [set(range(7)) - {image for batch in one.seen for image in batch} for one in passes]
    assert all(len(one) == 1 for one in left_out)
    assert len(set.union(*left_out)) > 2


@pytest.mark.parametrize(("together", "draws"), [(100, [8]), (8, [8]), (3, [3, 3, 2]), (4, [4, 4])])
def test_augmentation_is_drawn_in_parts_of_bounded_size(
    together: int, draws: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "DRAWN_TOGETHER", together)
    assert Pass(network(), 8, batch_size=3).augment.asked == draws


def test_layers_draw_anew_in_every_epoch_and_the_same_in_each() -> None:
    net = network(nn.Dropout(0.5))
    first, again, second = (torch.cat(Pass(net, 6, batch_size=6, number=number).logits) for number in (1, 1, 2))
    assert torch.equal(first, again)
    order = [Pass(net, 6, batch_size=6, number=number).seen[0] for number in (1, 2)]
    # What remains of a logit without its image's value is the mask that dropout drew for a place in the batch.
    masks = [
        (logits - net[-1].bias) / torch.tensor(seen).clamp(min=1)[:, None]  # type: ignore[index,operator]
        for logits, seen in ((first, order[0]), (second, order[1]))
    ]
    places = [i for i in range(6) if order[0][i] and order[1][i]]
    assert not torch.allclose(masks[0][places], masks[1][places], atol=1e-4)


def test_layers_do_not_move_the_global_generator() -> None:
    net = network(nn.Dropout(0.5))
    state = torch.get_rng_state()
    given: Any = {"cutmix": False, "batch_size": 3, "streams": partial(seeds.stream, 0), "epoch": 1}
    labels, optimiser = torch.zeros(6, dtype=torch.int64), torch.optim.SGD(net.parameters(), lr=0.0)
    epoch.train_epoch(net, optimiser, images(6), labels, Identity(), epoch.cross_entropy, **given)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_students_distance_to_its_teacher_is_the_divergence_at_their_temperature() -> None:
    logits, target = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = torch.softmax(target / 4, 1), torch.softmax(logits / 4, 1)
    expected = (p * (p / q).log()).sum(1).mean()
    loss = epoch.SoftLabels(lambda _images: target, temperature=4)(logits, torch.zeros(5, 1), torch.zeros(5), None)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, expected)
