"""CoDA: the pull against its closed forms, the sampler against a plain second one, the cluster rules on points whose
clusters are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.seeds import stream
from ddbench.datasets.digits import Digits
from ddbench.methods.base import DistilledImage, Method
from ddbench.methods.coda.clusters import Density, dense_clusters, force, noise_factor, representatives, split
from ddbench.methods.coda.embedding import embed
from ddbench.methods.coda.method import CoDA, Representatives
from ddbench.methods.coda.sampling import dpm_solver, pull, sample_pulled
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.schedule import alpha_bar

CLASSES = ("a", "b", "c")
IMAGES = [ImageKey("a", 0), ImageKey("b", 1)]
STABLE_DIFFUSION = NoiseScheduleMetadata(kind="scaled_linear", steps=1000, beta_start=0.00085, beta_end=0.012)
SMALL = {"embedding": "none", "min_cluster_size": 3}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise(images: list[ImageKey]) -> StreamNoise:
    return StreamNoise(lambda *key: stream(0, *key), images)


# The pull -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 2.5])
def test_the_pull_moves_the_predicted_latent_by_its_share_of_the_way(share: float) -> None:
    alpha_bar_t = 0.2
    epsilon, z, targets = (normal(2, 3, 4, 4, seed=seed).double() for seed in range(3))

    def clean(noise: Tensor) -> Tensor:
        return (z - math.sqrt(1 - alpha_bar_t) * noise) / math.sqrt(alpha_bar_t)

    moved = clean(pull(epsilon, z, targets, alpha_bar=alpha_bar_t, share=share))
    torch.testing.assert_close(moved, clean(epsilon) + share * (targets - clean(epsilon)))


class OnePoint:
    """A prior all of whose images are μ: its best prediction of the noise is (z - √ᾱ·μ)/√(1-ᾱ)."""

    device, latent_shape, null_label = torch.device("cpu"), (1, 2, 2), 0
    metadata = SimpleNamespace(schedule=STABLE_DIFFUSION)
    mu = normal(1, 2, 2, seed=8)

    def label_of(self, class_id: str) -> int:
        return 0

    def embed_labels(self, labels: Tensor) -> Tensor:
        return labels[..., None].float()

    def predict(self, z: Tensor, t: int, label: Tensor) -> tuple[Tensor, None]:
        signal = float(alpha_bar(STABLE_DIFFUSION)[t])
        return (z - signal**0.5 * self.mu) / (1 - signal) ** 0.5, None


def test_it_draws_an_image_by_gamma_times_cfg_times_the_logarithm_of_the_noise() -> None:
    """With x = z/√ᾱ and x̂0 = μ + cfg·γ·σ·(r - μ), the flow dx/dσ = (x - x̂0)/σ gives (x - μ)/σ, which was the first
    noise, cfg·γ·(r - μ) more for each factor e by which σ has fallen; left alone, the image is μ."""
    prior, steps, cfg_scale, gamma = OnePoint(), 300, 5.0, 0.05
    sigmas, seen = dpm_solver(STABLE_DIFFUSION, steps).sigmas.double(), []
    targets = normal(2, 1, 2, 2, seed=9)
    made = sample_pulled(
        prior, IMAGES, targets, noise(IMAGES), steps=steps, cfg_scale=cfg_scale, guidance_scale=gamma,
        guided_from=15, guided_share=0.5, on_step=lambda step, z: seen.append(z),
    )  # fmt: skip
    sigma = float(sigmas[steps // 2])
    standing = (seen[steps // 2 - 1] * math.sqrt(1 + sigma**2) - prior.mu) / sigma
    first = (noise(IMAGES).initial((1, 2, 2)) * math.sqrt(1 + float(sigmas[0]) ** 2) - prior.mu) / sigmas[0]
    drawn = cfg_scale * gamma * (targets - prior.mu) * math.log(float(sigmas[0]) / sigma)
    assert drawn.abs().max() > 0.3
    torch.testing.assert_close(standing, first.float() + drawn, atol=0.01, rtol=0.01)
    torch.testing.assert_close(made.latents, prior.mu.expand(2, 1, 2, 2), atol=0.01, rtol=0)


@pytest.mark.parametrize(("cfg_scale", "share", "limit"), [(5.0, 0.9, 15), (1.0, 0.5, 1e3), (2.0, 1.0, 1e3)])
def test_a_batch_is_sampled_as_by_a_plain_dpm_solver(
    make_prior: Callable[..., Path], cfg_scale: float, share: float, limit: float
) -> None:
    """DPM-Solver++(2M) of arXiv 2211.01095, Algorithm 2, in x = z/√ᾱ, on ρ = 7 levels of arXiv 2206.00364, eq. 5."""
    prior, steps, gamma = Prior.load(find_prior(make_prior())), 12, 0.01
    targets, images = normal(2, 1, 8, 8, seed=4), IMAGES
    found = sample_pulled(
        prior, images, targets, noise(images), steps=steps, cfg_scale=cfg_scale, guidance_scale=gamma,
        guided_from=limit, guided_share=share,
    ).latents  # fmt: skip

    signal = alpha_bar(prior.metadata.schedule).numpy()
    trained = np.sqrt((1 - signal) / signal)
    high, low = trained[-1] ** (1 / 7), trained[0] ** (1 / 7)
    levels = (high + np.arange(steps) / (steps - 1) * (low - high)) ** 7
    times = [round(float(np.interp(math.log(s), np.log(trained), np.arange(len(trained))))) for s in levels]
    labels = torch.tensor([prior.label_of(image.class_id) for image in images])
    text, null = prior.embed_labels(labels), prior.embed_labels(torch.tensor([prior.null_label] * 2))
    x = noise(images).initial((1, 8, 8)).double() * math.sqrt(1 + levels[0] ** 2)
    before: Any = None
    with torch.no_grad():
        for n, (level, t) in enumerate(zip(levels, times, strict=True)):
            z = (x / math.sqrt(1 + level**2)).float()
            ours, none = prior.predict(z, t, text)[0], prior.predict(z, t, null)[0]
            if n < min(int(steps * share), steps - 1) and level <= limit:
                clean = (z - math.sqrt(1 - signal[t]) * ours) / math.sqrt(signal[t])
                ours = ours - math.sqrt(signal[t] / (1 - signal[t])) * (targets - clean) * gamma * level
            clean = x - level * (none + cfg_scale * (ours - none)).double()
            if n == steps - 1:
                x = clean
                break
            following, direction = levels[n + 1], clean
            if before is not None:
                r = math.log(levels[n - 1] / level) / math.log(level / following)
                direction = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * before
            x, before = following / level * x + (1 - following / level) * direction, clean
    torch.testing.assert_close(found, x.float(), atol=2e-3, rtol=2e-3)


# The clusters ---------------------------------------------------------------------------------------------------------


def blobs(*sizes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Far apart: points (N, 2), and which blob each is of."""
    drawn = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    places = 100.0 * np.stack([np.arange(len(sizes)), np.arange(len(sizes)) ** 2], 1)
    return places[of] + drawn.normal(size=(len(of), 2)), of


