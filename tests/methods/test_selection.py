"""Methods that keep real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import ArraySource
from ddbench.methods import selection
from ddbench.methods.base import DistilledImage, DistillTask, Method
from ddbench.methods.selection import FirstImages, FullDataset, RandomSelection

CLASSES = ("a", "b", "c")
Images = dict[tuple[int, int], DistilledImage]


@pytest.fixture
def run(make_task: Callable[..., DistillTask], random_images: Callable[..., ArraySource]) -> Callable[..., Images]:
    def run_method(method: type[Method], **task: Any) -> Images:
        images: Images = {}
        for finished in method().distill(make_task(random_images(CLASSES), CLASSES, **task)):
            assert 0 < len(finished) <= selection.ROUND_IMAGES
            for image in finished:
                images[image.class_index, image.image_index] = image
        return images

    return run_method


def positions(images: Images, source: ArraySource) -> dict[tuple[int, int], int]:
    """Where in the source each image stands."""
    return {
        key: int(np.flatnonzero((source.images == image.pixels).all((1, 2, 3)))[0]) for key, image in images.items()
    }


def test_random_draws_without_replacement_from_each_class(
    run: Callable[..., Images], random_images: Callable[..., ArraySource]
) -> None:
    source = random_images(CLASSES)
    where = positions(run(RandomSelection, ipc=5), source)
    assert where.keys() == {(c, i) for c in range(3) for i in range(5)}
    assert len(set(where.values())) == 15
    assert all(source.labels[position] == c for (c, _), position in where.items())
    assert [where[0, i] for i in range(5)] != sorted(where[0, i] for i in range(5))
    # Classes have their own permutations.
    assert [where[0, i] for i in range(5)] != [where[1, i] - 12 for i in range(5)]


def test_random_is_nested_seeded_and_independent_of_shards(
    run: Callable[..., Images], random_images: Callable[..., ArraySource]
) -> None:
    source = random_images(CLASSES)
    five, twelve = (positions(run(RandomSelection, ipc=ipc), source) for ipc in (5, 12))
    assert all(twelve[key] == position for key, position in five.items())
    shard = positions(run(RandomSelection, ipc=5, classes=[2]), source)
    assert shard == {key: position for key, position in five.items() if key[0] == 2}
    assert positions(run(RandomSelection, ipc=5, seed=1), source) != five


def test_random_covers_the_class_evenly(run: Callable[..., Images], random_images: Callable[..., ArraySource]) -> None:
    source = random_images(CLASSES)
    first = [positions(run(RandomSelection, ipc=1, classes=[0], seed=seed), source)[0, 0] for seed in range(240)]
    counts = np.bincount(first, minlength=12)
    assert ((counts - 20) ** 2 / 20).sum() < 33  # χ² with 11 degrees of freedom: p = 0.0005


def test_random_first_takes_the_first_by_name(
    run: Callable[..., Images], random_images: Callable[..., ArraySource]
) -> None:
    assert not FirstImages.uses_seed
    where = positions(run(FirstImages, ipc=4, seed=7), random_images(CLASSES))
    assert where == {(c, i): 12 * c + i for c in range(3) for i in range(4)}


def test_full_keeps_everything(run: Callable[..., Images], random_images: Callable[..., ArraySource]) -> None:
    assert FullDataset.whole_set
    where = positions(run(FullDataset, ipc=None), random_images(CLASSES))
    assert where == {(c, i): 12 * c + i for c in range(3) for i in range(12)}


@pytest.mark.parametrize("method", [RandomSelection, FirstImages])
def test_ipc_beyond_the_class_is_refused(run: Callable[..., Images], method: type[Method]) -> None:
    with pytest.raises(UsageError, match="class a has 12 training images, fewer than the 13 asked for"):
        run(method, ipc=13)


@pytest.mark.parametrize("method", [RandomSelection, FullDataset])
def test_finished_images_are_not_made_again(
    run: Callable[..., Images], method: type[Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "ROUND_IMAGES", 5)
    ipc = None if method.whole_set else 12
    whole = run(method, ipc=ipc)
    done = [whole[key] for key in [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (2, 7)]]
    rest = run(method, ipc=ipc, done=done)
    assert rest.keys() == whole.keys() - {(image.class_index, image.image_index) for image in done}
    for key, image in rest.items():
        np.testing.assert_array_equal(image.pixels, whole[key].pixels)
