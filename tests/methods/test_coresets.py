"""Coresets: picks against brute force, and the features and classifiers that they are made with."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import Woof
from ddbench.methods.base import DistillTask, Method
from ddbench.methods.classifier import ClassifierRecipe
from ddbench.methods.coresets import Coreset, Herding, KCenter, herding, k_center
from ddbench.methods.observer import CheckpointObserver, class_features

Make = Callable[..., DistillTask]
CLASSES = ("a", "b")


def points(seed: int, count: int = 12, dimension: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


# Picks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_each_pick_of_herding_brings_the_mean_of_the_picks_nearest_to_the_class_mean(seed: int) -> None:
    features = points(seed)
    picks = herding(features, 8)
    mean = features.mean(0, dtype=np.float64)
    for k in range(8):
        so_far = list(picks[:k])
        distance = {
            i: np.linalg.norm(mean - features[[*so_far, i]].mean(0, dtype=np.float64))
            for i in range(12)
            if i not in so_far
        }
        assert picks[k] == min(distance, key=lambda i: distance[i])


@pytest.mark.parametrize("seed", range(20))
def test_each_pick_of_k_center_is_farthest_from_those_before(seed: int) -> None:
    features = points(seed)
    picks = k_center(features, 8, first=seed % 12)
    assert picks[0] == seed % 12
    distances = cdist(features, features)
    for k in range(1, 8):
        assert distances[picks[k], picks[:k]].min() == pytest.approx(distances[:, picks[:k]].min(1).max())


@pytest.mark.parametrize("seed", range(5))
def test_k_center_covers_the_class_within_twice_the_best_radius(seed: int) -> None:
    """Gonzalez's guarantee, against all subsets of three."""
    distances = cdist(points(seed), points(seed))
    best = min(distances[:, list(chosen)].min(1).max() for chosen in itertools.combinations(range(12), 3))
    for first in range(12):
        assert distances[:, k_center(points(seed), 3, first)].min(1).max() <= 2 * best


def test_herding_on_a_line_by_hand() -> None:
    """On a line with mean 4: the 4; then 5, which ties with 3 and comes first; then 3, which mends it."""
    line = np.array([[0], [5], [8], [4], [3]], np.float32)
    assert herding(line, 5).tolist() == [3, 1, 4, 0, 2]


@pytest.mark.parametrize("pick", [herding, lambda f, n: k_center(f, n, 4)])
def test_equal_points_are_picked_once_each(pick: Callable[..., np.ndarray]) -> None:
    assert sorted(pick(np.ones((6, 2), np.float32), 6).tolist()) == list(range(6))
    for count in range(1, 6):
        np.testing.assert_array_equal(pick(points(0), count), pick(points(0), 6)[:count])


# Methods --------------------------------------------------------------------------------------------------------------


class Planted:
    """A classifier whose features are known: they come from a fixed matrix."""

    sha256 = "planted"

    def __init__(self) -> None:
        self.matrix = torch.from_numpy(np.random.default_rng(7).standard_normal((64, 5)).astype(np.float32))
        self.seen: list[Tensor] = []

    def features(self, images: Tensor) -> Tensor:
        assert 0 <= images.min() <= images.max() <= 1
        self.seen.append(images)
        return images.flatten(1) @ self.matrix


@pytest.fixture
def coreset_task(make_task: Make, random_images: Callable[..., ArraySource]) -> Make:
    def make(planted: Planted, recipes: list[ClassifierRecipe] | None = None, **given: Any) -> DistillTask:
        def trained(recipe: ClassifierRecipe) -> Any:
            if recipes is not None:
                recipes.append(recipe)
            return planted

        task = make_task(random_images(CLASSES), CLASSES, **given)
        return dataclasses.replace(task, trained_classifier=trained)

    return make


def chosen(method: Method, task: DistillTask) -> dict[tuple[int, int], int]:
    """Where in `task.train` each image stands."""
    method.prepare(task)
    images = {(i.class_index, i.image_index): i.pixels for finished in method.distill(task) for i in finished}
    train = task.train
    assert isinstance(train, ArraySource)
    return {key: int(np.flatnonzero((train.images == pixels).all((1, 2, 3)))[0]) for key, pixels in images.items()}


