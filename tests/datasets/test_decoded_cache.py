"""Decoding against torchvision's transforms, and a cache that keeps what is whole and nothing else."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from ddbench.benchmark.core import files
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.datasets import decoded_cache
from ddbench.datasets.base import Subset
from ddbench.datasets.decoded_cache import DecodedCache, DecodedImages, Part, fit_image
from ddbench.datasets.file_dataset import load_anew
from ddbench.datasets.hashing import content_hash
from ddbench.datasets.imagenet.opened import OpenedSplit


def torchvisions(image: Image.Image, image_size: int) -> np.ndarray:
    """The test transform of the papers' programs, on a PIL image as their loaders open it."""
    both = transforms.Compose([transforms.Resize(image_size), transforms.CenterCrop(image_size)])
    return np.asarray(both(image.convert("RGB")))


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 60), height=st.integers(1, 60), image_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_resize_and_crop_are_torchvisions(width: int, height: int, image_size: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    assert np.array_equal(fit_image(image, image_size), torchvisions(image, image_size))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA"])
def test_every_kind_of_image_becomes_rgb(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    fitted = fit_image(image, 16)
    assert fitted.shape == (16, 16, 3)
    assert np.array_equal(fitted, torchvisions(image, 16))


def decoded_by_hand(tiny: Any, name: str, image_size: int) -> np.ndarray:
    """From the JPEG data that was written, not from the cache."""
    import io

    wnid, file = name.split("/")
    kind = "val" if "val" in file else "train"
    number = int(file.removesuffix(".JPEG").rpartition("_")[2])
    return torchvisions(Image.open(io.BytesIO(tiny.jpeg(wnid, kind, number))), image_size)


@pytest.mark.parametrize("image_size", [8, 20, 32])
def test_images_are_those_of_their_names(tiny: Any, image_size: int) -> None:
    data = tiny.dataset().load("imagenet", tiny.archive(), image_size)
    for source in (data.train, data.test):
        expected = np.stack([decoded_by_hand(tiny, name, image_size) for name in source.names])
        assert np.array_equal(source.read(np.arange(len(source))), expected)
    assert data.content_hash == content_hash(data.train, data.test)


def test_reading_opens_only_what_is_asked_for(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.dataset().load("imagenet", tiny.tree(), 16)
    opened: list[str] = []
    real = np.load

    def load(path: Path, **options: Any) -> Any:
        opened.append(Path(path).stem)
        assert options == {"mmap_mode": "r"}
        return real(path, **options)

    monkeypatch.setattr(decoded_cache.np, "load", load)
    assert data.train.read([]).shape == (0, 16, 16, 3)
    assert opened == []
    first, _, third = tiny.classes
    indices = [*data.train.of_class(2)[:2], *data.train.of_class(0)[-1:]]
    images = data.train.read(indices)
    assert sorted(opened) == sorted([f"{first}-train", f"{third}-train"])
    assert isinstance(images, np.ndarray)
    assert not isinstance(images, np.memmap)
    some = Subset(data.train, indices)
    assert np.array_equal(some.read(np.arange(3)), data.train.read(np.sort(indices)))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    wanted=st.lists(st.integers(0, 10_000), max_size=30),
    seed=st.integers(0, 99),
)
def test_any_selection_from_any_parts(
    counts: list[int], wanted: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, generator = tmp_path_factory.mktemp("parts"), np.random.default_rng(seed)
    arrays = [generator.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8) for count in counts]
    paths = [folder / f"{number}.npy" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    places = np.array([(part, row) for part, count in enumerate(counts) for row in range(count)]).reshape(-1, 2)
    order = generator.permutation(len(places))
    source = DecodedImages(
        paths, places[order, 0], places[order, 1], np.zeros(len(order), np.int64), [""] * len(order), 4
    )
    indices = [i % len(order) for i in wanted] if len(order) else []
    expected = [arrays[places[order[i], 0]][places[order[i], 1]] for i in indices]
    assert np.array_equal(source.read(indices), np.array(expected, np.uint8).reshape(-1, 4, 4, 3))


# What is kept ---------------------------------------------------------------------------------------------------------


def test_what_is_decoded_is_shared_by_splits_and_loads(tiny: Any) -> None:
    source, dataset = tiny.archive(), tiny.dataset()
    assert dataset.prepare("imagenet", source, 16).decoded == 18
    assert dataset.prepare("imagenet", source, 16).decoded == 0
    assert dataset.prepare("fastai", source, 16).decoded == 0, "the same images"
    assert dataset.prepare("imagenet", source, 8).decoded == 18
    assert dataset.inspect("imagenet", source).decoded == (8, 16)


class Killed(BaseException):
    pass


def test_a_killed_preparation_goes_on_with_what_is_missing(tiny: Any, own_cache: Path) -> None:
    source, dataset = tiny.tree(), tiny.dataset()

    def stop_at(what: str, done: int, total: int) -> None:
        if done >= 6:
            raise Killed

    with pytest.raises(Killed):
        dataset.prepare("imagenet", source, 16, progress=stop_at)
    whole = sorted(own_cache.rglob("*-train.npy")) + sorted(own_cache.rglob("*-val.npy"))
    kept = {path: path.stat().st_mtime_ns for path in whole}
    assert 0 < len(kept) < 6
    assert dataset.inspect("imagenet", source).decoded == ()
    rest = dataset.prepare("imagenet", source, 16)
    assert 0 < rest.decoded < 18
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(own_cache.rglob("*.tmp"))
    undisturbed = tiny.dataset().load("imagenet", tiny.tree(name="other"), 16)
    assert dataset.load("imagenet", source, 16).content_hash == undisturbed.content_hash


def test_a_replaced_image_is_decoded_again_and_changes_the_hash(tiny: Any) -> None:
    source, dataset, wnid = tiny.tree(), tiny.dataset(), tiny.classes[0]
    before = dataset.load("imagenet", source, 16)
    image = source / "train" / wnid / f"{wnid}_3.JPEG"
    image.unlink()
    image.write_bytes(tiny.jpeg(wnid, "train", 77))
    assert dataset.prepare("imagenet", source, 16).decoded == 4, "that class's training images"
    after = dataset.load("imagenet", source, 16)
    assert after.split_hash == before.split_hash
    assert after.content_hash != before.content_hash


def test_an_image_that_is_written_to_is_decoded_again_at_every_side(tiny: Any) -> None:
    """As a program that opens it, resizes it and saves it does: its folder's time stays."""
    source, dataset, wnid = tiny.tree(), tiny.dataset(), tiny.classes[0]
    before = dataset.load("imagenet", source, 16)
    larger = dataset.train_at("imagenet", source, 24, "adm")
    was = larger.read(np.arange(len(larger)))
    image = source / "train" / wnid / f"{wnid}_3.JPEG"
    folder = image.parent.stat()
    image.write_bytes(tiny.jpeg(wnid, "train", 77))
    assert image.parent.stat().st_mtime_ns == folder.st_mtime_ns
    assert dataset.prepare("imagenet", source, 16).decoded == 4, "that class's training images"
    assert dataset.load("imagenet", source, 16).content_hash != before.content_hash
    larger = dataset.train_at("imagenet", source, 24, "adm")
    assert [i for i in range(len(larger)) if not np.array_equal(larger.read([i])[0], was[i])] == [
        larger.names.index(f"{wnid}/{wnid}_3.JPEG")
    ]
    assert dataset.prepare("imagenet", source, 16).decoded == 0


@pytest.mark.parametrize("how", ["prepare", "load_anew"])
def test_who_begins_looks_at_the_files(how: str, tiny: Any) -> None:
    source, dataset = tiny.tree(), tiny.dataset()
    before = dataset.load("imagenet", source, 16)
    image = source / "train" / tiny.classes[0] / f"{tiny.classes[0]}_3.JPEG"
    image.write_bytes(tiny.jpeg(tiny.classes[0], "train", 78))
    if how == "prepare":
        dataset.prepare("imagenet", source, None)
        after = dataset.load("imagenet", source, 16)
    else:
        after = load_anew(dataset, "imagenet", source, 16)
    assert after.content_hash != before.content_hash


def test_what_another_process_decoded_anew_meanwhile_is_kept(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that begin after an edit: the second gets the lock when the first has done the work."""
    source, dataset, wnid = tiny.tree(), tiny.dataset(), tiny.classes[0]
    dataset.load("imagenet", source, 16)
    (source / "train" / wnid / f"{wnid}_3.JPEG").write_bytes(tiny.jpeg(wnid, "train", 77))
    lock, firsts = OpenedSplit._lock, list[int]()

    def first_come(opened: OpenedSplit, progress: Any) -> Any:
        monkeypatch.setattr(OpenedSplit, "_lock", lock)
        firsts.append(dataset.prepare("imagenet", source, 16).decoded)
        return lock(opened, progress)

    monkeypatch.setattr(OpenedSplit, "_lock", first_come)
    assert dataset.prepare("imagenet", source, 16).decoded == 0
    assert firsts == [4]


def test_no_note_vouches_for_images_that_took_others_place(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between its two writes, after an image was replaced; then a backup brings the old one, times and all."""
    source, dataset, wnid = tiny.tree(), tiny.dataset(), tiny.classes[0]
    train = dataset.load("imagenet", source, 16).train
    before = train.read(np.arange(len(train)))
    image = source / "train" / wnid / f"{wnid}_3.JPEG"
    times = image.parent.stat()
    kept = image.rename(source / "kept")
    image.write_bytes(tiny.jpeg(wnid, "train", 77))

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(decoded_cache, "write_json", killed)
        with pytest.raises(Killed):
            dataset.prepare("imagenet", source, 16)
    kept.replace(image)
    os.utime(image.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = dataset.load("imagenet", source, 16).train
    assert np.array_equal(after.read(np.arange(len(after))), before)


def test_a_damaged_note_means_decoding_again(tiny: Any, own_cache: Path) -> None:
    source, dataset = tiny.tree(), tiny.dataset()
    before = dataset.load("imagenet", source, 16)
    for note in own_cache.rglob("*-val.json"):
        note.write_text("{")
    assert dataset.prepare("imagenet", source, 16).decoded == 6
    assert dataset.load("imagenet", source, 16).content_hash == before.content_hash


def test_two_at_once_decode_once(tiny: Any) -> None:
    """The first goes on only when the second has said that it waits."""
    source, decoded, waits = tiny.archive(), list[int](), threading.Event()

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("waiting for another process"):
            waits.set()
        elif what.startswith("decoding") and done:
            assert waits.wait(timeout=30), "both decode"

    def prepare() -> None:
        decoded.append(tiny.dataset().prepare("imagenet", source, 16, progress=progress).decoded)

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoded) == [0, 18]


def test_too_little_disk_is_said_before_anything_is_written(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    source = tiny.tree()
    usage = shutil.disk_usage(tiny.folder)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=10 * 2**20))
    with pytest.raises(RunError, match=r"needs 0\.\d+ GiB in .*, where 0\.01 GiB are free; .*DDBENCH_CACHE"):
        tiny.dataset().load("imagenet", source, 16)
    assert not list(own_cache.rglob("*-train.npy"))


def test_a_full_disk_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    files = sorted(tiny.tree().rglob("*.JPEG"))[:5]
    cache, written = DecodedCache(tmp_path / "c", 16), [0]
    real = decoded_cache.os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        written[0] += 1
        if written[0] > 3:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) // 2], offset)  # short writes happen

    monkeypatch.setattr(decoded_cache.os, "pwrite", pwrite)
    part = Part("a", len(files), lambda: files, "id")
    with pytest.raises(OSError, match="No space left"):
        cache.decode([part], lambda images: None)
    assert cache.find(part) is None
    assert not [path for path in cache.folder.iterdir() if path.suffix in (".npy", ".tmp")]
    monkeypatch.setattr(
        decoded_cache.os, "pwrite", lambda d, data, offset: real(d, data[: max(1, len(data) // 2)], offset)
    )
    assert cache.decode([part], lambda images: None) == {}
    kept = np.load(cache.folder / "a.npy")
    assert np.array_equal(kept, np.stack([torchvisions(Image.open(file), 16) for file in files]))


def test_small_images_are_said_to_be_enlarged(tiny: Any) -> None:
    source, dataset = tiny.tree(), tiny.dataset()
    warning = dataset.load("imagenet", source, 32).warning
    assert warning is not None
    assert "about 20 px and were enlarged to 32 px" in warning
    assert dataset.load("imagenet", source, 20).warning is None


# Corrupt images -------------------------------------------------------------------------------------------------------


def break_image(root: Path, wnid: str, file: str, how: str, kind: str = "train") -> Path:
    path = root / kind / wnid / file
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"<html>not found</html>"}[how])
    return path


@pytest.mark.parametrize("how", ["truncated", "empty", "text"])
def test_corrupt_images_are_all_listed_and_stop_it(tiny: Any, how: str, own_cache: Path) -> None:
    root, dataset = tiny.tree(), tiny.dataset()
    first, second, _ = tiny.classes
    names = [f"train/{first}/{first}_3.JPEG", f"train/{second}/{second}_20.JPEG"]
    for name in names:
        break_image(root, *name.split("/")[1:], how)
    with pytest.raises(RunError) as error:
        dataset.load("imagenet", root, 16)
    assert "2 corrupt images" in str(error.value)
    assert all(name in str(error.value) for name in names)
    assert "--skip-corrupt" in str(error.value)
    assert len(list(own_cache.rglob("*-*.npy"))) == 4, "the parts without corrupt images are kept"


def test_skipping_is_chosen_once_and_said_everywhere(tiny: Any) -> None:
    root, dataset, wnid = tiny.tree(), tiny.dataset(), tiny.classes[1]
    whole = dataset.split_hash("imagenet", root)
    broken = break_image(root, wnid, f"{wnid}_100.JPEG", "truncated")
    prepared = dataset.prepare("imagenet", root, 16, skip_corrupt=True)
    assert prepared.n_train == 11
    assert [f"{wnid}_100" in line for line in prepared.skipped] == [True]
    data = dataset.load("imagenet", root, 16)
    assert f"{wnid}/{wnid}_100.JPEG" not in list(data.train.names)
    assert data.split_hash == dataset.split_hash("imagenet", root) != whole
    assert data.warning is not None
    assert "1 corrupt training images are left out (n02093754_100.JPEG)" in data.warning
    assert dataset.train_counts("imagenet", root)[wnid] == 3
    expected = np.stack([decoded_by_hand(tiny, name, 16) for name in data.train.names])
    assert np.array_equal(data.train.read(np.arange(11)), expected)
    # With the file mended, nothing is left out any more.
    broken.unlink()
    broken.write_bytes(tiny.jpeg(wnid, "train", 100))
    assert dataset.split_hash("imagenet", root) == whole
    assert dataset.load("imagenet", root, 16).warning is None


def test_a_test_image_is_never_skipped(tiny: Any) -> None:
    root, dataset, wnid = tiny.tree(), tiny.dataset(), tiny.classes[0]
    break_image(root, wnid, "ILSVRC2012_val_00000001.JPEG", "truncated", "val")
    with pytest.raises(RunError, match="A test set is never made smaller"):
        dataset.prepare("imagenet", root, 16, skip_corrupt=True)


def test_an_image_skipped_in_one_split_is_missing_in_anothers_test(tiny: Any) -> None:
    root, dataset, wnid = tiny.tree(tiny.fastai, "imagewoof2"), tiny.dataset(), tiny.classes[0]
    break_image(root, wnid, f"{wnid}_1000.JPEG", "truncated", "val")
    assert dataset.prepare("imagenet", root, 16, skip_corrupt=True).n_train == 11
    with pytest.raises(UsageError, match="1 of its test images are corrupt"):
        dataset.load("fastai", root, 16)


def test_a_system_error_is_not_taken_for_a_corrupt_image(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 16)
    with pytest.raises(FileNotFoundError):
        cache.decode([Part("a", 1, lambda: [tmp_path / "gone.JPEG"], "id")], lambda images: None)


def adm_crop(image: Image.Image, image_size: int) -> np.ndarray:
    """ADM's centre crop; where both sides are even, halved by arithmetic: means of two pixels of a row, then of a
    column, each to the nearest level, halves upwards. Pillow may begin with the columns, so each halving may differ by
    a level, which the bicubic resize may make two."""
    rgb = image.convert("RGB")
    while min(rgb.size) // 2 >= image_size:
        if rgb.width % 2 or rgb.height % 2:
            rgb = rgb.resize((rgb.width // 2, rgb.height // 2), Image.Resampling.BOX)
            continue
        rows = np.floor(np.asarray(rgb, float).reshape(rgb.height, rgb.width // 2, 2, 3).mean(2) + 0.5)
        both = np.floor(rows.reshape(rgb.height // 2, 2, rgb.width // 2, 3).mean(1) + 0.5)
        rgb = Image.fromarray(both.astype(np.uint8))
    short = min(rgb.size)
    size = tuple(image_size if length == short else round(length * (image_size / short)) for length in rgb.size)
    pixels = np.asarray(rgb.resize(size, Image.Resampling.BICUBIC))
    top, left = ((length - image_size) // 2 for length in pixels.shape[:2])
    return pixels[top : top + image_size, left : left + image_size]


@settings(max_examples=60, deadline=None)
@example(width=64, height=64, image_size=1, seed=0)
@given(width=st.integers(1, 70), height=st.integers(1, 70), image_size=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_adm_crop(width: int, height: int, image_size: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    halvings = int(np.log2(max(1, min(image.size) // image_size)))
    found, expected = fit_image(image, image_size, "adm").astype(int), adm_crop(image, image_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * halvings)


def test_training_images_at_another_side(tiny: Any) -> None:
    """In the same order, from the files, kept apart from the students' resize, and named by their content."""
    dataset, archive = tiny.dataset(), tiny.archive()
    data = dataset.load("imagenet", archive, 16)
    said: list[str] = []
    for image_size, resize in ((8, "adm"), (8, "bilinear")):
        source = dataset.train_at("imagenet", archive, image_size, resize, lambda what, done, total: said.append(what))
        assert list(source.names) == list(data.train.names)
        assert np.array_equal(source.labels, data.train.labels)
        by_hand = [_picture(tiny, name) for name in source.names]
        crop = adm_crop if resize == "adm" else torchvisions
        expected = np.stack([crop(image, image_size) for image in by_hand])
        found = source.read(np.arange(len(source))).astype(int)
        np.testing.assert_allclose(found, expected, rtol=0, atol=3 if resize == "adm" else 0)
    assert {"decoding tiny-woof at 8 px for its prior", "decoding tiny-woof at 8 px"} <= set(said)
    said.clear()
    again = dataset.train_at("imagenet", archive, 8, "adm", lambda what, done, total: said.append(what))
    assert said == []  # only what no earlier call decoded

    # The name of a class's content: of the pixels and their order, not of the dataset or the split.
    names = {again.class_sha256(c) for c in range(3)}
    assert len(names) == 3
    assert again.class_sha256(0) == dataset.train_at("imagenet", archive, 8, "adm").class_sha256(0)
    assert again.class_sha256(0) != dataset.train_at("imagenet", archive, 8, "bilinear").class_sha256(0)
    assert again.class_sha256(0) != dataset.train_at("fastai", archive, 8, "adm").class_sha256(0)


def _picture(tiny: Any, name: str) -> Image.Image:
    import io

    wnid, file = name.split("/")
    return Image.open(io.BytesIO(tiny.jpeg(wnid, "train", int(file.removesuffix(".JPEG").rpartition("_")[2]))))


def test_images_that_lie_in_no_files_have_one_side() -> None:
    from ddbench.benchmark.core.errors import UsageError
    from ddbench.datasets.digits import Digits

    own = Digits().load("default", None, 8).train
    assert np.array_equal(Digits().train_at("default", None, 8, "adm").read([0, 5]), own.read([0, 5]))
    with pytest.raises(UsageError, match="digits's images are 8 px and lie in no files that could be read at 16 px"):
        Digits().train_at("default", None, 16, "bilinear")
