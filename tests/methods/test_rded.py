"""RDED: crops, scores, picks and collages against torchvision, Pillow and brute force on a planted classifier."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.seeds import stream
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import ImageNet1K, Woof
from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.classifier import ClassifierRecipe
from ddbench.methods.rded import crops
from ddbench.methods.rded.method import RDED

Make = Callable[..., DistillTask]
CLASSES = ("a", "b")
SIDE = 12


class Planted:
    """A classifier that looks at three numbers of an image: a linear map of its pixels, two logits."""

    sha256 = "planted"

    def __init__(self) -> None:
        self.weights = torch.from_numpy(np.random.default_rng(3).standard_normal((2, SIDE, SIDE)).astype(np.float32))
        self.largest_batch = 0

    def network(self) -> Any:
        def logits(normalised: Tensor) -> Tensor:
            self.largest_batch = max(self.largest_batch, len(normalised))
            return torch.einsum("ncij,kij->nk", normalised, self.weights) / 4

        return logits

    def normalise(self, images: Tensor) -> Tensor:
        return (images - 0.4) / 0.3

    def cross_entropy(self, crop: np.ndarray, class_index: int) -> float:
        """Of one crop (C, s, s) in [0, 1], in NumPy."""
        around = np.zeros((len(crop), SIDE, SIDE))
        start = (SIDE - crop.shape[-1]) // 2
        around[:, start : start + crop.shape[-1], start : start + crop.shape[-1]] = (crop - 0.4) / 0.3
        logits = np.array([(around * weights).sum() for weights in self.weights.numpy()]) / 4
        return float(np.log(np.exp(logits).sum()) - logits[class_index])


@pytest.fixture
def rded_task(make_task: Make, random_images: Callable[..., ArraySource]) -> Make:
    def make(planted: Any, **given: Any) -> DistillTask:
        source = random_images(CLASSES, per_class=given.pop("per_class", 20), image_size=SIDE, channels=3)
        return dataclasses.replace(make_task(source, CLASSES, **given), trained_classifier=lambda recipe: planted)

    return make


def run(task: DistillTask, **given: Any) -> dict[tuple[int, int], DistilledImage]:
    method = RDED(RDED.Params(**{"factor": 2, **given}))
    method.prepare(task)
    return {(i.class_index, i.image_index): i for finished in method.distill(task) for i in finished}


def best(task: DistillTask, **given: Any) -> Any:
    params = RDED.Params(**{"factor": 2, **given})
    return crops.best_crops(task, params, task.train, SIDE, task.trained_classifier(params.recipe(SIDE)), 1)


# Crops ----------------------------------------------------------------------------------------------------------------


def test_boxes_are_distributed_as_torchvisions() -> None:
    ours = crops.draw_boxes(4000, 60, 0.08, stream(0, "boxes"))
    blank = torch.empty(3, 60, 60)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [transforms.RandomResizedCrop.get_params(blank, [0.08, 1], [1, 1]) for _ in range(4000)]
    theirs = np.array(drawn)
    assert np.array_equal(ours[:, 2], ours[:, 3])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= 60).all()
    for column in range(3):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3


def test_the_whole_image_is_a_crop_of_it() -> None:
    np.testing.assert_array_equal(crops.draw_boxes(3, 7, 1.0, stream(0, "boxes")), [[0, 0, 7, 7]] * 3)
    assert crops.draw_boxes(500, 1, 0.01, stream(0, "boxes")).tolist() == [[0, 0, 1, 1]] * 500


def test_a_cut_is_pillows_antialiased_resize_of_the_box(random_images: Callable[..., ArraySource]) -> None:
    source = random_images(CLASSES, image_size=40, channels=3)
    boxes = np.array([[3, 5, 30, 30], [0, 0, 40, 40], [20, 11, 9, 9]])
    pieces = crops.cut(torch.from_numpy(source.images[:3]).permute(0, 3, 1, 2) / 255, boxes, 13)
    for piece, image, (top, left, height, width) in zip(pieces, source.images, boxes, strict=False):
        box = (left, top, left + width, top + height)
        expected = Image.fromarray(image).crop(box).resize((13, 13), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(piece.permute(1, 2, 0) * 255, np.asarray(expected), atol=1.01)


@pytest.mark.parametrize("size", [6, 5, 12])
def test_a_score_is_the_cross_entropy_of_the_crop_in_the_middle_of_nothing(size: int) -> None:
    planted = Planted()
    pieces = torch.rand(4, 3, size, size, generator=stream(0, "pieces"))
    for class_index in (0, 1):
        found = crops.score(planted, pieces, class_index, SIDE)  # type: ignore[arg-type]
        expected = [planted.cross_entropy(piece.numpy(), class_index) for piece in pieces]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# Picks ----------------------------------------------------------------------------------------------------------------


def test_the_best_crop_of_each_image_counts_and_the_best_images_come_first(rded_task: Make) -> None:
    planted = Planted()
    task = rded_task(planted)
    found = best(task, crops=4)
    assert sorted(found["images"]) == list(range(20, 40)), "a class with fewer images than the pool: all of them"
    losses = {}
    for index in range(20, 40):
        boxes = crops.draw_boxes(4, SIDE, 0.08, task.stream("rded crops", task.train.names[index]))
        for box in boxes.tolist():
            top, left, height, width = box
            image = torch.from_numpy(task.train.read([index])[0]).permute(2, 0, 1) / 255
            piece = image[:, top : top + height, left : left + width]
            resized = v2.Resize((6, 6), antialias=True)(piece).numpy()
            losses[index, tuple(box)] = planted.cross_entropy(resized, 1)
    of_image = {i: min((loss, box) for (j, box), loss in losses.items() if j == i) for i in range(20, 40)}
    in_order = sorted(of_image, key=lambda i: of_image[i][0])
    assert found["images"].tolist() == in_order
    assert [tuple(box) for box in found["boxes"].tolist()] == [of_image[i][1] for i in in_order]
    np.testing.assert_allclose(found["losses"], [of_image[i][0] for i in in_order], rtol=1e-3, atol=1e-4)


def test_a_pool_is_a_random_part_of_the_class(rded_task: Make) -> None:
    pools = [frozenset(best(rded_task(Planted(), seed=seed), pool=6)["images"].tolist()) for seed in range(60)]
    assert {len(pool) for pool in pools} == {6}
    counts = np.bincount([index - 20 for pool in pools for index in pool], minlength=20)
    assert ((counts - 18) ** 2 / 18).sum() < 44  # χ² with 19 degrees of freedom: p = 0.001


def test_crops_are_found_once_for_every_ipc_and_anew_for_a_seed(rded_task: Make, memory_cache: Any) -> None:
    for ipc, seed in [(1, 0), (3, 0), (1, 1)]:
        run(rded_task(Planted(), ipc=ipc, seed=seed, cache=memory_cache))
    assert memory_cache.made == ["crops"] * 4


# Collages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_image_j_holds_the_picks_j_then_j_plus_ipc_and_so_on_row_by_row(factor: int) -> None:
    ipc, image_size = 3, 12
    shades = np.arange(40, dtype=np.uint8) * 6
    source = ArraySource(np.broadcast_to(shades[:, None, None, None], (40, 8, 8, 1)).copy(), np.zeros(40), ["x"] * 40)
    images = np.random.default_rng(0).permutation(40)
    found = {"images": images, "boxes": np.array([[1, 2, 4, 4]] * 40)}
    made = crops.collages(source, found, ipc, factor, image_size, torch.device("cpu"))
    assert made.shape == (3, 12, 12, 1)
    size = image_size // factor
    for j in range(ipc):
        for row in range(factor):
            for column in range(factor):
                cell = made[j, row * size : (row + 1) * size, column * size : (column + 1) * size]
                assert set(cell.ravel()) == {shades[images[j + ipc * (row * factor + column)]]}


def test_an_image_is_made_of_the_crops_that_were_scored(rded_task: Make) -> None:
    """Where they lie in the collage, cut anew and scored by hand, the crops have the losses that chose them."""
    planted = Planted()
    task = rded_task(planted, ipc=2)
    found, made = best(task), run(task)
    for j in range(2):
        pixels = made[1, j].pixels.transpose(2, 0, 1) / 255
        corners = [pixels[:, :6, :6], pixels[:, :6, 6:], pixels[:, 6:, :6], pixels[:, 6:, 6:]]
        for q, corner in enumerate(corners):
            assert planted.cross_entropy(corner, 1) == pytest.approx(found["losses"][j + 2 * q], abs=0.05)


def test_images_depend_neither_on_batches_nor_on_the_classes_beside_them(rded_task: Make) -> None:
    planted = Planted()
    whole = run(rded_task(planted, ipc=2))
    assert planted.largest_batch <= 64
    small = Planted()
    alone = run(rded_task(small, ipc=2, classes=[1], batch_size=5))
    assert small.largest_batch == 5
    assert alone.keys() == {(1, 0), (1, 1)}
    for key, image in alone.items():
        np.testing.assert_array_equal(image.pixels, whole[key].pixels)
    done = [whole[0, 0], whole[0, 1], whole[1, 0]]
    (rest,) = run(rded_task(Planted(), ipc=2, done=done)).values()
    np.testing.assert_array_equal(rest.pixels, whole[1, 1].pixels)


def test_jpeg_is_pillows_of_quality_75(rded_task: Make) -> None:
    plain, stored = run(rded_task(Planted())), run(rded_task(Planted()), jpeg=True)
    for key, image in plain.items():
        file = io.BytesIO()
        Image.fromarray(image.pixels).save(file, "JPEG")  # the program names no quality
        np.testing.assert_array_equal(stored[key].pixels, np.asarray(Image.open(file)))
    grey = plain[0, 0].pixels[..., :1]
    assert crops.through_jpeg(grey).shape == grey.shape
    assert np.abs(crops.through_jpeg(grey).astype(int) - grey).mean() < 60


def test_crops_can_come_from_larger_images(rded_task: Make) -> None:
    asked = []

    def train_at(image_size: int) -> ArraySource:
        asked.append(image_size)
        small = task.train
        assert isinstance(small, ArraySource)
        return ArraySource(np.kron(small.images, np.ones((1, 3, 3, 1), np.uint8)), small.labels, small.names)

    task = dataclasses.replace(rded_task(Planted()), train_at=train_at)
    large = run(task, source_scale=3)
    assert asked == [36]
    assert large[0, 0].pixels.shape == (SIDE, SIDE, 3)


# What it asks for -----------------------------------------------------------------------------------------------------


def test_the_observer_is_a_resnet18_at_the_runs_side(rded_task: Make) -> None:
    recipes: list[ClassifierRecipe] = []
    task = dataclasses.replace(rded_task(None), trained_classifier=lambda recipe: recipes.append(recipe) or Planted())
    run(task)
    assert [(recipe.network, recipe.image_size) for recipe in recipes] == [("resnet18_bn", SIDE)]


@pytest.mark.parametrize(("image_size", "factor"), [(8, 1), (32, 1), (64, 1), (65, 2), (96, 2), (224, 2)])
def test_small_images_are_one_crop(image_size: int, factor: int) -> None:
    assert RDED.Params().factor_at(image_size) == factor
    assert RDED.Params(factor=3).factor_at(image_size) == 3


def test_an_image_of_the_default_factor_is_one_crop_of_one_image(rded_task: Make) -> None:
    task = rded_task(Planted())
    for key, image in run(task, factor=None).items():
        np.testing.assert_array_equal(image.pixels, run(task, factor=1)[key].pixels)


def test_what_it_cannot_do_is_said(rded_task: Make) -> None:
    assert RDED().supports(Woof, 75) is None
    assert RDED().supports(ImageNet1K, 50) is None
    assert "IPC 76 takes 304 crops" in str(RDED().supports(Woof, 76))
    assert RDED(RDED.Params(factor=1)).supports(Woof, 300) is None
    weights = RDED.Params(checkpoint="weights.pt", checkpoint_sha256="0")
    assert "is for RGB" in str(RDED(weights).supports(Digits, 1))
    with pytest.raises(UsageError, match="12 px cannot be divided by factor=5"):
        run(rded_task(Planted()), factor=5, pool=900)
    with pytest.raises(UsageError, match=r"class a has 20 training images, fewer than the 24 crops .* --ipc 5 or less"):
        run(rded_task(Planted(), ipc=6))


@pytest.mark.parametrize("found", [1, 3])
def test_classes_smaller_than_one_collage(found: int, rded_task: Make) -> None:
    """`choose --ipc 0 or less` is no advice; what is given instead works."""
    task = rded_task(Planted(), ipc=1, per_class=found)
    what = (
        f"class a has {found} training image{'s' * (found > 1)}, fewer than the 4 crops that 1 image of factor=2 take"
    )
    with pytest.raises(UsageError, match=f"^{what}; choose factor=1 and --ipc {found} or less$"):
        RDED(RDED.Params(factor=2)).prepare(task)
    images = run(rded_task(Planted(), ipc=found, per_class=found), factor=1)
    assert len(images) == found * len(CLASSES)
