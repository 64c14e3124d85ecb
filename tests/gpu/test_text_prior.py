"""Text-to-image priors on a pretend GPU: no tensor of the host meets the device's, and no step waits for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pretend
import pytest
import torch
from text_pipelines import text_prior

from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.check import subject_of
from ddbench.benchmark.check.comparison import expect_close, latent_tolerance
from ddbench.benchmark.check.runs import Images
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.registry import METHODS
from ddbench.datasets.digits import Digits
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.sampler import sample

CUDA = torch.device("cuda", 0)


@pytest.fixture(params=[False, True], ids=["sd", "sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    side = Digits.resolution // 2
    return text_prior(tmp_path / "prior", Digits.class_ids, xl=request.param, channels=1, side=side)


@pytest.mark.parametrize("name", ["dit", "dmgd"])
def test_it_makes_the_images_that_the_cpu_makes(folder: Path, name: str, tmp_path: Path) -> None:
    planted = Planted()

    def images_on(device: str) -> Images:
        with subject_of(name, {"steps": 8}, planted) as subject:
            subject.runs.prior, subject.runs.device = str(folder), torch.device(device)
            return subject.runs.run(classes=(0, 7))

    expected = images_on("cpu")
    with pretend.gpu() as seen:
        made = images_on("cuda:0")
    expect_close(made, expected, latent_tolerance(METHODS.load(name)), "on the GPU")
    assert seen.events, "it ran there"


def test_a_step_does_not_wait(folder: Path) -> None:
    def waits(steps: int) -> int:
        with pretend.gpu() as seen:
            prior = Prior.load(find_prior(folder), device=CUDA)
            images = [ImageKey(Digits.class_ids[0], index) for index in range(2)]
            noise = StreamNoise(partial(seeds.stream, 0), images)
            sample(prior, images, [], noise, steps=steps, cfg_scale=4.0)
        return seen.waits()

    assert waits(9) == waits(4)
