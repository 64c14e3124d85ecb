"""Images held and images streamed give the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddbench.benchmark.protocols import pixels
from ddbench.benchmark.protocols.pixels import Resident, Streamed, hold
from ddbench.datasets.base import ArraySource

CPU = torch.device("cpu")


def source(n: int = 300, image_size: int = 4) -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (n, image_size, image_size, 3), np.uint8)
    return ArraySource(images, np.zeros(n), [str(i) for i in range(n)])


def halved(images: np.ndarray) -> np.ndarray:
    return images[:, ::2, ::2]


@pytest.mark.parametrize("fit", [None, halved])
@pytest.mark.parametrize("room", [1 << 30, 0])
def test_batches_are_the_images_in_the_order_asked_for(monkeypatch: pytest.MonkeyPatch, room: int, fit: object) -> None:
    monkeypatch.setattr(pixels, "HOST_BYTES", room)
    held = hold(source(), CPU, fit)  # type: ignore[arg-type]
    assert isinstance(held, Resident if room else Streamed)
    image_size = 2 if fit else 4
    assert (len(held), held.image_size, held.channels) == (300, image_size, 3)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:70]
    batches = list(held.batches(order, 32))
    assert [batch.shape for batch in batches] == [
        (32, 3, image_size, image_size),
        (32, 3, image_size, image_size),
        (6, 3, image_size, image_size),
    ]
    assert all(batch.is_contiguous() and batch.dtype == torch.uint8 for batch in batches)
    expected = source().images[order.numpy()]
    expected = halved(expected) if fit else expected
    assert np.array_equal(torch.cat(batches).numpy(), expected.transpose(0, 3, 1, 2))


def test_arrays_on_the_cpu_are_not_copied() -> None:
    images = source().images
    held = Resident(torch.from_numpy(images))
    images[0] = 7
    assert int(next(held.batches(torch.tensor([0]), 1)).float().mean()) == 7


def test_reading_ahead_stops_with_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "HOST_BYTES", 0)
    batches = hold(source(), CPU).batches(torch.arange(300), 10)
    assert next(batches).shape[0] == 10
    batches.close()  # type: ignore[attr-defined]


def test_an_error_while_reading_ahead_is_told() -> None:
    broken = source()
    held = Streamed(broken, CPU)
    broken.images = broken.images[:10]
    with pytest.raises(IndexError):
        list(held.batches(torch.arange(20), 5))
