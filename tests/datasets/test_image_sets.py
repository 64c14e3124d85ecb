"""Distilled sets on disk: a hash of pixels, a plain layout, all problems of a foreign folder at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.datasets.float_images import store_floats
from ddbench.datasets.image_sets import image_name, pixels_sha256, read_set, set_sha256, store_set, write_png

CLASSES = ("a", "b", "c")


def pixels(seed: int, channels: int = 3, image_size: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (image_size, image_size, channels), dtype=np.uint8)


def make_folder(folder: Path, per_class: int = 2, channels: int = 3) -> Path:
    for c, class_id in enumerate(CLASSES):
        (folder / class_id).mkdir(parents=True)
        for i in range(per_class):
            write_png(folder / class_id / image_name(i), pixels(10 * c + i, channels))
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_a_set_comes_back_as_it_was_written(tmp_path: Path, channels: int) -> None:
    found = read_set(make_folder(tmp_path / "set", channels=channels), CLASSES, channels)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.ipc == 2
    for image, seed in zip(found.pixels, (0, 1, 10, 11, 20, 21), strict=True):
        assert np.array_equal(image, pixels(seed, channels))


def test_what_its_images_take_is_what_lies_there(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set")
    (folder / "notes.txt").write_text("no image of it")
    assert read_set(folder, CLASSES, 3).image_bytes == sum(path.stat().st_size for path in folder.glob("*/*.png"))
    floats = np.zeros((3, 4, 4, 1), np.float32)
    store_floats(tmp_path / "floats", floats, np.arange(3), CLASSES, {})
    assert read_set(tmp_path / "floats", CLASSES, 1).image_bytes == floats.nbytes


def test_the_hash_is_of_pixels_not_of_files(tmp_path: Path) -> None:
    plain = read_set(make_folder(tmp_path / "plain"), CLASSES, 3)
    repacked = make_folder(tmp_path / "repacked")
    for path in repacked.glob("*/*.png"):
        image = Image.open(path)
        image.load()
        path.unlink()
        image.save(path.with_suffix(".bmp"))
    assert read_set(repacked, CLASSES, 3).sha256 == plain.sha256


def test_the_hash_sees_pixels_classes_and_order(tmp_path: Path) -> None:
    digests = [(c, i, pixels_sha256(pixels(10 * n + i))) for n, c in enumerate(CLASSES) for i in range(2)]
    base = set_sha256(digests)
    assert base == read_set(make_folder(tmp_path / "set"), CLASSES, 3).sha256
    swapped = [digests[1], digests[0], *digests[2:]]
    renamed = [("x", *digests[0][1:]), *digests[1:]]
    touched = pixels(0)
    touched[0, 0, 0] ^= 1
    changed = [("a", 0, pixels_sha256(touched)), *digests[1:]]
    assert len({base, set_sha256(swapped), set_sha256(renamed), set_sha256(changed)}) == 4
    assert pixels_sha256(np.zeros((2, 8, 1), np.uint8)) != pixels_sha256(np.zeros((4, 4, 1), np.uint8))


def test_every_problem_of_a_layout_is_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set")
    (folder / "c").rename(folder / "3")
    with pytest.raises(Problems) as error:
        read_set(folder, CLASSES, 3)
    text = str(error.value)
    assert "3: no class has this id" in text
    assert "no images for 1 of 3 classes: c" in text
    assert "expected one folder per class id: a, b, c" in text


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set")
    whole = (folder / "a" / "00000.png").read_bytes()
    (folder / "a" / "00000.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b" / "00001.png").write_text("no image")
    with pytest.raises(Problems) as error:
        read_set(folder, CLASSES, 3)
    text = str(error.value)
    assert f"{folder / 'a' / '00000.png'}: cannot be read" in text
    assert f"{folder / 'b' / '00001.png'}: cannot be read" in text


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read_set(tmp_path / "absent", CLASSES, 3)


def test_storing_a_set(tmp_path: Path) -> None:
    files = {}
    for c in range(2):
        path = tmp_path / f"{c}.png"
        write_png(path, pixels(c))
        files[c, 0] = path
    target = store_set(tmp_path / "sets", files.items(), ("a", "b"), "ab" * 32, {"method": "random"})
    assert target.name == ("ab" * 32)[:16]
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*.*")) == [
        "a/00000.png",
        "b/00000.png",
        "manifest.json",
    ]
    again = store_set(tmp_path / "sets", files.items(), ("a", "b"), "ab" * 32, {"method": "another"})
    assert '"random"' in (again / "manifest.json").read_text(), "a set that is there stays as it is"
    assert [p.name for p in (tmp_path / "sets").iterdir()] == [target.name]
