"""Tiny-ImageNet from every layout: the same images, names and labels; what is wrong with a source is said."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.benchmark.planning.run_prior import check_prior
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.datasets.tiny_imagenet.dataset import WNIDS, TinyImageNet
from ddbench.methods.diffusion.priors.catalogue import KNOWN
from ddbench.methods.diffusion.priors.files import bundled_priors, find_prior

# The declaration ------------------------------------------------------------------------------------------------------


def test_the_classes_are_the_published_ones() -> None:
    assert len(WNIDS) == 200
    assert list(WNIDS) == sorted(set(WNIDS)), "labels follow the sorted wnids"
    assert set(WNIDS) <= set(IMAGENET_1K)
    # Hash of the list that several programs carry, sorted.
    assert hashlib.sha256("\n".join(WNIDS).encode()).hexdigest() == (
        "add4bf0c8712ef7fb4bca98e3bbaf07101636c5db62cce486fd2af71cc11caf8"
    )
    assert TinyImageNet.class_names[:2] == ("goldfish", "European fire salamander")


def test_expected_numbers_are_the_published_ones() -> None:
    assert DATASETS.load("tiny-imagenet") is DATASETS.load("tinyimagenet") is TinyImageNet
    expected = TinyImageNet.expected["default"]
    assert expected.n_train == sum((expected.train or {}).values()) == 100_000
    assert sum(expected.test.values()) == 10_000
    assert list(expected.test) == list(WNIDS)


def test_a_prior_of_imagenet_1k_gets_imagenets_labels() -> None:
    """Not 0 to 199, the positions of two hundred folders."""
    metadata = KNOWN["dit-xl-2-256"].metadata
    labels = [metadata.label_of(wnid) for wnid in WNIDS]
    assert labels == [IMAGENET_1K.index(wnid) for wnid in WNIDS]
    assert (labels[0], labels[-1]) == (1, 988), "goldfish and acorn"


def test_a_prior_of_other_classes_is_refused_by_name(tiny: Any) -> None:
    prior = find_prior(next(iter(bundled_priors())))
    spec = DatasetSpec(name="small-tiny", split="default", resolution=64)
    with pytest.raises(UsageError, match=r"does not know 3 of small-tiny's 3 classes \(the first is n01443537\)"):
        check_prior(prior, tiny.dataset(), spec, tiny.tree())


# Layouts --------------------------------------------------------------------------------------------------------------


def sources(tiny: Any) -> dict[str, Path]:
    original, by_class, with_images = tiny.layouts
    flat = tiny.tree(by_class, "flat", annotated=False)
    for wnid in tiny.classes:
        for file in (flat / "train" / wnid / "images").iterdir():
            file.rename(flat / "train" / wnid / file.name)
    return {
        "folder": tiny.tree(original, "folder"),
        "zip": tiny.archive("a.zip"),
        "zip without a top folder": tiny.archive("b.zip", top=""),
        "rearranged": tiny.tree(by_class, "rearranged"),
        "rearranged, no list": tiny.tree(by_class, "no-list", annotated=False),
        "rearranged with images/": tiny.tree(with_images, "with-images", annotated=False),
        "rearranged zip": tiny.archive("c.zip", place=with_images),
        "training folders flat too": flat,
    }


def test_every_layout_gives_the_same_split(tiny: Any, expected_names: Any, pixels_of: Any) -> None:
    found = {}
    for layout, source in sources(tiny).items():
        data = tiny.dataset().load("default", source, 64)
        for part, images in (("train", data.train), ("test", data.test)):
            assert list(images.names) == expected_names[part], layout
            assert [tiny.classes[label] for label in images.labels] == [name.split("/")[0] for name in images.names]
            for name, image in zip(images.names, images.read(range(len(images))), strict=True):
                assert np.array_equal(image, pixels_of(name)), (layout, name)
        assert data.warning == TinyImageNet.expected["default"].warning, "shown wherever a number is"
        found[layout] = (data.split_hash, data.content_hash)
        assert data.split_hash == tiny.dataset().split_hash("default", source)
        assert tiny.dataset().train_counts("default", source) == dict.fromkeys(tiny.classes, 4)
    lines = sorted(
        [f"train/{name}" for name in expected_names["train"]] + [f"test/{n}" for n in expected_names["test"]]
    )
    assert {one for one, _ in found.values()} == {hashlib.sha256("\n".join(lines).encode()).hexdigest()}
    assert len(set(found.values())) == 1


def test_greyscale_images_become_rgb(tiny: Any) -> None:
    source = tiny.tree()
    with Image.open(source / "val/images/val_2.JPEG") as image:
        assert image.mode == "L"
    data = tiny.dataset().load("default", source, 64)
    grey = data.test.read([list(data.test.names).index("n02124075/val_2.JPEG")])[0]
    assert (grey == grey[..., :1]).all()
    assert grey.std() > 10


def test_the_unlabelled_test_images_are_never_unpacked(tiny: Any, own_cache: Path) -> None:
    tiny.dataset().load("default", tiny.archive(), 64)
    unpacked = [path.name for path in own_cache.rglob("unpacked/**/*") if path.is_file()]
    assert len(unpacked) == 18
    assert not [name for name in unpacked if name.startswith("test_")]


def test_labels_do_not_follow_wnids_txt(tiny: Any) -> None:
    source = tiny.tree()
    assert (source / "wnids.txt").read_text().split() == list(reversed(tiny.classes))
    data = tiny.dataset().load("default", source, 64)
    assert data.train.labels.tolist() == sorted(data.train.labels.tolist())
    assert data.train.names[0].startswith(tiny.classes[0])


# Finding --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_several_things_is_searched_one_level_deep(tiny: Any) -> None:
    tiny.archive()
    (tiny.folder / "imagenet" / "train" / "n01440764").mkdir(parents=True)
    (tiny.folder / "other.zip").write_bytes(b"not opened: another dataset's")
    assert tiny.dataset().inspect("default", tiny.folder).source.startswith("archive")
    tiny.tree(tiny.layouts[1], annotated=False)
    (tiny.folder / "tiny-imagenet-200" / "wnids.txt").unlink()
    assert tiny.dataset().inspect("default", tiny.folder).source.startswith("folder"), "its archive is the same thing"


def test_prepared_once_it_is_found_again(tiny: Any) -> None:
    dataset, source = tiny.dataset(), tiny.archive()
    prepared = dataset.prepare("default", source, 64, remember=True)
    assert (prepared.n_train, prepared.n_test, prepared.decoded) == (12, 6, 18)
    assert dataset.prepare("default", None, 64).decoded == 0
    assert dataset.inspect("default", None).problems == ()


def test_no_data_shows_the_tree_and_the_commands(tiny: Any) -> None:
    with pytest.raises(UsageError) as error:
        tiny.dataset().split_hash("default", None)
    for text in (
        "DIR/train/n01443537/images/n01443537_*.JPEG",
        "DIR/val/val_annotations.txt",
        "bench prepare small-tiny --from DIR|tiny-imagenet-200.zip",
        "--data DIR",
        "export DDBENCH_DATA",
    ):
        assert text in str(error.value)
    with pytest.raises(UsageError, match="absent: no such file or folder"):
        tiny.dataset().split_hash("default", tiny.folder / "absent")
    (tiny.folder / "tiny.tar").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"expected a folder or tiny-imagenet-200\.zip, got another file"):
        tiny.dataset().split_hash("default", tiny.folder / "tiny.tar")


# What is wrong with a source ------------------------------------------------------------------------------------------


def test_too_few_images_are_refused(tiny: Any) -> None:
    source, wnid = tiny.tree(tiny.layouts[1], annotated=False), tiny.classes[1]
    (source / "train" / wnid / "images" / f"{wnid}_2.JPEG").unlink()
    with pytest.raises(UsageError, match=rf"1 of 3 classes have another number of training images \({wnid}: 3 of 4\)"):
        tiny.dataset().train_counts("default", source)
    (source / "val" / wnid / "val_2.JPEG").unlink()
    with pytest.raises(UsageError, match=rf"another number of test images \({wnid}: 1 of 2\)"):
        tiny.dataset().train_counts("default", source)


def test_an_annotation_without_its_file_is_refused(tiny: Any) -> None:
    for layout in tiny.layouts:
        source = tiny.tree(layout)
        (source / layout("n04067472", "val_3.JPEG")).unlink()
        with pytest.raises(UsageError, match=r"lacks 1 of the 6 images that .*val_annotations.txt names \(val_3\)"):
            tiny.dataset().split_hash("default", source)
        shutil.rmtree(source)


def test_a_file_without_annotation_is_refused(tiny: Any) -> None:
    tiny.annotations = "".join(line for line in tiny.annotations.splitlines(True) if "val_10." not in line)
    for layout in tiny.layouts:
        source = tiny.tree(layout)
        with pytest.raises(UsageError, match=r"val_annotations.txt does not say the class of val_10.JPEG, of 5 images"):
            tiny.dataset().split_hash("default", source)
        shutil.rmtree(source)


def test_a_flat_val_without_a_list_is_refused(tiny: Any) -> None:
    with pytest.raises(UsageError, match=r"lies in no class's folder, and there is no val/val_annotations.txt"):
        tiny.dataset().split_hash("default", tiny.tree(annotated=False))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\tn02124075", "\tn99999999", r"line 3: 'n99999999' is none of tiny-imagenet's 3 classes"),
        ("val_11.JPEG", "val_10.JPEG", "names val_10 twice, as n01443537 in line 5 and as n02124075 in line 6"),
        ("val_1.JPEG\t", "val_1.JPEG ", "line 2: expected a name like val_0.JPEG, a tab and a wnid"),
        ("val_0.JPEG", "holiday.JPEG", "line 1: expected a name like val_0.JPEG"),
        ("val_0.JPEG\tn04067472\t0\t32\t44\t62", "val_0.JPEG", "line 1: expected a name like val_0.JPEG"),
    ],
)
@pytest.mark.parametrize("archive", [True, False])
def test_a_damaged_list_is_refused(tiny: Any, old: str, new: str, said: str, archive: bool) -> None:
    assert old in tiny.annotations
    tiny.annotations = tiny.annotations.replace(old, new)
    source = tiny.archive() if archive else tiny.tree()
    with pytest.raises(UsageError, match=rf"val_annotations\.txt.*{said}.*of tiny-imagenet-200.zip again"):
        tiny.dataset().split_hash("default", source)


def test_a_list_with_the_line_ends_of_windows_says_the_same(tiny: Any) -> None:
    known = tiny.dataset().split_hash("default", tiny.tree(name="unix"))
    tiny.annotations = "\ufeff" + tiny.annotations.replace("\n", "\r\n") + "\r\n"
    assert tiny.dataset().split_hash("default", tiny.tree(name="windows")) == known


def test_a_list_of_another_encoding_is_refused(tiny: Any) -> None:
    source = tiny.tree()
    (source / "val/val_annotations.txt").write_bytes(b"\xff\xfeval")
    with pytest.raises(UsageError, match="is no text"):
        tiny.dataset().split_hash("default", source)


def test_a_rearranged_folder_that_contradicts_the_list_is_refused(tiny: Any) -> None:
    source = tiny.tree(tiny.layouts[1])
    (source / "val/n04067472/val_0.JPEG").rename(source / "val/n02124075/val_0.JPEG")
    with pytest.raises(UsageError, match=r"val_0.JPEG lies in the folder of n02124075, and .* says n04067472"):
        tiny.dataset().split_hash("default", source)


@pytest.mark.parametrize("listed", [True, False])
def test_classes_that_only_folders_say_are_noted(tiny: Any, listed: bool) -> None:
    by_class = tiny.layouts[1]
    without = "" if listed else "val/val_annotations.txt"
    for source in (tiny.tree(by_class, annotated=listed), tiny.archive(place=by_class, without=without)):
        found = tiny.dataset().inspect("default", source)
        assert not found.problems
        noted = [note for note in found.notes if "there is no val/val_annotations.txt" in note]
        assert bool(noted) is not listed


def test_a_test_image_that_is_there_twice_is_refused(tiny: Any) -> None:
    source = tiny.tree(tiny.layouts[1], annotated=False)
    shutil.copy(source / "val/n04067472/val_0.JPEG", source / "val/n02124075/val_0.JPEG")
    with pytest.raises(UsageError, match="holds a test image twice: val/n02124075/val_0.JPEG and val/n04067472/val_0"):
        tiny.dataset().split_hash("default", source)
    shutil.rmtree(source)
    source = tiny.tree(tiny.layouts[1])
    (source / "val/images").mkdir()
    shutil.copy(source / "val/n04067472/val_0.JPEG", source / "val/images/val_0.JPEG")
    with pytest.raises(UsageError, match="holds a test image twice: val/images/val_0.JPEG and val/n04067472/val_0"):
        tiny.dataset().split_hash("default", source)


def test_a_training_image_in_another_classs_folder_is_refused(tiny: Any) -> None:
    source, (first, second, _) = tiny.tree(), tiny.classes
    (source / "train" / first / "images" / f"{first}_2.JPEG").rename(source / f"train/{second}/images/{first}_2.JPEG")
    with pytest.raises(UsageError, match=f"different classes \\({first}, {second}\\)"):
        tiny.dataset().split_hash("default", source)


def test_imagenet_is_told_from_tiny_imagenet(tiny: Any) -> None:
    folder = tiny.folder / "imagenet" / "train" / "n01440764"
    folder.mkdir(parents=True)
    (folder / "n01440764_18.JPEG").touch()
    with pytest.raises(
        UsageError, match=r"of class n01440764, which is none of tiny-imagenet's 3; expected the folder"
    ):
        tiny.dataset().split_hash("default", tiny.folder / "imagenet")


def test_strangers_are_left_out_and_named(tiny: Any) -> None:
    source = tiny.tree()
    for name in ("val/images/holiday.jpg", "val/images/._val_0.JPEG", "train/n01443537/images/notes.txt"):
        (source / name).write_bytes(b"x")
    found = tiny.dataset().inspect("default", source)
    assert not found.problems
    assert [note for note in found.notes if "other names than tiny-imagenet's" in note and "holiday.jpg" in note]


def test_corrupt_images_are_listed(tiny: Any) -> None:
    source = tiny.tree()
    (source / "val/images/val_0.JPEG").write_bytes(b"\xff\xd8no image")
    with pytest.raises(RunError, match=r"(?s)1 corrupt images in folder .*val/images/val_0.JPEG: "):
        tiny.dataset().load("default", source, 64)
    with pytest.raises(RunError, match="A test set is never made smaller"):
        tiny.dataset().prepare("default", source, 64, skip_corrupt=True)


def test_a_changed_folder_is_read_again(tiny: Any) -> None:
    source = tiny.tree()
    known = tiny.dataset().split_hash("default", source)
    (source / "val/val_annotations.txt").write_text(
        tiny.annotations.replace("val_0.JPEG\tn04067472", "val_0.JPEG\tn02124075")
    )
    with pytest.raises(UsageError, match=r"another number of test images"):
        tiny.dataset().split_hash("default", source)
    (source / "val/val_annotations.txt").write_text(tiny.annotations)
    assert tiny.dataset().split_hash("default", source) == known


# Archives -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", ["../val/images/val_0.JPEG", "/val/images/val_0.JPEG", "a/../../x.txt"])
def test_an_archive_that_would_write_elsewhere_is_refused(tiny: Any, hostile: str, own_cache: Path) -> None:
    archive = tiny.archive(extra={hostile: b"x"})
    with pytest.raises(UsageError, match="not safe to unpack: it holds the path"):
        tiny.dataset().load("default", archive, 64)
    assert not list(own_cache.rglob("val_0.JPEG"))


def test_links_in_an_archive_are_not_unpacked(tiny: Any, own_cache: Path) -> None:
    archive = tiny.archive()
    link = zipfile.ZipInfo("tiny-imagenet-200/train/n01443537/images/n01443537_3.JPEG")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(link, "/etc/passwd")
        packed.writestr("__MACOSX/tiny-imagenet-200/val/images/val_0.JPEG", b"x")
        packed.writestr("tiny-imagenet-200/run_me.sh", b"x")
    data = tiny.dataset().load("default", archive, 64)
    assert (len(data.train), len(data.test)) == (12, 6)
    assert {path.suffix for path in own_cache.rglob("unpacked/**/*") if path.is_file()} == {".JPEG"}


def test_two_datasets_in_an_archive_are_refused(tiny: Any) -> None:
    archive = tiny.archive(extra={"other/val/images/val_0.JPEG": b"x"})
    with pytest.raises(UsageError, match=r"holds train/ and val/ in several folders \(other/, tiny-imagenet-200/\)"):
        tiny.dataset().split_hash("default", archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_twice_in_an_archive_is_refused(tiny: Any) -> None:
    archive = tiny.archive(extra={"tiny-imagenet-200/val/val_annotations.txt": b""})
    with pytest.raises(UsageError, match=r"holds tiny-imagenet-200/val/val_annotations.txt twice"):
        tiny.dataset().split_hash("default", archive)


def test_an_archive_that_lacks_an_image_is_refused(tiny: Any) -> None:
    with pytest.raises(UsageError, match=r"archive .*tiny-imagenet-200.zip lacks 1 of the 6 images"):
        tiny.dataset().split_hash("default", tiny.archive(without="val/images/val_1.JPEG"))


def test_truncated_archives_of_any_length_never_end_in_a_traceback(tiny: Any) -> None:
    whole = tiny.archive().read_bytes()
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 25)):
        archive = tiny.folder / f"tiny-imagenet-{cut}.zip"
        archive.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="is damaged or not an archive .*; get it again"):
            tiny.dataset().split_hash("default", archive)


def test_a_file_damaged_inside_an_archive_is_found_when_it_is_unpacked(tiny: Any, own_cache: Path) -> None:
    archive = tiny.archive()
    data = bytearray(archive.read_bytes())
    inside = data.index(b"tiny-imagenet-200/val/images/val_3.JPEG") + 200
    data[inside] ^= 0xFF
    archive.write_bytes(bytes(data))
    with pytest.raises(UsageError, match=r"is damaged or not an archive \(Bad CRC-32 .*val_3.JPEG.*\); get it again"):
        tiny.dataset().load("default", archive, 64)
    assert not list(own_cache.rglob("unpacked")), "nothing half unpacked is left in its place"


def test_an_encrypted_archive_is_refused(tiny: Any) -> None:
    archive = tiny.archive()
    data = bytearray(archive.read_bytes())
    central = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02"))
    start = data.index(b"train/n01443537", central) - len("tiny-imagenet-200/") - 46
    assert data[start : start + 4] == b"PK\x01\x02"
    data[start + 8] |= 1
    archive.write_bytes(bytes(data))
    with pytest.raises(UsageError, match="is encrypted: expected files that can be read"):
        tiny.dataset().split_hash("default", archive)
