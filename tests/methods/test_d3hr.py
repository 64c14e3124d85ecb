"""D3HR: DDIM against diffusers' schedulers and closed forms, group statistics against SciPy, picks by brute force."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.methods.d3hr import groups
from ddbench.methods.d3hr.groups import best_group, group_scores
from ddbench.methods.d3hr.inversion import class_group, class_statistics, covariance_factor, invert_class
from ddbench.methods.d3hr.method import D3HR
from ddbench.methods.diffusion import ddim
from ddbench.methods.diffusion.ddim import ddim_levels, walk
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata

CLASSES = ("a", "b", "c")
IMAGES = [ImageKey("a", 0), ImageKey("b", 0), ImageKey("c", 5)]
MakePrior = Callable[..., Path]


def load(folder: Path) -> Prior:
    return Prior.load(find_prior(folder))


def toy(epsilon: Callable[[Tensor, int], Tensor]) -> Any:
    """A prior whose network is a formula."""
    return SimpleNamespace(
        metadata=SimpleNamespace(schedule=NoiseScheduleMetadata()),
        label_of=lambda class_id: 0,
        null_label=1,
        embed_labels=lambda labels: torch.zeros(*labels.shape, 1),
        predict=lambda x, t, label: (epsilon(x, t), None),
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# DDIM -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 8, 50, 300])
def test_levels_are_the_leading_grid(steps: int) -> None:
    scheduler = DDIMScheduler(timestep_spacing="leading", steps_offset=0)
    scheduler.set_timesteps(steps)
    assert ddim_levels(1000, steps) == scheduler.timesteps.tolist()[::-1]


@pytest.mark.parametrize("steps", [1, 1001])
def test_impossible_grids_are_refused(steps: int) -> None:
    with pytest.raises(UsageError, match=r"2 … 1000 steps"):
        ddim_levels(1000, steps)


@pytest.mark.parametrize("learned", [False, True])
def test_walks_are_those_of_the_schedulers(make_prior: MakePrior, learned: bool) -> None:
    # One guided channel, though D3HR guides all.
    prior = load(make_prior(channels=2, learned_variance=learned, guided_channels=1, clip_denoised=True))
    settings = {"timestep_spacing": "leading", "steps_offset": 0, "clip_sample": False, "set_alpha_to_one": False}
    labels, null = prior.embed_labels(torch.tensor([0, 1, 2])), prior.embed_labels(torch.tensor([3, 3, 3]))

    def epsilon(z: Tensor, t: int) -> Tensor:
        own = prior.network(z, prior.embed_time(t) + labels)[:, :2]
        free = prior.network(z, prior.embed_time(t) + null)[:, :2]
        return free + 2.5 * (own - free)

    start = normal(3, 2, 8, 8)
    up = DDIMInverseScheduler(**settings)
    up.set_timesteps(50)
    down = DDIMScheduler(**settings)
    down.set_timesteps(50)
    with torch.no_grad():
        z = start
        for t in up.timesteps.tolist()[1:31]:
            z = up.step(epsilon(z, t), t, z).prev_sample
        top = z
        for t in down.timesteps.tolist()[19:49]:
            z = down.step(epsilon(z, t), t, z).prev_sample
    levels = ddim_levels(1000, 50)
    inverted = walk(prior, IMAGES, start, levels[:31], cfg_scale=2.5)
    torch.testing.assert_close(inverted, top, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(walk(prior, IMAGES, top, levels[30::-1], cfg_scale=2.5), z, rtol=1e-3, atol=1e-3)


def test_the_way_down_is_the_way_up_reversed() -> None:
    # ε depends on time and place, not on the latents: then it is the same in both directions.
    place = normal(3, 1, 4, 4, seed=1)
    prior = toy(lambda x, t: (0.3 + t / 500) * place.repeat_interleave(len(x) // 3, 0))
    start, levels = normal(3, 1, 4, 4), ddim_levels(1000, 50)
    top = walk(prior, IMAGES, start, levels[:31], cfg_scale=4)
    assert (top - start).abs().max() > 0.5
    torch.testing.assert_close(walk(prior, IMAGES, top, levels[30::-1], cfg_scale=4), start, rtol=1e-4, atol=1e-4)


def test_a_linear_network_s_walk_is_a_product() -> None:
    # N(0, s²) data: ε = √(1-ᾱ)/(ᾱs² + 1-ᾱ)·z is exact, and a step is one factor.
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    slope = np.sqrt(1 - signal) / (signal * 0.25 + 1 - signal)
    prior = toy(lambda x, t: float(slope[t]) * x)
    start, levels, factor = normal(1, 1, 4, 4), ddim_levels(1000, 100), 1.0
    for now, then in pairwise(levels[:61]):
        a, b = signal[now], signal[then]
        factor *= np.sqrt(b / a) * (1 - np.sqrt(1 - a) * slope[then]) + np.sqrt(1 - b) * slope[then]
    top = walk(prior, IMAGES[:1], start, levels[:61], cfg_scale=1)
    torch.testing.assert_close(top, factor * start, rtol=1e-4, atol=1e-5)
    # The exact flow scales by the ratio of standard deviations.
    exact = np.sqrt((signal[600] * 0.25 + 1 - signal[600]) / (signal[0] * 0.25 + 1 - signal[0]))
    assert factor == pytest.approx(exact, rel=0.05)


def test_a_breakdown_names_step_and_class() -> None:
    prior = toy(lambda x, t: torch.full_like(x, float("inf") if t == 60 else 0))
    with pytest.raises(RunError, match=r"DDIM broke down: .*class a, image 0 .* step 3 of 5 \(t = 60\)"):
        walk(prior, IMAGES, normal(3, 1, 4, 4), ddim_levels(1000, 50)[:6], cfg_scale=1)


# Groups ---------------------------------------------------------------------------------------------------------------


def scores(group: np.ndarray, mean: np.ndarray, std: np.ndarray, weight: float) -> float:
    total = np.linalg.norm(group.mean(0) - mean)
    if len(group) == 1:
        return total
    numbers = group.shape[1]
    skewness = (stats.zscore(group, axis=0, ddof=1) ** 3).sum(1) * numbers / ((numbers - 1) * (numbers - 2))
    return total + np.linalg.norm(group.std(0, ddof=1) - std) + weight * np.linalg.norm(skewness)


@pytest.mark.parametrize("size", [1, 2, 10])
def test_scores_are_those_of_scipy(size: int) -> None:
    drawn, mean, std = normal(20, size, 48).exp(), normal(48, seed=1), normal(48, seed=2).abs()
    expected = [scores(group, mean.numpy(), std.numpy(), 0.5) for group in drawn.double().numpy()]
    np.testing.assert_allclose(group_scores(drawn, mean, std, 0.5).numpy(), expected, rtol=1e-4)


def test_a_place_without_spread_has_no_skewness() -> None:
    drawn, mean, std = normal(4, 3, 16).exp(), normal(16, seed=1), normal(16, seed=2).abs()
    drawn[:, :, 5] = -1
    for score, group in zip(group_scores(drawn, mean, std, 0.5).numpy(), drawn.double().numpy(), strict=True):
        varied = np.delete(group, 5, axis=1)
        cubes = (stats.zscore(varied, axis=0, ddof=1) ** 3).sum(1)
        rest = np.linalg.norm(group.mean(0) - mean.numpy()) + np.linalg.norm(group.std(0, ddof=1) - std.numpy())
        rest += 0.5 * 16 / (15 * 14) * np.linalg.norm(cubes)
        assert score == pytest.approx(rest, rel=1e-4)


@pytest.mark.parametrize(("count", "weight"), [(1, 0.5), (37, 0.5), (37, 10.0)])
def test_the_best_group_by_brute_force(count: int, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "BLOCK_NUMBERS", 5 * 3 * 16 + 7)  # blocks of 5 groups
    mean, std = normal(16, seed=1), normal(16, seed=2).abs()

    def draw(block: int) -> torch.Generator:
        return torch.Generator().manual_seed(100 + block)

    everything = [
        (mean + std * noise).numpy()
        for block, first in enumerate(range(0, count, 5))
        for noise in torch.randn(min(5, count - first), 3, 16, generator=draw(block))
    ]
    assert len(everything) == count
    best = min(everything, key=lambda group: scores(group.astype(np.float64), mean.numpy(), std.numpy(), weight))
    found = best_group(draw, mean, std, size=3, groups=count, skew_weight=weight)
    np.testing.assert_allclose(found.numpy(), best, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("images", [4, 12])
def test_the_factor_is_that_of_the_covariance(images: int) -> None:
    rows = normal(images, 6).double() @ normal(6, 6, seed=1).double()
    factor = covariance_factor(rows - rows.mean(0))
    assert factor.shape == (min(images, 6), 6)
    np.testing.assert_allclose(factor.T @ factor, np.cov(rows.numpy().T), atol=1e-12)


def test_draws_have_the_covariance_of_the_inverted_latents() -> None:
    """With one group of many vectors nothing is chosen: it is a sample."""
    factor, mean = normal(3, 4, seed=2), normal(4, seed=3)
    std = (factor.T @ factor).diag().sqrt()
    group = best_group(
        lambda block: torch.Generator().manual_seed(block),
        mean,
        std,
        size=20_000,
        groups=1,
        skew_weight=0.0,
        factor=factor,
    )
    np.testing.assert_allclose(np.cov(group.numpy().T), factor.T @ factor, atol=0.15)
    np.testing.assert_allclose(group.mean(0), mean, atol=0.05)


def test_groups_without_a_score_are_an_error_not_an_image() -> None:
    with pytest.raises(RunError, match="no group of latents has a finite score"):
        best_group(
            lambda block: torch.Generator(),
            torch.full((4,), torch.nan),
            torch.ones(4),
            size=2,
            groups=3,
            skew_weight=0.5,
        )


# The method -----------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_inverted_latents(
    make_prior: MakePrior, make_task: Any, random_images: Any
) -> None:
    prior = load(make_prior())
    task = make_task(random_images(CLASSES), CLASSES, ipc=2, prior=prior, batch_size=5)
    params = D3HR.Params(steps=10)
    assert params.level == 6
    inverted = invert_class(task, prior, params, 1)
    pixels = torch.from_numpy(task.train.read(task.train.of_class(1))).permute(0, 3, 1, 2).float() / 127.5 - 1
    own = [ImageKey("b", i) for i in range(12)]
    torch.testing.assert_close(
        inverted, walk(prior, own, pixels, range(0, 601, 100), cfg_scale=4), rtol=1e-3, atol=1e-3
    )
    mean, std, factor = class_statistics(task, prior, params, 1)
    assert factor is None
    flat = inverted.reshape(12, -1).numpy().astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), flat.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(std.numpy(), flat.std(0, ddof=1), rtol=1e-5, atol=1e-5)


def test_a_small_budget_takes_the_first_images_and_an_artefact_of_its_own(
    make_prior: MakePrior, make_task: Any, random_images: Any, memory_cache: Any
) -> None:
    prior = load(make_prior())
    task = make_task(random_images(CLASSES), CLASSES, ipc=2, prior=prior, batch_size=5, cache=memory_cache)
    whole, part = D3HR.Params(steps=10), D3HR.Params(steps=10, real_images=7)
    inverted = invert_class(task, prior, whole, 1)
    torch.testing.assert_close(invert_class(task, prior, part, 1), inverted[:7])
    flat = inverted[:7].flatten(1).double()
    for params, expected in ((whole, inverted.flatten(1).double().mean(0)), (part, flat.mean(0))):
        torch.testing.assert_close(class_statistics(task, prior, params, 1)[0].double(), expected, rtol=1e-4, atol=1e-4)
    assert memory_cache.made == ["latents", "inversion", "inversion"]


def test_what_compiled_code_made_is_an_artefact_of_its_own(
    make_prior: MakePrior, make_task: Any, random_images: Any, memory_cache: Any
) -> None:
    """Whether a cell compiles depends on its IPC and on the command: what an image is must not depend on which cell of
    several was first."""
    folder, images = make_prior(), random_images(CLASSES)
    found = []
    for compiler in (None, lambda network, x, conditioning: lambda *given: 1.01 * network(*given)):
        prior = load(folder)
        prior.compiler = compiler
        task = make_task(images, CLASSES, ipc=2, prior=prior, cache=memory_cache)
        found.append(class_group(task, prior, D3HR.Params(steps=4, groups=20), 0))
    assert memory_cache.made == ["latents", "inversion", "groups", "inversion", "groups"]
    assert not np.array_equal(*found)


def test_a_group_is_of_its_class_its_seed_and_its_budget(
    make_prior: MakePrior, make_task: Any, random_images: Any, memory_cache: Any
) -> None:
    prior, images = load(make_prior()), random_images(CLASSES)

    def group(class_index: int = 0, seed: int = 0, **params: Any) -> np.ndarray:
        task = make_task(images, CLASSES, ipc=2, prior=prior, seed=seed, cache=memory_cache)
        given = D3HR.Params(**({"steps": 4, "groups": 300} | params))
        found = class_group(task, prior, given, class_index)
        mean, std, _ = class_statistics(task, prior, given, class_index)
        quality = group_scores(torch.tensor(found).reshape(1, 2, -1), mean, std, given.skew_weight)
        quality_of.append(quality.item())
        return found

    quality_of: list[float] = []
    first = group()
    assert first.shape == (2, 1, 8, 8)
    np.testing.assert_array_equal(group(), first)
    assert memory_cache.made == ["latents", "inversion", "groups"]
    for other in (group(class_index=1), group(seed=1), group(skew_weight=50.0), group(groups=1)):
        assert not np.array_equal(other, first)
    assert quality_of[-1] > quality_of[0], "the best of 300 is better than the first"


@pytest.mark.parametrize(
    ("params", "top", "count"),
    [({}, 600, 31), ({"start_offset": 1}, 620, 32), ({"level": 20}, 400, 21), ({"steps": 25}, 600, 16)],
)
def test_sampling_starts_at_the_level_of_the_group(
    params: dict[str, Any],
    top: int,
    count: int,
    make_prior: MakePrior,
    make_task: Any,
    random_images: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = load(make_prior())
    task = make_task(random_images(CLASSES, per_class=3), CLASSES, ipc=2, prior=prior, classes=(2, 0), batch_size=3)
    walks: list[tuple[list[str], list[int]]] = []

    def spy(prior: Prior, images: Any, z: Tensor, timesteps: Any, **given: Any) -> Tensor:
        walks.append(([image.class_id for image in images], list(timesteps)))
        return walk(prior, images, z, timesteps, **given)

    method = D3HR(D3HR.Params(groups=10, **params))
    method.prepare(task)
    monkeypatch.setattr(ddim, "walk", spy)
    made = [image for images in method.distill(task) for image in images]
    assert [(image.class_index, image.image_index) for image in made] == [(2, 0), (2, 1), (0, 0), (0, 1)]
    assert [classes for classes, _ in walks] == [["c", "c", "a"], ["a"]]
    for _, timesteps in walks:
        assert (timesteps[0], timesteps[-1], len(timesteps)) == (top, 0, count)
    group = torch.tensor(method._groups[0])
    down = walk(prior, [ImageKey("a", j) for j in range(2)], group, walks[0][1], cfg_scale=4)
    np.testing.assert_allclose(np.stack([made[2].latent, made[3].latent]), down.numpy(), rtol=0, atol=1e-4)


def test_defaults_are_the_papers() -> None:
    p = D3HR.Params()
    assert (p.steps, p.cfg_scale, p.level, p.start_offset, p.groups, p.skew_weight) == (50, 4.0, 30, 0, 10**6, 0.5)
    assert D3HR.Params.model_validate(p.model_dump()) == p
    with pytest.raises(ValidationError, match=r"level \+ start_offset ≤ steps - 1 = 9.*got 6 \+ 4"):
        D3HR.Params(steps=10, start_offset=4)


def test_a_class_without_variance_is_refused(make_prior: MakePrior, make_task: Any, random_images: Any) -> None:
    task = make_task(random_images(CLASSES, per_class=1), CLASSES, ipc=1, prior=load(make_prior()))
    with pytest.raises(UsageError, match="class a has 1 training image, fewer than the 2 whose variance d3hr can take"):
        D3HR().prepare(task)
