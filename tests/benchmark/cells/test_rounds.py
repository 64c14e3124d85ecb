"""Commits of a distill cell: whole rounds survive, everything else is made again."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ddbench.benchmark.cells import rounds as rounds_module
from ddbench.benchmark.cells.rounds import Rounds
from ddbench.benchmark.core.errors import RunError
from ddbench.methods.base import DistilledImage

GREY = np.zeros((4, 4, 1), np.uint8)


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
    assert dict(again.digests()) == dict(rounds.digests())


def test_threads_encode_a_round_side_by_side_into_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_of = [image(c, i) for c in range(2) for i in range(3)]
    open_rounds(tmp_path / "one").commit(round_of)
    both, encode = threading.Barrier(2, timeout=30), rounds_module.png

    def png(pixels: np.ndarray) -> bytes:
        both.wait()  # until another thread encodes too
        return encode(pixels)

    monkeypatch.setattr(rounds_module, "png", png)
    rounds = Rounds(tmp_path / "two", n_classes=2, ipc=3, channels=1, threads=2)
    rounds.commit(round_of)
    files = [{p.name: p.read_bytes() for p in (tmp_path / of / "000000").iterdir()} for of in ("one", "two")]
    assert files[0] == files[1]
    assert list(rounds) == [(c, i) for c in range(2) for i in range(3)]


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
        ([DistilledImage(0, 0, torch.zeros(4, 4, 1, dtype=torch.uint8))], "are a Tensor; expected a NumPy array"),
        ([DistilledImage(0.0, 0, GREY)], "class index 0.0.*expected whole numbers"),
        ([DistilledImage(0, 0, GREY, None, {"pull": float("nan")})], "path KL .*nan.*expected finite numbers"),
        ([DistilledImage(0, 0, GREY, None, {"pull": np.zeros(2)})], "a number for each term"),
        (image(0, 0), "yielded a DistilledImage; expected rounds: lists of DistilledImage"),
        ([(0, 0, GREY)], "yielded a list of tuple; expected rounds"),
    ],
)
def test_what_a_method_may_not_yield(tmp_path: Path, images: list[DistilledImage], message: str) -> None:
    rounds = open_rounds(tmp_path)
    with pytest.raises(RunError, match=message):
        rounds.commit(images)
    assert len(open_rounds(tmp_path)) == 0


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path: Path) -> None:
    """`np.arange(ipc)` is how many would count, and it could not be written down."""
    rounds = open_rounds(tmp_path)
    nats = {"pull": np.float32(0.5), "push": torch.tensor(0.25)}
    rounds.commit([DistilledImage(np.int64(1), torch.tensor(2), GREY, None, nats)])  # type: ignore[arg-type]  # as methods yield them
    again = open_rounds(tmp_path)
    assert set(rounds) == set(again) == {(1, 2)}
    assert again[1, 2].guidance_nats == {"pull": 0.5, "push": 0.25}


def test_an_image_is_not_made_twice(tmp_path: Path) -> None:
    rounds = open_rounds(tmp_path)
    rounds.commit([image(0, 0)])
    with pytest.raises(RunError, match=r"made image 0 of class 0 again, although task\.done holds it"):
        rounds.commit([image(0, 0)])


def test_a_whole_training_set_has_any_number_of_images(tmp_path: Path) -> None:
    rounds = open_rounds(tmp_path, ipc=None)
    rounds.commit([image(0, 500)])
    assert set(rounds) == {(0, 500)}


def test_neither_opening_nor_asking_reads_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed cell of 50,000 images decodes none, and asks of each whether it is there."""
    open_rounds(tmp_path).commit([image(0, 0), image(1, 0)])

    def decoded(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(rounds_module, "read_image", decoded)
    again = open_rounds(tmp_path)
    assert (0, 0) in again
    assert (0, 1) not in again
    assert "0-0" not in again
    assert sorted(again) == [(0, 0), (1, 0)]
    assert len(dict(again.digests())) == 2
    assert [path.name for _, path in again.files()] == ["0-0.png", "1-0.png"]
    with pytest.raises(AssertionError, match="decoded"):
        again[0, 0]


def test_a_shard_commits_its_own_classes_only(tmp_path: Path) -> None:
    shard = Rounds(tmp_path, n_classes=4, ipc=1, channels=1, classes=range(1, 3))
    shard.commit([image(1, 0), image(2, 0)])
    for outside in (0, 3):
        with pytest.raises(RunError, match=f"image 0 of class {outside}; expected classes 1 … 2"):
            shard.commit([image(outside, 0)])


def test_rounds_of_shards_are_adopted_and_left_as_they_are(tmp_path: Path) -> None:
    """Also where an attempt at the whole set has made some of their images before, and where a shard is damaged."""
    for index in range(2):
        shard = Rounds(tmp_path / str(index), n_classes=2, ipc=2, channels=1, classes=range(index, index + 1))
        shard.commit([image(index, 0)])
        shard.commit([image(index, 1)])
    whole = tmp_path / "whole"
    Rounds(whole, n_classes=2, ipc=2, channels=1).commit([image(1, 0)])
    hurt = tmp_path / "0" / "000001" / "0-1.png"
    hurt.write_bytes(hurt.read_bytes()[:-4])

    merged = Rounds(whole, n_classes=2, ipc=2, channels=1, adopted=[tmp_path / "0", tmp_path / "1"])
    assert set(merged) == {(0, 0), (1, 0), (1, 1)}, "the damaged image is to be made again"
    assert dict(merged.files())[1, 0] == tmp_path / "1" / "000000" / "1-0.png", "a shard's image counts"
    assert hurt.exists()
    merged.commit([image(0, 1)])
    assert set(merged) == {(c, i) for c in range(2) for i in range(2)}
    assert np.array_equal(merged[1, 1].pixels, image(1, 1).pixels)
