"""DMGD as a method: batches and the order of classes change no image, and a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import ArraySource
from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.batches import Batch
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.dmgd.method import DMGD
from ddbench.methods.dmgd.terms import semantic_matching

CLASSES = ("a", "b", "c", "d", "e")
Images = dict[tuple[int, int], DistilledImage]
# Few steps, and transport strong enough that a wrong order of the greedy loop would show.
SETTINGS: dict[str, Any] = {"steps": 12, "cfg_scale": 2.0, "ot_scale": 20.0, "support_points": 4}


@pytest.fixture
def prior(make_prior: Callable[..., Path]) -> Prior:
    # Labels of the prior in another order than the dataset's: they are looked up by id.
    return Prior.load(find_prior(make_prior(("x", "e", "d", "c", "b", "a"))))


@pytest.fixture
def run(
    prior: Prior, make_task: Callable[..., DistillTask], random_images: Callable[..., ArraySource]
) -> Callable[..., Images]:
    def run_method(settings: dict[str, Any] | None = None, *, keep: int | None = None, **given: Any) -> Images:
        """The images of a task, or those of its first `keep` rounds."""
        method = DMGD(DMGD.Params(**(SETTINGS | (settings or {}))))
        task = make_task(random_images(CLASSES), CLASSES, prior=prior, **({"ipc": 3} | given))
        method.prepare(task)
        images: Images = {}
        for count, finished in enumerate(method.distill(task)):
            if count == keep:
                break
            for image in finished:
                assert (image.class_index, image.image_index) not in images
                images[image.class_index, image.image_index] = image
        return images

    return run_method


def assert_same(first: Images, second: Images) -> None:
    for key in first.keys() & second.keys():
        np.testing.assert_allclose(first[key].latent, second[key].latent, rtol=0, atol=1e-4)
        assert first[key].guidance_nats == pytest.approx(second[key].guidance_nats, rel=1e-3)


@pytest.mark.parametrize("greedy", [True, False])
def test_batches_and_classes_change_no_image(run: Callable[..., Images], greedy: bool) -> None:
    settings = {"greedy": greedy}
    reference = run(settings)
    assert reference.keys() == {(c, i) for c in range(5) for i in range(3)}
    for batch_size in (1, 2, 4, 7):
        other = run(settings, batch_size=batch_size)
        assert other.keys() == reference.keys()
        assert_same(other, reference)
    shuffled = run(settings, classes=[3, 0, 4, 1, 2], batch_size=3)
    assert shuffled.keys() == reference.keys()
    assert_same(shuffled, reference)
    subset = run(settings, classes=[4, 1])
    assert subset.keys() == {(c, i) for c in (1, 4) for i in range(3)}
    assert_same(subset, reference)


def test_a_larger_ipc_starts_with_a_smaller_ones_images(run: Callable[..., Images]) -> None:
    assert_same(run(ipc=1), run(ipc=3))
    # Jointly optimised images depend on each other.
    one, three = run({"greedy": False}, ipc=1), run({"greedy": False}, ipc=3)
    assert np.abs(one[0, 0].latent - three[0, 0].latent).max() > 1e-3


def test_images_are_what_their_latents_decode_to(run: Callable[..., Images], prior: Prior) -> None:
    for image in run(ipc=1).values():
        assert image.pixels.shape == (8, 8, 1)
        assert image.pixels.dtype == np.uint8
        assert image.latent.dtype == np.float32
        np.testing.assert_array_equal(prior.decode(torch.from_numpy(image.latent[None]))[0], image.pixels)


@pytest.mark.parametrize("batch_size", [2, 5])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_stopped_run_goes_on(run: Callable[..., Images], greedy: bool, batch_size: int) -> None:
    settings = {"greedy": greedy}
    whole = run(settings, batch_size=batch_size)
    for rounds in (0, 1, 2, 4):
        begun = run(settings, batch_size=batch_size, keep=rounds)
        rest = run(settings, batch_size=batch_size, done=list(begun.values()))
        assert not begun.keys() & rest.keys()
        assert begun.keys() | rest.keys() == whole.keys()
        for key, image in (begun | rest).items():
            np.testing.assert_array_equal(image.latent, whole[key].latent)
            np.testing.assert_array_equal(image.pixels, whole[key].pixels)


def test_uneven_progress_of_classes_goes_on_too(run: Callable[..., Images]) -> None:
    whole = run()
    done = [whole[key] for key in [(0, 0), (0, 1), (1, 0), (3, 0), (3, 1), (3, 2)]]
    rest = run(done=done)
    assert rest.keys() == whole.keys() - {(image.class_index, image.image_index) for image in done}
    assert_same(rest, whole)


def test_seeds_give_other_images(run: Callable[..., Images]) -> None:
    first, second = run(ipc=1, seed=0), run(ipc=1, seed=1)
    assert all(np.abs(first[key].latent - second[key].latent).max() > 0.1 for key in first)


def test_each_part_does_something_and_reports_it(run: Callable[..., Images]) -> None:
    plain = {"semantic_matching": False, "distribution_matching": False}
    dit, both = run(plain, ipc=1), run(ipc=1)
    semantic, distribution = (run({part: False}, ipc=1) for part in ("distribution_matching", "semantic_matching"))
    pairs = [(dit, semantic), (dit, distribution), (semantic, both), (distribution, both)]
    for first, second in pairs:
        assert min(np.abs(first[key].latent - second[key].latent).max() for key in first) > 1e-3
    for images, terms in ((dit, set()), (semantic, set()), (distribution, {"transport"}), (both, {"transport"})):
        assert all(image.guidance_nats.keys() == terms for image in images.values())
    assert all(image.guidance_nats["transport"] > 0 for image in both.values())


def test_weight_zero_is_no_transport(run: Callable[..., Images]) -> None:
    off, zero = run({"distribution_matching": False}), run({"ot_scale": 0.0})
    for key, image in zero.items():
        np.testing.assert_allclose(image.latent, off[key].latent, rtol=0, atol=1e-6)
        assert image.guidance_nats == {"transport": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {"support": "mean"},
        {"support": "density"},
        {"support_init": "random"},
        {"support_latents": "sample"},
        {"support_points": 2},
        {"ot_gradient": "envelope"},
        {"ot_sigma": False},
        {"ot_epsilon": 0.02},
        {"ot_iterations": 1},
        {"ot_window_first": 0, "ot_window_last": 11},
        {"greedy": False},
        {"label_noise": "normal"},
        {"label_weights": "linear"},
        {"perturb_null": False},
        {"renormalise": False},
        {"exploration": False},
        {"label_t_lower": 0},
        {"label_t_upper": 700},
        {"label_noise_weight": 0.5},
        {"label_mix_weight": 0.5},
        {"cfg_scale": 1.0},
    ],
    ids=str,
)
def test_every_parameter_changes_the_images(run: Callable[..., Images], settings: dict[str, Any]) -> None:
    # The second image: an image alone in its class has T fixed by the masses, whatever ε and the gradient.
    reference, changed = run(ipc=2, classes=[0, 1]), run(settings, ipc=2, classes=[0, 1])
    assert all(np.abs(reference[key].latent - changed[key].latent).max() > 1e-4 for key in [(0, 1), (1, 1)])


def test_the_other_class_is_any_of_the_whole_list_but_the_own(
    prior: Prior, make_task: Callable[..., DistillTask], random_images: Callable[..., ArraySource]
) -> None:
    """Uniform over the dataset's classes, also when the cell is a shard of it."""
    task = make_task(random_images(CLASSES), CLASSES, prior=prior, ipc=400, classes=[1], batch_size=64)
    images = tuple(ImageKey("b", i) for i in range(400))
    batch = Batch(tuple((1, i) for i in range(400)), images, lambda step, z: None)
    term = semantic_matching(task, prior, DMGD.Params(label_mix_weight=1.0), batch, StreamNoise(task.stream, images))
    seen = term.other[:, 0].tolist()
    table = {c: prior.embed_labels(torch.tensor([prior.label_of(c)]))[0].tolist() for c in CLASSES}
    counts = {c: seen.count(row) for c, row in table.items()}
    assert counts.pop("b") == 0
    assert sum(counts.values()) == 400
    assert all(abs(count - 100) < 45 for count in counts.values())  # five standard deviations


