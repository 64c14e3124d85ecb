"""ImageNet-C's corruptions made here: one image is corrupted alike whatever comes before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import ArraySource
from ddbench.datasets.shifted import corruptions
from ddbench.datasets.shifted.catalogue import ALL_CORRUPTIONS
from ddbench.datasets.shifted.pixels import corrupted

package = pytest.importorskip("imagecorruptions", reason="no working extra `robust`", exc_type=ImportError)
SIDE = corruptions.IMAGE_SIZE


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def test_the_fifteen_are_the_packages() -> None:
    assert tuple(package.get_corruption_names()) == ALL_CORRUPTIONS


def test_neither_order_nor_the_global_generator_matters_and_it_stays_as_it_was() -> None:
    image = picture(0)
    np.random.seed(7)  # noqa: NPY002 - the generator in question
    expected = np.random.random(3)  # noqa: NPY002 - the global generator is what is looked at
    np.random.seed(7)  # noqa: NPY002 - as above
    first = {name: corruptions.corrupt(image, name, 3, "n0/a") for name in ALL_CORRUPTIONS}
    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002 - as above
    for name in reversed(ALL_CORRUPTIONS):
        assert np.array_equal(corruptions.corrupt(image, name, 3, "n0/a"), first[name]), name
        assert first[name].shape == (SIDE, SIDE, 3)
        assert not np.array_equal(first[name], image), name


def test_each_image_and_severity_has_draws_of_its_own() -> None:
    image = picture(0)
    drawn = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "snow", "frost", "fog", "elastic_transform")
    for name in drawn:
        assert not np.array_equal(
            corruptions.corrupt(image, name, 2, "n0/a"), corruptions.corrupt(image, name, 2, "n0/b")
        ), name
    still = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    for name in still:
        assert np.array_equal(
            corruptions.corrupt(image, name, 2, "n0/a"), corruptions.corrupt(image, name, 2, "n0/b")
        ), name


def test_noise_has_the_published_strength() -> None:
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    made = corruptions.corrupt(grey, "gaussian_noise", 1, "n0/a").astype(float)
    # Its brightness deviates by 0.08 · 255 · √(Σ weights²), and what a JPEG file rounds adds a little.
    weights = np.array([0.299, 0.587, 0.114])
    expected = 0.08 * 255 * np.sqrt((weights**2).sum())
    assert (made @ weights).std() == pytest.approx(expected, rel=0.12)
    assert abs(made.mean() - 128) < 1


def test_a_test_set_is_the_same_in_any_order_and_by_any_processes(tmp_path: Path, own_cache: Path) -> None:
    images = np.stack([picture(seed) for seed in range(3)])
    names, labels = ["a/1", "a/2", "b/1"], np.array([0, 0, 1])
    wanted = ["gaussian_noise/2", "frost/5"]
    source = ArraySource(images, labels, names)
    made = corrupted(source, wanted, 32)
    assert made["frost/5"].pixels.shape == (3, 32, 32, 3)
    assert made["frost/5"].labels.tolist() == [0, 0, 1]
    turned = corrupted(ArraySource(images[::-1], labels[::-1], names[::-1]), wanted[::-1], 32)
    for condition in wanted:
        assert np.array_equal(turned[condition].pixels[::-1], made[condition].pixels)
    alone = corrupted(ArraySource(images[1:2], labels[1:2], names[1:2]), wanted, 32)
    assert np.array_equal(alone["frost/5"].pixels[0], made["frost/5"].pixels[1])
    by_two = corrupted(
        ArraySource(np.concatenate([images] * 22), np.tile(labels, 22), names * 22), wanted[:1], 32, jobs=2
    )
    assert np.array_equal(by_two["gaussian_noise/2"].pixels[:3], made["gaussian_noise/2"].pixels)
    assert np.array_equal(by_two["gaussian_noise/2"].pixels[-3:], made["gaussian_noise/2"].pixels)


def test_a_larger_image_is_cut_to_its_middle(own_cache: Path) -> None:
    large, cut = picture(0, 256), picture(0, 256)[16:240, 16:240]
    made = [
        corrupted(ArraySource(image[None], np.array([0]), ["a/1"]), ["fog/1"], 64)["fog/1"].pixels
        for image in (large, cut)
    ]
    assert np.array_equal(*made)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise corruptions.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(corruptions.metadata, "version", absent)
    with pytest.raises(UsageError, match=r"pip install 'ddbench\[robust\]'"):
        corruptions.version()
    monkeypatch.setattr(corruptions.metadata, "version", lambda name: "1.1.2")
    with pytest.raises(UsageError, match="pip uninstall imagecorruptions"):
        corruptions.version()
