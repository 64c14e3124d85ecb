"""Statistics of convolutions, of classes and over steps, and the spread of a class's images (G-VBSM, EDC): in closed
form by numpy, and steps by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from inverted import CLASSES, PLAIN, Killed, Teacher, adam_by_hand, inversion, method
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.seeds import stream
from ddbench.benchmark.planning.contestants import contestants
from ddbench.benchmark.protocols import networks
from ddbench.datasets.base import ArraySource
from ddbench.datasets.cifar import Cifar10
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import Nette
from ddbench.methods.base import DistillTask
from ddbench.methods.inversion import inverting, view
from ddbench.methods.inversion.densification import densification
from ddbench.methods.inversion.objective import Objective
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.running import RunningMean
from ddbench.methods.inversion.starts import Starts
from ddbench.methods.inversion.statistics import LayerInputs, Moments, block_moments, moments
from ddbench.methods.inversion.targets import CROP_SCALE, load_targets

G_VBSM: dict[str, Any] = {
    "convolution_statistics": True, "statistics_momentum": 0.4, "densification_weight": 1.0, "order": "within",
}  # fmt: skip
EDC: dict[str, Any] = {"convolution_statistics": True, "statistics_momentum": 0.8, "class_statistics_share": 0.5}

LPLD: dict[str, Any] = {"class_statistics_share": 1.0, "class_statistics_momentum": 0.1, "order": "class"}


@pytest.fixture
def task(make_task: Any, random_images: Any) -> Callable[..., DistillTask]:
    return lambda **given: make_task(random_images(CLASSES), CLASSES, **given)


# Moments --------------------------------------------------------------------------------------------------------------


def test_blocks_have_moments_over_images_channels_and_their_places() -> None:
    x = torch.randn(3, 5, 32, 48, generator=stream(0, "x"), dtype=torch.float64)
    found, plain = block_moments(x), x.numpy()
    blocks = [plain[:, :, r : r + 16, c : c + 16] for r in (0, 16) for c in (0, 16, 32)]
    np.testing.assert_allclose(found.mean, [block.mean() for block in blocks], atol=1e-12)
    np.testing.assert_allclose(found.variance, [block.var() for block in blocks], atol=1e-12)


@pytest.mark.parametrize(("side", "blocks"), [(1, 1), (2, 1), (7, 1), (8, 1), (16, 1), (17, 4), (28, 4), (56, 16)])
def test_maps_are_enlarged_to_whole_blocks(side: int, blocks: int) -> None:
    """Bilinear, places at centres, edges repeated: written out with numpy, one axis after the other."""
    x = torch.randn(2, 3, side, side, generator=stream(0, "x"), dtype=torch.float64)
    to = 16 * math.isqrt(blocks)
    at = ((np.arange(to) + 0.5) * side / to - 0.5).clip(0)
    low = np.floor(at).astype(int)
    high, share = np.minimum(low + 1, side - 1), at - low
    rows = (1 - share)[:, None] * x.numpy()[:, :, low] + share[:, None] * x.numpy()[:, :, high]
    large = (1 - share) * rows[..., low] + share * rows[..., high]
    found = block_moments(x)
    assert len(found.mean) == blocks
    first = large[:, :, :16, :16]
    np.testing.assert_allclose([found.mean[0], found.variance[0]], [first.mean(), first.var()], atol=1e-12)
    last = large[:, :, -16:, -16:]
    np.testing.assert_allclose([found.mean[-1], found.variance[-1]], [last.mean(), last.var()], atol=1e-12)


@pytest.mark.parametrize("look", [moments, block_moments])
def test_moments_of_images_apart_are_those_of_each_alone(look: Callable[..., Moments]) -> None:
    x = torch.randn(4, 3, 20, 20, generator=stream(0, "x"), dtype=torch.float64)
    found = look(x, True)
    for i in range(4):
        torch.testing.assert_close(Moments(found.mean[i], found.variance[i]), look(x[i : i + 1]))


def test_convolutions_stand_among_batch_norm_in_the_order_of_modules() -> None:
    teacher = Teacher()
    inputs = LayerInputs(teacher.network(), "it", convolutions=True)
    images = torch.rand(2, 1, 8, 8, generator=stream(0, "x"))
    with inputs.seen() as found, torch.no_grad():
        teacher.network()(images)
    assert [len(one.mean) for one in found] == [1, 1, 4, 4, 1, 5], "conv by channel and block, norm, conv, norm"
    assert [one is None for one in inputs.kept()] == [True, True, False, True, True, False]
    assert inputs.of_first_layer == 2
    torch.testing.assert_close(found[0], moments(images))
    torch.testing.assert_close(found[1], block_moments(images))


def test_layers_that_images_do_not_pass_are_named() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    network.append(nn.Identity())
    network[2].aside = nn.BatchNorm2d(1)
    with (
        pytest.raises(UsageError, match="teacher it has 1 layers that images do not pass"),
        LayerInputs(network, "it").seen(),
    ):
        network(torch.rand(1, 1, 2, 2))


def test_a_network_without_norm_and_convolutions_is_refused() -> None:
    with pytest.raises(UsageError, match="has no BatchNorm layers and no convolutions"):
        LayerInputs(nn.Sequential(nn.Flatten(), nn.Linear(1, 1)), "plain", convolutions=True)
    LayerInputs(nn.Sequential(nn.Conv2d(1, 1, 1)), "plain", convolutions=True)


# Real images ----------------------------------------------------------------------------------------------------------


def inputs_of_convolutions(teacher: Teacher, images: Tensor) -> list[np.ndarray]:
    """What each of the two takes, (N, C, ·, ·) float64."""
    normalised = teacher.normalise(images)
    conv, norm = teacher.layers[0], teacher.layers[1]
    with torch.no_grad():
        return [x.double().numpy() for x in (normalised, torch.relu(norm(conv(normalised))))]


def real_crops(task: DistillTask, indices: Sequence[int], flip: bool = True) -> Tensor:
    """Each image's crop, drawn by its name."""
    pixels = torch.from_numpy(task.train.read(indices)).permute(0, 3, 1, 2) / 255
    crops = [
        view.draw(8, CROP_SCALE, 0, flip, stream(0, "inversion crops", task.train.names[i])).of(pixels[k : k + 1])
        for k, i in enumerate(indices)
    ]
    return torch.cat(crops)


