"""The bundled digits prior: its files, what it says of itself, and that it draws digits."""

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from diffusers import DiTTransformer2DModel
from safetensors.torch import load_file
from torch import equal, float16

from ddbench.benchmark.core import seeds
from ddbench.datasets.base import Subset
from ddbench.datasets.digits import Digits
from ddbench.datasets.hashing import source_hash
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.card import measure_prior, model_card, quality_table
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.training import PriorTraining, PriorTrainingReport, denoising_error, load_pixels
from ddbench.methods.diffusion.sampler import sample


@pytest.fixture(scope="module")
def split():
    return Digits().load("default", None, 8)


@pytest.fixture(scope="module")
def files():
    return find_prior(Digits.prior)


@pytest.fixture(scope="module")
def prior(files):
    return Prior.load(files)


def test_it_knows_the_dataset_and_its_training_data(split, files):
    metadata = files.metadata
    assert metadata.class_ids == Digits.class_ids
    assert metadata.resolution == Digits.resolution
    assert metadata.null_label == 10
    assert metadata.train_split_hashes == (split.split_hash,)
    assert metadata.saw_test_images(split.split_hash) is False
    kept = np.setdiff1d(np.arange(len(split.train)), split.validation)
    assert metadata.train_hash == source_hash(Subset(split.train, kept))


def test_it_was_made_by_the_default_recipe(files):
    training = dict(files.metadata.training)
    for measured in ("seed", "loss", "held_out_loss"):
        training.pop(measured)
    assert PriorTraining(**training) == PriorTraining()


def test_it_follows_the_original_dit(files):
    metadata = files.metadata
    assert (metadata.freq_shift, metadata.norm_eps, metadata.latent_scale) == (0, 1e-6, 1)
    assert (metadata.guided_channels, metadata.clip_denoised, metadata.learned_variance) == ("all", True, False)


def test_weights_are_small_float16_with_equal_embedders(files):
    weights = files.network / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 2_000_000
    assert {tensor.dtype for tensor in load_file(weights).values()} == {float16}
    model = DiTTransformer2DModel.from_pretrained(files.network)
    first, *others = [block.norm1.emb.state_dict() for block in model.transformer_blocks]
    assert others
    for other in others:
        assert all(equal(first[name], other[name]) for name in first)


def test_its_losses_are_those_recorded(split, prior):
    held_out = denoising_error(prior.network, *load_pixels(Subset(split.train, split.validation)))
    assert held_out == pytest.approx(prior.metadata.training["held_out_loss"], rel=1e-3)


def test_a_nearest_class_mean_recognises_its_samples(split, prior):
    """An independent judge with no training: chance is 10 %, real digits give about 90 %."""
    images = [ImageKey(class_id, index) for class_id in Digits.class_ids for index in range(5)]
    drawn = sample(prior, images, [], StreamNoise(partial(seeds.stream, 1), images), steps=50, cfg_scale=1.5)
    vectors = prior.decode(drawn.latents).reshape(50, 64).astype(float)
    real = split.train.images.reshape(-1, 64).astype(float)
    means = np.stack([real[split.train.of_class(label)].mean(0) for label in range(10)])
    nearest = ((vectors[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == np.repeat(np.arange(10), 5)).mean() >= 0.85


def test_the_card_measures_and_says_it(split, prior):
    notes = []
    quality = measure_prior(
        prior, split, Digits.class_ids, cfg_scales=(1, 4), samples_per_class=2, steps=10, progress=notes.append
    )
    again = measure_prior(prior, split, Digits.class_ids, cfg_scales=(4,), samples_per_class=2, steps=10, batch_size=7)
    # Neither batches nor the other scales matter, up to float error (one grey level here and there).
    assert asdict(quality.by_cfg_scale[1]) == pytest.approx(asdict(again.by_cfg_scale[0]), rel=1e-3)
    assert notes
    assert 0.97 < quality.classifier_accuracy < 1
    assert all(0.5 < q.agreement <= 1 and q.spread > 0 and q.nearest > 0 for q in quality.by_cfg_scale)
    table = quality_table(quality)
    assert table.count("| 1 |") == table.count("| 4 |") == 1
    report = PriorTrainingReport(977, 0.5, 0.6, 7.0, 123)
    card = model_card(prior, report, quality, title="Digits", hardware="an abacus")
    for part in ("# Digits", "0.5000", "0.6000", "7 seconds on an abacus", split.split_hash, table):
        assert part in card


def test_the_bundled_card_is_about_these_weights(split, files):
    card = (files.folder / "README.md").read_text()
    training = files.metadata.training
    assert files.metadata.train_hash in card
    assert split.split_hash in card
    assert f"{training['loss']:.4f}" in card
    assert f"{training['held_out_loss']:.4f}" in card
