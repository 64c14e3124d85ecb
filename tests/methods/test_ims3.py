"""IMS3: the choice among groups against enumeration and a plain ascent, its groups against the sampler, and inversion
matching against a step worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.seeds import stream
from ddbench.methods.base import DistilledImage, Method
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.ims3.choice import centroid, choose, nearest, objective
from ddbench.methods.ims3.groups import class_groups, features_of, real_centroid
from ddbench.methods.ims3.method import SubgroupSampling
from ddbench.methods.ims3.params import IMParams, IMTuning
from ddbench.methods.minimax.denoising import DenoisingLoss
from ddbench.methods.minimax.inversion import InversionMatching
from ddbench.methods.minimax.method import Minimax
from ddbench.methods.minimax.params import MinimaxParams, Tuning

CLASSES = ("a", "b", "c")
WEIGHTS = {"proximity_weight": 0.4, "separation_weight": 0.9}
SMALL = {
    "network": "convnet3", "optimiser": "adamw", "augmentation": "none", "cutmix": False, "normalisation": "half",
    "epochs": 1, "steps": 8, "groups": 3,
}  # fmt: skip
SCHEDULE = NoiseScheduleMetadata(steps=1000, beta_start=1e-4, beta_end=0.02)


def drawn(seed: int, classes: int, groups: int, features: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Centroids of length 1: (K, G, F) and (K, F)."""
    made = np.random.default_rng(seed).normal(size=(classes, groups + 1, features))
    made /= np.linalg.norm(made, axis=-1, keepdims=True)
    return made[:, 1:], made[:, 0]


def distance(u: np.ndarray, v: np.ndarray) -> float:
    return 1 - float(u @ v) / (math.sqrt(float(u @ u)) * math.sqrt(float(v @ v)))


def summed(choice: tuple[int, ...], groups: np.ndarray, real: np.ndarray) -> float:
    """The objective, pair by pair."""
    kept = [groups[i, g] for i, g in enumerate(choice)]
    near = sum(-math.log(distance(c, r)) for c, r in zip(kept, real, strict=True))
    apart = sum(math.log(distance(c, d)) for c, d in itertools.combinations(kept, 2))
    return 0.4 * near + 0.9 * apart


# The choice -----------------------------------------------------------------------------------------------------------


def test_the_centroid_is_the_direction_of_the_mean_of_directions() -> None:
    features = np.array([[3.0, 0.0], [0.0, 0.5]])
    np.testing.assert_allclose(centroid(features), [math.sqrt(0.5), math.sqrt(0.5)])


def test_the_objective_is_its_sum_over_pairs() -> None:
    groups, real = drawn(0, classes=4, groups=3)
    for choice in itertools.product(range(3), repeat=4):
        assert objective(choice, groups, real, **WEIGHTS) == pytest.approx(summed(choice, groups, real))


@pytest.mark.parametrize("seed", range(12))
def test_no_change_of_one_class_improves_what_is_chosen(seed: int) -> None:
    groups, real = drawn(seed, classes=4, groups=3)
    first = nearest(groups, real)
    values, before = [summed(tuple(first), groups, real)], tuple(first)
    for sweeps in range(1, 8):
        choice = tuple(choose(groups, real, first, sweeps=sweeps, **WEIGHTS))
        values.append(summed(choice, groups, real))
        assert choice == before or values[-1] > values[-2], "a sweep never lowers it"
        before = choice
    best = {summed((*before[:i], g, *before[i + 1 :]), groups, real) for i in range(4) for g in range(3)}
    assert values[-1] == pytest.approx(max(best)), "coordinate-wise best"
    assert values[-1] <= max(summed(c, groups, real) for c in itertools.product(range(3), repeat=4)) + 1e-12


def test_one_sweep_is_classes_in_their_order() -> None:
    changed = 0
    for seed in range(20):
        groups, real = drawn(seed, classes=4, groups=3)
        choice = [0, 0, 0, 0]
        for i in range(4):
            choice[i] = max(range(3), key=lambda g, i=i: summed((*choice[:i], g, *choice[i + 1 :]), groups, real))  # type: ignore[misc]
        assert choose(groups, real, [0] * 4, sweeps=1, **WEIGHTS) == choice
        changed += choice != [0, 0, 0, 0]
    assert changed > 10


def test_it_is_the_best_of_all_where_classes_do_not_meet() -> None:
    """Without separation every class has its own optimum, and one class has no pairs: one sweep finds the best."""
    groups, real = drawn(3, classes=4, groups=5)
    alone = {"proximity_weight": 1.0, "separation_weight": 0.0}
    everything = itertools.product(range(5), repeat=4)
    best = max(everything, key=lambda choice: objective(choice, groups, real, **alone))
    assert choose(groups, real, [0] * 4, sweeps=1, **alone) == list(best) == nearest(groups, real)
    assert choose(groups[:1], real[:1], [0], sweeps=1, **WEIGHTS) == nearest(groups[:1], real[:1])
    # Of two classes, one with a single group, one sweep is exhaustive.
    pair = groups[:2].copy()
    pair[0] = pair[0, 0]
    best_of_two = max(range(5), key=lambda g: summed((0, g), pair, real[:2]))
    assert choose(pair, real[:2], [0, 0], sweeps=1, **WEIGHTS) == [0, best_of_two]