@pytest.mark.parametrize("batch_size", [5, 64])
def test_targets_are_the_real_crops_moments(
    make_task: Any, random_images: Any, memory_cache: Any, batch_size: int
) -> None:
    """Of classes of different sizes, as numpy has them of all images at once."""
    whole = random_images(CLASSES)
    kept = [*range(12), *range(12, 19), *range(24, 36)]
    train = ArraySource(whole.read(kept), whole.labels[kept], [whole.names[i] for i in kept])
    task, teacher = make_task(train, CLASSES, cache=memory_cache, batch_size=batch_size), Teacher()
    found = load_targets(task, InversionParams(**PLAIN | EDC | {"flip": True}), teacher, "it")
    assert memory_cache.made == ["statistics"] * 3
    every = inputs_of_convolutions(teacher, real_crops(task, range(len(kept))))
    for place, x in ((0, every[0]), (3, every[1])):
        np.testing.assert_allclose(found.whole[place].mean, x.mean((0, 2, 3)), atol=1e-5)
        np.testing.assert_allclose(found.whole[place].variance, x.var((0, 2, 3)), atol=1e-5)
    torch.testing.assert_close(found.whole[2], Moments(teacher.layers[1].running_mean, teacher.layers[1].running_var))
    second = inputs_of_convolutions(teacher, real_crops(task, range(12, 19)))[1]
    np.testing.assert_allclose(found.by_class[3].mean[1], second.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.by_class[3].variance[1], second.var((2, 3)).mean(0), atol=1e-5)
    blocks = [block_moments(torch.from_numpy(second[i : i + 1])) for i in range(7)]
    np.testing.assert_allclose(found.by_class[4].mean[1], np.mean([b.mean for b in blocks], 0), atol=1e-5)
    np.testing.assert_allclose(found.by_class[4].variance[1], np.mean([b.variance for b in blocks], 0), atol=1e-5)


