"""The respaced schedule against closed forms and diffusers' scheduler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.schedule import alpha_bar, respace

SCHEDULE = NoiseScheduleMetadata()


def test_fifty_steps_are_the_published_ones() -> None:
    timesteps = respace(SCHEDULE, 50).timesteps.tolist()
    assert timesteps[:5] == [0, 20, 41, 61, 82]
    assert timesteps[25:27] == [510, 530]
    assert [timesteps[k] for k in (30, 34, 45, 48, 49)] == [612, 693, 917, 979, 999]


@pytest.mark.parametrize("steps", [2, 30, 50, 250, 1000])
def test_timesteps_and_alpha_bar_are_diffusers(steps: int) -> None:
    scheduler = DDPMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    chain = respace(SCHEDULE, steps)
    assert chain.timesteps.flip(0).tolist() == scheduler.timesteps.tolist()
    np.testing.assert_allclose(chain.alpha_bar, scheduler.alphas_cumprod[chain.timesteps], rtol=1e-4)


def test_tables_are_the_closed_forms() -> None:
    beta = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    signal = [math.prod(1 - b for b in beta[: t + 1]) for t in range(1000)]
    np.testing.assert_allclose(alpha_bar(SCHEDULE), signal, rtol=1e-10)
    chain = respace(SCHEDULE, 50)
    for k in (1, 7, 30, 49):
        now, before = (signal[round(j * 999 / 49)] for j in (k, k - 1))
        respaced = 1 - now / before
        tilde = respaced * (1 - before) / (1 - now)
        assert chain.log_beta[k].item() == pytest.approx(math.log(respaced))
        assert chain.log_beta_tilde[k].item() == pytest.approx(math.log(tilde))
        # The posterior mean of q(z_{k-1} | z_k, x0) reproduces the marginals: the coefficients' defining property.
        assert chain.mean_x0[k] + chain.mean_z[k] * math.sqrt(now) == pytest.approx(math.sqrt(before))
        assert chain.mean_z[k] ** 2 * (1 - now) + tilde == pytest.approx(1 - before)


def test_last_step_returns_x0_and_borrows_its_variance() -> None:
    chain = respace(SCHEDULE, 50)
    assert chain.mean_x0[0] == pytest.approx(1)
    assert chain.mean_z[0] == 0
    assert chain.log_beta[0].item() == pytest.approx(math.log(1e-4))
    assert chain.log_beta_tilde[0] == chain.log_beta_tilde[1]
    for table in (chain.log_beta, chain.log_beta_tilde, chain.mean_x0, chain.mean_z):
        assert table.dtype == torch.float64
        assert table.isfinite().all()


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_impossible_lengths_are_refused(steps: int) -> None:
    with pytest.raises(UsageError, match="2 … 1000 steps"):
        respace(SCHEDULE, steps)
