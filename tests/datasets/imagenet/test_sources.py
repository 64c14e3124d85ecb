"""Every layout gives the same images, names and labels; what is wrong with a source is said."""

from __future__ import annotations

import csv
import hashlib
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.datasets.imagenet.index import read_index
from ddbench.datasets.imagenet.places import sources_at
from ddbench.datasets.imagenet.splits import choose_rows
from ddbench.datasets.validation import validation_of


def names_on_both_sides(tiny: Any, split: str, place: Any) -> tuple[list[str], list[str]]:
    """What the split must hold, from the list of images alone."""
    sides: dict[str, list[str]] = {"train": [], "val": []}
    for wnid in tiny.classes:
        here = [(kind, file, number) for w, kind, file, number in tiny.images() if w == wnid]
        for kind, file, number in sorted(here, key=lambda image: image[1]):
            folder = place(wnid, kind, file, number).split("/")[0]
            sides[folder if split == "fastai" else kind].append(f"{wnid}/{file}")
    return sides["train"], sides["val"]


def hash_of(train: list[str], test: list[str]) -> str:
    lines = sorted([f"train/{name}" for name in train] + [f"test/{name}" for name in test])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("layout", ["ilsvrc", "fastai", "hugging_face", "archive", "tar", "flat_val", "kaggle"])
def test_every_layout_gives_the_same_imagenet_split(tiny: Any, layout: str) -> None:
    if layout in ("archive", "tar"):
        source = tiny.archive(name={"archive": "imagewoof2-16.tgz", "tar": "mine.tar"}[layout])
    else:
        source = tiny.tree(getattr(tiny, layout))
        write_kaggle_list(tiny, source)
    train, test = names_on_both_sides(tiny, "imagenet", tiny.ilsvrc)
    data = tiny.dataset().load("imagenet", source, 16)
    assert (list(data.train.names), list(data.test.names)) == (train, test)
    assert [tiny.classes[label] for label in data.train.labels] == [name.split("/")[0] for name in train]
    assert [tiny.classes[label] for label in data.test.labels] == [name.split("/")[0] for name in test]
    assert data.split_hash == tiny.dataset().split_hash("imagenet", source) == hash_of(train, test)
    assert tiny.dataset().train_counts("imagenet", source) == dict.fromkeys(tiny.classes, 4)
    assert data.warning is None


@pytest.mark.parametrize("archive", [True, False])
def test_fastai_keeps_its_folders_and_warns(tiny: Any, archive: bool) -> None:
    source = tiny.archive() if archive else tiny.tree(tiny.fastai, "imagewoof2-16")
    train, test = names_on_both_sides(tiny, "fastai", tiny.fastai)
    assert any("val_" in name for name in train)
    assert any("val_" not in name for name in test)
    data = tiny.dataset().load("fastai", source, 16)
    assert (list(data.train.names), list(data.test.names)) == (train, test)
    assert data.split_hash == hash_of(train, test)
    assert data.warning is not None
    assert "ImageNet training images" in data.warning


def test_the_first_hundred_go_by_file_name(tiny: Any) -> None:
    place = tiny.folder / "many" / "train" / tiny.classes[0]
    place.mkdir(parents=True)
    files = [f"{tiny.classes[0]}_{number}.JPEG" for number in range(1, 151)]
    for file in files:
        (place / file).touch()
    index = read_index(sources_at(tiny.folder / "many", ())[0], "tiny-woof", tiny.classes)
    train, _ = choose_rows(index, "imagenet-first100")
    assert [name.decode() for name in index.names[train]] == sorted(files)[:100]
    assert len(choose_rows(index, "imagenet")[0]) == 150


# Ground truth of a flat val/ ------------------------------------------------------------------------------------------


def truth(tiny: Any) -> dict[int, str]:
    return {number: wnid for wnid, kind, _, number in tiny.images() if kind == "val"}


