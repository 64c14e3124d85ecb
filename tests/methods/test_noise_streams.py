"""The noise of real runs: an image's draws are its own."""

from __future__ import annotations

from functools import partial

import torch

from ddbench.benchmark.core import seeds
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise

IMAGES = [ImageKey("n01", 0), ImageKey("n02", 0), ImageKey("n01", 1)]


def source(images: list[ImageKey], seed: int = 0) -> StreamNoise:
    return StreamNoise(partial(seeds.stream, seed), images)


def test_draws_do_not_depend_on_the_batch() -> None:
    together, alone = source(IMAGES), source([IMAGES[2]])
    shape = (4, 8, 8)
    assert torch.equal(together.initial(shape)[2], alone.initial(shape)[0])
    for n in range(3):
        assert torch.equal(together.step(n, shape)[2], alone.step(n, shape)[0])
    assert torch.equal(together.labels(5, 16, "uniform")[:, 2], alone.labels(5, 16, "uniform")[:, 0])
    assert together.choice(1000)[2] == alone.choice(1000)[0]


def test_streams_are_distinct() -> None:
    first = source(IMAGES)
    draws = [first.initial((64,)), first.step(0, (64,)), first.step(1, (64,)), source(IMAGES, seed=1).initial((64,))]
    rows = torch.cat([*draws, *first.labels(2, 32, "normal").flatten(2)])
    assert (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max() < 0.6  # 64 numbers; equal rows would give 1


def test_distributions() -> None:
    noise = source([ImageKey("n01", i) for i in range(20)])
    normal = torch.cat([noise.initial((1000,)), noise.labels(5, 100, "normal").transpose(0, 1).flatten(1)])
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    uniform = noise.labels(50, 10, "uniform")
    assert uniform.shape == (50, 20, 2, 10)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01
    counts = torch.bincount(source([ImageKey("n01", i) for i in range(3000)]).choice(3), minlength=3)
    assert (counts - 1000).abs().max() < 130  # five standard deviations


def test_asking_twice_gives_the_same_labels() -> None:
    noise = source(IMAGES)
    assert torch.equal(noise.labels(3, 8, "uniform"), noise.labels(3, 8, "uniform"))
    # A longer chain starts with the shorter one's draws.
    assert torch.equal(noise.labels(3, 8, "uniform"), noise.labels(9, 8, "uniform")[:3])
