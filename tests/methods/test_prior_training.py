"""The prior's training recipe: seeded, atomic, blind to the test images, and able to learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import load_file

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import ArraySource, ImageSource, SplitData
from ddbench.datasets.digits import Digits
from ddbench.datasets.hashing import source_hash
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors import training as module
from ddbench.methods.diffusion.priors.card import n_folds
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.training import PriorTraining, denoising_error, load_pixels, train_prior

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY = PriorTraining(hidden=16, heads=2, layers=2, steps=2, batch=8, warmup_steps=1)


class Poison(ImageSource):
    """A test split that must not be looked at."""

    def __init__(self):
        self.labels, self.names = np.zeros(4, np.int64), [f"0/{i}.png" for i in range(4)]

    def read(self, indices):
        raise AssertionError("a test image was read")


def toy_split(image_size=8, channels=1, height=None, seed=0):
    """Two classes, dark and bright, of 30 images; one in ten is the validation part."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 30)
    level = np.where(labels == 0, 30, 220)[:, None, None, None]
    pixels = (level + rng.integers(-20, 21, (60, height or image_size, image_size, channels))).astype(np.uint8)
    names = [f"{'ab'[label]}/{i:03d}.png" for i, label in enumerate(labels)]
    return SplitData(
        "toy", ArraySource(pixels, labels, names), Poison(), "0" * 64, "1" * 64, validation=np.array([3, 7, 31, 42])
    )


def train(out, split=None, settings=TINY, seed=5, **kwargs):
    return train_prior(split or toy_split(), ("a", "b"), settings, out, seed=seed, trained_on="toys", **kwargs)


