"""Latents of real images for priors with an autoencoder, and clustering side by side."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.datasets.base import ArraySource
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion import latents
from ddbench.methods.diffusion.ahead import Ahead
from ddbench.methods.diffusion.clustering import kmeans
from ddbench.methods.diffusion.latents import class_latents, kept_latents, real_images
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.dmgd.method import DMGD
from ddbench.methods.dmgd.support import class_supports

CLASSES = ("n02096294", "n02093754", "n02111889")


@pytest.fixture(scope="module")
def prior() -> Prior:
    return Prior.load(find_prior("random:tiny"))


@pytest.fixture
def task(make_task: Any, random_images: Callable[..., ArraySource], prior: Prior, tmp_path: Path) -> DistillTask:
    """A run at 8 px with a prior at 16 px, whose images come from `train_at`."""
    own = random_images(CLASSES, image_size=8, channels=3)
    at_16 = random_images(CLASSES, image_size=16, channels=3)

    def train_at(image_size: int, resize: str = "bilinear") -> ArraySource:
        assert (image_size, resize) == (16, "adm")
        return at_16

    task = make_task(own, CLASSES, prior=prior, batch_size=5)
    meter = Meter(torch.device("cpu"), tmp_path / "spent.json")
    return replace(task, train_at=train_at, cache=DiskArtefacts(tmp_path / "artefacts", meter), phase=meter.phase)


def cost_of(task: DistillTask) -> Any:
    assert isinstance(task.cache, DiskArtefacts)
    return task.cache.meter.cost(batch_size=1, threads=1)


def test_latents_are_of_the_priors_own_images_in_float16_with_their_error(task: DistillTask, prior: Prior) -> None:
    images = real_images(task, prior).read(task.train.of_class(1))
    exact = torch.cat([prior.encode(images[start : start + 5])[0] for start in (0, 5, 10)]).numpy()
    made = class_latents(task, prior, 1)
    np.testing.assert_array_equal(made, exact.astype(np.float16).astype(np.float32))
    kept = kept_latents(task, prior, 1)
    assert isinstance(kept, np.memmap)
    assert kept.dtype == np.float16
    np.testing.assert_array_equal(kept, made)
    measured = cost_of(task).measured
    assert measured["latents_float16_error_max"] == pytest.approx(np.abs(made - exact).max(), rel=1e-6)
    assert measured["latents_float16_error_rms"] == pytest.approx(np.sqrt(((made - exact) ** 2).mean()), rel=1e-5)
    assert 0 < measured["latents_float16_error_max"] <= np.abs(exact).max() * 2**-11

    # A later cell finds latents and error.
    later = DiskArtefacts(task.cache.root, Meter(torch.device("cpu"), task.scratch / "later.json"))  # type: ignore[attr-defined]
    class_latents(replace(task, cache=later), prior, 1)
    cost = later.meter.cost(batch_size=1, threads=1)
    assert cost.measured == measured
    (phase,) = cost.phases
    assert (phase.name, phase.seconds) == ("latents", 0)
    assert phase.cold_seconds is not None
    assert phase.cold_seconds > 0


def test_latents_are_named_by_the_images_content(task: DistillTask, prior: Prior) -> None:
    class Named(ArraySource):
        def class_sha256(self, class_index: int) -> str:
            return f"content of class {class_index}"

    source = real_images(task, prior)
    named = Named(source.read(np.arange(len(source))), source.labels, source.names)
    here = replace(task, train_at=lambda image_size, resize: named, train_hash="at 8 px")
    there = replace(here, train_hash="the same files in a run at 12 px")
    assert latents.latents_key(here, prior, 1, "mean") == latents.latents_key(there, prior, 1, "mean")
    assert latents.latents_key(here, prior, 1, "mean") != latents.latents_key(here, prior, 2, "mean")
    assert latents.latents_key(here, prior, 1, "mean") != latents.latents_key(here, prior, 1, "mean", "vae_ema")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_latents_that_float16_cannot_hold_are_refused(
    task: DistillTask, prior: Prior, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(prior, "encode", lambda images, encoder: (torch.full((len(images), 4, 8, 8), value), None))
    with pytest.raises(RunError, match="class n02093754 has latents that are not finite, or beyond float16"):
        class_latents(task, prior, 1)


def test_a_pixel_priors_latents_keep_every_level(make_task: Any, make_prior: Any) -> None:
    """All 256 levels come back from float32; float16 shifts them by up to 2.4e-4, so it is not used there."""
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    train = ArraySource(levels, np.zeros(4, np.int64), [f"a/{i}.png" for i in range(4)])
    prior = Prior.load(find_prior(make_prior()))
    kept = kept_latents(make_task(train, ("a",), prior=prior), prior, 0)
    assert kept.dtype == np.float32
    exact = np.arange(256) / 127.5 - 1
    assert np.abs(kept.reshape(-1) - exact).max() < 1e-7
    assert np.abs(exact.astype(np.float16) - exact).max() == pytest.approx(2.4e-4, rel=0.05)
    np.testing.assert_array_equal(((kept + 1) * 127.5).round().reshape(levels.shape), levels)


def test_classes_side_by_side_are_the_same_as_in_a_loop() -> None:
    rng = np.random.default_rng(0)
    data = {key: rng.normal(size=(300, 24)).astype(np.float32) for key in range(7)}
    loop = {key: kmeans(data[key], 6, init="k-means++", seed=key) for key in data}
    for threads in (1, 2, 5):
        loaded: list[int] = []

        def load(key: int, loaded: list[int] = loaded) -> np.ndarray:
            loaded.append(key)
            return data[key]

        def work(key: int, latents: np.ndarray) -> dict[str, np.ndarray]:
            points, masses = kmeans(latents, 6, init="k-means++", seed=key)
            return {"points": points, "masses": masses}

        with Ahead(load, work, list(data), threads) as ahead:
            made = {key: ahead(key) for key in (0, 1, 2, 4, 5, 6)}  # 3 was cached
        assert len(loaded) == len(set(loaded))
        for key, found in made.items():
            np.testing.assert_array_equal(found["points"], loop[key][0])
            np.testing.assert_array_equal(found["masses"], loop[key][1])
            assert found.seconds is not None


def test_nothing_is_worked_out_that_nobody_asks_for() -> None:
    with Ahead(lambda key: pytest.fail("loaded"), lambda key, loaded: {}, [1, 2, 3], 2):
        pass


def test_an_artefact_that_is_worked_out_ahead_is_named_by_the_file_that_works_it_out(tmp_path: Path) -> None:
    """An author who edits that file must not get what it made before; this module is such a file."""
    cache = DiskArtefacts(tmp_path, Meter(torch.device("cpu"), tmp_path / "spent.json"))
    with Ahead(lambda key: np.zeros(1), lambda key, loaded: {"key": np.array([key])}, [1]) as ahead:
        cache.arrays("support", {"class": 1}, partial(ahead, 1))
    (noted,) = tmp_path.glob("support/*/artefact.json")
    assert json.loads(noted.read_bytes())["key"]["made by"] == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def test_an_error_belongs_to_the_class_that_has_it() -> None:
    def work(key: int, loaded: np.ndarray) -> dict[str, np.ndarray]:
        if key == 2:
            raise UsageError("too few images")
        return {"key": np.array([key])}

    with Ahead(lambda key: np.zeros(1), work, [1, 2, 3], 3) as ahead:
        assert ahead(1)["key"] == 1
        with pytest.raises(UsageError, match="too few images"):
            ahead(2)
        assert ahead(3)["key"] == 3


def test_phases_of_a_cold_and_a_cached_cell(task: DistillTask) -> None:
    """Both phases are seen; what a later cell finds has the seconds that it took, summed over classes."""
    params = DMGD.Params(support_points=3)
    begun = time.perf_counter()
    first = class_supports(task, params, task.class_indices)
    took = time.perf_counter() - begun
    cold = {phase.name: phase.seconds for phase in cost_of(task).phases}
    assert set(cold) == {"latents", "support"}
    later = DiskArtefacts(task.cache.root, Meter(torch.device("cpu"), task.scratch / "later.json"))  # type: ignore[attr-defined]
    second = class_supports(replace(task, cache=later), params, task.class_indices)
    cost = later.meter.cost(batch_size=1, threads=1)
    assert all(phase.seconds == 0 for phase in cost.phases)
    for name in ("latents", "support"):
        cached = [phase.cold_seconds or 0 for phase in cost.phases if phase.name == name]
        assert len(cached) == 3
        # Classes are worked out beside one another, by threads: together they may have taken longer than the phase.
        assert all(0 < seconds <= took for seconds in cached)
        if name == "latents":
            assert sum(cached) <= cold[name] + 1e-3
    for c in task.class_indices:
        np.testing.assert_array_equal(first[c]["points"], second[c]["points"])
