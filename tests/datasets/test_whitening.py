"""ZCA whitening: against what it does to a covariance, against scikit-learn's PCA, and its way through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ddbench.datasets import whitening
from ddbench.datasets.base import ArraySource
from ddbench.datasets.whitening import Zca

EPSILON = 0.1


def pictures(n: int = 300, side: int = 4, channels: int = 3) -> np.ndarray:
    """8-bit images whose pixels hang together."""
    rng = np.random.default_rng(0)
    mix = rng.normal(0, 1, (side * side * channels, side * side * channels))
    values = 128 + 8 * rng.normal(0, 1, (n, len(mix))) @ mix
    return values.clip(0, 255).astype(np.uint8).reshape(n, side, side, channels)


def source(images: np.ndarray) -> ArraySource:
    return ArraySource(images, np.zeros(len(images)), [str(i) for i in range(len(images))])


def flat(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def test_it_does_to_the_covariance_what_the_formula_says() -> None:
    """Σ (Σ + ε)⁻¹: 1 where a direction varies much, λ / ε where it hardly does; and the mean is 0."""
    images = pictures()
    zca = whitening.fit(source(images), EPSILON)
    white = flat(zca.whiten(images / 255))
    covariance = np.cov(flat(images / 255), rowvar=False)
    expected = covariance @ np.linalg.inv(covariance + EPSILON * np.eye(len(covariance)))
    assert np.abs(white.mean(0)).max() < 1e-6
    assert np.allclose(np.cov(white, rowvar=False), expected, atol=1e-5)
    assert np.ptp(np.linalg.eigvalsh(expected)) > 0.5, "else the regularisation is not seen"
    assert np.allclose(zca.matrix, zca.matrix.T, atol=1e-6)


def test_it_is_scikit_learns_whitening_turned_back() -> None:
    images = pictures()
    pca = PCA(whiten=True).fit(flat(images / 255))
    variances = pca.explained_variance_
    expected = pca.transform(flat(images / 255)) * np.sqrt(variances / (variances + EPSILON)) @ pca.components_
    white = whitening.fit(source(images), EPSILON).whiten(images / 255)
    assert np.allclose(flat(white), expected, atol=1e-5)
    assert white.shape == images.shape


def test_the_case_in_kornias_documentation() -> None:
    """(0, 1), (1, 0), (−1, 0), (0, −1) have variances 2/3, and become √1.5 times themselves; here between black and
    white, so half as far, with a quarter of the variance."""
    at = np.array([[0, 1], [1, 0], [-1, 0], [0, -1]])
    images = (127.5 + 127.5 * at).reshape(4, 1, 2, 1)
    fitted = whitening.fit(source(images), 1e-12)
    assert np.allclose(fitted.whiten(images / 255).reshape(4, 2), np.sqrt(1.5) * at, atol=1e-5)


def test_what_is_taken_back_is_what_was_there() -> None:
    images = pictures()
    zca = whitening.fit(source(images), EPSILON)
    pixels = zca.undo(zca.whiten(images / 255).astype(np.float32))
    assert np.abs(pixels - images / 255).max() < 1e-5
    assert pixels.shape == images.shape
    again = zca.whiten(pixels.astype(np.float32))
    assert np.abs(again - zca.whiten(images / 255)).max() < 1e-5


def test_it_reads_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures()
    at_once = whitening.fit(source(images), EPSILON)
    monkeypatch.setattr(whitening, "BLOCK", 7)
    found = whitening.fit(source(images), EPSILON)
    assert np.allclose(found.matrix, at_once.matrix, atol=1e-6)
    assert np.allclose(found.mean, flat(images / 255).mean(0), atol=1e-7)


def test_images_that_are_brought_to_another_form_first() -> None:
    grey = pictures(channels=1)
    found = whitening.fit(source(grey), EPSILON, lambda images: np.repeat(images, 3, axis=3))
    assert np.allclose(found.matrix, whitening.fit(source(np.repeat(grey, 3, axis=3)), EPSILON).matrix, atol=1e-6)


class ReadOnce(ArraySource):
    """Tells how many images were read."""

    reads = 0

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        self.reads += len(indices)
        return super().read(indices)


def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    images = pictures()
    read = ReadOnce(images, np.zeros(300), [""] * 300)

    def of(content: str = "a", size: int = 4, epsilon: float = EPSILON) -> Zca:
        return whitening.of_dataset(read, content, size, epsilon)

    first = of()
    assert read.reads == 301
    assert np.array_equal(of().matrix, first.matrix)
    assert read.reads == 302, "one image, for its channels"
    (file,) = (tmp_path / "whitening").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(of().matrix, first.matrix), "damaged, so made anew"
    assert not np.allclose(of(epsilon=0.2).matrix, first.matrix)
    of(content="b")
    of(size=5)
    assert len(list((tmp_path / "whitening").glob("*.npz"))) == 4
