"""The nearest real image of each distilled one, against brute force in whole numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ddbench.datasets.base import ArraySource
from ddbench.reports.quality import nearest as module
from ddbench.reports.quality.nearest import nearest, sheet

CPU = torch.device("cpu")


def images(seed: int, n: int, image_size: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, image_size, image_size, channels), dtype=np.uint8)


def source(pixels: np.ndarray) -> ArraySource:
    return ArraySource(pixels, np.zeros(len(pixels), np.int64), [f"0/{i}" for i in range(len(pixels))])


def brute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(a), len(b)) distances of pixels in 0 … 1."""
    whole_a, whole_b = (x.reshape(len(x), -1).astype(np.int64) for x in (a, b))
    return np.sqrt(((whole_a[:, None] - whole_b[None]) ** 2).sum(2)) / 255


@pytest.mark.parametrize("block", [1, 5 * 48 * 8, 1 << 30])
def test_nearest_is_exact_however_it_is_cut(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    real, queries = images(0, 23), images(1, 9)
    real[17] = real[4]  # a tie: the first counts
    queries[2] = real[4]
    rows = np.array([3, 4, 17, 20, 1, 8, 9])
    found = nearest(queries, source(real), rows, CPU)
    distances = brute(queries, real[rows])
    np.testing.assert_array_equal(found.distance, distances.min(1))
    np.testing.assert_array_equal(found.row, distances.argmin(1))
    assert (found.distance[2], found.row[2]) == (0, 1)


def test_an_image_is_not_its_own_neighbour() -> None:
    real = images(2, 12)
    rows, own = np.arange(12), np.array([3, 7])
    found = nearest(real[own], source(real), rows, CPU, own=own)
    distances = brute(real[own], real)
    distances[np.arange(2), own] = np.inf
    np.testing.assert_array_equal(found.distance, distances.min(1))
    np.testing.assert_array_equal(found.row, distances.argmin(1))


@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_has_a_row_for_each_class(channels: int) -> None:
    real = images(3, 6, channels=channels)
    labels = np.array([0, 0, 2, 2, 2])
    made = sheet(source(real), np.array([5, 4, 3, 2, 1]), labels, 4, num_classes=3)
    assert (made.image_size, made.columns, made.rows) == (4, 3, 3)
    shown = np.asarray(Image.open(io.BytesIO(made.png))).reshape(12, 12, channels)
    np.testing.assert_array_equal(shown[:4, :4], real[5])
    np.testing.assert_array_equal(shown[:4, 4:8], real[4])
    np.testing.assert_array_equal(shown[8:, 8:], real[1])
    assert not shown[:4, 8:].any()
    assert not shown[4:8].any()


def test_sheet_stays_small() -> None:
    n_classes = 120
    real = images(4, 3, image_size=80)
    labels = np.repeat(np.arange(n_classes), 12)
    made = sheet(source(real), np.zeros(len(labels), np.int64), labels, 80, n_classes)
    assert (made.image_size, made.columns, made.rows) == (64, 10, 100)
    assert Image.open(io.BytesIO(made.png)).size == (640, 6400)
