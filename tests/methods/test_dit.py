"""The tuned plain prior: `dit`'s images, at a scale that the dataset states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.planning.contestants import contestants
from ddbench.datasets.digits import Digits
from ddbench.methods.base import DistilledImage, Method
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.dit import TunedDiT

CLASSES = ("a", "b", "c")


def distill(method: Method, task: Any) -> dict[tuple[int, int], DistilledImage]:
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


def test_at_the_same_scale_the_images_are_dits(
    make_prior: Callable[..., Path], make_task: Any, random_images: Any
) -> None:
    prior = Prior.load(find_prior(make_prior()))
    task = make_task(random_images(CLASSES), CLASSES, ipc=2, prior=prior)
    entry, method = METHODS.entry("dit"), METHODS.load("dit")
    plain = distill(method(method.Params(**entry.overrides, steps=5, cfg_scale=2.5)), task)
    # Other batches, as dit's hold one image of a class at a time.
    tuned = distill(TunedDiT(TunedDiT.Params(steps=5, cfg_scale=2.5)), task)
    assert tuned.keys() == plain.keys()
    for key, image in plain.items():
        np.testing.assert_allclose(tuned[key].latent, image.latent, rtol=0, atol=1e-5)
        assert tuned[key].guidance_nats == {}


def test_the_dataset_states_the_scale() -> None:
    (here,) = contestants("dit-tuned", Digits, {}, set())
    assert here.spec.params["cfg_scale"] == Digits.method_defaults["dit-tuned"]["cfg_scale"].value == 3.0
    assert here.method(here.method.Params(**here.spec.params)).supports(Digits, 1) is None


def test_without_a_tuned_scale_it_says_so() -> None:
    class Untuned(Digits):
        name = "untuned"
        method_defaults = {}  # noqa: RUF012 - the contract's class attribute

    assert "no CFG scale has been tuned on untuned's validation part" in (TunedDiT().supports(Untuned, 1) or "")
    assert TunedDiT(TunedDiT.Params(cfg_scale=2)).supports(Untuned, 1) is None