def test_each_blob_has_one_centre_in_any_order_of_the_points() -> None:
    points, of = blobs(12, 20, 15, 9)
    order = np.random.default_rng(1).permutation(len(points))
    chosen = representatives(points, 4, Density(5, 3))
    assert sorted(of[chosen]) == [0, 1, 2, 3]
    np.testing.assert_array_equal(representatives(points, 4, Density(5, 3)), chosen)
    assert sorted(of[order[representatives(points[order], 4, Density(5, 3))]]) == [0, 1, 2, 3]


def test_of_too_many_the_largest_are_kept() -> None:
    points, of = blobs(12, 20, 15, 9)
    assert list(of[representatives(points, 2, Density(5, 3))]) == [1, 2]


def test_of_too_few_the_largest_is_halved() -> None:
    """The third blob is two, near each other, in one cluster only as long as nobody looks closer."""
    points, of = blobs(20, 20, 24)
    points[of == 2] += np.repeat([[0, 0], [12, 0]], 12, axis=0)
    points *= np.where(of == 2, 1.0, 0.1)[:, None]
    assert len(dense_clusters(points, np.flatnonzero(of == 2), Density(8, 3))) == 2
    chosen = representatives(points, 4, Density(8, 3))
    halves = chosen[of[chosen] == 2] >= 52
    assert sorted(of[chosen]) == [0, 1, 2, 2]
    assert sorted(halves) == [False, True]


def test_halves_are_those_of_two_means_and_their_centres_the_members_nearest_to_them() -> None:
    points, _ = blobs(14, 11)
    parent = SimpleNamespace(members=np.arange(25), centre=0)
    first, second = split(points, parent, Density(5, 3))  # type: ignore[arg-type]
    for half, expected in ((first, np.arange(14)), (second, np.arange(14, 25))):
        np.testing.assert_array_equal(half.members, expected)
        away = ((points[expected] - points[expected].mean(0)) ** 2).sum(1)
        assert half.centre == expected[away.argmin()]
    assert split(points, parent, Density(20, 3)) == []  # type: ignore[arg-type]


def test_what_is_missing_is_made_of_points_in_no_cluster() -> None:
    points, of = blobs(10, 10)
    lonely = np.stack([-1e3 * 2.0 ** np.arange(15), np.zeros(15)], 1)  # each farther than all before
    everything = np.concatenate([points, lonely])
    assert noise_factor(5) * 3 == len(lonely)  # just enough of them
    chosen = representatives(everything, 5, Density(8, 3))
    assert sorted(of[chosen[:2]]) == [0, 1]
    assert (chosen[2:] >= 20).all()
    assert len(set(chosen)) == 5


