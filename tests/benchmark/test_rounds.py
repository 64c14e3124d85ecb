"""Commits of a distil cell: whole rounds survive, everything else is made again."""

from pathlib import Path

import numpy as np
import pytest

from ddbench.benchmark.errors import RunError
from ddbench.benchmark.rounds import Rounds
from ddbench.methods.base import DistilledImage


def image(class_index: int, image_index: int, *, latent: bool = True) -> DistilledImage:
    rng = np.random.default_rng(100 * class_index + image_index)
    return DistilledImage(
        class_index,
        image_index,
        rng.integers(0, 256, (4, 4, 1), dtype=np.uint8),
        rng.standard_normal((1, 4, 4)).astype(np.float32) if latent else None,
        {"transport": 0.5 * image_index},
    )


def open_rounds(folder: Path, ipc: int | None = 3) -> Rounds:
    return Rounds(folder, n_classes=2, ipc=ipc, channels=1)


def test_committed_rounds_come_back_bit_for_bit(tmp_path: Path) -> None:
    rounds = open_rounds(tmp_path)
    rounds.commit([image(0, 0), image(1, 0)])
    rounds.commit([image(0, 1), image(1, 1, latent=False)])
    again = open_rounds(tmp_path)
    assert set(again) == {(0, 0), (1, 0), (0, 1), (1, 1)}
    for key in again:
        expected = image(*key, latent=key != (1, 1))
        assert np.array_equal(again[key].pixels, expected.pixels)
        assert again[key].guidance_nats == expected.guidance_nats
        if expected.latent is None:
            assert again[key].latent is None
        else:
            assert np.array_equal(again[key].latent, expected.latent)
    assert again.digests == rounds.digests


def test_a_round_that_was_never_renamed_is_thrown_away(tmp_path: Path) -> None:
    rounds = open_rounds(tmp_path)
    rounds.commit([image(0, 0)])
    (tmp_path / "000000").rename(tmp_path / ".000000.123.tmp")
    assert len(open_rounds(tmp_path)) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncate image", "truncate latents", "remove marker", "other pixels"])
def test_a_damaged_round_is_thrown_away_and_the_others_stay(tmp_path: Path, damage: str) -> None:
    rounds = open_rounds(tmp_path)
    rounds.commit([image(0, 0), image(1, 0)])
    rounds.commit([image(0, 1), image(1, 1)])
    hurt = tmp_path / "000001"
    if damage == "truncate image":
        path = hurt / "0-1.png"
        path.write_bytes(path.read_bytes()[:40])
    elif damage == "truncate latents":
        path = hurt / "latents.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "remove marker":
        (hurt / "round.json").unlink()
    else:
        (hurt / "0-1.png").write_bytes((tmp_path / "000000" / "0-0.png").read_bytes())
    again = open_rounds(tmp_path)
    assert set(again) == {(0, 0), (1, 0)}
    again.commit([image(0, 1), image(1, 1)])
    assert set(open_rounds(tmp_path)) == {(0, 0), (1, 0), (0, 1), (1, 1)}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image(0, 3)], r"image 3 of class 0; expected classes 0 … 1 and images 0 … 2"),
        ([image(2, 0)], r"image 0 of class 2"),
        ([image(1, 1), image(1, 1)], "twice in one round"),
        ([DistilledImage(0, 0, np.zeros((4, 4), np.uint8))], r"expected \(H, W, 1\) uint8"),
        ([DistilledImage(0, 0, np.zeros((4, 4, 3), np.uint8))], r"shape \(4, 4, 3\)"),
        ([DistilledImage(0, 0, np.zeros((4, 4, 1), np.float32))], "type float32"),
    ],
)
def test_what_a_method_may_not_yield(tmp_path: Path, images: list[DistilledImage], message: str) -> None:
    rounds = open_rounds(tmp_path)
    with pytest.raises(RunError, match=message):
        rounds.commit(images)
    assert len(open_rounds(tmp_path)) == 0


def test_an_image_is_not_made_twice(tmp_path: Path) -> None:
    rounds = open_rounds(tmp_path)
    rounds.commit([image(0, 0)])
    with pytest.raises(RunError, match=r"made image 0 of class 0 again, although task\.done holds it"):
        rounds.commit([image(0, 0)])


def test_a_whole_training_set_has_any_number_of_images(tmp_path: Path) -> None:
    rounds = open_rounds(tmp_path, ipc=None)
    rounds.commit([image(0, 500)])
    assert set(rounds) == {(0, 500)}