def test_latents_and_support_are_made_once(
    prior: Prior, make_task: Callable[..., DistillTask], random_images: Callable[..., ArraySource], memory_cache: Any
) -> None:
    task = make_task(random_images(CLASSES), CLASSES, prior=prior, cache=memory_cache, batch_size=5)
    DMGD(DMGD.Params(**SETTINGS)).prepare(task)
    assert sorted(memory_cache.made) == ["latents"] * 5 + ["support"] * 5
    DMGD(DMGD.Params(**(SETTINGS | {"ot_scale": 3.0, "ot_epsilon": 0.2}))).prepare(task)
    assert len(memory_cache.made) == 10
    DMGD(DMGD.Params(**(SETTINGS | {"support": "mean"}))).prepare(task)
    assert memory_cache.made[10:] == ["support"] * 5

    # k-means does not depend on the set's seed, a density sample does.
    other_seed = make_task(random_images(CLASSES), CLASSES, prior=prior, cache=memory_cache, seed=1)
    DMGD(DMGD.Params(**SETTINGS)).prepare(other_seed)
    assert len(memory_cache.made) == 15
    for task_of_seed in (task, other_seed):
        DMGD(DMGD.Params(**(SETTINGS | {"support": "density"}))).prepare(task_of_seed)
    assert len(memory_cache.made) == 25


def test_the_plain_prior_reads_no_image(
    prior: Prior, make_task: Callable[..., DistillTask], random_images: Callable[..., ArraySource], memory_cache: Any
) -> None:
    phases: list[str] = []
    task = make_task(random_images(CLASSES), CLASSES, prior=prior, cache=memory_cache, phases=phases)
    method = DMGD(DMGD.Params(steps=4, semantic_matching=False, distribution_matching=False))
    method.prepare(task)
    list(method.distill(task))
    assert memory_cache.made == []
    assert phases == ["sample", "decode"]


def test_a_class_with_too_few_images_is_refused(
    prior: Prior, make_task: Callable[..., DistillTask], random_images: Callable[..., ArraySource]
) -> None:
    task = make_task(random_images(CLASSES, per_class=6), CLASSES, prior=prior)
    with pytest.raises(
        UsageError, match="class a has 6 training images, fewer than support_points=10; set support_points=6"
    ):
        DMGD().prepare(task)
    DMGD(DMGD.Params(support="mean")).prepare(task)


def test_one_class_has_no_other() -> None:
    class Single:
        class_ids = ("a",)

    assert "one class" in (DMGD().supports(Single, 1) or "")  # type: ignore[arg-type]
    assert DMGD(DMGD.Params(semantic_matching=False)).supports(Single, 1) is None  # type: ignore[arg-type]
