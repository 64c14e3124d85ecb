"""Images on their way in, against Pillow and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import images
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd, quick

HARD = hard_minimax_sgd.PROTOCOL


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(300, 401), (401, 300), (225, 224), (64, 64), (100, 37), (500, 375)])
def test_equals_pillow_within_one_level(height: int, width: int) -> None:
    image = noise(height, width, 3)
    expected = np.asarray(v2.CenterCrop(224)(v2.Resize(224, antialias=True)(Image.fromarray(image))))
    got = images.fit(HARD, image, resolution=64)
    assert got.shape == (224, 224, 3)
    assert got.dtype == np.uint8
    # Pillow rounds its filter weights to fixed point.
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


def test_antialiasing_is_on() -> None:
    stripes = np.zeros((448, 448, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = images.fit(HARD, stripes, resolution=224)[:, 4:-4]
    assert 120 < inner.min() <= inner.max() < 136


def test_images_of_the_right_side_keep_their_pixels() -> None:
    batch = noise(3, 224, 224, 3)
    assert np.array_equal(images.fit(HARD, batch, resolution=64), batch)
    assert np.array_equal(images.fit(HARD, noise(224, 230, 3), resolution=64), noise(224, 230, 3)[:, 3:-3])


def test_grey_becomes_rgb_only_where_the_protocol_is_for_rgb() -> None:
    batch = noise(2, 8, 8, 1)
    assert np.array_equal(images.fit(quick.PROTOCOL, batch, resolution=8), batch)
    rgb = images.fit(HARD, batch, resolution=8)
    assert rgb.shape == (2, 224, 224, 3)
    assert np.array_equal(rgb[..., :1], rgb[..., 1:2])
    assert np.array_equal(rgb[..., :1], rgb[..., 2:])


def test_quick_uses_the_datasets_resolution() -> None:
    assert images.fit(quick.PROTOCOL, noise(2, 40, 48, 3), resolution=16).shape == (2, 16, 16, 3)


def test_batches_equal_single_images(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noise(5, 30, 20, 3)
    monkeypatch.setattr(images, "CHUNK", 2)
    together = images.fit(quick.PROTOCOL, batch, resolution=16)
    assert np.array_equal(together, np.stack([images.fit(quick.PROTOCOL, image, 16) for image in batch]))


@pytest.mark.parametrize(
    "bad", [noise(8, 8), noise(2, 8, 8, 4), noise(8, 8, 3).astype(np.float64), np.empty((0, 8, 8, 3), np.uint8)]
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match="expected images as uint8"):
        images.fit(HARD, bad, resolution=8)


def test_floats_are_neither_rounded_nor_clipped() -> None:
    whole = np.random.default_rng(0).normal(0.5, 1, (3, 16, 16, 1)).astype(np.float32)
    assert np.array_equal(images.fit(quick.PROTOCOL, whole, 16), whole * 255)
    # A constant stays one under any resize, whatever its value.
    beyond = images.fit(quick.PROTOCOL, np.full((1, 40, 48, 3), 1.7321, np.float32), 16)
    assert beyond.dtype == np.float32
    assert np.allclose(beyond, 1.7321 * 255, rtol=1e-6)


def test_floats_that_are_8_bit_values_give_what_uint8_gives_before_its_rounding() -> None:
    pixels = noise(2, 40, 48, 3)
    floats = images.fit(quick.PROTOCOL, (pixels / 255).astype(np.float32), 16)
    assert np.abs(floats - images.fit(quick.PROTOCOL, pixels, 16)).max() <= 0.5 + 1e-3
