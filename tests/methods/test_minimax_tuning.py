"""Tuning a small prior: moving average, artefact, determinism, resuming, labels, failures; and the method's images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.planning.contestants import contestants
from ddbench.benchmark.planning.prior_names import name_prior
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.dmgd.method import DMGD
from ddbench.methods.minimax import tune
from ddbench.methods.minimax.method import Minimax, Tuning
from ddbench.methods.minimax.tune import CHECKPOINT, LOSSES, tuned_prior

CLASSES = ("a", "b", "c")
FEW: dict[str, Any] = {"tuning_steps": 6, "tuning_batch": 4, "ema": 0.5, "memory": 5}
Arrays = dict[str, np.ndarray]


@pytest.fixture
def prior(make_prior: Callable[..., Path]) -> Prior:
    return Prior.load(find_prior(make_prior()))


@pytest.fixture
def task(make_task: Any, random_images: Any, prior: Prior, memory_cache: Any) -> DistillTask:
    return make_task(random_images(CLASSES), CLASSES, prior=prior, cache=memory_cache, ipc=2)


@pytest.fixture
def tuned(task: DistillTask, prior: Prior, tmp_path: Path) -> Callable[..., Arrays]:
    """What a tuning makes that finds nothing made before."""

    def make(on: Prior = prior, changed: dict[str, Any] | None = None, **recipe: Any) -> Arrays:
        cache = type(task.cache)()
        scratch = tmp_path / str(len(list(tmp_path.iterdir())))
        scratch.mkdir()
        fresh = dataclasses.replace(task, **({"cache": cache, "scratch": scratch} | (changed or {})))
        tuned_prior(fresh, on, Tuning(**(FEW | recipe)))
        (arrays,) = (a for (kind, _), a in cache.kept.items() if kind == tune.ARTEFACT)  # type: ignore[attr-defined]
        return dict(arrays)

    return make


def assert_same(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def farthest(one: Arrays, other: Arrays) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one if name != LOSSES)


# Training -------------------------------------------------------------------------------------------------------------


def test_the_average_is_its_closed_form(tuned: Callable[..., Arrays], prior: Prior) -> None:
    """w̄_n = d^n w_0 + (1 - d) Σ d^(n-k) w_k, which starts at the untuned weights."""
    after = [tuned(ema=0, tuning_steps=k) for k in (1, 2, 3)]
    own = dict(prior.network.named_parameters())
    averaged = tuned(ema=0.8, tuning_steps=3)
    for name, found in averaged.items():
        if name != LOSSES:
            start = own[name].numpy() if name in own else np.ones_like(found)
            expected = 0.8**3 * start + 0.2 * sum(0.8 ** (3 - k) * w[name] for k, w in enumerate(after, start=1))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=name)
    assert farthest(after[2], averaged) > 1e-4


def test_the_first_step_is_adamws(tuned: Callable[..., Arrays], prior: Prior) -> None:
    """Adam's first step is ±the learning rate for every weight with a gradient, and weights do not decay."""
    after = tuned(ema=0, tuning_steps=1, learning_rate=0.01)
    table = "embedder.class_embedder.embedding_table.weight"
    moved = np.abs(after[table] - prior.network.get_parameter(table).numpy())
    np.testing.assert_allclose(moved.max(), 0.01, rtol=1e-2)
    assert moved.max() < 0.0101


def test_it_learns(tuned: Callable[..., Arrays]) -> None:
    losses = tuned(tuning_steps=60, learning_rate=0.01, label_dropout=0)[LOSSES]
    assert losses.shape == (60, 3)
    assert losses[0, 1:].tolist() == [0, 0], "the memories are empty"
    assert (losses[5:, 1:] > 0).all()
    assert losses[-15:, 0].mean() < 0.9 * losses[:15, 0].mean()