def test_targets_are_made_once_and_no_method_without_them_asks(make_task: Any, memory_cache: Any, task: Any) -> None:
    now = task(cache=memory_cache)
    load_targets(now, InversionParams(**PLAIN), Teacher(), "it")
    assert not memory_cache.made
    first = load_targets(now, InversionParams(**PLAIN | G_VBSM), Teacher(), "it")
    shard = load_targets(task(cache=memory_cache, classes=[1]), InversionParams(**PLAIN | EDC), Teacher(), "it")
    assert memory_cache.made == ["statistics"] * 3, "of all classes, whichever the cell has"
    assert not first.by_class
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(first.whole, shard.whole, strict=True))
    load_targets(now, InversionParams(**PLAIN | G_VBSM), Teacher(1), "it")
    assert memory_cache.made == ["statistics"] * 6


def test_the_classes_of_a_batch_count_as_often_as_they_are_in_it(task: Any) -> None:
    found = load_targets(task(), InversionParams(**PLAIN | EDC), Teacher(), "it")
    mixed = found.of(torch.tensor([2, 0, 2, 2]))
    for one, classes in zip(mixed, found.by_class, strict=True):
        torch.testing.assert_close(one.mean, 0.75 * classes.mean[2] + 0.25 * classes.mean[0])
        torch.testing.assert_close(one.variance, 0.75 * classes.variance[2] + 0.25 * classes.variance[0])


def test_a_running_class_statistic_is_that_of_its_last_images(task: Any) -> None:
    """Written out as a loop over the class's images in the order drawn, begun with the first."""
    now, teacher = task(), Teacher()
    found = load_targets(now, InversionParams(**PLAIN | LPLD), teacher, "it")
    crops, order = (
        real_crops(now, range(12, 24), flip=False),
        torch.randperm(12, generator=stream(0, "inversion order", "b")),
    )
    inputs = teacher.layers[0](teacher.normalise(crops)).double()
    mean, variance, weight = torch.zeros(4), torch.zeros(4), 0.0
    for i in order.tolist():
        one = moments(inputs[i : i + 1])
        mean, variance, weight = 0.9 * mean + 0.1 * one.mean, 0.9 * variance + 0.1 * one.variance, 0.9 * weight + 0.1
    torch.testing.assert_close(found.by_class[0].mean[1].double(), mean / weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.by_class[0].variance[1].double(), variance / weight, atol=1e-5, rtol=1e-5)


def test_statistics_of_the_class_alone_are_matched(task: Any) -> None:
    keys, labels, teacher, now = [(1, 0), (1, 1)], torch.tensor([1, 1]), Teacher(), task(ipc=2)
    found = inversion(now, keys, [teacher], steps=10, image_learning_rate=0.05, start="real", **LPLD)
    start = found.images.detach().clone()
    found.step()
    other = Teacher()  # whose layers keep what the class's images have
    for layer, one in zip((other.layers[1], other.layers[4]), found.objectives[0].targets.by_class, strict=True):
        layer.kept = Moments(one.mean[1], one.variance[1])

    def loss(x: Tensor, _: int) -> Tensor:
        x1 = other.layers[0](x)
        x2 = other.layers[3](torch.relu(other.layers[1](x1)))
        total = F.cross_entropy(other.layers(x), labels)
        for x, layer, weight in ((x1, other.layers[1], 10), (x2, other.layers[4], 1)):
            here = moments(x)
            apart = (here.mean - layer.kept.mean).norm() + (here.variance - layer.kept.variance).norm()
            total = total + 0.01 * weight * apart
        return total

    torch.testing.assert_close(found.images.detach(), adam_by_hand(start, loss, 1, 0.05, 10), atol=1e-5, rtol=0)


# The running mean -----------------------------------------------------------------------------------------------------


def test_the_running_mean_begins_at_what_is_wanted_and_has_its_last_moments_gradient() -> None:
    begin = torch.tensor([4.0, -1.0])
    running, seen = (
        RunningMean(0.4, [Moments(begin, 2 * begin)]),
        [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([-1.0, 0.5])],
    )
    expected = begin.numpy()
    for mean in seen:
        leaf = mean.clone().requires_grad_()
        (found,) = running.update([Moments(leaf, 2 * leaf)])
        expected = 0.4 * expected + 0.6 * mean.numpy()
        np.testing.assert_allclose(found.mean.detach(), expected, rtol=1e-6)
        np.testing.assert_allclose(found.variance.detach(), 2 * expected, rtol=1e-6)
        (gradient,) = torch.autograd.grad(found.mean.sum(), leaf)
        assert gradient.tolist() == [1, 1]