@pytest.mark.parametrize("method", [Herding, KCenter])
def test_images_are_picked_by_the_classifiers_features_of_their_class(
    coreset_task: Make, method: type[Coreset]
) -> None:
    planted = Planted()
    task = coreset_task(planted, ipc=5, batch_size=7)
    where = chosen(method(), task)
    assert max(len(images) for images in planted.seen) == 7, "no more images at once than the cell allows"
    for c in (0, 1):
        features = task.train.images[12 * c : 12 * (c + 1)].reshape(12, 64) / 255 @ planted.matrix.numpy()  # type: ignore[attr-defined]
        picks = [where[c, i] - 12 * c for i in range(5)]
        if method is Herding:
            assert picks == herding(features, 5).tolist()
        else:
            assert picks == k_center(features, 5, first=picks[0]).tolist()


def test_features_are_made_once_for_both_methods_every_ipc_and_every_seed(
    coreset_task: Make, memory_cache: Any
) -> None:
    planted = Planted()
    for method, ipc, seed in itertools.product((Herding, KCenter), (1, 6), (0, 1)):
        chosen(method(), coreset_task(planted, ipc=ipc, seed=seed, cache=memory_cache))
    assert memory_cache.made == ["features"] * 2
    assert sum(len(images) for images in planted.seen) == 24


def test_only_k_center_has_a_random_start_of_its_own_for_each_class(coreset_task: Make) -> None:
    assert not Herding.uses_seed
    starts = {seed: chosen(KCenter(), coreset_task(Planted(), ipc=1, seed=seed)) for seed in range(40)}
    assert len({where[0, 0] for where in starts.values()}) > 8
    assert any(where[0, 0] != where[1, 0] - 12 for where in starts.values())
    shard = chosen(KCenter(), coreset_task(Planted(), ipc=4, classes=[1]))
    whole = chosen(KCenter(), coreset_task(Planted(), ipc=4))
    assert shard == {key: where for key, where in whole.items() if key[0] == 1}


def test_the_classifier_is_the_lineages_unless_told_otherwise(coreset_task: Make) -> None:
    recipes: list[ClassifierRecipe] = []
    Herding().prepare(coreset_task(Planted(), recipes))
    given = Herding.Params(network="convnet3", epochs=3, cutmix=False, normalisation="half", augmentation="affine")
    Herding(given).prepare(coreset_task(Planted(), recipes))
    assert recipes == [
        ClassifierRecipe(network="resnet_ap10", image_size=8, epochs=300, cutmix=True),
        ClassifierRecipe(
            network="convnet3", image_size=8, epochs=3, cutmix=False, augmentation="affine", mean=(0.5,), std=(0.5,)
        ),
    ]


def test_what_it_cannot_do_is_said_while_planning() -> None:
    assert Herding().supports(Woof, 10) is None
    assert Herding().supports(Digits, 10) is None, "the classifier repeats a greyscale image for its three channels"
    weights = {"checkpoint": "weights.pt", "checkpoint_sha256": "0"}
    assert Herding(Herding.Params(**weights)).supports(Woof, 10) is None
    assert "imagenet is for RGB" in str(Herding(Herding.Params(**weights)).supports(Digits, 10))
    assert Herding(Herding.Params(**weights, normalisation="half")).supports(Digits, 10) is None


# A given checkpoint ---------------------------------------------------------------------------------------------------


def network(name: str = "", image_size: int = 8, *_: Any, features: int = 5) -> nn.Module:
    assert image_size == 8
    return nn.Sequential(nn.Flatten(), nn.Linear(64, features, bias=False), nn.Linear(features, 2))


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., Path]:
    """A file with the planted matrix as weights."""

    def make(name: str = "weights.safetensors", **changed: Tensor) -> Path:
        state = {"1.weight": Planted().matrix.T.contiguous(), "2.weight": torch.ones(2, 5), "2.bias": torch.zeros(2)}
        state |= changed
        path = tmp_path / name
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        return path

    return make


def params(path: Path, **given: Any) -> Any:
    # Pixels in [-1, 1], so all distances are those of the planted features times two.
    return Herding.Params(checkpoint=str(path), normalisation="half", **given)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_checkpoint_takes_the_place_of_training(
    make_task: Make, random_images: Callable[..., ArraySource], coreset_task: Make, file_of: Any, name: str
) -> None:
    task = dataclasses.replace(make_task(random_images(CLASSES), CLASSES, ipc=4), network=network)
    assert chosen(Herding(params(file_of(name))), task) == chosen(Herding(), coreset_task(Planted(), ipc=4))


