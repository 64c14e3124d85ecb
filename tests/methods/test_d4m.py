"""D4M: start level and noise against closed forms, prototypes against scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from sklearn.cluster import KMeans

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import DistilledImage
from ddbench.methods.d4m.method import D4M
from ddbench.methods.d4m.prototypes import class_prototypes, one_pass
from ddbench.methods.diffusion import sampler
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.sampler import SampleOutcome

CLASSES = ("a", "b", "c")


@pytest.fixture
def prior(make_prior: Callable[..., Path]) -> Prior:
    return Prior.load(find_prior(make_prior(CLASSES)))


def distill(task: Any, **params: Any) -> dict[tuple[int, int], DistilledImage]:
    method = D4M(D4M.Params(**params))
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


def centres(task: Any, class_index: int, count: int) -> np.ndarray:
    """scikit-learn's centres of the class's pixels in [-1, 1], (K, 1, 8, 8)."""
    pixels = task.train.read(task.train.of_class(class_index)).astype(np.float32) / 127.5 - 1
    search = KMeans(count, n_init=1, random_state=seeds.sklearn_seed(0, "k-means", task.class_ids[class_index]))
    return search.fit(pixels.reshape(len(pixels), -1)).cluster_centers_.reshape(count, 1, 8, 8)


@pytest.mark.parametrize(
    ("steps", "strength", "run"),
    [(50, 0.7, 35), (50, 1.0, 50), (10, 0.7, 7), (25, 0.7, 17), (100, 0.29, 29), (2, 0.1, 1)],
)
def test_how_much_of_the_chain_is_run(steps: int, strength: float, run: int) -> None:
    assert D4M.Params(steps=steps, strength=strength).steps_run == run


def test_it_starts_from_noised_prototypes_at_t_693(
    prior: Prior, make_task: Any, random_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(random_images(CLASSES), CLASSES, ipc=2, prior=prior, classes=(1, 0), batch_size=3, seed=4)
    calls: list[tuple[tuple[ImageKey, ...], dict[str, Any]]] = []

    def spy(prior: Prior, images: Any, terms: Any, noise: Any, **given: Any) -> SampleOutcome:
        assert terms == []
        calls.append((images, given))
        return SampleOutcome(given["start"].z, {})

    monkeypatch.setattr(sampler, "sample", spy)
    distill(task)
    assert [image for images, _ in calls for image in images] == [ImageKey(c, j) for c in "ba" for j in range(2)]
    alpha_bar = DDPMScheduler().alphas_cumprod[693]
    assert prior.schedule(50).timesteps[34] == 693
    for images, given in calls:
        assert (given["steps"], given["cfg_scale"], given["start"].k) == (50, 4.0, 34)
        for image, z in zip(images, given["start"].z, strict=True):
            prototype = torch.from_numpy(centres(task, CLASSES.index(image.class_id), 2)[image.image_index])
            noise = torch.randn(1, 8, 8, generator=seeds.stream(4, "initial noise", *image))
            torch.testing.assert_close(
                z, alpha_bar.sqrt() * prototype + (1 - alpha_bar).sqrt() * noise, rtol=1e-4, atol=1e-4
            )


def test_at_the_least_strength_the_images_are_the_prototypes(prior: Prior, make_task: Any, random_images: Any) -> None:
    task = make_task(random_images(CLASSES), CLASSES, ipc=3, prior=prior)
    made = distill(task, strength=0.02, cfg_scale=1.0)
    for (class_index, index), image in made.items():
        # One step from t = 0: √(1-ᾱ_0) = 0.01 of the noise, and as much of what the untrained network predicts.
        np.testing.assert_allclose(image.latent, centres(task, class_index, 3)[index], atol=0.1)


def test_mini_batch_prototypes_lie_where_the_clusters_do() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[0, 0, 20], [20, 0, 0], [0, 20, 0], [-20, 0, 0]], np.float32)
    members = np.tile(np.arange(4), 30)  # the first batch has one of each cluster
    latents = (truth[members] + rng.normal(size=(120, 3)) * 0.1).astype(np.float32)
    found = one_pass(latents, 4, 4, seed=0)
    assert found.dtype == np.float32
    order = [int(((truth - centre) ** 2).sum(1).argmin()) for centre in found]
    assert sorted(order) == [0, 1, 2, 3]
    for row, cluster in enumerate(order):
        # What one pass converges to is the running mean of the members.
        np.testing.assert_allclose(found[row], latents[members == cluster].mean(0), atol=1e-3)

    # 120 = 17 · 7 + 1: the last latent belongs to the pass as well.
    moved = latents.copy()
    moved[-1] += 5
    assert np.abs(one_pass(moved, 4, 7, seed=0) - one_pass(latents, 4, 7, seed=0)).max() > 0.1


def test_mini_batch_prototypes_of_a_class(prior: Prior, make_task: Any, random_images: Any) -> None:
    images = random_images(CLASSES)
    task = make_task(images, CLASSES, ipc=3, prior=prior)
    params = D4M.Params(clustering="mini-batch", batch_factor=2)
    prototypes = class_prototypes(task, prior, params, 0)
    assert prototypes.shape == (3, 1, 8, 8)
    other_set = class_prototypes(make_task(images, CLASSES, ipc=3, prior=prior, seed=1), prior, params, 0)
    np.testing.assert_array_equal(prototypes, other_set)
    assert not np.allclose(prototypes, class_prototypes(task, prior, D4M.Params(), 0))


def test_a_class_with_fewer_images_than_prototypes_is_refused(prior: Prior, make_task: Any, random_images: Any) -> None:
    with pytest.raises(UsageError, match=r"class a has 4 training images.*--ipc 4 or less"):
        D4M().prepare(make_task(random_images(CLASSES, per_class=4), CLASSES, ipc=5, prior=prior))
