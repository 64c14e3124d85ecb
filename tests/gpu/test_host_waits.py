"""How often the host may wait for a GPU: a budget, counted on a pretend one, and held.

A wait lets the device run dry. What one more step or epoch costs is the difference between a longer and a shorter run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pretend
import pytest
import torch
from short_trainings import shortened, teacher_of

from ddbench.benchmark.cells.classifiers import train_classifier
from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.check import subject_of
from ddbench.benchmark.check.runs import SmallRuns
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.lengths import Updates
from ddbench.benchmark.protocols.trainer import train_student
from ddbench.datasets import whitening
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.methods.base import ArtefactCache, DistillTask
from ddbench.methods.classifier import ClassifierRecipe
from ddbench.methods.d3hr.groups import best_group
from ddbench.methods.diffusion.latents import Posterior, kept_latents
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.training import PriorTraining, train_prior
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.minimax import tune

CUDA = torch.device("cuda", 0)

WAITS = {
    "a sampler's step": 0,
    "a step guided by both terms of DMGD": 1,  # POT reads its error; methods/dmgd/distribution.py
    "a step guided by both terms of IGD, for the whole batch": 0,
    "an optimiser step of Minimax": 0,
    "25 of them: the look at their losses": 1,
    "a refinement step of CaO2": 0,
    "a block of D3HR's groups": 0,
    "an iteration of DM": 0,
    "a step that inverts a classifier": 0,
    "a step of a training that is recorded": 0,
    "a batch of real images that is encoded": 0,
    "a step of training a prior, for the step before": 1,
    "a training step": 0,
    "an epoch": 1,
    "a look at the test images, beside its epoch's": 1,
}
"""What may not be exceeded, and is not fallen short of: who saves a wait writes it down."""

Counted = Callable[[int], pretend.Seen]


def waits_of_one_more(run: Callable[[int], object], short: int, long: int, per: int = 1) -> float:
    def waits(length: int) -> int:
        with pretend.gpu() as seen:
            run(length)
        return seen.waits()

    return (waits(long) - waits(short)) / ((long - short) // per)


def plain(steps: int) -> object:
    images = [ImageKey(class_id, 0) for class_id in Digits.class_ids]
    prior = Prior.load(find_prior("digits"), device=CUDA)
    noise = StreamNoise(partial(seeds.stream, 0), images)
    return sample(prior, images, [], noise, steps=steps, cfg_scale=4.0)


def test_a_sampler() -> None:
    assert waits_of_one_more(plain, 4, 8) == WAITS["a sampler's step"]


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture
def distill(planted: Planted, tmp_path: Path) -> Callable[..., None]:
    """Runs a method on two classes, IPC 2, with artefacts that runs of equal `artefacts` share."""
    count = iter(range(100))

    def run(name: str, artefacts: str, given: Mapping[str, Any]) -> None:
        with subject_of(name, given, planted) as subject:
            runs = SmallRuns(subject.method, subject.params, planted, tmp_path, device="cuda:0")
            runs.run(classes=(0, 7), artefacts=artefacts, cell=str(next(count)))

    return run


def test_dmgd(distill: Any) -> None:
    """Two rounds of a class, guided at all steps: one step more is one in each."""

    def run(steps: int) -> None:
        distill("dmgd", "shared", {"steps": steps, "ot_window_first": 0, "ot_window_last": steps - 1})

    run_once(run, 4)
    assert waits_of_one_more(run, 4, 8) == 2 * WAITS["a step guided by both terms of DMGD"]


def run_once(run: Callable[[int], object], length: int) -> None:
    """So that what later runs share is there."""
    with pretend.gpu():
        run(length)


def test_igd(distill: Any) -> None:
    def run(steps: int) -> None:
        window = {"window_first": 0, "window_last": steps - 1}
        distill(
            "igd", "shared", {"steps": steps, "checkpoints": "0", "real_images": 2, "deviation_scale": 50.0, **window}
        )

    run_once(run, 2)
    assert waits_of_one_more(run, 2, 4) == WAITS["a step guided by both terms of IGD, for the whole batch"]


def test_minimax(distill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(tuning_steps: int) -> None:
        distill("minimax", "shared", {"steps": 2, "tuning_steps": tuning_steps, "tuning_batch": 4})

    assert waits_of_one_more(run, 2, 5) == WAITS["an optimiser step of Minimax"]
    monkeypatch.setattr(tune, "REPORT_STEPS", 4)
    assert waits_of_one_more(run, 3, 7, per=4) == WAITS["25 of them: the look at their losses"]


def test_cao2(distill: Any) -> None:
    def run(refine_steps: int) -> None:
        distill("cao2", "shared", {"steps": 3, "pool": 1, "epochs": 1, "refine_steps": refine_steps})

    run_once(run, 1)
    assert waits_of_one_more(run, 2, 6) == WAITS["a refinement step of CaO2"]


def test_d3hr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddbench.methods.d3hr.groups.BLOCK_NUMBERS", 2 * 8)

    def run(blocks: int) -> None:
        mean, std = torch.zeros(8, device=CUDA), torch.ones(8, device=CUDA)
        best_group(partial(seeds.stream, 0, "group"), mean, std, size=2, groups=blocks, skew_weight=0.5)

    assert waits_of_one_more(run, 3, 9) == WAITS["a block of D3HR's groups"]


def test_dm(distill: Any) -> None:
    """With images, augmentation and a network of its own, each of which comes from the host."""

    def run(iterations: int) -> None:
        distill("dm", "shared", {"iterations": iterations, "network_image_size": 8})

    run_once(run, 1)
    assert waits_of_one_more(run, 2, 6) == WAITS["an iteration of DM"]


def test_sre2l(distill: Any) -> None:
    def run(steps: int) -> None:
        distill("sre2l", "shared", {"steps": steps, "epochs": 1})

    run_once(run, 1)
    assert waits_of_one_more(run, 1, 3) == WAITS["a step that inverts a classifier"]  # a step takes a second


def test_wmdd(distill: Any) -> None:
    """Which looks at the classes of a batch one by one, at features and at points."""

    def run(steps: int) -> None:
        distill("wmdd", "shared", {"steps": steps, "epochs": 1})

    run_once(run, 1)
    assert waits_of_one_more(run, 1, 3) == WAITS["a step that inverts a classifier"]  # a step takes a second


def test_a_recorded_training() -> None:
    """Of a coreset's classifier, whose outputs are looked at in every step."""
    recipe = ClassifierRecipe(
        network="convnet3", image_size=8, epochs=1, batch_size=4, augmentation="none", mean=(0.5,), std=(0.5,),
        records_dynamics=True,
    )  # fmt: skip

    def run(steps: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (4 * steps, 8, 8, 1), np.uint8)
        images = ArraySource(pixels, np.arange(4 * steps) % 4, [""] * 4 * steps)
        train_classifier(recipe, images, withheld=np.array([], int), num_classes=4, device=CUDA)

    assert waits_of_one_more(run, 2, 6) == WAITS["a step of a training that is recorded"]


