"""Foreign folders: which images count where there are more than the IPC, and what a wrong layout is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.core.subsets import SubsetOf
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import describe_set, read_set, write_png
from ddbench.datasets.set_layout import choose_subset

CLASSES = ("a", "b")


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """0.png … 11.png for each class; image i has the value 10·i + class index everywhere."""
    for c, class_id in enumerate(CLASSES):
        (tmp_path / "set" / class_id).mkdir(parents=True)
        for i in range(12):
            write_png(tmp_path / "set" / class_id / f"{i}.png", np.full((4, 4, 3), 10 * i + c, np.uint8))
    return tmp_path / "set"


def numbers(folder: Path, subset: SubsetOf | None) -> list[list[int]]:
    found = read_set(folder, CLASSES, 3, subset=subset)
    values = np.array([pixels[0, 0, 0] for pixels in found.pixels])
    return [sorted(int(v) // 10 for v in values[found.labels == c]) for c in range(2)]


def test_first_goes_by_number_and_lexicographic_by_text(twelve: Path) -> None:
    assert numbers(twelve, SubsetOf(how="first", ipc=4)) == [[0, 1, 2, 3]] * 2
    assert numbers(twelve, SubsetOf(how="lexicographic", ipc=4)) == [[0, 1, 10, 11]] * 2
    assert numbers(twelve, None) == [list(range(12))] * 2


@pytest.mark.parametrize(
    ("ipc", "how", "seed", "problem"),
    [
        (0, "first", 0, "--ipc 0: Input should be greater than or equal to 1"),
        (1.5, "first", 0, "--ipc 1.5: Input should be a valid integer"),
        (1, "frist", 0, "--subset 'frist': Input should be 'first'"),
        (1, "random", -1, "--subset-seed -1: Input should be greater than or equal to 0"),
    ],
)
def test_values_that_no_subset_has(twelve: Path, ipc: Any, how: Any, seed: int, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        choose_subset(twelve, CLASSES, ipc, how, seed)


def test_only_decimal_digits_are_numbers() -> None:
    files = [Path(name) for name in ("10²3.png", "9²3.png", "11²3.png")]
    assert SubsetOf(how="first", ipc=1).pick(files, "a") == [Path("9²3.png")]


def test_random_is_a_draw_without_replacement_per_class_and_seed(twelve: Path) -> None:
    draws = [numbers(twelve, SubsetOf(how="random", ipc=6, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0] != draws[0][1], "classes have streams of their own"
    assert all(len(set(one)) == 6 for draw in draws for one in draw)


def test_equal_choices_are_equal_sets(twelve: Path) -> None:
    for class_id in CLASSES:
        for i in range(12):  # zero-padded names sort as numbers
            (twelve / class_id / f"{i}.png").rename(twelve / class_id / f"{i:05d}.png")
    first, text = (
        describe_set(twelve, CLASSES, 3, subset=SubsetOf(how=how, ipc=4)) for how in ("first", "lexicographic")
    )
    assert first.sha256 == text.sha256
    assert first.ipc == 4
    assert first.sha256 != describe_set(twelve, CLASSES, 3).sha256


def test_what_a_request_means(twelve: Path) -> None:
    assert choose_subset(twelve, CLASSES, None, None, 0) is None
    assert choose_subset(twelve, CLASSES, 12, None, 0) is None
    assert choose_subset(twelve, CLASSES, 12, "random", 3) is None, "every image counts"
    assert choose_subset(twelve, CLASSES, 4, "first", 3) == SubsetOf(how="first", ipc=4)
    assert SubsetOf(how="random", ipc=4, seed=3).label == "[subset=random,subset_seed=3]"
    with pytest.raises(UsageError, match="holds up to 12 images of a class, more than --ipc 4; say which"):
        choose_subset(twelve, CLASSES, 4, None, 0)
    with pytest.raises(UsageError, match="--subset first: of how many images"):
        choose_subset(twelve, CLASSES, None, "first", 0)
    with pytest.raises(UsageError, match=r"2 classes have fewer than 13 images: a \(12\), b \(12\)"):
        describe_set(twelve, CLASSES, 3, subset=choose_subset(twelve, CLASSES, 13, "first", 0))


def test_wrong_layouts_are_told_what_they_seem_to_be(twelve: Path, tmp_path: Path) -> None:
    with pytest.raises(Problems, match=f"one level deeper; try --images {twelve}"):
        describe_set(tmp_path, CLASSES, 3)
    shutil.copytree(twelve, tmp_path / "both" / "test")
    shutil.copytree(twelve, tmp_path / "both" / "train")
    with pytest.raises(Problems, match="try --images .*both/test or --images .*both/train"):
        describe_set(tmp_path / "both", CLASSES, 3)
    shutil.rmtree(tmp_path / "both")
    numbered = tmp_path / "numbered"
    (numbered / "00000").mkdir(parents=True)
    write_png(numbered / "00000" / "x.png", np.zeros((4, 4, 3), np.uint8))
    write_png(numbered / "loose.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(Problems) as error:
        describe_set(numbered, CLASSES, 3)
    assert "1 images lie in" in str(error.value)
    assert "--class-order FILE" in str(error.value)
    nested = tmp_path / "nested"
    for class_id in CLASSES:
        shutil.copytree(twelve / class_id, nested / class_id / "images")
    with pytest.raises(Problems, match=f"seem to lie in {nested / CLASSES[0] / 'images'}: put them into its folder"):
        describe_set(nested, CLASSES, 3)


def test_a_class_without_images_says_what_lies_there(twelve: Path) -> None:
    first, second = (twelve / class_id for class_id in CLASSES[:2])
    for file in first.iterdir():
        file.rename(file.with_suffix(".heic"))
    shutil.rmtree(second)
    second.symlink_to("nowhere")
    with pytest.raises(Problems) as error:
        describe_set(twelve, CLASSES, 3)
    assert f"{first} holds 12 × .heic file, which is read as no image" in str(error.value)
    assert f"{second} is a link to nothing (1 such links)" in str(error.value)


def test_a_subset_is_in_the_label_and_in_the_result(tmp_path: Path) -> None:
    train = Digits().load("default", None, 8).train
    for c, class_id in enumerate(Digits.class_ids):
        (tmp_path / "mine" / class_id).mkdir(parents=True)
        for i, pixels in enumerate(train.read(train.of_class(c)[:12])):
            write_png(tmp_path / "mine" / class_id / f"{i}.png", pixels)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "CUDA_VISIBLE_DEVICES": ""}
    common = ["--images", "mine", "-d", "digits", "--ipc", "2", "--repeats", "1", "--protocol", "quick[epochs=1]"]
    done = subprocess.run(
        [Path(sys.executable).with_name("bench"), "eval", *common, "--subset", "lexicographic", "--device", "cpu"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (cell,) = Store(tmp_path / "runs").cell_dirs()
    result = cell.result()
    assert isinstance(result, EvaluateResult)
    assert result.label == "mine[subset=lexicographic]"
    assert result.subset == SubsetOf(how="lexicographic", ipc=2)
    assert result.image_set_sha256 == describe_set(tmp_path / "mine", Digits.class_ids, 1, subset=result.subset).sha256
    counted = [path for path in (tmp_path / "mine").glob("*/*.png") if path.stem in ("0", "1")]
    assert result.image_bytes == sum(path.stat().st_size for path in counted)