def test_same_seed_same_folder_other_seed_other_weights(tmp_path):
    before = torch.random.get_rng_state()
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        torch.rand(1)  # the global generator must neither matter …
        train(tmp_path / name, seed=seed)
    torch.random.set_rng_state(before)
    for file in (WEIGHTS, "prior.json", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert (tmp_path / "one" / WEIGHTS).read_bytes() != (tmp_path / "three" / WEIGHTS).read_bytes()


def test_the_global_generator_is_left_alone(tmp_path):
    before = torch.random.get_rng_state()
    train(tmp_path / "prior")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_folder_loads_and_says_what_it_was_trained_on(tmp_path):
    split = toy_split(channels=3)
    report = train(tmp_path / "deep" / "prior", split)
    files = find_prior(tmp_path / "deep" / "prior")
    prior = Prior.load(files)
    metadata = prior.metadata
    assert prior.latent_shape == (3, 8, 8)
    assert metadata.class_ids == ("a", "b")
    assert metadata.null_label == 2
    assert (metadata.freq_shift, metadata.norm_eps) == (0, 1e-6)
    assert (metadata.guided_channels, metadata.clip_denoised, metadata.learned_variance) == ("all", True, False)
    assert metadata.saw_test_images(split.split_hash) is False
    assert metadata.saw_test_images("another") is None
    assert metadata.trained_on == "toys, training part without its 4 validation images: 56 images"
    kept = np.setdiff1d(np.arange(60), split.validation)
    source = ArraySource(split.train.images[kept], split.train.labels[kept], [split.train.names[i] for i in kept])
    assert metadata.train_hash == source_hash(source)
    assert report.images == 56
    assert metadata.training["loss"] == report.loss
    # What was measured is what the loaded float16 weights give.
    validation = ArraySource(split.train.read(split.validation), split.train.labels[split.validation], list("abcd"))
    assert denoising_error(prior.network, *load_pixels(validation)) == pytest.approx(report.held_out_loss, rel=1e-5)
    assert sum(p.numel() for p in prior.network.parameters()) == report.parameters


def test_saved_weights_are_float16_with_equal_embedders_in_every_block(tmp_path):
    train(tmp_path / "prior")
    tensors = load_file(tmp_path / "prior" / WEIGHTS)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    plain = DiTTransformer2DModel.from_pretrained(tmp_path / "prior")
    first, second = (block.norm1.emb.state_dict() for block in plain.transformer_blocks)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_withheld_trains_on_all(tmp_path):
    report = train(tmp_path / "prior", settings=replace(TINY, withhold_validation=False))
    assert report.images == 60
    assert report.held_out_loss is None
    assert json.loads((tmp_path / "prior" / "prior.json").read_text())["trained_on"] == "toys, training part: 60 images"


def test_withheld_images_do_not_change_the_weights(tmp_path):
    split = toy_split()
    train(tmp_path / "one", split)
    split.train.images[split.validation] = 128
    train(tmp_path / "two", split)
    assert (tmp_path / "one" / WEIGHTS).read_bytes() == (tmp_path / "two" / WEIGHTS).read_bytes()


def test_it_learns_class_and_null(tmp_path):
    """Dark and bright toys: the class label must denoise better than the other label, and null in between."""
    split = toy_split()
    report = train(tmp_path / "prior", split, replace(TINY, steps=300, batch=32, ema=0.95, learning_rate=3e-3))
    assert report.loss < 0.35  # 1 is the error of predicting nothing
    prior = Prior.load(find_prior(tmp_path / "prior"))
    images, labels = load_pixels(split.train)
    own, other, null = (
        denoising_error(prior.network, images, y) for y in (labels, 1 - labels, torch.full_like(labels, 2))
    )
    assert own < null < other


def test_progress_is_called_at_every_step(tmp_path):
    calls = []
    train(tmp_path / "prior", on_step=lambda done, steps, loss: calls.append((done, steps, loss)))
    assert [call[:2] for call in calls] == [(1, 2), (2, 2)]
    assert calls[0][2] > 0


def test_mirroring_follows_the_setting(tmp_path):
    split = toy_split()
    split.train.images[:, :, :4] //= 2  # left and right differ
    train(tmp_path / "plain", split)
    train(tmp_path / "mirrored", split, replace(TINY, flip=True))
    assert (tmp_path / "plain" / WEIGHTS).read_bytes() != (tmp_path / "mirrored" / WEIGHTS).read_bytes()


def test_an_existing_folder_is_kept(tmp_path):
    (tmp_path / "prior").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        train(tmp_path / "prior")


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(self, folder, *_):
        (folder / WEIGHTS).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(module.DenoisingNetwork, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        train(tmp_path / "prior")
    assert list(tmp_path.iterdir()) == []


def test_all_problems_are_reported_at_once(tmp_path):
    settings = PriorTraining(hidden=10, heads=4, patch=3, steps=0, batch=0, label_dropout=0, ema=1, min_snr=0)
    with pytest.raises(UsageError) as error:
        train(tmp_path / "prior", toy_split(image_size=8, height=16), settings)
    for part in ("16×8", "patch 3", "hidden 10", "1 step", "batch", "label_dropout 0", "ema 1", "min_snr 0"):
        assert part in str(error.value)
    assert not (tmp_path / "prior").exists()


def test_digits_with_the_default_recipe_reads_no_test_image(tmp_path):
    split = replace(Digits().load("default", None, 8), test=Poison())
    report = train_prior(
        split, Digits.class_ids, PriorTraining(steps=2, batch=4), tmp_path / "p", seed=0, trained_on="digits"
    )
    assert report.images == 977
    assert (tmp_path / "p" / WEIGHTS).stat().st_size < 2_000_000


@pytest.mark.parametrize(("counts", "folds"), [((9, 5), 5), ((25, 3, 12), 3), ((1, 8), 2), ((3, 3), 3)])
def test_small_classes_are_judged_in_as_many_folds_as_they_have_images(counts: tuple[int, ...], folds: int) -> None:
    """Classes of three images each ended in scikit-learn's traceback, once the prior was trained."""
    assert n_folds(np.repeat(range(len(counts)), counts)) == folds