def test_ties_and_coinciding_centroids() -> None:
    groups, real = drawn(1, classes=2, groups=2)
    groups[:, 1] = groups[:, 0]
    assert choose(groups, real, [1, 0], sweeps=5, **WEIGHTS) == [1, 0], "an equal group replaces none"
    groups[0, 0] = real[0]
    assert math.isfinite(objective([0, 0], groups, real, **WEIGHTS))
    assert choose(groups, real, [1, 1], sweeps=0, **WEIGHTS) == [1, 1]


# Groups ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def prior(make_prior: Callable[..., Path]) -> Prior:
    return Prior.load(find_prior(make_prior()))


class _Brightness:
    """A classifier with two features: an image's mean, and 1. It has no more of an `Observer` than these need."""

    sha256 = "brightness"

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.mean((1, 2, 3)), torch.ones(len(images))], dim=1)


BRIGHTNESS: Any = _Brightness()


@pytest.mark.parametrize("image_size", [8, 5])
def test_groups_are_plain_samples(prior: Prior, make_task: Any, random_images: Any, image_size: int) -> None:
    task = make_task(random_images(CLASSES, image_size=image_size), CLASSES, prior=prior, ipc=2, batch_size=4)
    params = SubgroupSampling.Params(**SMALL)
    found = class_groups(task, prior, params, BRIGHTNESS, 1)
    assert found["latents"].shape == (3, 2, *prior.latent_shape)
    images = [ImageKey("b", j) for j in range(6)]
    plain = sample(prior, images, [], StreamNoise(task.stream, images), steps=8, cfg_scale=4.0).latents
    np.testing.assert_allclose(found["latents"].reshape(6, *prior.latent_shape), plain.numpy(), atol=1e-5)
    features = features_of(task, prior, BRIGHTNESS, plain)
    for g in range(3):
        np.testing.assert_allclose(found["centroids"][g], centroid(features[2 * g : 2 * g + 2]), atol=1e-3)
    pixels = torch.from_numpy(prior.decode(plain)).float() / 255
    np.testing.assert_allclose(features[:, 0], pixels.mean((1, 2, 3)).numpy(), atol=2e-3 if image_size == 8 else 0.05)


def test_groups_of_compiled_code_are_artefacts_of_their_own(
    prior: Prior, make_task: Any, random_images: Any, memory_cache: Any
) -> None:
    task = make_task(random_images(CLASSES), CLASSES, prior=prior, ipc=2, cache=memory_cache)
    params, found = SubgroupSampling.Params(**SMALL), []
    for compiler in (None, lambda network, x, conditioning: lambda *given: 1.01 * network(*given)):
        prior.compiler = compiler
        found.append(class_groups(task, prior, params, BRIGHTNESS, 1)["latents"])
    assert not np.array_equal(*found)


def test_the_real_centroid_is_of_some_random_images(prior: Prior, make_task: Any, random_images: Any) -> None:
    train = random_images(CLASSES, per_class=12)
    task = make_task(train, CLASSES, prior=prior)
    picks = torch.randperm(12, generator=stream(0, "real centroid", "b"))[:5].numpy() + 12
    means = train.read(picks).mean((1, 2, 3)) / 255
    expected = centroid(np.stack([means, np.ones(5)], axis=1))
    params = SubgroupSampling.Params(**SMALL, real_images=5)
    np.testing.assert_allclose(real_centroid(task, params, BRIGHTNESS, 1), expected, atol=1e-6)


def distill(method: Method, task: Any) -> dict[tuple[int, int], DistilledImage]:
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


@pytest.mark.parametrize("first_choice", ["nearest", "random"])
def test_a_set_is_the_chosen_groups(
    prior: Prior, make_task: Any, random_images: Any, memory_cache: Any, first_choice: str
) -> None:
    train = random_images(CLASSES)
    params = SubgroupSampling.Params(**SMALL, first_choice=first_choice)
    task = make_task(train, CLASSES, prior=prior, ipc=2, cache=memory_cache)
    method = SubgroupSampling(params)
    images = distill(method, task)
    found = [class_groups(task, prior, params, method._observer, c) for c in range(3)]
    centroids = np.stack([one["centroids"] for one in found])
    real = np.stack([real_centroid(task, params, method._observer, c) for c in range(3)])
    if first_choice == "nearest":
        first = nearest(centroids, real)
    else:
        first = [int(torch.randint(3, (), generator=stream(0, "first group", c))) for c in CLASSES]
    chosen = choose(centroids, real, first, sweeps=5, **WEIGHTS)
    for (c, i), image in images.items():
        np.testing.assert_array_equal(image.latent, found[c]["latents"][chosen[c], i])
        np.testing.assert_array_equal(image.pixels, prior.decode(torch.from_numpy(image.latent[None]))[0])
    assert memory_cache.made.count("groups") == 3, "each class is sampled once"
    one = distill(SubgroupSampling(params), make_task(train, CLASSES, classes=[2], prior=prior, ipc=2))
    assert set(one) == {(2, 0), (2, 1)}
    np.testing.assert_array_equal(one[2, 1].pixels, images[2, 1].pixels)