def test_with_too_few_of_those_clusters_are_forced_apart() -> None:
    """Two close pairs of six: parts of less than eight are found once smaller ones are allowed."""
    points, _ = blobs(12, 12)
    points += np.tile(np.repeat([[0, 0], [15, 0]], 6, axis=0), (2, 1))
    density = Density(8, 3)
    clusters = dense_clusters(points, np.arange(24), density)
    assert [len(each.members) for each in clusters] == [12, 12]
    chosen = representatives(points, 4, density)
    assert sorted(chosen // 6) == [0, 1, 2, 3]
    assert [len(each.members) for each in force(points, clusters, 3, density)] == [12, 6, 6]


def test_where_no_rule_gives_enough_it_says_so() -> None:
    points, _ = blobs(6, 6)
    with pytest.raises(UsageError, match=r"class 3: \d+ clusters, expected 11.*--ipc"):
        representatives(points, 11, Density(5, 3), "class 3")


@pytest.mark.parametrize(("count", "factor"), [(1, 5), (10, 5), (11, 3), (50, 3), (51, 1)])
def test_how_many_such_points_are_enough(count: int, factor: int) -> None:
    assert noise_factor(count) == factor


def test_neighbours_are_counted_without_the_point_itself() -> None:
    """Two neighbours away from 3, 0 and 1 lie 3, 3 and 2, so all three join at 3 and the first stands for them. Were
    the points counted, 0 and 1 would join at 1 and 3 at 2, and 0 would stand for them."""
    points = np.array([3.0, 0, 1, 9, 103, 100, 101, 109])[:, None]
    assert [each.centre for each in dense_clusters(points, np.arange(8), Density(2, 2))] == [0, 4]
    assert [each.centre for each in dense_clusters(points, np.arange(8), Density(2, 1))] == [1, 5]


# The method -----------------------------------------------------------------------------------------------------------


def distill(method: Method, task: Any) -> dict[tuple[int, int], DistilledImage]:
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


def test_images_are_drawn_to_the_real_ones_that_coda_real_gives(make_task: Any, memory_cache: Any) -> None:
    train, prior = Digits().load("default", None, 8).train, Prior.load(find_prior("digits"))
    task = make_task(train, Digits.class_ids, ipc=3, prior=prior, classes=(7, 2), cache=memory_cache)
    real = distill(Representatives(Representatives.Params(**SMALL)), task)
    assert memory_cache.made.count("clusters") == 2
    for c in (7, 2):
        pictures = [image.pixels.tobytes() for image in real.values() if image.class_index == c]
        assert len(set(pictures)) == 3
        assert set(pictures) <= {picture.tobytes() for picture in train.read(train.of_class(c))}

    def distance(**given: float) -> float:
        made = distill(CoDA(CoDA.Params(**SMALL, **given)), task)
        return float(np.mean([abs(made[key].pixels.astype(float) - real[key].pixels) for key in real]))

    assert distance() < 0.8 * distance(guidance_scale=0)
    assert memory_cache.made.count("clusters") == 2, "both have the same representatives"


def test_a_class_with_too_few_images_is_refused(make_task: Any, random_images: Any) -> None:
    task = make_task(random_images(CLASSES, per_class=15), CLASSES, ipc=2)
    with pytest.raises(UsageError, match="15 training images, fewer than the 16 of UMAP with n_neighbors=15"):
        Representatives(Representatives.Params(n_neighbors=15, dimensions=4)).prepare(task)
    with pytest.raises(UsageError, match="15 training images, fewer than the 16 of UMAP.*dimensions=14"):
        Representatives(Representatives.Params(n_neighbors=5, dimensions=14)).prepare(task)


def test_without_umap_it_is_refused_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert "pip install 'ddbench[coda]'" in str(CoDA().supports(Digits, 10))
    assert CoDA(CoDA.Params(embedding="none")).supports(Digits, 10) is None


def test_umap_keeps_apart_what_is_apart_and_repeats_itself() -> None:
    pytest.importorskip("umap", reason="the extra `coda` is not installed")
    drawn = np.random.default_rng(0)
    of = np.repeat([0, 1, 2], 20)
    latents = (30 * drawn.normal(size=(3, 64))[of] + drawn.normal(size=(60, 64))).astype(np.float32)
    params = CoDA.Params(n_neighbors=8, dimensions=5)
    points = embed(latents, params)
    assert points.shape == (60, 5)
    assert sorted(of[representatives(points, 3, Density(10, 3))]) == [0, 1, 2]
    np.testing.assert_array_equal(embed(latents, params), points)
    assert not np.array_equal(embed(latents, CoDA.Params(n_neighbors=8, dimensions=5, embedding_seed=1)), points)
