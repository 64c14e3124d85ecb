"""One budget of GPU memory: a step first, then training images, then test images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ddbench.benchmark.cells.evaluate import _room
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.spec import DatasetSpec, EvaluateSpec, ForeignImages, ProtocolSpec
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.protocols import memory, networks
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions.quick import PROTOCOL as QUICK
from ddbench.benchmark.protocols.definitions.soft_edc import PROTOCOL as SOFT_EDC
from ddbench.benchmark.protocols.memory import resident, step_bytes
from ddbench.benchmark.protocols.soft.averaging import RunningMean
from ddbench.benchmark.protocols.soft.committees import Member
from ddbench.benchmark.protocols.trainer import train_student

GB = 10**9
IMAGENET = 50_000 * 224 * 224 * 3
"""Bytes of ImageNet-1K at IPC 50, and of its test images."""
FREE = 24 * 2**30 - GB // 2
"""Of a card of 24 GiB beside its context."""


def student(name: str, image_size: int, n_classes: int = 10) -> nn.Module:
    return networks.build(name, n_classes, image_size, 3, None, seeds.stream(0, "student"))


@pytest.mark.parametrize(
    ("free", "step", "train", "test", "expected"),
    [
        (FREE, 0, IMAGENET, IMAGENET, (True, True)),
        (FREE, int(8.7 * GB), IMAGENET, IMAGENET, (True, False)),  # resnet_ap10 at a batch of 128
        (FREE, int(16.5 * GB), IMAGENET, IMAGENET, (False, False)),  # convnet6
        (FREE, int(16.5 * GB), GB, IMAGENET, (True, False)),
        (FREE, int(16.5 * GB), IMAGENET, GB, (False, True)),
        (140 * GB, int(16.5 * GB), IMAGENET, IMAGENET, (True, True)),
        (FREE, 30 * GB, 1, 1, (False, False)),  # a step that does not fit
    ],
)
def test_what_lies_on_the_device(free: int, step: int, train: int, test: int, expected: tuple[bool, bool]) -> None:
    assert resident(free, step, train, test) == expected
    taken = step + expected[0] * train + expected[1] * test
    assert taken <= free or not any(expected)


@pytest.mark.parametrize(("name", "computed"), [("resnet_ap10", 8.7), ("convnet6", 16.5)])
def test_a_step_at_224_px_takes_what_was_computed_by_hand(name: str, computed: float) -> None:
    found = step_bytes(student(name, 224, 1000).to("meta"), (128, 3, 224, 224))
    assert found / GB == pytest.approx(computed, rel=0.1)
    assert any(resident(FREE, found, 0, 0)), "24 GB are enough"


def allocations(seen: profile) -> list[int]:
    """Bytes of each allocation, in order; below 0 of what is given back."""
    assert seen.profiler is not None
    events: Any = seen.profiler.kineto_results.events()  # type: ignore[union-attr]  # None until the block has ended
    return [event.nbytes() for event in events if event.name() == "[memory]"]


@pytest.mark.parametrize("name", ["convnet3", "resnet_ap10", "resnet18_bn"])
def test_the_count_is_what_a_cpu_allocates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = student(name, 32)
    monkeypatch.setattr(memory, "KERNELS", 1.0)
    found = step_bytes(copy.deepcopy(network).to("meta"), (32, 3, 32, 32))
    found -= 3 * sum(p.numel() * 4 for p in network.parameters()) + 32 * 3 * 32 * 32 * 9

    images, taken = torch.zeros(32, 3, 32, 32), [0]
    # oneDNN's convolutions work beside their tensors, and how much that takes differs between CPUs.
    plain = torch.backends.mkldnn.flags(enabled=False)
    with plain, profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        network(images).sum().backward()
    for nbytes in allocations(seen):
        taken.append(taken[-1] + nbytes)
    assert found == pytest.approx(max(taken), rel=0.01)


def test_a_teacher_adds_what_it_holds_at_once() -> None:
    small, large = student("convnet3", 64).to("meta"), student("resnet18", 64).to("meta")
    shape = (64, 3, 64, 64)
    alone = step_bytes(small, shape)
    assert step_bytes(small, shape, teacher=small) == alone, "its activations are gone before the student's come"
    assert step_bytes(student("convnet3", 64).to("meta"), (1, 3, 64, 64), large) < step_bytes(large, (1, 3, 64, 64))


@pytest.mark.parametrize("teacher", [None, "convnet3"])
def test_a_running_mean_adds_one_copy_of_the_weights(teacher: str | None) -> None:
    width, classes, size = 128, 10, 32
    convolutions = 9 * width * (3 + width + width) + 3 * width  # weights and biases of three blocks
    norms, linear = 3 * 2 * width, (width * (size // 8) ** 2 + 1) * classes
    labels = None if teacher is None else student(teacher, size).to("meta")
    network, shape = student("convnet3", size, classes).to("meta"), (64, 3, size, size)
    alone = step_bytes(network, shape, labels)
    averaged = step_bytes(network, shape, labels, running_mean=True)
    assert averaged - alone == 4 * (convolutions + norms + linear)


def test_a_running_mean_is_what_the_count_says() -> None:
    network = student("convnet3", 32)
    alone, averaged = (step_bytes(copy.deepcopy(network).to("meta"), (8, 3, 32, 32), running_mean=m) for m in (0, 1))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = RunningMean(network, 0.99)
        kept.after_step(1, 1)
    assert averaged - alone == sum(allocations(seen))


def of_digits(protocol: Protocol) -> EvaluateSpec:
    """A student on digits at 32 px, on a GPU."""
    return EvaluateSpec(
        images=ForeignImages(image_set_sha256="ab" * 32),
        dataset=DatasetSpec(name="digits", split="default", resolution=32),
        ipc=10,
        protocol=ProtocolSpec(name=protocol.name, version=protocol.version, overrides={}, hash=protocol.hash),
        student="convnet3",
        seed=0,
        device_type="cuda",
    )


@pytest.mark.parametrize(("protocol", "kept"), [(QUICK, 0), (SOFT_EDC, 1)])
def test_a_cell_plans_for_the_running_mean_of_its_protocol(
    protocol: Protocol, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GB, GB))
    monkeypatch.setattr(Protocol, "teachers_for", lambda self, dataset, ipc: ())
    train = np.zeros((100, 32, 32, 3), np.uint8)
    _, _, step_mib = _room(protocol, of_digits(protocol), 10, Launch(label="x", device="cuda"), train)
    batch = protocol.images_at_once(100, 10, 10, "convnet3")
    network = networks.build("convnet3", 10, 32, 3, protocol.width, seeds.stream(0, "student"))
    without = step_bytes(copy.deepcopy(network).to("meta"), (batch, 3, 32, 32))
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert step_mib is not None
    assert step_mib * 2**20 == without + kept * weights


def test_a_batch_lies_there_as_read_augmented_and_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KERNELS", 0.0)  # what passes through the network is counted elsewhere
    weights, numbers = 4 * (3 * 8 * 8 * 10 + 10), 64 * 3 * 8 * 8
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)).to("meta")
    # The gradients are among what passes; an optimiser keeps two numbers of each weight.
    assert step_bytes(linear, (64, 3, 8, 8)) == 3 * weights + numbers * (1 + 4 + 4)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`_room` of 100 digits for a student under `quick`, on a card of 100 MB whose step takes 10."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**8, 10**8))

    def plan(cells_at_once: int = 1) -> Any:
        launch = Launch(label="x", device="cuda", cells_at_once=cells_at_once)
        return _room(QUICK, of_digits(QUICK), 10, launch, np.zeros((100, 32, 32, 3), np.uint8))

    return plan


@pytest.mark.parametrize(
    ("cells_at_once", "train", "test_bytes"),
    [
        (1, True, 90_000_000 - 10_000_000 - 307_200),
        (8, True, 11_250_000 - 10_000_000 - 307_200),  # an eighth of the card, which is all free until they have begun
        (9, False, -1),  # the step alone takes a byte more than there is
    ],
)
def test_cells_beside_each_other_plan_with_their_part_of_the_card(
    cells_at_once: int, train: bool, test_bytes: int, planned: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "step_bytes", lambda *_, **__: 10_000_000)
    fits, test_fits, step_mib = planned(cells_at_once)
    assert fits is train
    assert step_mib == 10_000_000 / 2**20
    assert test_fits(test_bytes)
    assert not test_fits(test_bytes + 1)


def test_a_cell_plans_for_its_teachers_too(planned: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What they add is counted above; here, that they are those of the protocol, as they label."""
    members, given = [Member(network="convnet3"), Member(network="resnet18_bn")], list[Any]()
    monkeypatch.setattr(Protocol, "teachers_for", lambda self, dataset, ipc: members)
    monkeypatch.setattr(memory, "step_bytes", lambda network, shape, teacher, **_: given.append(teacher) or 1)
    planned()
    (teachers,) = given
    expected = [student(member.network, 32) for member in members]
    assert [[p.shape for p in one.parameters()] for one in teachers] == [
        [p.shape for p in one.parameters()] for one in expected
    ]
    assert not any(one.training for one in teachers)
    assert {p.device.type for p in teachers.parameters()} == {"meta"}


def test_streamed_training_images_give_the_same_student() -> None:
    protocol = QUICK.with_overrides({"epochs": 3, "image_size": 8, "batch_size": 7})
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (40, 8, 8, 1), np.uint8), np.arange(40) % 10

    def train(stream: bool) -> Any:
        return train_student(
            protocol, "convnet3", images, labels, images, labels, num_classes=10, ipc=4, seed=0, stream=stream
        )

    held, streamed = train(False), train(True)
    assert streamed.curve == held.curve
    assert np.array_equal(streamed.predictions, held.predictions)