# Densification --------------------------------------------------------------------------------------------------------


def spread_by_numpy(images: np.ndarray, labels: Sequence[int]) -> float:
    """From the singular values of a class's images, whose squares are the Gram matrix's eigenvalues."""
    total = 0.0
    for label in set(labels):
        rows = images[np.array(labels) == label].reshape(labels.count(label), -1)
        eigenvalues = np.linalg.svd(rows, compute_uv=False) ** 2
        p, q = (np.exp(v - v.max()) / np.exp(v - v.max()).sum() for v in (eigenvalues / 4, eigenvalues))
        total += float((p * np.log(p / q)).sum())
    return total


@pytest.mark.parametrize(("side", "factor"), [(8, 1), (32, 1), (64, 2)])
def test_densification_is_the_divergence_of_the_gram_spectra(side: int, factor: int) -> None:
    labels = [0, 0, 1, 0, 1, 2]
    x = 0.1 * torch.randn(6, 2, side, side, generator=stream(0, "x"), dtype=torch.float64)
    small = x.numpy().reshape(6, 2, side // factor, factor, side // factor, factor).mean((3, 5))
    assert densification(x, torch.tensor(labels)).item() == pytest.approx(spread_by_numpy(small, labels), rel=1e-9)


def test_densification_has_a_constant_first_argument() -> None:
    """Its gradient over λ is softmax(λ) − softmax(λ/4); the eigenvalues of orthogonal rows are their squares."""
    lengths = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    images = torch.diag(lengths).reshape(3, 1, 1, 3)
    densification(images, torch.zeros(3, dtype=torch.long)).backward()
    eigenvalues = lengths.detach() ** 2
    expected = 2 * lengths.detach() * (eigenvalues.softmax(0) - (eigenvalues / 4).softmax(0))
    torch.testing.assert_close(lengths.grad, expected)


def test_an_image_alone_in_its_class_is_left_alone() -> None:
    x = torch.randn(2, 1, 8, 8, generator=stream(0, "x"), requires_grad=True)
    term = densification(x, torch.tensor([0, 1]))
    term.backward()
    assert term.item() == 0
    assert not x.grad.any()


# Steps ----------------------------------------------------------------------------------------------------------------


class ByHand:
    """L of the teacher in `test_inversion`, with statistics of all four layers, written out; a step at a time."""

    def __init__(self, teacher: Teacher, task: DistillTask, alpha: float, share: float, spread: bool) -> None:
        self.teacher, self.alpha, self.share, self.spread = teacher, alpha, share, spread
        self.targets = load_targets(task, InversionParams(**PLAIN | EDC), teacher, "it")
        self.before = [tensor for one in self.targets.whole for tensor in one]

    def __call__(self, normalised: Tensor, labels: Tensor, weight: float) -> Tensor:
        conv1, norm1, _, conv2, norm2, _, _, _, linear = self.teacher.layers
        x1 = conv1(normalised)
        y1 = torch.relu(norm1(x1))
        x2 = conv2(y1)
        logits = linear(torch.relu(norm2(x2)).mean((2, 3)))
        now: list[Tensor] = []
        for x, blocks in ((normalised, True), (x1, False), (y1, True), (x2, False)):
            channels = x.transpose(0, 1).flatten(1)
            now += [channels.mean(1), channels.var(1, unbiased=False)]
            if blocks:  # 8 × 8 places are one block
                large = F.interpolate(x, (16, 16), mode="bilinear", align_corners=False).flatten()
                now += [large.mean()[None], large.var(unbiased=False)[None]]
        apart, after = torch.zeros(()), []
        for place, (value, old) in enumerate(zip(now, self.before, strict=True)):
            mean = (self.alpha * old + (1 - self.alpha) * value).detach()
            after.append(mean)
            shown = mean + value - value.detach()
            wanted = self.targets.whole[place // 2][place % 2]
            of_class = self.targets.by_class[place // 2][place % 2][labels].mean(0)
            distance = (1 - self.share) * (shown - wanted).norm() + self.share * (shown - of_class).norm()
            apart = apart + (10 if place < 4 else 1) * distance
        self.before = after
        loss = -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean() + weight * apart
        return loss + densification(normalised, labels) if self.spread else loss


VARIANTS: list[tuple[dict[str, Any], tuple[float, float, bool]]] = [
    (G_VBSM | {"statistics_weight": 0.01}, (0.4, 0.0, True)),
    (EDC | {"statistics_weight": 0.1}, (0.8, 0.5, False)),
]


@pytest.mark.parametrize("batch_size", [64, 2])
@pytest.mark.parametrize(("given", "hand"), VARIANTS, ids=["g-vbsm", "edc"])
def test_steps_are_adams_on_the_loss(
    task: Any, given: dict[str, Any], hand: tuple[float, float, bool], batch_size: int
) -> None:
    """Four images at once, or in two parts: the same."""
    keys, labels = [(0, 0), (0, 1), (1, 0), (2, 1)], torch.tensor([0, 0, 1, 2])
    now = task(ipc=2, batch_size=batch_size)
    found = inversion(now, keys, [Teacher()], steps=10, image_learning_rate=0.05, start="real", **given)
    start = found.images.detach().clone()
    for number in range(3):
        found.step()
        found.step_number = number + 1
    by_hand = ByHand(Teacher(), now, *hand)
    expected = adam_by_hand(start, lambda x, _: by_hand(x, labels, given["statistics_weight"]), 3, 0.05, 10)
    torch.testing.assert_close(found.images.detach(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize(("given", "hand"), VARIANTS, ids=["g-vbsm", "edc"])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(
    task: Any, given: dict[str, Any], hand: tuple[float, float, bool], block: int
) -> None:
    now, teacher, labels = task(), Teacher(), torch.tensor([0, 1, 0, 1, 0])
    params = InversionParams(**PLAIN | given)
    targets = load_targets(now, params, teacher, "it")
    images = torch.rand(5, 1, 8, 8, generator=stream(0, "x"))
    ours, whole = (Objective(teacher, targets, params, "it") for _ in range(2))
    for _ in range(2):  # the second step has a first behind it
        leaf, other = images.clone().requires_grad_(), images.clone().requires_grad_()
        loss = ours.backward(leaf, labels, block, weight=0.7)
        torch.testing.assert_close(loss, whole.backward(other, labels, 5, weight=0.7), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(leaf.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_each_teacher_has_a_running_mean_of_its_own(task: Any) -> None:
    two = "resnet18_bn+resnet50_bn"
    found = inversion(task(), [(0, 0), (1, 0)], [Teacher(1), Teacher(2)], steps=4, network=two, **G_VBSM)
    begin = [one.running.state for one in found.objectives]
    found.step()
    assert [torch.equal(one.running.state, b) for one, b in zip(found.objectives, begin, strict=True)] == [False, True]


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [G_VBSM, EDC], ids=["g-vbsm", "edc"])
@pytest.mark.parametrize("steps", [2, 4])
def test_a_batch_that_was_killed_ends_with_the_same_bits(
    task: Any, given: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverting, "CHECKPOINT_EVERY", 2)
    keys, teachers = [(0, 0), (0, 1), (1, 0)], [Teacher(1), Teacher(2), Teacher(3)]
    usual = given | {"steps": 8, "min_scale": 0.3, "flip": True, "network": "resnet18_bn+resnet50_bn+resnet101_bn"}

    def killing(note: str) -> None:
        if f"step {steps + 2} of" in note:
            raise Killed

    whole = inversion(task(ipc=2), keys, teachers, **usual)
    expected = whole.run()
    whole.forget()
    with pytest.raises(Killed):
        inversion(dataclasses.replace(task(ipc=2), progress=killing), keys, teachers, **usual).run()
    again = inversion(task(ipc=2), keys, teachers, **usual)
    found = again.run()
    assert all(np.array_equal(found[key], expected[key]) for key in keys)
    for one, other in zip(again.objectives, whole.objectives, strict=True):
        assert torch.equal(one.running.state, other.running.state)


@pytest.mark.parametrize("given", [G_VBSM, EDC], ids=["g-vbsm", "edc"])
def test_images_depend_neither_on_the_classes_of_a_cell_nor_on_earlier_batches(
    task: Any, given: dict[str, Any]
) -> None:
    settings = given | {"steps": 5, "batch": 2, "order": "within", "start": "real"}
    rounds = list(method(task(ipc=2), **settings).distill(task(ipc=2)))
    whole = {(i.class_index, i.image_index): i.pixels for images in rounds for i in images}
    assert len(rounds) == 3
    (shard,) = method(task(ipc=2), **settings).distill(task(ipc=2, classes=[2]))
    assert [(i.class_index, i.image_index) for i in shard] == [(2, 0), (2, 1)]
    assert all(np.array_equal(i.pixels, whole[i.class_index, i.image_index]) for i in shard)


# Starts ---------------------------------------------------------------------------------------------------------------


def test_drawn_collages_are_rdeds_with_repeats_as_they_are(make_task: Any, random_images: Any) -> None:
    """Seventy-two pixels have four crops, and each stays in its place: EDC's program shuffles none."""
    source, classes = random_images(("a", "b"), per_class=12, image_size=72), ("a", "b")

    class Plain:
        sha256 = "plain"

        def network(self) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, -1)), nn.AvgPool1d(72 * 36), nn.Flatten()).eval()

        def normalise(self, images: Tensor) -> Tensor:
            return images

    def starts(start: str, **given: Any) -> list[np.ndarray]:
        params = InversionParams(start=start, normalisation="half", pool=12, crops=1, **given)
        found = Starts(make_task(source, classes, ipc=3), params, Plain())
        return [found.image(1, i)[0].numpy() for i in range(3)]

    def same(x: np.ndarray, y: np.ndarray) -> bool:
        return np.array_equal(x, y)

    collages = starts("collages")
    which = [[same(image, one) for one in collages].index(True) for image in starts("collages-drawn", flip=False)]
    assert len(set(which)) < 3, "with repeats: this seed has some"
    mirrored = 0
    for image, number in zip(starts("collages-drawn"), which, strict=True):
        assert same(image, collages[number]) != same(image[:, ::-1], collages[number])
        mirrored += same(image[:, ::-1], collages[number])
    assert 0 < mirrored < 3, "this seed has both"


# Parameters -----------------------------------------------------------------------------------------------------------


def test_a_term_that_is_turned_off_shows_in_the_label() -> None:
    for selector, key in (("g-vbsm", "densification_weight"), ("edc", "statistics_momentum")):
        (contestant,) = contestants(f"{selector}[{key}=0]", Digits, {}, set())
        assert contestant.label == f"{selector}[{key}=0.0]"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": "resnet18_bn+alexnet"}, "alexnet has no BatchNorm to match; set convolution_statistics=true"),
        ({"class_statistics_momentum": 0.1}, "set class_statistics_share too"),
        ({"convolution_statistics": True, "stages": 2, "stage_scale": 0.5}, "are of the run's side"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InversionParams(**given)


def test_alexnet_is_refused_where_images_are_too_small() -> None:
    params = InversionParams(**EDC, network="resnet18_bn+alexnet")
    assert "alexnet needs images of at least 63 px and these have 32" in str(params.unsupported(Cifar10))
    assert params.unsupported(Nette) is None


FOUR = ("resnet18_bn", "timm:mobilenetv2_100", "timm:efficientnet_b0", "shufflenet_v2_x0_5")


@pytest.mark.parametrize(
    ("name", "image_size"), [*((name, side) for name in FOUR for side in (32, 64)), ("alexnet", 64)]
)
def test_every_layer_of_the_papers_teachers_is_seen(name: str, image_size: int) -> None:
    """Down to maps of one place, and with a gradient through all of them."""
    network = networks.build(name, 3, image_size, generator=stream(0, "weights")).eval().requires_grad_(False)
    inputs = LayerInputs(network, name, convolutions=True)
    images = torch.rand(2, 3, image_size, image_size, generator=stream(0, "x"), requires_grad=True)
    with inputs.seen() as found:
        network(images)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in inputs.layers)
    assert len(found) == len(inputs.layers) + convolutions
    distance = inputs.distance(found, [Moments(0 * one.mean, 0 * one.variance) for one in found], 10.0, 1.0)
    (gradient,) = torch.autograd.grad(distance, images)
    assert gradient.isfinite().all()
    assert gradient.abs().amax((1, 2, 3)).min() > 0