def test_the_two_weights_count(tuned: Callable[..., Arrays]) -> None:
    plain = tuned(representativeness_weight=0, diversity_weight=0)
    # At 1, so that they outweigh the loss on ε.
    alike, diverse = tuned(representativeness_weight=1, diversity_weight=0), tuned(diversity_weight=1)
    assert farthest(plain, alike) > 1e-4
    assert farthest(alike, diverse) > 1e-4
    more: dict[str, Any] = {"tuning_steps": 60, "label_dropout": 0, "ema": 0}
    assert tuned(diversity_weight=10, **more)[LOSSES][-20:, 2].mean() < (
        tuned(diversity_weight=0, **more)[LOSSES][-20:, 2].mean()
    )


def test_inversion_matching_counts(tuned: Callable[..., Arrays]) -> None:
    """Its gradient is small (the mean of the next step holds little of ε̂), so its weight is a huge one here."""
    plain, matched = (tuned(inversion_weight=weight, learning_rate=0.02, ema=0) for weight in (1e-9, 1e9))
    assert matched[LOSSES].shape == (6, 4)
    np.testing.assert_array_equal(plain[LOSSES][0], matched[LOSSES][0])
    assert farthest(plain, matched) > 0.01


def test_inversion_matching_leaves_the_other_draws_as_they_are(tuned: Callable[..., Arrays]) -> None:
    plain, matched = tuned()[LOSSES], tuned(inversion_weight=1e-12)[LOSSES]
    np.testing.assert_allclose(matched[:, :3], plain, rtol=1e-4, atol=1e-5)


def test_one_seed_one_result(tuned: Callable[..., Arrays]) -> None:
    one = tuned()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        assert_same(tuned(), one)
    assert farthest(tuned(changed={"seed": 1}), one) > 1e-4
    assert_same(tuned(changed={"seed": 1}, tuning_seed=0), one)
    assert_same(tuned(changed={"class_indices": (2, 0), "batch_size": 1, "ipc": 7}), one)


def test_a_learned_variance_is_trained_too(make_prior: Callable[..., Path], tuned: Callable[..., Arrays]) -> None:
    learned = Prior.load(find_prior(make_prior(learned_variance=True)))
    found = tuned(on=learned, ema=0)
    assert all(np.isfinite(array).all() for array in found.values())
    own = learned.network.get_parameter("transformer.proj_out_2.bias").numpy()
    moved = (found["transformer.proj_out_2.bias"] - own).reshape(-1, 2)  # ε and v of each pixel of a patch
    assert (np.abs(moved) > 1e-4).all()


def test_bf16(make_prior: Callable[..., Path], tuned: Callable[..., Arrays]) -> None:
    found = tuned(on=Prior.load(find_prior(make_prior()), precision="bf16"))
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    assert 0 < farthest(found, tuned()) < 0.05


def test_the_prior_itself_stays_as_it_is(task: DistillTask, prior: Prior) -> None:
    before = {name: weight.clone() for name, weight in prior.network.state_dict().items()}
    made = tuned_prior(task, prior, Tuning(**FEW))
    assert all(torch.equal(weight, before[name]) for name, weight in prior.network.state_dict().items())
    assert not any(p.requires_grad for p in made.network.parameters())
    x, pair = torch.zeros(1, *prior.latent_shape), torch.tensor([0])
    one, other = (p.predict(x, 500, p.embed_labels(pair))[0] for p in (prior, made))
    assert (one - other).abs().max() > 1e-3
    assert made.sha256 not in (None, prior.sha256)


# What it is shown -----------------------------------------------------------------------------------------------------


