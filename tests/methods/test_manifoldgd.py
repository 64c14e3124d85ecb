"""ManifoldGD: its manifold term against the program's own linear algebra, its tree against a hand-grown one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.guidance import State, Step
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.manifoldgd.manifold import (
    NEIGHBOURS,
    POINTS,
    ManifoldGuidance,
    annealed_radius,
    diffused_points,
    normal_direction,
)
from ddbench.methods.manifoldgd.method import ManifoldGD
from ddbench.methods.manifoldgd.modes import leaves

CLASSES = ("a", "b", "c")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("tangent_dimensions", [1, 3, 11])
def test_the_normal_is_the_programs(tangent_dimensions: int) -> None:
    """By eigenvectors of the whole covariance, as the program takes them."""
    z, neighbours = normal(40), normal(NEIGHBOURS, 40, seed=1)
    mean = neighbours.mean(0)
    covariance = (neighbours - mean).T @ (neighbours - mean) / (NEIGHBOURS - 1) + 1e-5 * torch.eye(40)
    tangent = torch.linalg.eigh(covariance).eigenvectors[:, -tangent_dimensions:]
    direction = -(torch.eye(40) - tangent @ tangent.T) @ (z - mean)
    found = normal_direction(z, neighbours, tangent_dimensions)
    torch.testing.assert_close(found, direction / direction.norm(), rtol=1e-6, atol=1e-8)
    assert float(found.norm()) == pytest.approx(1)
    assert torch.allclose(normal_direction(mean, neighbours, tangent_dimensions), torch.zeros(40, dtype=torch.float64))


def test_points_around_a_mode() -> None:
    """At the clean end they lie where the radii say: half at equal distances, half uniform below the radius."""
    mode = normal(64).float()
    points = diffused_points(mode, 0.3, 1.0, torch.Generator().manual_seed(2))
    assert points.shape == (POINTS, 64)
    radii = (points - mode).norm(dim=1)
    torch.testing.assert_close(radii[: POINTS // 2], torch.linspace(0.1, 0.3, POINTS // 2), rtol=0, atol=1e-5)
    rest = radii[POINTS // 2 :]
    assert 0 < rest.min() < 0.05
    assert 0.25 < rest.max() < 0.3 + 1e-5
    noisy = diffused_points(mode, 0.3, 0.36, torch.Generator().manual_seed(2))
    noise = (noisy - 0.6 * points) / 0.8
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_the_radius_shrinks_exponentially() -> None:
    at = annealed_radius(0.1, 2.0, 5)
    expected = [0.1 * (1 + (math.exp(1 - n / 5) - 1) / (math.e - 1)) for n in range(6)]
    assert [at(n) for n in range(6)] == pytest.approx(expected)
    assert (at(0), at(5), at(40)) == (pytest.approx(0.2), 0.1, 0.1)
    assert annealed_radius(0.1, 2.0, 0)(0) == 0.1


def test_the_shift_of_a_step() -> None:
    modes, z = normal(2, 1, 4, 4).float(), normal(2, 1, 4, 4, seed=3).float()

    def term() -> ManifoldGuidance:
        draws = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
        return ManifoldGuidance(
            modes, draws, scale=0.4, bandwidth=0.2, radius_at=lambda n: 0.1, tangent_dimensions=3, stop_step=25
        )

    def state(k: int) -> State:
        return State(Step(49 - k, k, 0), z, z, z, torch.ones(1), 0.5)

    assert term().shift(state(25)) is None
    shift = term().shift(state(26))
    assert shift is not None
    for row, seed in enumerate((5, 6)):
        points = diffused_points(modes[row].flatten(), 0.1, 0.5, torch.Generator().manual_seed(seed))
        distances = (points - z[row].flatten()).norm(dim=1)
        near = points[distances.argsort()[:NEIGHBOURS]]
        step = 0.4 * math.tanh(float(distances.min()) / 0.2)
        expected = step * normal_direction(z[row].flatten(), near, 3)
        torch.testing.assert_close(shift[row].flatten(), expected, rtol=1e-4, atol=1e-6)
        assert float(shift[row].norm()) == pytest.approx(step, rel=1e-4)


def test_the_tree_splits_the_leaf_of_largest_inertia() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [0, 10], [40, 0], [43, 0]], dtype=np.float32)
    latents = np.concatenate([centre + rng.normal(size=(20, 2)) * 0.1 for centre in centres]).astype(np.float32)

    def split(members: np.ndarray) -> list[np.ndarray]:
        labels = KMeans(2, n_init=10, random_state=0).fit(members).labels_
        return [members[labels == label] for label in (0, 1)]

    def inertia(members: np.ndarray) -> float:
        return float(((members - members.mean(0)) ** 2).sum())

    grown = [latents]
    for count in (2, 3, 4):
        largest = max(range(len(grown)), key=lambda i: inertia(grown[i]))
        grown = [*grown[:largest], *split(grown[largest]), *grown[largest + 1 :]]
        found = leaves(latents, count, seed=1)
        by_place = sorted(found.tolist())
        expected = sorted(leaf.mean(0, dtype=np.float64).astype(np.float32).tolist() for leaf in grown)
        np.testing.assert_allclose(by_place, expected, rtol=1e-5)
    with pytest.raises(UsageError, match="distinct images, fewer than --ipc 3"):
        leaves(np.repeat(latents[:2], 5, axis=0), 3, seed=1)


def test_without_its_terms_it_is_the_plain_prior(
    make_task: Any, random_images: Any, make_prior: Callable[..., Path], memory_cache: Any
) -> None:
    prior = Prior.load(find_prior(make_prior()))

    def images(**params: Any) -> np.ndarray:
        task = make_task(random_images(CLASSES), CLASSES, prior=prior, cache=memory_cache, ipc=2)
        method = ManifoldGD(ManifoldGD.Params(steps=6, **params))
        method.prepare(task)
        return np.stack([image.pixels for made in method.distill(task) for image in made])

    from ddbench.methods.mgd3.method import MGD3

    task = make_task(random_images(CLASSES), CLASSES, prior=prior, cache=memory_cache, ipc=2)
    plain = MGD3(MGD3.Params(steps=6, guidance_scale=0))
    plain.prepare(task)
    expected = np.stack([image.pixels for made in plain.distill(task) for image in made])
    off = images(guidance_scale=0, manifold_scale=0)
    assert np.abs(off.astype(int) - expected).max() <= 1
    assert not np.array_equal(images(manifold_scale=0), off)
    assert not np.array_equal(images(), images(manifold_scale=0)), "the manifold term moves images"