def test_a_checkpoints_hash_is_noted_and_checked(make_task: Make, file_of: Any, random_images: Any) -> None:
    planned = params(file_of())
    assert len(planned.checkpoint_sha256) == 64
    assert Path(planned.checkpoint).is_absolute()
    assert Herding.Params.model_validate(planned.model_dump(mode="json")) == planned
    file_of(**{"2.bias": torch.ones(2)})
    assert params(file_of(**{"2.bias": torch.ones(2)})).checkpoint_sha256 != planned.checkpoint_sha256
    task = dataclasses.replace(make_task(random_images(CLASSES), CLASSES), network=network)
    with pytest.raises(RunError, match="planned with"):
        Herding(planned).prepare(task)
    with pytest.raises(ValidationError, match="there is no file"):
        params(Path("nowhere.pt"))


def test_one_file_with_two_normalisations_has_no_artefact_in_common(
    make_task: Make, memory_cache: Any, file_of: Any, random_images: Any
) -> None:
    task = make_task(random_images(CLASSES), CLASSES, cache=memory_cache)
    task, file = dataclasses.replace(task, network=network), str(file_of())
    seen = [
        class_features(task, CheckpointObserver(task, Herding.Params(checkpoint=file, normalisation=name), 8), 0)
        for name in ("half", "efficientnet-lite")
    ]
    pixels = task.train.read(task.train.of_class(0)).reshape(-1, 64).astype(np.float64)
    for features, (mean, std) in zip(seen, [(127.5, 127.5), (127, 128)], strict=True):
        expected = (pixels - mean) / std @ Planted().matrix.double().numpy()
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)


def test_one_file_for_two_networks_has_no_artefact_in_common(
    make_task: Make, memory_cache: Any, file_of: Any, random_images: Any
) -> None:
    """Weights of equal names and shapes may belong to networks that do other things with them."""

    def mirrored(name: str, image_size: int, *_: Any) -> nn.Module:
        flat, *rest = network(name, image_size)
        return nn.Sequential(nn.Flatten() if name == "resnet18" else nn.Sequential(Mirror(), flat), *rest)

    class Mirror(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flip(3)

    task = make_task(random_images(CLASSES), CLASSES, cache=memory_cache)
    task, file = dataclasses.replace(task, network=mirrored), str(file_of())
    one, other = (
        class_features(
            task, CheckpointObserver(task, Herding.Params(checkpoint=file, network=name, normalisation="half"), 8), 0
        )
        for name in ("resnet18", "resnet18_bn")
    )
    pixels = task.train.read(task.train.of_class(0)).astype(np.float64)[..., 0] / 127.5 - 1
    for features, seen in ((one, pixels), (other, pixels[:, :, ::-1])):
        expected = seen.reshape(-1, 64) @ Planted().matrix.double().numpy()
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_of_something_else_is_refused(
    make_task: Make, file_of: Any, random_images: Any, tmp_path: Path
) -> None:
    task = dataclasses.replace(make_task(random_images(CLASSES), CLASSES), network=network)
    given = params(file_of(**{"2.weight": torch.ones(3, 5), "extra": torch.ones(1)}))
    with pytest.raises(UsageError, match=r"for 2 classes at 8 px: unknown or of another shape: .* and 1 more"):
        Herding(given).prepare(task)
    fewer = tmp_path / "fewer.safetensors"
    save_file({"1.weight": torch.ones(5, 64)}, fewer)
    with pytest.raises(UsageError, match=r"missing: 2.bias and 1 more"):
        Herding(params(fewer)).prepare(task)
    torch.save(SimpleNamespace(a=1), tmp_path / "pickled.pt")
    (tmp_path / "damaged.safetensors").write_bytes(b"no")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, why in [
        ("pickled.pt", "more than tensors"),
        ("damaged.safetensors", "cannot be read"),
        ("list.pt", "got list"),
    ]:
        with pytest.raises(UsageError, match=why):
            Herding(params(tmp_path / name)).prepare(task)
