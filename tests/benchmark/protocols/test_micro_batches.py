"""A batch that does not fit passes through the network in parts, and the student is that of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pretend
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ddbench.benchmark.core import seeds
from ddbench.benchmark.protocols import epoch, networks
from ddbench.benchmark.protocols.augmentation import Cut
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd, quick, soft_rded
from ddbench.benchmark.protocols.epoch import Loss, MicroBatches, Parts, SoftLabels, _backward, cross_entropy
from ddbench.benchmark.protocols.networks import build
from ddbench.benchmark.protocols.trainer import StudentResult, train_student

QUICK = quick.PROTOCOL.with_overrides({"epochs": 3, "looks": 3, "width": 8, "batch_size": 16})
CUTMIX = hard_minimax_sgd.PROTOCOL.with_overrides(
    {"epochs": 3, "looks": 3, "width": 8, "batch_size": 16, "image_size": 16}
)
SOFT = soft_rded.CROP.with_overrides({"epochs": 3, "looks": 3, "batch_size": 16, "image_size": 16})
SAID = "CUDA error: out of memory"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(protocol: Protocol, student: str, **given: Any) -> StudentResult:
    draw = np.random.default_rng(0)
    size = protocol.image_size_for(16)
    images, labels = draw.integers(0, 256, (40, size, size, protocol.channels or 3), np.uint8), np.arange(40) % 10
    return train_student(protocol, student, images, labels, images, labels, num_classes=10, ipc=4, seed=0, **given)


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Students have room for so many images in training; gives the sizes of what passed, gradient or not."""

    def limit(images: int) -> list[int]:
        passed: list[int] = []
        real = networks.build

        def limited(*args: Any, **kwargs: Any) -> nn.Module:
            def check(module: nn.Module, given: tuple[Tensor, ...]) -> None:
                if module.training:
                    if len(given[0]) > images:
                        raise torch.AcceleratorError(SAID)
                    passed.append(len(given[0]))

            network = real(*args, **kwargs)
            network.register_forward_pre_hook(check)
            return network

        monkeypatch.setattr(networks, "build", limited)
        return passed

    return limit


@pytest.mark.parametrize(
    ("protocol", "student", "soft"),
    [(QUICK, "convnet3", False), (CUTMIX, "resnet_ap10", False), (SOFT, "resnet18", True)],
    ids=["hard", "cutmix", "soft"],
)
def test_parts_give_the_student_of_the_whole_batch(
    protocol: Protocol, student: str, soft: bool, room_for: Callable[[int], list[int]]
) -> None:
    assert protocol.cutmix == (student != "convnet3")
    teacher = build("resnet18", 10, 16, 3, 8, seeds.stream(1, "teacher")).eval() if soft else None
    whole = train(protocol, student, teacher=teacher)
    passed = room_for(5)
    parts = train(protocol, student, teacher=teacher)
    assert whole.oom_batch_sizes == ()
    assert parts.oom_batch_sizes == (16, 8)
    assert set(passed) == {4}
    assert parts.steps == whole.steps
    # Sums in another order differ by an ulp, which three epochs make larger.
    assert [look.train_loss for look in parts.curve] == pytest.approx([x.train_loss for x in whole.curve], rel=1e-2)
    assert parts.curve[0].train_loss == pytest.approx(whole.curve[0].train_loss, rel=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_loss_and_gradient_are_the_batchs(mixed: bool, soft: bool, at_once: int) -> None:
    generator = torch.Generator().manual_seed(0)
    network = build("convnet3", 10, 16, 3, 8, generator).double()
    images = torch.rand(10, 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.randint(10, (10,), generator=generator)
    cut = Cut(2, 3, 9, 12, torch.randperm(10, generator=generator)) if mixed else None
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).double()
    loss_of: Loss = SoftLabels(teacher, 4.0) if soft else cross_entropy

    def found(size: int) -> list[Tensor]:
        network.zero_grad()
        loss = _backward(network, network, images, labels, cut, loss_of, Parts(size, None), second_pass=False)
        return [loss, *(p.grad.clone() for p in network.parameters() if p.grad is not None)]

    whole, parts = found(10), found(at_once)
    assert len(whole) > 10
    assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-12) for one, other in zip(whole, parts, strict=True))


def test_a_gpus_peak_is_of_the_parts(room_for: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    room_for(5)
    with pretend.gpu():
        resets, given_back = list[torch.device](), list[None]()
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(None))
        assert train(QUICK, "convnet3", device="cuda:0").oom_batch_sizes == (16, 8)
        monkeypatch.undo()
    assert [device.type for device in resets] == ["cuda", "cuda"]
    assert len(given_back) == 2, "pieces of the whole batch's size are in the parts' way"


def test_parts_that_passed_before_memory_ran_out_do_not_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients: list[list[Tensor]] = []

    def noted(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        gradients.append([p.grad.clone() for group in optimiser.param_groups for p in group["params"]])

    once = quick.PROTOCOL.with_overrides({"epochs": 1, "looks": 1, "width": 8, "batch_size": 40})
    hook = register_optimizer_step_pre_hook(noted)
    try:
        train(once, "convnet3")
        passed, real = list[int](), epoch._backward

        def runs_out(*given: Any, **named: Any) -> Tensor:
            loss = real(*given, **named)
            passed.append(1)
            if len(passed) == 1:  # all parts passed, and the last found no room for its gradients
                raise torch.OutOfMemoryError(SAID)
            return loss

        monkeypatch.setattr(epoch, "_backward", runs_out)
        assert train(once, "convnet3").oom_batch_sizes == (40,)
    finally:
        hook.remove()
    whole, again = gradients
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-6) for one, other in zip(whole, again, strict=True))


def test_batch_norm_needs_its_batch_whole(room_for: Callable[[int], list[int]]) -> None:
    room_for(5)
    with pytest.raises(torch.AcceleratorError, match=SAID):
        train(hard_minimax_sgd.PROTOCOL.with_overrides({"epochs": 1, "image_size": 16}), "resnet18_bn")


def test_not_even_one_image_and_other_errors(room_for: Callable[[int], list[int]]) -> None:
    room_for(0)
    with pytest.raises(torch.AcceleratorError, match=SAID):
        train(QUICK, "convnet3")
    assert not MicroBatches(8).halve(nn.ReLU(), RuntimeError("shapes do not fit"))
    assert not MicroBatches(8).halve(nn.Sequential(nn.Linear(1, 1), nn.Dropout()), torch.OutOfMemoryError(SAID))
    assert MicroBatches(8).halve(nn.Sequential(nn.Linear(1, 1)), torch.OutOfMemoryError(SAID))
