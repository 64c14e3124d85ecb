"""Folders become classes by their ids, or as somebody says; what they may be is proposed, never assumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from shared_cases import shared_case

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.reading import Reading
from ddbench.datasets.foreign.class_folders import class_folders
from ddbench.datasets.foreign.class_names import class_by_name, named_otherwise
from ddbench.datasets.image_sets import describe_set, write_png
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K, NETTE, WOOF


def folders(root: Path, *names: str) -> Path:
    for value, name in enumerate(names):
        (root / name).mkdir(parents=True)
        write_png(root / name / "00000.png", np.full((2, 2, 3), value, np.uint8))
    return root


def test_ids_need_no_word(tmp_path: Path) -> None:
    assert class_folders(folders(tmp_path, *NETTE, ".cache"), NETTE, None) == {}


def test_ids_in_any_case(tmp_path: Path) -> None:
    upper = folders(tmp_path, *(class_id.upper() for class_id in NETTE))
    found = class_folders(upper, NETTE, None)
    assert found == {class_id: class_id.upper() for class_id in NETTE}
    assert describe_set(upper, NETTE, 3, reading=Reading(class_folders=found)).ipc == 1


@pytest.mark.parametrize("name", ["{i}", "{i:05d}", "new{i:03d}", "class_{i}", "class{i:04d}"])
def test_numbers_are_proposed_and_taken(tmp_path: Path, name: str) -> None:
    root = folders(tmp_path, *(name.format(i=i) for i in range(10)))
    with pytest.raises(UsageError) as error:
        class_folders(root, NETTE, None)
    assert f"{name.format(i=3)} = n03000684 chain saw" in str(error.value)
    assert "--class-order sorted" in str(error.value)
    assert class_folders(root, NETTE, "sorted") == {c: name.format(i=i) for i, c in enumerate(NETTE)}


def test_both_lists_are_shown_where_they_differ(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        class_folders(folders(tmp_path, *map(str, range(10))), WOOF, None)
    assert f"0 = {sorted(WOOF)[0]} {CLASS_NAMES[sorted(WOOF)[0]]}" in str(error.value)
    assert f"0 = {WOOF[0]} {CLASS_NAMES[WOOF[0]]}" in str(error.value)
    assert "--class-order dataset" in str(error.value)


def test_positions_among_the_thousand(tmp_path: Path) -> None:
    names = [f"{IMAGENET_1K.index(class_id):04d}" for class_id in NETTE]
    root = folders(tmp_path, *names)
    with pytest.raises(UsageError, match="0217 = n02102040 English springer"):
        class_folders(root, NETTE, None)
    assert class_folders(root, NETTE, "imagenet") == dict(zip(NETTE, names, strict=True))
    with pytest.raises(UsageError, match="number 217 is no class"):
        class_folders(root, NETTE, "sorted")


@pytest.mark.parametrize("change", [str, str.upper, lambda name: name.replace(" ", "_"), lambda name: f"7.{name}"])
def test_names_are_proposed_and_taken(tmp_path: Path, change: object) -> None:
    assert callable(change)
    names = [change(CLASS_NAMES[class_id]) for class_id in NETTE]
    root = folders(tmp_path, *names)
    with pytest.raises(UsageError, match=f"{change('gas pump')} = n03425413 gas pump"):
        class_folders(root, NETTE, None)
    assert class_folders(root, NETTE, "imagenet") == dict(zip(NETTE, names, strict=True))
    with pytest.raises(UsageError, match="--class-order imagenet for names"):
        class_folders(root, NETTE, "sorted")


@pytest.mark.parametrize(
    ("name", "class_id"),
    [
        ("petrol pump", "n03425413"), ("Tinca tinca", "n01440764"), ("n02102040-English_springer", "n02102040"),
        ("chainsaw", "n03000684"), ("n02102040 n01440764", None), ("springer", None), ("n02096294", None),
    ],
)  # fmt: skip
def test_words_for_a_class(name: str, class_id: str | None) -> None:
    assert class_by_name(name, NETTE) == class_id


def test_a_name_of_two_classes_is_none() -> None:
    assert [CLASS_NAMES[c] for c in IMAGENET_1K].count("crane") == 2
    assert class_by_name("crane", IMAGENET_1K) is None


def test_a_file_says_it(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", "saw", "fish", *NETTE[4:], *NETTE[1:3])
    (tmp_path / "order.txt").write_text("saw n03000684\nfish n01440764\nnot-there n02111889\n")
    found = class_folders(root, NETTE, str(tmp_path / "order.txt"))
    assert found == {"n03000684": "saw", "n01440764": "fish"}


def test_two_folders_of_one_class(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class n01440764 has more than one folder: N01440764, n01440764"):
        class_folders(folders(tmp_path, *NETTE, "N01440764"), NETTE, None)


def test_nothing_is_proposed_for_what_nobody_knows(tmp_path: Path) -> None:
    root = folders(tmp_path, "alpha", "beta")
    assert class_folders(root, NETTE, None) == {}
    with pytest.raises(UsageError, match="no class has this id"):
        describe_set(root, NETTE, 3)
    with pytest.raises(UsageError, match="'alpha' is neither numbered nor"):
        class_folders(root, NETTE, "imagenet")


def test_files_that_contradict_their_folder() -> None:
    names = ["n02086240_12.JPEG", "n02087394_3.JPEG", "ILSVRC2012_val_00000293_n02086240.JPEG", "00001.png"]
    assert named_otherwise(names, "n02087394") == [names[0], names[2]]
    assert named_otherwise(names, "7") == []


@pytest.mark.parametrize(("case", "order"), [("set-sre2l-new000", "sorted"), ("set-human-names", "imagenet")])
def test_published_layouts(tmp_path: Path, case: str, order: str) -> None:
    """The same set as with its folders named by class id."""
    root = shared_case(case)
    with pytest.raises(UsageError, match=f"--class-order {order}"):
        class_folders(root, NETTE, None)
    found = class_folders(root, NETTE, order)
    for class_id, name in found.items():
        shutil.copytree(root / name, tmp_path / class_id)
    reading = Reading(class_folders=found)
    assert describe_set(root, NETTE, 3, reading=reading).sha256 == describe_set(tmp_path, NETTE, 3).sha256
    assert found["n03425413"] == ("new007" if order == "sorted" else "gas pump")
