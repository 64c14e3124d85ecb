"""Inverting classifiers: steps by hand in plain PyTorch, statistics in closed form, killed runs that end alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from inverted import CLASSES, Killed, Teacher, adam_by_hand, inversion, method
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.seeds import stream
from ddbench.methods.base import DistilledImage, DistillTask, RealImages
from ddbench.methods.inversion import inverting
from ddbench.methods.inversion.method import Inversion
from ddbench.methods.inversion.objective import Objective
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.statistics import LayerInputs, merged, moments
from ddbench.methods.inversion.targets import Targets, load_targets
from ddbench.methods.inversion.teachers import Moved


def by_hand(
    teacher: Teacher, normalised: Tensor, labels: Tensor, *, first: float = 10.0, variance: float = 1.0
) -> Tensor:
    """L, written out for this one network."""
    conv1, norm1, _, conv2, norm2, _, _, _, linear = teacher.layers
    x1 = conv1(normalised)
    x2 = conv2(torch.relu(norm1(x1)))
    logits = linear(torch.relu(norm2(x2)).mean((2, 3)))
    cross_entropy = -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()
    matching = torch.zeros(())
    for x, norm, weight in ((x1, norm1, first), (x2, norm2, 1.0)):
        channels = x.transpose(0, 1).flatten(1)
        apart_v = (channels.var(1, unbiased=False) - norm.running_var).square().sum().sqrt()
        apart_m = (channels.mean(1) - norm.running_mean).square().sum().sqrt()
        matching = matching + weight * (variance * apart_v + apart_m)
    return cross_entropy + 0.01 * matching


@pytest.fixture
def task(make_task: Any, random_images: Any) -> Callable[..., DistillTask]:
    return lambda **given: make_task(random_images(CLASSES), CLASSES, **given)


# Statistics -----------------------------------------------------------------------------------------------------------


def test_moments_are_the_mean_and_the_biased_variance_by_channel() -> None:
    x = torch.randn(5, 3, 4, 4, generator=stream(0, "x"), dtype=torch.float64)
    found, plain = moments(x), x.numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(found.mean, plain.mean(1), atol=1e-12)
    np.testing.assert_allclose(found.variance, plain.var(1), atol=1e-12)


def test_moments_of_parts_of_unequal_size_merge_to_those_of_the_whole() -> None:
    x = 3 + torch.randn(7, 2, 3, 3, generator=stream(1, "x"), dtype=torch.float64)
    parts = [[moments(x[a:b])] for a, b in ((0, 1), (1, 5), (5, 7))]
    (found,) = merged(parts, [1, 4, 2])
    torch.testing.assert_close(found, moments(x))


def test_the_distance_is_the_papers() -> None:
    teacher, images = Teacher(), torch.rand(4, 1, 8, 8, generator=stream(0, "x"))
    inputs = LayerInputs(teacher.network(), "it")
    with inputs.seen() as found, torch.no_grad():
        logits = teacher.network()(teacher.normalise(images))
    cross_entropy = F.cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
    loss = cross_entropy + 0.01 * inputs.distance(found, inputs.kept(), 7.0, 2.0)
    expected = by_hand(teacher, teacher.normalise(images), torch.tensor([0, 1, 2, 0]), first=7.0, variance=2.0)
    torch.testing.assert_close(loss, expected)


def test_hooks_are_gone_afterwards() -> None:
    teacher = Teacher()
    inputs = LayerInputs(teacher.network(), "it")
    with pytest.raises(ZeroDivisionError), inputs.seen():
        raise ZeroDivisionError
    assert not any(module._forward_pre_hooks for module in teacher.network().modules())


@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(block: int) -> None:
    teacher, labels = Teacher(), torch.tensor([0, 1, 2, 1, 0])
    teacher.layers.double()
    images = torch.rand(5, 1, 8, 8, generator=stream(0, "x"), dtype=torch.float64)
    whole = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(by_hand(teacher, teacher.normalise(whole), labels), whole)
    leaf = images.clone().requires_grad_()
    targets = Targets(LayerInputs(teacher.network(), "it").kept())
    loss = Objective(teacher, targets, InversionParams(), "it").backward(leaf, labels, block, weight=0.7)
    torch.testing.assert_close(loss, by_hand(teacher, teacher.normalise(images), labels))
    torch.testing.assert_close(leaf.grad, 0.7 * expected)


def test_a_network_without_batch_norm_is_refused() -> None:
    with pytest.raises(UsageError, match="teacher plain has no BatchNorm layers"):
        LayerInputs(nn.Sequential(nn.Conv2d(1, 1, 1)), "plain")


# Steps ----------------------------------------------------------------------------------------------------------------


def test_steps_are_adams_on_the_loss_and_pixels_stay_in_range(task: Any) -> None:
    keys, labels, teacher = [(0, 0), (1, 0), (2, 0)], torch.tensor([0, 1, 2]), Teacher()
    found = inversion(task(), keys, [teacher], steps=10, image_learning_rate=0.3)
    noise = [torch.randn(1, 8, 8, generator=stream(0, "inversion noise", c, 0)) for c in CLASSES]
    assert torch.equal(found.images.detach(), torch.stack(noise))
    for number in range(3):
        found.step()
        found.step_number = number + 1
    expected = adam_by_hand(torch.stack(noise), lambda x, _: by_hand(teacher, x, labels), 3, 0.3, 10)
    torch.testing.assert_close(found.images.detach(), expected, atol=1e-5, rtol=0)
    assert (expected == 1).any(), "some pixels were clamped"


def test_teachers_take_turns_by_the_step(task: Any) -> None:
    keys, labels, teachers = [(0, 0), (1, 0)], torch.tensor([0, 1]), [Teacher(1), Teacher(2)]
    found = inversion(task(), keys, teachers, steps=10, network="resnet18_bn+resnet50_bn")
    start = found.images.detach().clone()
    for number in range(3):
        found.step()
        found.step_number = number + 1
    expected = adam_by_hand(start, lambda x, i: by_hand(teachers[i % 2], x, labels), 3, 0.25, 10)
    torch.testing.assert_close(found.images.detach(), expected, atol=1e-5, rtol=0)


def test_two_teachers_of_a_pair_add_up_by_their_weights(task: Any) -> None:
    keys, labels, teachers = [(0, 0), (1, 0)], torch.tensor([0, 1]), [Teacher(1), Teacher(2), Teacher(3)]
    found = inversion(
        task(), keys, teachers, steps=10, network="resnet18_bn+resnet50_bn+resnet101_bn", committee="pairs",
        committee_scores="50+40+47",
    )  # fmt: skip
    start = found.images.detach().clone()
    found.step()
    strong = 1 / (1 + math.exp((47 - 50) / 5))

    def loss(x: Tensor, _: int) -> Tensor:
        return strong * by_hand(teachers[0], x, labels) + (1 - strong) * by_hand(teachers[2], x, labels)

    torch.testing.assert_close(found.images.detach(), adam_by_hand(start, loss, 1, 0.25, 10), atol=1e-5, rtol=0)


def test_waiting_images_stay_and_the_step_count_runs(task: Any) -> None:
    keys, teacher = [(0, 0), (0, 1), (1, 0), (1, 1)], Teacher()
    labels = torch.tensor([0, 0, 1, 1])
    found = inversion(task(ipc=2), keys, [teacher], steps=4, admissions=2, order="within", start="real")
    start = found.images.detach().clone()
    for number in range(2):
        found.step()
        found.step_number = number + 1
    early, late = [0, 2], [1, 3]
    assert torch.equal(found.images.detach()[late], start[late])
    expected = adam_by_hand(start[early], lambda x, _: by_hand(teacher, x, labels[early]), 2, 0.25, 4)
    torch.testing.assert_close(found.images.detach()[early], expected, atol=1e-5, rtol=0)
    found.step()

    def everyone(x: Tensor, step: int) -> Tensor:
        return by_hand(teacher, x[early], labels[early]) if step < 2 else by_hand(teacher, x, labels)

    torch.testing.assert_close(found.images.detach(), adam_by_hand(start, everyone, 3, 0.25, 4), atol=1e-5, rtol=0)


def test_stages_resize_and_mix_the_start_in(task: Any) -> None:
    """Steps too small to move anything leave resizing and mixing alone."""
    found = inversion(
        task(), [(0, 0), (1, 0)], steps=8, stages=4, stage_scale=0.75, residual=0.3, start="real",
        image_learning_rate=1e-12,
    )  # fmt: skip
    start, sides = found.start, []

    def to(side: int, x: Tensor) -> Tensor:
        return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)

    for number in range(8):
        found.step()
        sides.append(found.images.shape[-1])
        found.step_number = number + 1
    assert sides == [6, 6, 8, 8, 6, 6, 8, 8]
    x = to(6, start)
    for side in (8, 6, 8):
        x = 0.7 * to(side, x) + 0.3 * to(side, start)
    torch.testing.assert_close(found.images.detach(), x, atol=1e-6, rtol=0)


def test_a_stage_begins_with_a_new_adam_and_goes_on_along_one_cosine(task: Any) -> None:
    keys, labels, teacher = [(0, 0), (1, 0)], torch.tensor([0, 1]), Teacher()
    found = inversion(task(), keys, [teacher], steps=6, stages=2, start="real", residual=0.5)
    start = found.images.detach().clone()
    for number in range(5):
        found.step()
        found.step_number = number + 1

    def loss(x: Tensor, _: int) -> Tensor:
        return by_hand(teacher, x, labels)

    first = adam_by_hand(start, loss, 3, 0.25, 6)
    second = adam_by_hand(0.5 * first + 0.5 * start, loss, 2, 0.25, 6, begun=3)
    torch.testing.assert_close(found.images.detach(), second, atol=2e-5, rtol=0)


def test_a_moved_teacher_has_climbed_its_loss() -> None:
    teacher, images, labels = Teacher(), torch.rand(4, 1, 8, 8, generator=stream(0, "x")), torch.tensor([0, 1, 2, 0])
    weights = {name: w.clone() for name, w in teacher.network().named_parameters()}
    moved = Moved(teacher, images, labels, 3, 0.05, block=3)
    assert all(torch.equal(weights[name], w) for name, w in teacher.network().named_parameters()), "a copy is moved"
    expected = Teacher()
    expected.layers.requires_grad_(True)
    for _ in range(3):
        loss = F.cross_entropy(expected.layers(expected.normalise(images)), labels)
        gradient = torch.autograd.grad(loss, list(expected.layers.parameters()))
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        with torch.no_grad():
            for weight, g in zip(expected.layers.parameters(), gradient, strict=True):
                weight += 0.05 * g / norm
    for ours, theirs in zip(moved.network().parameters(), expected.layers.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-5)
        assert not ours.requires_grad


def test_the_moved_teacher_is_what_a_batch_is_optimised_under(task: Any) -> None:
    keys, labels, teacher = [(0, 0), (1, 0)], torch.tensor([0, 1]), Teacher()
    found = inversion(task(), keys, [teacher], steps=10, start="real", ascent_steps=2, ascent_size=0.5)
    start = found.images.detach().clone()
    other = Teacher()
    other.layers.load_state_dict(Moved(teacher, start * 0.5 + 0.5, labels, 2, 0.5, block=9).network().state_dict())
    found.step()
    expected = adam_by_hand(start, lambda x, _: by_hand(other, x, labels), 1, 0.25, 10)
    torch.testing.assert_close(found.images.detach(), expected, atol=1e-5, rtol=0)


def test_values_are_truncated_as_the_programs_do(task: Any) -> None:
    found = inversion(task(), [(0, 0)], steps=1)
    found.images.data.fill_(2 * 200.9 / 255 - 1)
    found.step_number = 1
    assert set(found.run()[0, 0].ravel()) == {200}


# Runs -----------------------------------------------------------------------------------------------------------------


SETTINGS: list[dict[str, Any]] = [
    {"steps": 8},
    {"steps": 8, "stages": 4, "stage_scale": 0.75, "start": "real"},
    {"steps": 8, "admissions": 2, "order": "within", "start": "real"},
]


@pytest.mark.parametrize("given", SETTINGS, ids=["plain", "stages", "admissions"])
@pytest.mark.parametrize("steps", [2, 4, 6])
def test_a_batch_that_was_killed_ends_with_the_same_bits(
    task: Any, given: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverting, "CHECKPOINT_EVERY", 2)
    keys, usual = [(0, 0), (0, 1), (1, 0)], given | {"min_scale": 0.3, "flip": True, "jitter": 0.3}

    def killing(note: str) -> None:
        if f"step {steps + 2} of" in note:
            raise Killed

    whole = inversion(task(ipc=2), keys, **usual)
    expected = whole.run()
    whole.forget()
    with pytest.raises(Killed):
        inversion(dataclasses.replace(task(ipc=2), progress=killing), keys, **usual).run()
    again = inversion(task(ipc=2), keys, **usual)
    taken: list[int] = []
    step = again.step
    monkeypatch.setattr(again, "step", lambda: taken.append(again.step_number) or step())
    found = again.run()
    assert taken == list(range(steps, 8)), "it went on from the checkpoint"
    assert all(np.array_equal(found[key], expected[key]) for key in keys)
    again.forget()
    assert not list(again.task.scratch.iterdir())


def test_a_checkpoint_of_other_images_is_not_gone_on_from(task: Any) -> None:
    inversion(task(), [(0, 0), (1, 0)], steps=4).run()
    other = inversion(task(), [(0, 0), (2, 0)], steps=4)
    other._resume()
    assert other.step_number == 0


def test_no_more_images_are_in_flight_than_the_batch_size(task: Any) -> None:
    teacher = Teacher()
    inversion(task(batch_size=2), [(0, 0), (1, 0), (2, 0)], [teacher], steps=2, ascent_steps=1).run()
    assert teacher.largest == 2


def test_a_loss_that_is_not_finite_is_an_error(task: Any) -> None:
    teacher = Teacher()
    teacher.layers[1].running_var.fill_(math.inf)
    with pytest.raises(
        RunError, match="class a, image 0, is not finite at step 4; choose an image_learning_rate below"
    ):
        inversion(task(), [(0, 0), (1, 0)], [teacher], steps=4).run()


def test_images_depend_neither_on_the_classes_of_a_cell_nor_on_what_is_done(task: Any) -> None:
    given = {"steps": 3, "batch": 2, "order": "across"}
    rounds = list(method(task(ipc=2), **given).distill(task(ipc=2)))
    whole = {(i.class_index, i.image_index): i for images in rounds for i in images}
    assert [[(i.class_index, i.image_index) for i in images] for images in rounds] == [
        [(0, 0), (1, 0)], [(2, 0)], [(0, 1), (1, 1)], [(2, 1)],
    ]  # fmt: skip

    def same(images: list[DistilledImage]) -> bool:
        return all(np.array_equal(i.pixels, whole[i.class_index, i.image_index].pixels) for i in images)

    shard = list(method(task(ipc=2), **given).distill(task(ipc=2, classes=[1])))
    assert [len(images) for images in shard] == [1, 1]
    assert all(map(same, shard))
    rest = list(method(task(ipc=2), **given).distill(task(ipc=2, done=[whole[0, 0], *rounds[1], *rounds[2]])))
    assert [[(i.class_index, i.image_index) for i in images] for images in rest] == [[(1, 0)], [(2, 1)]]
    assert all(map(same, rest))


def test_the_teacher_takes_the_images_for_their_classes(task: Any) -> None:
    """From noise, on a teacher that can tell its classes apart."""
    teacher, now = Teacher(), task(ipc=2)
    features, linear = teacher.layers[:8], teacher.layers[8]
    noise = torch.randn(64, 1, 8, 8, generator=stream(0, "noise"))
    linear.weight.mul_(100)
    linear.bias.copy_(-linear(features(noise)).mean(0) + linear.bias)  # no class is taken for every noise
    made = method(now, steps=60, image_learning_rate=0.1)
    made._teachers, made._targets = [teacher], [load_targets(now, made.params, teacher, "it")]
    images = [image for images in made.distill(now) for image in images]
    pixels = torch.from_numpy(np.stack([i.pixels for i in images])).permute(0, 3, 1, 2) / 255
    said = teacher.network()(teacher.normalise(pixels)).argmax(1).tolist()
    assert said == [i.class_index for i in images]


def test_what_it_says_of_real_images() -> None:
    def said(**given: Any) -> tuple[RealImages, bool]:
        made = Inversion(InversionParams(**given))
        return made.reads_real_images(), made.shows_real_images()

    assert said() == (RealImages.ALL, False)
    assert said(network="efficientnet_lite0") == (RealImages.NONE, False)
    assert said(network="efficientnet_lite0", start="real") == (RealImages.CHOSEN, True)
    assert said(network="efficientnet_lite0", start="median") == (RealImages.ALL, True)
    assert said(network="efficientnet_lite0", convolution_statistics=True) == (RealImages.ALL, False)
    assert said(network="efficientnet_lite0", class_statistics_share=0.1) == (RealImages.ALL, False)