def write_kaggle_list(tiny: Any, root: Path) -> None:
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "PredictionString"])
        for number, wnid in sorted(truth(tiny).items(), reverse=True):
            rows.writerow([f"ILSVRC2012_val_{number:08d}", f"{wnid} 85 1 499 272 {wnid} 3 4 5 6 "])


def write_devkit(tiny: Any, root: Path) -> None:
    """With the devkit's own numbering of the classes, which is not the order of wnids."""
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    numbering = {wnid: number for number, wnid in enumerate(reversed(IMAGENET_1K), start=1)}
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(number, wnid, "a, b") for wnid, number in numbering.items()], kind)
    savemat(folder / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    of_image = truth(tiny)
    lines = [str(numbering[of_image[number]]) for number in range(1, 7)]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")


def write_wnid_lines(tiny: Any, root: Path) -> None:
    of_image = truth(tiny)
    lines = "".join(f"{of_image[number]}\n" for number in range(1, 7))
    (root / "imagenet_2012_validation_synset_labels.txt").write_text(lines)


@pytest.mark.parametrize("write_list", [write_kaggle_list, write_devkit, write_wnid_lines])
def test_a_flat_val_is_labelled_by_the_list_beside_it(tiny: Any, write_list: Any) -> None:
    root = tiny.tree(tiny.flat_val)
    write_list(tiny, root)
    data = tiny.dataset().load("imagenet", root, 16)
    assert list(data.test.names) == names_on_both_sides(tiny, "imagenet", tiny.ilsvrc)[1]
    pictures = data.test.read(np.arange(len(data.test)))
    again = tiny.dataset().load("imagenet", tiny.tree(name="other"), 16)
    assert np.array_equal(pictures, again.test.read(np.arange(len(again.test))))


def test_a_flat_val_without_a_list_says_what_to_put_where(tiny: Any) -> None:
    root = tiny.tree(tiny.flat_val)
    with pytest.raises(UsageError, match=r"(?s)no list says their classes.*devkit_t12.*meta\.mat.*LOC_val_solution"):
        tiny.dataset().split_hash("imagenet", root)


def test_devkit_numbers_need_meta_mat(tiny: Any) -> None:
    root = tiny.tree(tiny.flat_val)
    write_devkit(tiny, root)
    (root / "ILSVRC2012_devkit_t12/data/meta.mat").unlink()
    with pytest.raises(UsageError, match=r"meta\.mat, which is missing"):
        tiny.dataset().split_hash("imagenet", root)


@pytest.mark.parametrize("write_list", [write_kaggle_list, write_wnid_lines])
def test_a_byte_order_mark_is_no_part_of_a_list(tiny: Any, write_list: Any) -> None:
    root = tiny.tree(tiny.flat_val)
    write_list(tiny, root)
    for file in (path for path in root.iterdir() if path.is_file()):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    data = tiny.dataset().load("imagenet", root, 16)
    assert list(data.test.names) == names_on_both_sides(tiny, "imagenet", tiny.ilsvrc)[1]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "LOC_val_solution.csv",
            b"ImageId,PredictionString\nILSVRC2012_val_00000001\n",
            "expected the columns ImageId",
        ),
        ("LOC_val_solution.csv", "ImageId,PredictionString\n".encode("utf-16"), "is no text"),
        ("synset_labels.txt", b"\xff\xfe\x00\x80", "is no text"),
        ("synset_labels.txt", b"n02096294 terrier\n", "got 'terrier'"),
        ("ILSVRC2012_devkit_t12/data/meta.mat", b"no MATLAB file", r"meta\.mat is damaged"),
    ],
)
def test_a_list_that_is_none_is_named(tiny: Any, file: str, content: bytes, said: str) -> None:
    root = tiny.tree(tiny.flat_val)
    if "devkit" in file:
        write_devkit(tiny, root)
    (root / file).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        tiny.dataset().split_hash("imagenet", root)


