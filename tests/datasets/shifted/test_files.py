"""Shifted test sets as they are unpacked: what each folder's images are of, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.datasets.imagenet.classes import IMAGENET_1K, NETTE, WOOF
from ddbench.datasets.shifted.catalogue import SHIFTED
from ddbench.datasets.shifted.files import ShiftedFiles, find_folder, read_files
from ddbench.datasets.shifted.pixels import from_files

V2, SKETCH, C = (SHIFTED[name] for name in ("imagenet-v2", "imagenet-sketch", "imagenet-c"))
CLASSES = (WOOF[1], NETTE[0], NETTE[9])
"""n02093754, number 182; n01440764, number 0; n03888257, number 701: not in the order of their wnids."""
NUMBERS = {wnid: IMAGENET_1K.index(wnid) for wnid in CLASSES}


def colour(wnid: str) -> tuple[int, int, int]:
    """A class's own: whoever mistakes a folder sees it in the pixels."""
    return (60 + 60 * CLASSES.index(wnid), 10, 200) if wnid in CLASSES else (0, 0, 0)


def write(folder: Path, wnid: str, count: int = 10, prefix: str = "") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (30, 24), colour(wnid)).save(folder / f"{prefix}{number}.jpeg", quality=95)


def v2(root: Path, *, classes: Sequence[str] = CLASSES, count: int = 10) -> Path:
    """With neighbours in both orders: as text 182 stands before 2, and 701 after 70."""
    for wnid in classes:
        write(root / str(IMAGENET_1K.index(wnid)), wnid, count)
    for number in (1, 2, 10, 100, 181, 183, 70, 7, 999):
        write(root / str(number), IMAGENET_1K[number], 10)
    return root


def classes_of(files: ShiftedFiles, condition: str = "") -> list[int]:
    """Which class each image shows, by its colour."""
    shown = from_files(files, 16)[condition].pixels[:, 8, 8, 0].astype(int)
    return [int(np.argmin([abs(value - colour(wnid)[0]) for wnid in CLASSES])) for value in shown]


def test_numbers_are_imagenets_label_order_and_not_folders_sorted_as_text(tmp_path: Path) -> None:
    root = v2(tmp_path / "imagenetv2-matched-frequency-format-val")
    assert find_folder(V2, [tmp_path], alone=False) == root
    files = read_files(V2, root, CLASSES)
    assert files.labels("").tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert classes_of(files) == files.labels("").tolist()
    assert [path.parent.name for _, path in files.images[""][::10]] == ["182", "0", "701"]


def test_the_other_release_with_wnids_is_read_by_them(tmp_path: Path) -> None:
    for wnid in reversed(CLASSES):
        write(tmp_path / "v2" / wnid, wnid)
    files = read_files(V2, find_folder(V2, [tmp_path / "v2"], alone=True), CLASSES)
    assert classes_of(files) == files.labels("").tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_a_renamed_folder_is_another_class(tmp_path: Path) -> None:
    root = v2(tmp_path / "imagenet-v2")
    for file in root.glob("*/*.jpeg"):
        with file.open("ab") as opened:
            opened.write(bytes(1000 - file.stat().st_size))  # of one size, so that names and sizes tell nothing
    before = read_files(V2, root, CLASSES)
    assert classes_of(before) == [0] * 10 + [1] * 10 + [2] * 10
    (root / "0").rename(root / "spare")
    (root / "701").rename(root / "0")
    (root / "spare").rename(root / "701")
    after = read_files(V2, root, CLASSES)
    assert classes_of(after) == [0] * 10 + [2] * 10 + [1] * 10  # the labels stay, and the pixels change places
    assert after.labels("").tolist() == before.labels("").tolist()
    assert after.sha256 == before.sha256


