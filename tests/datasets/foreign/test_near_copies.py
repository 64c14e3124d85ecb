"""Copies of an image are found however they were written; other images of its kind are not taken for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared_cases import shared_case
from smooth_images import smooth_noise

from ddbench.datasets.decoded_cache import fit_image
from ddbench.datasets.foreign.near_copies import NearCopies, picture

SIDE = 64


def written(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": lambda image: written(image, 20),
    "a third": lambda image: image.resize((image.width // 3, image.height // 3), Image.Resampling.BILINEAR),
    "a third, compressed": lambda image: written(image.resize((image.width // 3, image.height // 3)), 60),
    "cropped": lambda image: image.crop((3, 5, image.width - 4, image.height - 2)),
    "centre of seven eighths": lambda image: image.crop(
        (image.width // 16, image.height // 16, image.width - image.width // 16, image.height - image.height // 16)
    ),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "brighter": lambda image: image.point(lambda value: value * 1.2),
}


def look(image: Image.Image) -> np.ndarray:
    return picture(fit_image(image, SIDE))


def images_in(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*/*")) if path.suffix != ".pt"]


def found(known: Sequence[Image.Image], asked: Sequence[Image.Image]) -> list[int | None]:
    near = NearCopies(np.stack(list(map(look, known))))
    return [None if match is None else match.place for match in map(near.find, map(look, asked))]


@pytest.mark.parametrize("change", COPIES)
def test_copies_of_made_images(change: str) -> None:
    images = smooth_noise(12, 1)
    assert found(images, list(map(COPIES[change], images))) == list(range(12))


@pytest.mark.parametrize("change", COPIES)
def test_copies_of_real_images(change: str) -> None:
    images = images_in(shared_case("set-of-test-images"))
    assert found(images, list(map(COPIES[change], images))) == list(range(20))


def test_other_images_are_none() -> None:
    assert found(smooth_noise(30, 1), smooth_noise(30, 2)) == [None] * 30
    plain = Image.new("RGB", (96, 96), (90, 90, 90))
    assert found([*smooth_noise(3, 1), plain], [plain]) == [None], "one colour is like every other"
    assert NearCopies(np.empty((0, 1, 1), np.uint8)).find(look(plain)) is None


def test_other_real_images_are_none() -> None:
    test, training = (images_in(shared_case(name)) for name in ("set-of-test-images", "set-soft-labels-beside"))
    assert found(test, training) == [None] * 20


def test_an_image_that_was_squashed_to_a_square() -> None:
    wide = [image.crop((0, 0, 96, 72)) for image in smooth_noise(12, 1)]
    assert found(wide, [image.resize((64, 64)) for image in wide]) == list(range(12))