def test_a_list_that_lacks_an_image_is_no_guess(tiny: Any) -> None:
    root = tiny.tree(tiny.flat_val)
    (root / "synset_labels.txt").write_text(f"{tiny.classes[0]}\n" * 5)
    with pytest.raises(UsageError, match=r"ILSVRC2012_val_00000006.*does not say its class"):
        tiny.dataset().split_hash("imagenet", root)


@pytest.mark.parametrize("cased", [str.lower, str.upper])
@pytest.mark.parametrize("layout", ["ilsvrc", "flat_val"])
def test_the_case_of_file_names_says_nothing(tiny: Any, layout: str, cased: Any) -> None:
    root = tiny.tree(getattr(tiny, layout))
    write_kaggle_list(tiny, root)
    for file in list(root.rglob("*.JPEG")):
        file.rename(file.with_name(cased(file.name)))
    data = tiny.dataset().load("imagenet", root, 16)
    same = tiny.dataset().load("imagenet", tiny.tree(name="other"), 16)
    assert (data.split_hash, data.content_hash) == (same.split_hash, same.content_hash)


def test_names_of_test_images_are_none_of_the_validation_part(tiny: Any) -> None:
    """By them ImageNet-C's corrupted copies are found."""
    root = tiny.tree()
    assert len(tiny.dataset().test_names("imagenet", root)) == 6
    assert not validation_of(tiny.dataset)().test_names("imagenet", root)


# What is wrong with a source ------------------------------------------------------------------------------------------


def test_a_training_image_in_another_classs_folder_is_refused(tiny: Any) -> None:
    root = tiny.tree()
    first, second, _ = tiny.classes
    (root / "train" / first / f"{first}_3.JPEG").rename(root / "train" / second / f"{first}_3.JPEG")
    with pytest.raises(UsageError, match=f"different classes.*{second}.*{first}"):
        tiny.dataset().split_hash("imagenet", root)


def test_an_image_that_is_there_twice_is_refused(tiny: Any) -> None:
    root, wnid = tiny.tree(), tiny.classes[0]
    shutil.copy(root / "train" / wnid / f"{wnid}_3.JPEG", root / "train" / wnid / f"{wnid}_3.jpg")
    with pytest.raises(UsageError, match=f"holds 1 images twice.*{wnid}_3"):
        tiny.dataset().split_hash("imagenet", root)


def test_strangers_are_left_out_and_named(tiny: Any) -> None:
    root, wnid = tiny.tree(), tiny.classes[0]
    for name in ("holiday.jpg", "._n02096294_3.JPEG", "notes.txt"):
        (root / "train" / wnid / name).write_bytes(b"x")
    found = tiny.dataset().inspect("imagenet", root)
    assert not found.problems
    assert [note for note in found.notes if "holiday.jpg" in note]


def test_too_few_images_name_class_and_numbers(tiny: Any) -> None:
    root, wnid = tiny.tree(), tiny.classes[1]
    (root / "train" / wnid / f"{wnid}_3.JPEG").unlink()
    with pytest.raises(UsageError, match=rf"1 of 3 classes have another number of training images \({wnid}: 3 of 4\)"):
        tiny.dataset().train_counts("imagenet", root)


def test_an_ilsvrc_folder_has_no_fastai_split(tiny: Any) -> None:
    root = tiny.tree()
    with pytest.raises(UsageError, match=r"(?s)does not hold.*fast\.ai's own folder or archive only"):
        tiny.dataset().split_hash("fastai", root)