class Spy:
    """What reaches the network: latents, and labels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.latents, self.labels = list[Tensor](), list[Tensor]()
        add_noise, predict_noise = tune.add_noise, tune.predict_noise
        monkeypatch.setattr(tune, "add_noise", lambda x, *rest: self.latents.append(x) or add_noise(x, *rest))
        monkeypatch.setattr(
            tune, "predict_noise", lambda net, x, t, y: self.labels.append(y) or predict_noise(net, x, t, y)
        )

    def pixels(self) -> np.ndarray:
        """(N, H, W, C) uint8, of a pixel prior's latents."""
        return ((torch.cat(self.latents) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def seen_as(pixels: np.ndarray, source: ArraySource) -> list[int]:
    """The image of the source that each one is."""
    known = {image.tobytes(): index for index, image in enumerate(source.images)}
    return [known[image.tobytes()] for image in pixels]


def test_labels_are_the_priors_own_for_the_class_id(
    make_prior: Callable[..., Path], tuned: Callable[..., Arrays], task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    tuned(on=Prior.load(find_prior(make_prior(("c", "x", "a", "y", "b")))), flip=False, label_dropout=0)
    label = {"a": 2, "b": 4, "c": 0}
    shown = seen_as(spy.pixels(), task.train)
    assert torch.cat(spy.labels).tolist() == [label[task.train.names[i][0]] for i in shown]
    assert len(set(shown)) == 24


def test_some_labels_are_dropped(tuned: Callable[..., Arrays], monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    tuned(label_dropout=0.25, tuning_steps=100)
    dropped = (torch.cat(spy.labels) == len(CLASSES)).float().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.07)


def test_an_epoch_shows_every_image_once(
    tuned: Callable[..., Arrays], task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    tuned(flip=False, tuning_batch=10, tuning_steps=6)  # 36 images: epochs of three batches
    shown = seen_as(spy.pixels(), task.train)
    assert len(set(shown[:30])) == len(set(shown[30:])) == 30
    assert shown[:30] != shown[30:]


def test_half_of_the_images_are_mirrored(
    tuned: Callable[..., Arrays], task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    tuned(tuning_batch=12, tuning_steps=6)
    as_they_are = {image.tobytes() for image in task.train.images}
    mirrored = {image[:, ::-1].tobytes() for image in task.train.images}
    shown = [image.tobytes() for image in spy.pixels()]
    assert all(image in as_they_are | mirrored for image in shown)
    assert 0.3 < np.mean([image in mirrored for image in shown]) < 0.7


def test_latents_are_drawn_from_the_posterior(
    tuned: Callable[..., Arrays], prior: Prior, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    shape = (1, *prior.latent_shape)
    asked: list[str] = []

    def encode(images: np.ndarray, encoder: str) -> tuple[Tensor, Tensor]:
        asked.append(encoder)
        return torch.full(shape, 5.0).repeat(len(images), 1, 1, 1), torch.tensor(2.0)

    monkeypatch.setattr(prior, "encode", encode)
    tuned(encoder="vae")
    assert set(asked) == {"vae"}
    drawn = torch.cat(spy.latents)
    assert drawn.mean().item() == pytest.approx(5, abs=0.2)
    assert drawn.std().item() == pytest.approx(2, abs=0.2)
    assert (drawn[0] - drawn[-1]).abs().max() > 1


def test_a_latent_prior_sees_its_own_crop_of_the_files(
    tuned: Callable[..., Arrays], prior: Prior, task: DistillTask, random_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tuned()
    monkeypatch.setattr(prior, "metadata", prior.metadata.model_copy(update={"space": "latents"}))
    asked: list[tuple[int, str]] = []
    changed = {
        "train": random_images(CLASSES, image_size=16),
        "train_at": lambda image_size, resize: asked.append((image_size, resize)) or task.train,
    }
    assert_same(tuned(changed=changed), expected)
    assert set(asked) == {(8, "adm")}


# Artefact -------------------------------------------------------------------------------------------------------------


def images_of(method: Any, task: DistillTask) -> list[DistilledImage]:
    method.prepare(task)
    return [image for images in method.distill(task) for image in images]


def small(**changed: Any) -> Minimax:
    return Minimax(Minimax.Params(**(FEW | {"steps": 5} | changed)))


def test_every_method_and_ipc_shares_one_tuning(task: DistillTask, prior: Prior, memory_cache: Any) -> None:
    first = images_of(small(), dataclasses.replace(task, ipc=1))
    both = images_of(small(cfg_scale=2.0), task)
    assert memory_cache.made.count(tune.ARTEFACT) == 1
    assert len(first) == 3
    assert len(both) == 6

    on_it = dataclasses.replace(task, load_prior=lambda: small().tuned_prior(task, prior))
    plain = DMGD.Params(steps=5, semantic_matching=False, distribution_matching=False)
    again = images_of(DMGD(plain), dataclasses.replace(on_it, ipc=1))
    assert [image.pixels.tobytes() for image in again] == [image.pixels.tobytes() for image in first]
    untuned = images_of(DMGD(plain), dataclasses.replace(task, ipc=1))
    assert [image.pixels.tobytes() for image in untuned] != [image.pixels.tobytes() for image in first]

    # The autoencoder stays, and with it the real images' latents; what is made with the network does not.
    guided = DMGD(DMGD.Params(steps=5, ot_window_first=1, ot_window_last=4, support_points=2))
    images_of(guided, task)
    images_of(guided, on_it)
    assert memory_cache.made.count("latents") == 3
    assert memory_cache.made.count(tune.ARTEFACT) == 1


@pytest.mark.parametrize(
    "changed", [{"memory": 6}, {"learning_rate": 2e-3}, {"flip": False}, {"tuning_seed": 1}, {"ema": 0.6}]
)
def test_another_recipe_is_another_artefact(task: Any, prior: Prior, memory_cache: Any, changed: Any) -> None:
    tuned_prior(task, prior, Tuning(**FEW))
    tuned_prior(task, prior, Tuning(**(FEW | changed)))
    assert memory_cache.made.count(tune.ARTEFACT) == 2


def test_a_chunk_is_tuned_as_if_there_were_no_other_classes(
    make_task: Any, random_images: Any, prior: Prior, memory_cache: Any
) -> None:
    of_all, two = random_images(CLASSES), CLASSES[:2]
    count = 2 * 12
    of_two = ArraySource(of_all.read(range(count)), of_all.labels[:count], of_all.names[:count])
    task = make_task(of_all, CLASSES, prior=prior, cache=memory_cache)
    chunk = tuned_prior(task, prior, Tuning(**FEW), [0, 1])
    alone = tuned_prior(make_task(of_two, two, prior=prior, cache=type(memory_cache)()), prior, Tuning(**FEW))
    everyone = tuned_prior(task, prior, Tuning(**FEW))
    assert chunk.sha256 == alone.sha256 != everyone.sha256
    assert tuned_prior(task, prior, Tuning(**FEW), range(3)).sha256 == everyone.sha256
    assert memory_cache.made.count(tune.ARTEFACT) == 2


def test_each_chunk_samples_its_own_classes(task: DistillTask, prior: Prior, memory_cache: Any) -> None:
    """Against plain sampling of the priors that are tuned on the chunks, in the dataset's order."""
    plain = DMGD.Params(steps=5, semantic_matching=False, distribution_matching=False)
    chunked = small(chunk_classes=2)

    def pixels(method: Any, on: DistillTask) -> dict[tuple[int, int], np.ndarray]:
        return {(image.class_index, image.image_index): image.pixels for image in images_of(method, on)}

    found = pixels(chunked, task)
    assert memory_cache.made.count(tune.ARTEFACT) == 2
    for chunk in ((0, 1), (2,)):
        tuned = tuned_prior(task, prior, Tuning(**FEW), chunk)
        there = dataclasses.replace(task, class_indices=chunk, load_prior=lambda tuned=tuned: tuned)
        for key, image in pixels(DMGD(plain), there).items():
            np.testing.assert_array_equal(found[key], image)
    assert memory_cache.made.count(tune.ARTEFACT) == 2, "a chunk with other bounds would be another artefact"
    # A shard tunes the chunks of its own classes alone; and nothing is tuned for images that are there.
    shard = dataclasses.replace(task, class_indices=(2,), cache=type(memory_cache)())
    np.testing.assert_array_equal(pixels(chunked, shard)[2, 0], found[2, 0])
    assert shard.cache.made.count(tune.ARTEFACT) == 1  # type: ignore[attr-defined]
    done = {(2, i): DistilledImage(2, i, found[2, i]) for i in range(2)}
    again = dataclasses.replace(shard, done=done, cache=type(memory_cache)())
    assert images_of(chunked, again) == []
    assert again.cache.made == []  # type: ignore[attr-defined]


def test_chunks_change_no_other_cell_and_tune_no_prior_for_other_methods() -> None:
    (plain,), (chunked,) = (
        contestants(selector, Digits, {}, set()) for selector in ("minimax", "minimax[chunk_classes=5]")
    )
    assert "chunk_classes" not in plain.spec.params
    assert chunked.spec.params == plain.spec.params | {"chunk_classes": 5}
    assert (plain.label, chunked.label) == ("minimax", "minimax[chunk_classes=5]")
    assert contestants("minimax[chunk_classes=null]", Digits, {}, set())[0].spec == plain.spec
    with pytest.raises(UsageError, match="chunk_classes tunes a prior for each chunk"):
        name_prior("minimax[chunk_classes=5](digits)", Digits)


def test_sets_share_a_tuning_only_if_asked_to(task: DistillTask, prior: Prior, memory_cache: Any) -> None:
    other = dataclasses.replace(task, seed=1)
    hashes = [tuned_prior(t, prior, Tuning(**FEW)).sha256 for t in (task, other)]
    assert hashes[0] != hashes[1]
    shared = [tuned_prior(t, prior, Tuning(**FEW, tuning_seed=5)).sha256 for t in (task, other)]
    assert shared[0] == shared[1]
    assert memory_cache.made.count(tune.ARTEFACT) == 3


# Breaking off ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "CHECKPOINT_STEPS", 2)


def killed_at(step: int) -> Callable[[str], None]:
    def progress(note: str) -> None:
        if f"step {step} of" in note:
            raise Killed

    return progress


@pytest.mark.usefixtures("checkpoints")
def test_a_killed_tuning_goes_on_to_the_same_bits(
    tuned: Callable[..., Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tuned(tuning_steps=7)
    scratch = tmp_path / "killed"
    scratch.mkdir()
    with pytest.raises(Killed):
        tuned(tuning_steps=7, changed={"scratch": scratch, "progress": killed_at(6)})
    spy = Spy(monkeypatch)
    resumed = tuned(tuning_steps=7, changed={"scratch": scratch})
    assert len(spy.labels) == 3, "steps 5 to 7"
    assert_same(resumed, undisturbed)


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize("damage", ["truncated", "another recipe"])
def test_a_checkpoint_that_does_not_fit_is_not_used(
    tuned: Callable[..., Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    scratch = tmp_path / "killed"
    scratch.mkdir()
    recipe = {"learning_rate": 0.1} if damage == "another recipe" else {}
    with pytest.raises(Killed):
        tuned(changed={"scratch": scratch, "progress": killed_at(4)}, **recipe)
    file = scratch / CHECKPOINT
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    spy = Spy(monkeypatch)
    found = tuned(changed={"scratch": scratch})
    assert len(spy.labels) == 6
    assert_same(found, tuned())


@pytest.mark.usefixtures("checkpoints")
def test_a_checkpoint_for_which_the_gpu_has_no_memory_is_not_forgotten(
    tuned: Callable[..., Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a day of tuning would begin again without a word."""
    scratch = tmp_path / "killed"
    scratch.mkdir()
    with pytest.raises(Killed):
        tuned(changed={"scratch": scratch, "progress": killed_at(4)})

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        tuned(changed={"scratch": scratch})
    assert (scratch / CHECKPOINT).exists()


def test_a_breakdown_names_the_step(tuned: Callable[..., Arrays]) -> None:
    with pytest.raises(RunError, match=r"at step 2 of 6 the losses are \[.*(nan|inf).*Lower learning_rate"):
        tuned(learning_rate=1e30)


def test_fewer_images_than_a_batch(tuned: Callable[..., Arrays]) -> None:
    with pytest.raises(UsageError, match="36 training images, fewer than tuning_batch=37"):
        tuned(tuning_batch=37)


def test_a_prior_that_does_not_know_a_class(make_prior: Callable[..., Path], tuned: Callable[..., Arrays]) -> None:
    with pytest.raises(UsageError, match="does not know class 'b'"):
        tuned(on=Prior.load(find_prior(make_prior(("a", "c")))))


def test_a_prior_of_velocities_is_not_tuned(task: DistillTask, make_prior: Callable[..., Path]) -> None:
    velocities = Prior.load(find_prior(make_prior(prediction="velocity", clip_denoised=False, name="velocities")))
    with pytest.raises(UsageError, match="this one predicts velocities"):
        tuned_prior(task, velocities, Tuning(**FEW))