def test_an_identity_of_names_and_sizes(tmp_path: Path) -> None:
    root = v2(tmp_path / "imagenet-v2")
    before = read_files(V2, root, CLASSES)
    assert read_files(V2, shutil.copytree(root, tmp_path / "copy"), CLASSES).sha256 == before.sha256
    assert read_files(V2, root, CLASSES[:2]).sha256 != before.sha256
    Image.new("RGB", (64, 64), (1, 2, 3)).save(root / "182" / "3.jpeg")
    assert read_files(V2, root, CLASSES).sha256 != before.sha256


def test_another_number_of_images_is_refused(tmp_path: Path) -> None:
    root = v2(tmp_path / "imagenet-v2", count=20)  # a release that was withdrawn had twenty a class
    with pytest.raises(UsageError, match=f"has 20 images of class {CLASSES[0]}, folder 182 by its number: expected 10"):
        read_files(V2, root, CLASSES)
    ten = tmp_path / "ten" / "imagenet-v2"  # numbered by a dataset's own order, which no program can tell
    for number in range(10):
        write(ten / str(number), NETTE[number])
    with pytest.raises(UsageError, match="has 0 images of class n02102040, folder 217 by its number"):
        read_files(V2, ten, NETTE)


def test_two_folders_of_one_class_are_refused(tmp_path: Path) -> None:
    root = v2(tmp_path / "imagenet-v2")
    write(root / "0182", CLASSES[0])
    with pytest.raises(UsageError, match="both 0182 and 182 are class n02093754"):
        read_files(V2, root, CLASSES)


def test_which_of_several_variants_must_be_said(tmp_path: Path) -> None:
    for kind in ("matched-frequency", "top-images"):
        v2(tmp_path / f"imagenetv2-{kind}-format-val")
    with pytest.raises(UsageError, match="several folders hold it"):
        find_folder(V2, [tmp_path], alone=True)
    one = tmp_path / "imagenetv2-top-images-format-val"
    assert find_folder(V2, [one], alone=True) == one


def test_sketches_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for wnid in CLASSES:
        write(tmp_path / "imagenet-sketch" / "sketch" / wnid, wnid, count=3, prefix="sketch_")
    root = find_folder(SKETCH, [tmp_path], alone=False)
    assert root == tmp_path / "imagenet-sketch" / "sketch"
    files = read_files(SKETCH, root, CLASSES)
    assert files.labels("").tolist() == [0] * 3 + [1] * 3 + [2] * 3
    (root / CLASSES[1]).rename(root / "elsewhere")
    with pytest.raises(UsageError, match=f"has 0 images of class {CLASSES[1]}: expected some"):
        read_files(SKETCH, root, CLASSES)


def test_no_set_is_taken_for_another(tmp_path: Path) -> None:
    write(tmp_path / "imagenet-r" / CLASSES[0], CLASSES[0])
    for places, alone in (([tmp_path / "imagenet-r"], True), ([tmp_path / "imagenet-r"], False), ([], True)):
        with pytest.raises(UsageError, match="imagenet-sketch: "):
            find_folder(SKETCH, places, alone=alone)
    write(tmp_path / "mine" / CLASSES[0], CLASSES[0])
    assert find_folder(SKETCH, [tmp_path / "mine"], alone=True) == tmp_path / "mine"
    with pytest.raises(UsageError, match="not found in"):
        find_folder(SKETCH, [tmp_path / "mine"], alone=False)


@pytest.mark.parametrize("name", ["n02093754_12.JPEG", "ILSVRC2012_val_00000012.JPEG", "n02093754_12_n02093754.JPEG"])
def test_imagenets_own_images_are_no_shifted_set(tmp_path: Path, name: str) -> None:
    for wnid in CLASSES:
        write(tmp_path / "imagenet" / "train" / wnid, wnid, count=2, prefix="sketch_")
    root = find_folder(SKETCH, [tmp_path / "imagenet"], alone=True)
    read_files(SKETCH, root, CLASSES)
    (root / CLASSES[0] / "sketch_0.jpeg").rename(root / CLASSES[0] / name)
    with pytest.raises(UsageError, match="is named as ImageNet's own images are"):
        read_files(SKETCH, root, CLASSES)


