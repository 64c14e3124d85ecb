"""What changes a hash, and what must not."""

import hashlib

import numpy as np
import pytest

from ddbench.datasets import hashing
from ddbench.datasets.base import ArraySource
from ddbench.datasets.hashing import content_hash, source_hash, split_hash


def source(n=5, seed=0, image_size=4):
    images = np.random.default_rng(seed).integers(0, 256, (n, image_size, image_size, 1), dtype=np.uint8)
    return ArraySource(images, np.arange(n) % 2, [f"{i % 2}/{i}.png" for i in range(n)])


def test_split_hash_is_that_of_the_sorted_lines():
    expected = hashlib.sha256(b"test/a/2.png\ntrain/a/1.png\ntrain/b/1.png").hexdigest()
    assert split_hash(["b/1.png", "a/1.png"], ["a/2.png"]) == expected


def test_split_hash_tells_the_sides_apart():
    assert split_hash(["a/1"], ["a/2"]) != split_hash(["a/2"], ["a/1"])


@pytest.mark.parametrize(("train", "test"), [(["a/1", "a/1"], []), (["a/1"], ["a/1"])])
def test_split_hash_refuses_a_repeated_name(train, test):
    with pytest.raises(ValueError, match="1 repeated"):
        split_hash(train, test)


def test_source_hash_depends_on_pixels_labels_names_and_shape():
    base = source()
    pixel = base.images.copy()
    pixel[2, 1, 1, 0] ^= 1
    others = [
        ArraySource(pixel, base.labels, base.names),
        ArraySource(base.images, 1 - base.labels, base.names),
        ArraySource(base.images, base.labels, [*base.names[:-1], "0/9.png"]),
        ArraySource(base.images.reshape(5, 2, 8, 1), base.labels, base.names),
    ]
    hashes = {source_hash(s) for s in [base, *others]}
    assert len(hashes) == 5
    assert source_hash(source()) == source_hash(base)


def test_the_block_size_does_not_change_a_hash(monkeypatch):
    whole = source_hash(source())
    monkeypatch.setattr(hashing, "BLOCK", 2)
    assert source_hash(source()) == whole


def test_content_hash_covers_both_sides():
    one, two = source(seed=1), source(seed=2)
    assert len({content_hash(one, two), content_hash(two, one), content_hash(one, one)}) == 3