# Inversion matching ---------------------------------------------------------------------------------------------------


def test_the_inversion_step_is_ddims_from_clean_latents() -> None:
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    signal = [*torch.cumprod(1 - beta, 0).tolist(), 0.0]
    generator = torch.Generator().manual_seed(0)
    x, epsilon = torch.rand(3, 1, 2, 2, generator=generator) * 2 - 1, torch.randn(3, 1, 2, 2, generator=generator)
    times = [0, 400, 999]
    found = InversionMatching(SCHEDULE).inverted(epsilon, x, torch.tensor(times))
    clipped = 0
    for row, t in enumerate(times):
        here, above = signal[t], signal[t + 1]
        for value, noise, result in zip(x[row].flatten(), epsilon[row].flatten(), found[row].flatten(), strict=True):
            clean = (float(value) - math.sqrt(1 - here) * float(noise)) / math.sqrt(here)
            clipped += abs(clean) > 1
            clean = min(1.0, max(-1.0, clean))
            towards = (float(value) - math.sqrt(here) * clean) / math.sqrt(1 - here)
            expected = math.sqrt(above) * clean + math.sqrt(1 - above) * towards
            assert float(result) == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert 0 < clipped < 12


def test_the_cosine_is_the_mean_over_all_pairs_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(3, 2, 2, 2, generator=generator) for _ in range(2))
    pairs = [torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a in u for b in v]
    torch.testing.assert_close(InversionMatching.cosine(u, v), torch.stack(pairs).mean())


def test_going_down_its_gradient_brings_the_two_together() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.rand(4, 2, 4, 4, generator=generator) * 2 - 1, torch.randn(4, 2, 4, 4, generator=generator)
    t, matching, denoising = torch.tensor([2, 30, 300, 900]), InversionMatching(SCHEDULE), DenoisingLoss(SCHEDULE)
    signal = matching.here[t].view(-1, 1, 1, 1)
    x_t, epsilon = signal.sqrt() * x + (1 - signal).sqrt() * noise, torch.randn(x.shape, generator=generator)
    inverted = matching.inverted(epsilon, x, t)

    def cosine(output: torch.Tensor) -> torch.Tensor:
        return matching.cosine(denoising.posterior_mean(denoising(output, x, x_t, noise, t).x0, x_t, t), inverted)

    leaf = epsilon.clone().requires_grad_()
    (slope,) = torch.autograd.grad(1 - 0.002 * cosine(leaf), leaf)
    assert cosine(epsilon - 2 / slope.abs().max() * slope) > cosine(epsilon) + 1e-3
    of_denoising = torch.autograd.grad(denoising(leaf, x, x_t, noise, t).loss, leaf)[0]
    assert slope.norm() < 1e-3 * of_denoising.norm(), "as docs/fidelity.md says"


def test_what_is_compared_with_it_is_the_mean_of_the_next_step() -> None:
    """DDPM (arXiv 2006.11239), eq. 7."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    signal = torch.cumprod(1 - beta, 0)
    x0, x_t, t = torch.full((1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), -0.7), 500
    expected = (signal[t - 1].sqrt() * beta[t] * 0.3 + (1 - beta[t]).sqrt() * (1 - signal[t - 1]) * -0.7) / (
        1 - signal[t]
    )
    found = DenoisingLoss(SCHEDULE).posterior_mean(x0, x_t, torch.tensor([t]))
    assert found.item() == pytest.approx(float(expected), rel=1e-4)


def test_without_it_a_tuning_is_minimaxs_to_the_id() -> None:
    assert "inversion_weight" not in Tuning().model_dump(mode="json")
    assert "inversion_weight" not in MinimaxParams().model_dump(mode="json")
    assert Tuning(inversion_weight=0.002).model_dump()["inversion_weight"] == 0.002


def test_ims3_is_the_two_halves() -> None:
    whole, tuner = METHODS.entry("ims3"), METHODS.entry("ims3-im")
    assert (whole.variant_of, whole.prior_tuned_by, tuner.variant_of) == ("ims3-s3", "ims3-im", None)
    assert METHODS.load("ims3-im").tuning is IMTuning
    assert issubclass(METHODS.load("ims3-im"), Minimax)
    assert {key for key, value in IMParams() if value != getattr(MinimaxParams(), key)} == {
        "tuning_steps",
        "inversion_weight",
    }
    assert IMParams(inversion_weight=0).model_dump(mode="json")["inversion_weight"] == 0, "said, for it is no default"
    assert abs(0.998**400 - 0.9999**8000) < 1e-3, "the small budget's share of untuned weights"
