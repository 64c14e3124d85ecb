"""WMDD: barycentres against a fixed point by hand and closed forms, class by class statistics against numpy, a step by
hand, and a batch in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from inverted import CLASSES, PLAIN, Teacher, adam_by_hand, inversion
from pydantic import ValidationError
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from ddbench.benchmark.core.seeds import stream
from ddbench.benchmark.planning.contestants import contestants
from ddbench.datasets.imagenet.subsets import ImageNet1K, Nette
from ddbench.datasets.tiny_imagenet.dataset import TinyImageNet
from ddbench.methods.base import DistillTask, RealImages
from ddbench.methods.inversion.barycentre import barycentre
from ddbench.methods.inversion.batches import batches
from ddbench.methods.inversion.method import Inversion
from ddbench.methods.inversion.objective import Objective
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.statistics import Moments, by_group, moments
from ddbench.methods.inversion.targets import load_targets
from ddbench.methods.observer import class_features

WMDD: dict[str, Any] = {
    "order": "classes", "first_layer_weight": 1.0, "class_statistics_share": 1.0, "class_statistics_apart": True,
    "class_statistics_view": "whole", "barycentre_weight": 1.0, "statistics_weight": 2.0,
}  # fmt: skip


class WithFeatures(Teacher):
    """A teacher whose features may be asked for."""

    def features(self, images: Tensor) -> Tensor:
        return self.layers[:-1](self.normalise(images))


@pytest.fixture
def task(make_task: Any, random_images: Any) -> Callable[..., DistillTask]:
    return lambda **given: make_task(random_images(CLASSES), CLASSES, **given)


def real(task: DistillTask, class_index: int) -> Tensor:
    pixels = task.train.read(task.train.of_class(class_index))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


# Barycentres ----------------------------------------------------------------------------------------------------------


def test_one_point_is_the_mean_and_as_many_as_features_are_the_features() -> None:
    features, start = np.random.default_rng(0).normal(size=(2, 6, 3))
    np.testing.assert_allclose(barycentre(features, start[:1]), features.mean(0, keepdims=True), atol=1e-12)
    found = barycentre(features, start)
    rows = linear_sum_assignment(((start[:, None] - features) ** 2).sum(-1))[1]
    np.testing.assert_allclose(found, features[rows], atol=1e-9, err_msg="each at the one it was matched with")


def test_points_are_means_of_the_features_matched_with_them() -> None:
    """A fixed point: with 3 points and 12 features each has the mean of its 4, in the best of all such matchings."""
    generator = np.random.default_rng(1)
    features = np.concatenate([generator.normal(centre, 0.3, (4, 2)) for centre in (-3, 0, 4)])
    found = barycentre(features, generator.normal(size=(3, 2)))
    cost = ((np.repeat(found, 4, axis=0)[:, None] - features) ** 2).sum(-1)
    points, matched = linear_sum_assignment(cost)
    for j in range(3):
        np.testing.assert_allclose(found[j], features[matched[points // 4 == j]].mean(0), atol=1e-9)
    np.testing.assert_allclose(sorted(found[:, 0]), sorted(features.reshape(3, 4, 2).mean(1)[:, 0]), atol=1e-9)


def test_each_class_has_its_points_from_its_own_draws(task: Any, memory_cache: Any) -> None:
    now, teacher = task(ipc=2, cache=memory_cache), WithFeatures()
    params = InversionParams(**PLAIN | WMDD)
    points = load_targets(now, params, teacher, "it").points
    assert points is not None
    assert points.shape == (3, 2, 5)
    for c, class_id in enumerate(CLASSES):
        start = torch.randn(2, 5, generator=stream(0, "barycentre", class_id), dtype=torch.float64).numpy()
        expected = barycentre(class_features(now, teacher, c), start)
        np.testing.assert_allclose(points[c], expected, atol=1e-6)
    load_targets(task(ipc=2, cache=memory_cache, classes=[1]), params, teacher, "it")
    assert memory_cache.made.count("barycentre") == 3, "of all classes, once"


# Statistics of classes ------------------------------------------------------------------------------------------------


def test_the_moments_of_groups_are_those_of_their_images_together() -> None:
    x = torch.randn(5, 3, 4, 4, generator=stream(0, "x"), dtype=torch.float64)
    groups = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]], dtype=torch.float64)
    found = by_group(moments(x, True), groups)
    for row, images in enumerate(([0, 2, 3], [1, 4])):
        torch.testing.assert_close(Moments(found.mean[row], found.variance[row]), moments(x[images]))


def test_targets_are_those_of_all_whole_images_of_a_class(task: Any) -> None:
    now, teacher = task(ipc=2, batch_size=5), WithFeatures()
    found = load_targets(now, InversionParams(**PLAIN | WMDD), teacher, "it")
    inputs = teacher.layers[0](teacher.normalise(real(now, 1)))
    torch.testing.assert_close(found.by_class[0].mean[1], moments(inputs).mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.by_class[0].variance[1], moments(inputs).variance, atol=1e-5, rtol=1e-5)


def by_hand(x: Tensor, labels: Tensor, points: Tensor, found: Any) -> Tensor:
    """The objective on normalised images, written out class by class."""
    layers = Teacher().layers
    x1 = layers[0](x)
    x2 = layers[3](torch.relu(layers[1](x1)))
    total = F.cross_entropy(layers(x), labels) + (layers[:-1](x) - points).square().sum().sqrt()
    classes = sorted(set(labels.tolist()))
    for seen, wanted in ((x1, found.by_class[0]), (x2, found.by_class[1])):
        for c in classes:
            own = seen[labels == c].transpose(0, 1).flatten(1)
            apart = (own.mean(1) - wanted.mean[c]).norm() + (own.var(1, correction=0) - wanted.variance[c]).norm()
            total = total + 2.0 * apart / len(classes)
    return total


def test_a_step_by_hand(task: Any) -> None:
    keys, labels = [(1, 0), (1, 1), (2, 0), (2, 1)], torch.tensor([1, 1, 2, 2])
    run = inversion(task(ipc=2), keys, [WithFeatures()], steps=10, image_learning_rate=0.05, start="real", **WMDD)
    targets, start = run.objectives[0].targets, run.images.detach().clone()
    assert targets.points is not None
    points = torch.stack([targets.points[c, j] for c, j in keys])
    run.step()
    expected = adam_by_hand(start, lambda x, _: by_hand(x, labels, points, targets), 1, 0.05, 10)
    torch.testing.assert_close(run.images.detach(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(task: Any, block: int, share: float) -> None:
    teacher, params = WithFeatures(), InversionParams(**PLAIN | WMDD | {"class_statistics_share": share})
    targets = load_targets(task(ipc=2), params, teacher, "it")
    assert targets.points is not None
    labels = torch.tensor([0, 2, 2, 0, 1])
    points = targets.points[labels, torch.tensor([0, 0, 1, 1, 0])]
    images = torch.rand(5, 1, 8, 8, generator=stream(0, "x"))
    found = []
    for size in (64, block):
        leaf = images.clone().requires_grad_()
        loss = Objective(teacher, targets, params, "it").backward(leaf, labels, size, 0.7, points)
        found.append((loss, leaf.grad))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)
    if share == 1:
        torch.testing.assert_close(found[0][0], by_hand(teacher.normalise(images), labels, points, targets))


def test_whole_classes_are_optimised_together() -> None:
    assert list(batches("classes", 5, 3, 2)) == [((0, 0), (0, 1), (1, 0), (1, 1)), ((2, 0), (2, 1))]
    assert [len(keys) for keys in batches("classes", 100, 1000, 30)][:2] == [90, 90]
    assert list(batches("classes", 1, 2, 2)) == [((0, 0), (0, 1)), ((1, 0), (1, 1))], "at least one"


# The variant ----------------------------------------------------------------------------------------------------------


def test_what_the_program_has_for_each_data_set() -> None:
    found = {}
    for dataset in (ImageNet1K, Nette, TinyImageNet):
        (contestant,) = contestants("wmdd", dataset, {}, set())
        p = InversionParams.model_validate(contestant.spec.params)
        found[dataset.name] = (p.statistics_weight, p.image_learning_rate)
        assert (p.steps, p.batch, p.order, p.start, p.first_layer_weight) == (2000, 100, "classes", "noise", 1)
        assert Inversion(p).reads_real_images() is RealImages.ALL
    assert found == {"imagenet-1k": (0.01, 0.25), "nette": (10.0, 0.25), "tiny-imagenet": (500.0, 0.1)}


def test_parameters_that_are_not_set_leave_the_ids_of_older_cells_alone() -> None:
    new = {"class_statistics_apart", "class_statistics_view", "barycentre_weight"}
    assert not new & InversionParams().model_dump(mode="json").keys()
    assert new <= InversionParams(**WMDD).model_dump(mode="json").keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"class_statistics_apart": True}, "set class_statistics_share too"),
        ({"class_statistics_view": "whole"}, "set class_statistics_share too"),
        (WMDD | {"class_statistics_momentum": 0.1}, "leave class_statistics_momentum and statistics_momentum at 0"),
        (WMDD | {"network": "resnet18_bn+resnet50_bn"}, "barycentre_weight is for the features of a single teacher"),
    ],
)
def test_parameters_that_do_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InversionParams(**given)
