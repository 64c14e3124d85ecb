"""Samplers on the linear path against Gaussians, for which velocity, score and the ends of ODE and SDE are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.flow_sampler import Guided, flow_ode, flow_sde
from ddbench.methods.diffusion.linear_path import alpha_bar_at, chain_position, path_time, scale_at
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.schedule import alpha_bar

MEAN, STD = 0.7, 0.4


class OfGaussian(Guided):
    """The velocity of x₁ ~ N(MEAN, STD²): E[x₁ − ε | x_t]."""

    def __init__(self) -> None:
        pass

    def halves(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        variance = t**2 * STD**2 + (1 - t) ** 2
        centred = (x - t * MEAN) / variance
        v = MEAN + (t * STD**2 - (1 - t)) * centred
        return v, v


def normal(n: int) -> Tensor:
    return torch.randn(n, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_ode_carries_each_quantile_to_its_own() -> None:
    """x_1 = MEAN + STD·x_0, exactly."""
    start = normal(200)
    for solver, points, close in (("euler", 2001, 2e-3), ("dopri5", 2, 5e-3)):
        end = flow_ode(OfGaussian(), start, torch.linspace(0, 1, points, dtype=torch.float64), solver)  # type: ignore[arg-type]
        torch.testing.assert_close(end, MEAN + STD * start, rtol=0, atol=close)


def test_the_sde_ends_in_the_target() -> None:
    n = 20_000
    draws = torch.Generator().manual_seed(1)
    times = torch.linspace(0, 0.96, 250, dtype=torch.float64)

    def noise(step: int) -> Tensor:
        return torch.randn(n, 1, 1, 1, generator=draws, dtype=torch.float64)

    end = flow_sde(OfGaussian(), normal(n), times, noise).flatten()
    # Four standard errors, and what steps of this length and a last one without noise leave.
    assert end.mean() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(n) + 5e-3)
    assert end.std() == pytest.approx(STD, abs=4 * STD / math.sqrt(2 * n) + 1e-2)


def test_the_path_and_the_chain_are_one_corruption() -> None:
    levels = torch.tensor([0.9999, 0.5, 4e-5], dtype=torch.float64)
    for level, t in zip(levels.tolist(), path_time(levels).tolist(), strict=True):
        assert alpha_bar_at(t) == pytest.approx(level, rel=1e-12)
        scale = float(scale_at(torch.tensor(t, dtype=torch.float64)))
        assert (t / scale, (1 - t) / scale) == (pytest.approx(level**0.5), pytest.approx((1 - level) ** 0.5))


def test_a_place_between_timesteps() -> None:
    table = alpha_bar(NoiseScheduleMetadata())
    for t in (0, 1, 500, 999):
        assert chain_position(table, float(table[t])) == pytest.approx(t, abs=1e-6)
    between = chain_position(table, float((table[500] * table[501]).sqrt()))
    assert 500 < between < 501
    assert chain_position(table, 1 - 1e-9) == 0
    assert chain_position(table, 1e-9) == 999


def test_a_prior_of_noise_gives_its_velocity(make_prior: Callable[..., Path]) -> None:
    """v = x₁ − ε with the network's own ε, at a timestep of its schedule."""
    prior = Prior.load(find_prior(make_prior()))
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = prior.embed_labels(torch.tensor([0, 2]))
    level = alpha_bar(prior.metadata.schedule)[300]
    t = float(path_time(level))
    with torch.no_grad():
        epsilon, _ = prior.predict(x, 300, label)
        clean = (x - (1 - level) ** 0.5 * epsilon) / level**0.5
        on_path = x * prior.path_scale(t)
        torch.testing.assert_close(prior.velocity(on_path, t, label), clean - epsilon, rtol=1e-3, atol=1e-4)


def test_a_prior_of_velocities_runs_ddpms_chain(make_prior: Callable[..., Path]) -> None:
    """Every method's sampler takes it; timesteps one by one and in a batch are the same."""
    folder = make_prior(prediction="velocity", clip_denoised=False)
    prior = Prior.load(find_prior(folder))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = prior.embed_labels(torch.tensor([0, 1, 2]))
    timesteps = [10, 400, 990]
    with torch.no_grad():
        together, variance = prior.predict(x, torch.tensor(timesteps), label)
        alone = [prior.predict(x[i : i + 1], t, label[i : i + 1])[0] for i, t in enumerate(timesteps)]
    assert variance is None
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_what_no_prior_of_velocities_is(make_prior: Callable[..., Path]) -> None:
    with pytest.raises(ValidationError, match="predicts no variance"):
        make_prior(prediction="velocity", learned_variance=True)
    folder = make_prior(prediction="velocity", dropped_channels=1, name="eight")
    with pytest.raises(UsageError, match="and dropped_channels 1, which needs out_channels = 2"):
        find_prior(folder)