def test_names_must_be_the_splits_own(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    root = tiny.tree()
    known = tiny.dataset().split_hash("imagenet", root)
    whole = tiny.dataset.expected["imagenet"]
    monkeypatch.setattr(tiny.dataset, "splits", ("imagenet",))
    monkeypatch.setattr(tiny.dataset, "expected", {"imagenet": replace(whole, split_hash=known)})
    assert tiny.dataset().split_hash("imagenet", root) == known
    folder = root / "train" / tiny.classes[0]
    (folder / f"{tiny.classes[0]}_3.JPEG").rename(folder / f"{tiny.classes[0]}_4.JPEG")
    with pytest.raises(UsageError, match="numbers are right, but not the file names"):
        tiny.dataset().split_hash("imagenet", root)


def test_no_data_shows_the_tree_and_the_commands(tiny: Any) -> None:
    with pytest.raises(UsageError) as error:
        tiny.dataset().split_hash("imagenet", None)
    for text in ("train/n02096294/n02096294_*.JPEG", "ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12", "imagewoof2",
                 "bench prepare tiny-woof --from", "--data DIR", "export DDBENCH_DATA=DIR"):  # fmt: skip
        assert text in str(error.value)
    (tiny.folder / "empty").mkdir()
    with pytest.raises(UsageError, match="found no images of its 3 classes .*empty"):
        tiny.dataset().split_hash("imagenet", tiny.folder / "empty")
    with pytest.raises(UsageError, match="absent: no such file or folder"):
        tiny.dataset().split_hash("imagenet", tiny.folder / "absent")


# Finding --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_several_things_is_searched_one_level_deep(tiny: Any) -> None:
    tiny.archive(name="imagewoof2-16.tgz")
    (tiny.folder / "imagenette2.tgz").write_bytes(b"not opened: another dataset's")
    (tiny.folder / "mnist" / "train" / "0").mkdir(parents=True)
    assert "imagewoof2-16.tgz" in tiny.dataset().inspect("imagenet", tiny.folder).source
    tiny.tree(tiny.fastai, "imagewoof2-16")
    assert tiny.dataset().inspect("imagenet", tiny.folder).source.startswith("folder"), "its archive is the same thing"


def test_two_whole_sources_are_not_chosen_between(tiny: Any) -> None:
    tiny.tree(name="imagenet")
    tiny.tree(tiny.fastai, "imagewoof2-16")
    with pytest.raises(UsageError, match=r"(?s)several sources hold.*imagenet\n.*imagewoof2-16\nName one"):
        tiny.dataset().split_hash("imagenet", tiny.folder)
    assert tiny.dataset().split_hash("fastai", tiny.folder), "only one of them holds this split"


def test_where_it_looks_when_nothing_is_said(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tiny.tree(name="first"), tiny.tree(tiny.fastai, "second")
    dataset = tiny.dataset()
    dataset.prepare("imagenet", first, None, remember=True)
    assert str(first) in dataset.inspect("imagenet", None).source
    dataset.prepare("fastai", second, None, remember=True)
    assert str(second) in dataset.inspect("fastai", None).source
    assert str(first) in dataset.inspect("imagenet", None).source, "each split where it was prepared"
    monkeypatch.setenv("DDBENCH_DATA", str(second))
    assert str(second) in dataset.inspect("imagenet", None).source
    assert str(first) in dataset.inspect("imagenet", first).source
    monkeypatch.delenv("DDBENCH_DATA")
    shutil.rmtree(first)
    assert str(second) in dataset.inspect("imagenet", None).source, "the other prepared source serves too"


# Archives -------------------------------------------------------------------------------------------------------------


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        "../train/n02096294/n02096294_7.JPEG",
        "/train/n02096294/n02096294_7.JPEG",
        "a/../../train/n02096294/n02096294_7.JPEG",
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(tiny: Any, hostile: str, own_cache: Path) -> None:
    archive = tiny.archive(extra=(member(hostile, size=1),))
    with pytest.raises(UsageError, match="not safe to unpack"):
        tiny.dataset().load("imagenet", archive, 16)
    assert not list(tiny.folder.rglob("n02096294_7.JPEG"))


def test_links_and_strangers_in_an_archive_are_not_unpacked(tiny: Any, own_cache: Path) -> None:
    link = member("imagewoof2-16/train/n02096294/n02096294_7.JPEG", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    archive = tiny.archive(extra=(link, member("imagewoof2-16/run_me.sh", size=1)))
    data = tiny.dataset().load("imagenet", archive, 16)
    assert len(data.train) == 12
    unpacked = {path.name for path in own_cache.rglob("unpacked/**/*") if not path.is_dir()}
    assert unpacked == {file for _, _, file, _ in tiny.images()}


@pytest.mark.parametrize("keep", [0.5, 0.02, 0])
def test_a_truncated_archive_says_so(tiny: Any, keep: float) -> None:
    archive = tiny.archive()
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UsageError, match=r"imagewoof2-16\.tgz is damaged or not an archive"):
        tiny.dataset().split_hash("imagenet", archive)


def test_another_file_is_no_archive(tiny: Any) -> None:
    (tiny.folder / "data.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="expected a folder or an archive"):
        tiny.dataset().split_hash("imagenet", tiny.folder / "data.zip")


def test_a_replaced_archive_is_read_anew(tiny: Any) -> None:
    archive = tiny.archive()
    before = tiny.dataset().load("imagenet", archive, 16)
    tiny.jpeg = lambda wnid, kind, number: type(tiny).jpeg(tiny, wnid, kind, number + 1)
    tiny.archive()
    after = tiny.dataset().load("imagenet", archive, 16)
    assert after.split_hash == before.split_hash
    assert after.content_hash != before.content_hash


# The index ------------------------------------------------------------------------------------------------------------


def test_an_unchanged_source_is_not_listed_again(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny.tree()
    known = tiny.dataset().split_hash("imagenet", root)
    with monkeypatch.context() as patched:
        patched.setattr("ddbench.datasets.imagenet.index._make", lambda *_: pytest.fail("listed again"))
        assert tiny.dataset().split_hash("imagenet", root) == known
    wnid = tiny.classes[2]
    (root / "train" / wnid / f"{wnid}_3.JPEG").unlink()
    with pytest.raises(UsageError, match="3 of 4"):
        tiny.dataset().split_hash("imagenet", root)


def test_a_changed_ground_truth_is_read_again(tiny: Any) -> None:
    root = tiny.tree(tiny.flat_val)
    write_wnid_lines(tiny, root)
    tiny.dataset().split_hash("imagenet", root)
    (root / "imagenet_2012_validation_synset_labels.txt").write_text(f"{tiny.classes[0]}\n" * 6)
    with pytest.raises(UsageError, match=r"test images .*6 of 2"):
        tiny.dataset().split_hash("imagenet", root)


def test_a_damaged_index_is_made_again(tiny: Any, own_cache: Path) -> None:
    root = tiny.tree()
    known = tiny.dataset().split_hash("imagenet", root)
    for file in own_cache.rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:10])
    for file in own_cache.rglob("split-*.json"):
        file.unlink()
    assert tiny.dataset().split_hash("imagenet", root) == known


def test_truncated_archives_of_any_length_never_end_in_a_traceback(tiny: Any) -> None:
    whole = tiny.archive().read_bytes()
    for cut in range(0, len(whole) - 40, max(1, len(whole) // 25)):
        archive = tiny.folder / f"imagewoof2-{cut}.tgz"
        archive.write_bytes(whole[:cut])
        with pytest.raises(UsageError):
            tiny.dataset().split_hash("imagenet", archive)


def test_every_format_that_is_read_may_hold_the_images(tiny: Any) -> None:
    source, dataset = tiny.tree(), tiny.dataset()
    whole = dataset.load("imagenet", source, 16).split_hash
    for ending, path in zip(("jfif", "BMP", "ppm", "tif"), sorted((source / "train").glob("*/*.JPEG")), strict=False):
        with Image.open(path) as image:
            image.save(path.with_suffix(f".{ending}"))
        path.unlink()
    again = dataset.load("imagenet", source, 16)
    assert (again.split_hash, len(again.train)) == (whole, 12)