def corrupted(root: Path, place: str, severities: Sequence[int] = (1, 3)) -> list[str]:
    """Two validation images of each class; returns their names as a dataset has them."""
    names = []
    for severity in severities:
        for position, wnid in enumerate(CLASSES):
            folder = root / place / str(severity) / wnid
            folder.mkdir(parents=True)
            for number in (2 * position, 2 * position + 1):
                file = f"ILSVRC2012_val_{number:08d}.JPEG"
                Image.new("RGB", (24, 24), colour(wnid)).save(folder / file, "JPEG", quality=95)
                names.append(f"{wnid}/{file}")
    return sorted(set(names))


def test_corrupted_files_are_those_of_the_test_images(tmp_path: Path) -> None:
    names = corrupted(tmp_path, "weather/fog")
    corrupted(tmp_path, "jpeg_compression")
    assert find_folder(C, [tmp_path], alone=True) == tmp_path
    wanted = {"corruptions": ("fog", "jpeg_compression"), "severities": (1, 3)}
    files = read_files(C, tmp_path, CLASSES, test_names=names, **wanted)  # type: ignore[arg-type]
    assert list(files.images) == ["fog/1", "fog/3", "jpeg_compression/1", "jpeg_compression/3"]
    assert classes_of(files, "fog/3") == files.labels("fog/3").tolist() == [0, 0, 1, 1, 2, 2]
    # fast.ai's split trains on some of ILSVRC's validation images, and tests on training images, which have no copies.
    part = [*names[:3], f"{CLASSES[2]}/{CLASSES[2]}_7.JPEG"]
    files = read_files(C, tmp_path, CLASSES, test_names=part, **wanted)  # type: ignore[arg-type]
    assert [path.name for _, path in files.images["fog/1"]] == [
        Path(name).name for name in sorted(part[:3], key=lambda name: CLASSES.index(name.partition("/")[0]))
    ]
    with pytest.raises(UsageError, match="imagenet-c-made corrupts the test images that there are"):
        read_files(C, tmp_path, CLASSES, test_names=(), **wanted)  # type: ignore[arg-type]


def test_corrupted_files_that_are_not_whole_or_in_another_class_are_refused(tmp_path: Path) -> None:
    names = corrupted(tmp_path, "fog")
    with pytest.raises(UsageError, match="6 of the 6 test images are not in .*fog/5"):
        read_files(C, tmp_path, CLASSES, corruptions=("fog",), severities=(1, 5), test_names=names)
    one, other = (tmp_path / "fog" / "3" / wnid for wnid in CLASSES[:2])
    one.rename(tmp_path / "spare")
    other.rename(one)
    (tmp_path / "spare").rename(other)
    with pytest.raises(UsageError, match="4 of the 6 test images are not in"):
        read_files(C, tmp_path, CLASSES, corruptions=("fog",), severities=(3,), test_names=names)
    corrupted(tmp_path, "weather/fog")
    with pytest.raises(UsageError, match="fog lies in two places"):
        read_files(C, tmp_path, CLASSES, corruptions=("fog",), severities=(1,), test_names=names)


def test_pixels_are_kept_and_made_again_when_a_file_changes(tmp_path: Path, own_cache: Path) -> None:
    root = v2(tmp_path / "imagenet-v2")
    said: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        said.append(what)

    first = from_files(read_files(V2, root, CLASSES), 16, progress)[""]
    assert said
    said.clear()
    again = from_files(read_files(V2, root, CLASSES), 16, progress)[""]
    assert said == []
    assert first.sha256 == again.sha256
    assert np.array_equal(first.pixels, again.pixels)
    file = root / "182" / "3.jpeg"
    size = file.stat().st_size
    file.write_bytes(b"\0" * size)  # of the same size: its name in an id is the same
    with pytest.raises(RunError, match="3.jpeg: cannot be read as an image"):
        from_files(read_files(V2, root, CLASSES), 16)
