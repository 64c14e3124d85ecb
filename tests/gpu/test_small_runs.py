"""Every registered method on a pretend GPU: no tensor of the host meets the device's, and the images are the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pretend
import pytest
from few_steps import few_steps

from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.check import subject_of
from ddbench.benchmark.check.comparison import expect_close, latent_tolerance
from ddbench.benchmark.check.runs import SmallRuns
from ddbench.benchmark.core.registry import METHODS

NAMES = [entry.name for entry in METHODS if "small" not in entry.tags]
"""A small budget differs from its method in what small runs make small."""
CLASSES = (0, 7)
WITHOUT_THE_NETWORK = {"coda-real", "mgd3-modes"}
"""They keep real latents, or decode what they would draw images towards."""
PRIORS_NETWORKS = (
    "methods/diffusion/network.py", "methods/diffusion/prior.py", "methods/minimax/difffit.py",
    "methods/minimax/tune.py", "methods/cao2/refinement.py", "methods/igd/influence.py",
)  # fmt: skip
"""Where products of matrices may be TF32: passes through a prior's networks, and gradients back through them."""
OF_GRADIENTS = {"_step", "refine", "_above", "_below"}
"""The functions of the last three that pass gradients back."""


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of all methods find each other's classifiers and tuned priors."""
    return tmp_path_factory.mktemp("runs")


def images_on(device: str, name: str, planted: Planted, root: Path) -> Any:
    with subject_of(name, few_steps(name), planted) as subject:
        tuned_by = subject.entry.prior_tuned_by
        runs = SmallRuns(subject.method, subject.params, planted, root / device, tuned_by, device=device)
        return runs.run(classes=CLASSES, cell=name)


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_the_images_that_the_cpu_makes(name: str, planted: Planted, shared: Path) -> None:
    expected = images_on("cpu", name, planted, shared)
    with pretend.gpu() as seen:
        made = images_on("cuda:0", name, planted, shared)
    expect_close(made, expected, latent_tolerance(METHODS.load(name)), "on the GPU")
    if METHODS.load(name).needs_prior:
        assert seen.events, "it ran there"
        assert bool(seen.tf32) == (name not in WITHOUT_THE_NETWORK), "as the samplers of the papers"
    places = [place.partition(":") for place in seen.tf32]
    assert {file for file, _, _ in places} <= set(PRIORS_NETWORKS), "formulas have all digits"
    assert {at.split()[1] for file, _, at in places if file in PRIORS_NETWORKS[3:]} <= OF_GRADIENTS