class NothingKept(ArtefactCache):
    def arrays(self, kind: str, key: Mapping[str, Any], make: Callable[[], Any]) -> Mapping[str, np.ndarray]:
        return make()  # type: ignore[no-any-return]


@pytest.mark.parametrize("posterior", ["mean", "sample"])
def test_real_images(posterior: Posterior, tmp_path: Path) -> None:
    """Through an autoencoder; another thread reads the next batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    train = ArraySource(pixels, np.zeros(12, np.int64), [f"{i}.png" for i in range(12)])
    nothing: Any = None

    def run(batches: int) -> None:
        prior = Prior.load(find_prior("random:tiny"), device=CUDA)
        task = DistillTask(
            class_ids=("n01440764",), class_indices=(0,), ipc=1, seed=0, train=train, train_hash="noise", device=CUDA,
            precision="fp32", batch_size=12 // batches, scratch=tmp_path, done={}, load_prior=nothing,
            cache=NothingKept(), phase=nothing, progress=lambda note: None,
            train_at=lambda image_size, resize="": train,
        )  # fmt: skip
        kept_latents(task, prior, 0, posterior)

    assert waits_of_one_more(run, 2, 4) == WAITS["a batch of real images that is encoded"]


def test_a_priors_training(tmp_path: Path) -> None:
    split = Digits().load("default", None, 8)

    def run(steps: int) -> None:
        settings = PriorTraining(hidden=8, heads=2, layers=1, batch=4, steps=steps, warmup_steps=1)
        out = tmp_path / f"{steps} steps"
        train_prior(split, Digits.class_ids, settings, out, seed=0, trained_on="digits", device=CUDA)

    assert waits_of_one_more(run, 2, 6) == WAITS["a step of training a prior, for the step before"]


def trained(protocol: Protocol, images: int) -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 16, 16, protocol.channels or 1), np.uint8) for n in (images, 10))
    labels, zca = np.arange(images) % 10, None
    if protocol.whitening is not None:
        zca = whitening.fit(ArraySource(test, labels[:10], [""] * 10), protocol.whitening.epsilon)
    soft_labels = None if protocol.stored is None else rng.standard_normal((images, 10)).astype(np.float32)
    train_student(
        protocol, "convnet3", train, labels, test, labels[:10], num_classes=10, ipc=1, seed=0, device=CUDA,
        teacher=teacher_of(protocol, CUDA), zca=zca, soft_labels=soft_labels,
    )  # fmt: skip


@pytest.mark.parametrize("name", [entry.name for entry in PROTOCOLS])
def test_a_student(name: str) -> None:
    def steps(count: int) -> None:
        trained(shortened(name, epochs=1, updates=count), images=8 * count)

    def epochs(count: int) -> None:
        trained(shortened(name, epochs=count), images=20)

    def looks(count: int) -> None:
        trained(shortened(name, epochs=8, looks=count), images=20)

    assert waits_of_one_more(steps, 2, 4) == WAITS["a training step"]
    in_updates = isinstance(PROTOCOLS.load(name).epochs, Updates)  # a hundred of them are an epoch
    assert waits_of_one_more(epochs, 2, 4) == (0 if in_updates else WAITS["an epoch"])
    if name == "quick":
        assert waits_of_one_more(looks, 2, 4) == WAITS["a look at the test images, beside its epoch's"]
