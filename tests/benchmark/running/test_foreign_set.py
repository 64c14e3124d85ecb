"""A folder on its way into a plan: what is told of it, and what is refused, before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from shared_cases import shared_case

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.spec import ForeignImages
from ddbench.benchmark.core.store import Launch, Store
from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running.foreign_set import plan_images
from ddbench.benchmark.running.reporter import Reporter
from ddbench.datasets.digits import Digits
from ddbench.datasets.foreign.tensors import load
from ddbench.datasets.image_sets import describe_set, write_png
from ddbench.datasets.imagenet.classes import NETTE


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Two training images a class."""
    data = Digits().load("default", None, 8)
    for c, class_id in enumerate(Digits.class_ids):
        (tmp_path / "set" / class_id).mkdir(parents=True)
        for i, pixels in enumerate(data.train.read(data.train.of_class(c)[:2])):
            write_png(tmp_path / "set" / class_id / f"{i:05d}.png", pixels)
    return tmp_path / "set"


def plan(folder: Path, *, out: Path | None = None, **asked: object) -> Planned:
    given = {"methods": ["images"], "datasets": ["digits"], "protocol": "quick[epochs=1]", "out": out or folder.parent}
    dry_run = asked.pop("dry_run", True)
    return plan_images(run_spec({}, given), folder, Reporter(), dry_run=dry_run, **asked)  # type: ignore[arg-type]  # of many types


def images_of(planned: Planned) -> ForeignImages:
    images = planned.plan.sets[0].students[0].images
    assert isinstance(images, ForeignImages)
    return images


def test_what_is_left_out_is_counted_by_kind(digits: Path) -> None:
    whole = images_of(plan(digits)).image_set_sha256
    (digits / "0" / "deeper").mkdir()
    (digits / "1" / "notes.txt").write_text("")
    (digits / "readme.md").write_text("")
    (digits / "manifest.json").write_text("{}")
    shutil.copy(digits / "3" / "00000.png", digits / "stray.png")
    planned = plan(digits)
    assert images_of(planned).image_set_sha256 == whole
    assert any(
        note.endswith("1 × .md file, 1 × .txt file, 1 × folder, 1 × image beside the class folders")
        for note in planned.notes
    ), planned.notes


def test_what_is_said_of_nothing_is_refused(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits)  # an empty path is the folder that one stands in
    for nothing in ("", "  "):
        with pytest.raises(UsageError, match="--images is empty; expected a folder of images"):
            plan(nothing, out=digits)  # type: ignore[arg-type]  # text, as --images gives it
    with pytest.raises(UsageError, match="--labels logits: no soft labels come with .*; leave it out"):
        plan(digits, labels="logits")


def test_an_uneven_set_says_so(digits: Path) -> None:
    (digits / "4" / "00001.png").unlink()
    assert "classes have 1 to 2 images; the set counts as IPC 2" in plan(digits).notes


def test_numbered_folders_make_the_same_set(digits: Path) -> None:
    whole = images_of(plan(digits)).image_set_sha256
    for class_id in Digits.class_ids:
        (digits / class_id).rename(digits / f"new{int(class_id):03d}")
    with pytest.raises(UsageError, match="--class-order sorted"):
        plan(digits)
    planned = plan(digits, class_order="sorted")
    launch = planned.plan.sets[0].launch
    assert images_of(planned).image_set_sha256 == whole
    assert launch.reading is not None
    assert launch.reading.class_folders["7"] == "new007"


def test_transparent_images_are_flattened_where_somebody_says_how(digits: Path) -> None:
    from PIL import Image

    Image.new("LA", (8, 8), (200, 0)).save(digits / "5" / "00000.png")
    with pytest.raises(Problems, match="--flatten white|black|R,G,B"):
        plan(digits)
    white, black = (images_of(plan(digits, flatten=colour)).image_set_sha256 for colour in ("white", "black"))
    write_png(digits / "5" / "00000.png", np.full((8, 8, 1), 255, np.uint8))
    assert images_of(plan(digits)).image_set_sha256 == white != black
    with pytest.raises(UsageError, match="--flatten nothing: expected white"):
        plan(digits, flatten="nothing")


def test_sets_of_one_method_where_somebody_says_so(digits: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    first, second = plan(digits, name="mine", out=store.out), "ef" * 32
    assert images_of(first).same_method_as is None
    for sha256, label in ((images_of(first).image_set_sha256, "mine"), (second, "other")):
        spec = first.plan.sets[0].students[0].model_copy(update={"images": ForeignImages(image_set_sha256=sha256)})
        store.add(spec, Launch(label=label))
    (digits / "4" / "00001.png").unlink()
    planned = plan(digits, same_method_as="mine", out=store.out)
    assert images_of(planned).same_method_as == images_of(first).image_set_sha256
    assert planned.plan.sets[0].label == "mine"
    store.add(planned.plan.sets[0].students[0], Launch(label="mine"))
    (digits / "5" / "00001.png").unlink()
    third = plan(digits, same_method_as="mine", out=store.out)
    assert images_of(third).same_method_as == images_of(first).image_set_sha256, "not of the second"
    with pytest.raises(UsageError, match="no set made elsewhere is called so in .*did you mean 'mine'"):
        plan(digits, same_method_as="mina", out=store.out)
    store.add(spec.model_copy(update={"images": ForeignImages(image_set_sha256="99" * 32)}), Launch(label="mine"))
    with pytest.raises(UsageError, match="2 sets in .* are called so and are not of one method .*99999999"):
        plan(digits, same_method_as="mine", out=store.out)


def test_two_sets_that_are_on_their_way_at_once_have_students_of_their_own(digits: Path, tmp_path: Path) -> None:
    """Both are planned before either has a cell that the other could see."""
    store = Store(tmp_path / "runs")
    for student in plan(digits, name="mine", out=store.out).plan.sets[0].students:
        store.add(student, Launch(label="mine"))

    def seeds(dry_run: bool = False) -> list[int]:
        planned = plan(digits, same_method_as="mine", out=store.out, dry_run=dry_run)
        return [student.seed for student in planned.plan.sets[0].students]

    (digits / "4" / "00001.png").unlink()
    assert seeds(dry_run=True) == [1000, 1001, 1002]
    assert seeds() == [1000, 1001, 1002]
    (digits / "5" / "00001.png").unlink()
    assert seeds(dry_run=True) == [2000, 2001, 2002]
    assert not [file for file in (store.out / "student-seeds").glob("*/*") if file.name == "2"], "it only looked"
    assert seeds() == seeds() == [2000, 2001, 2002]


def test_sets_of_one_method_have_students_of_their_own(digits: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")

    def seeds(*removed: str, **asked: object) -> list[int]:
        for name in removed:
            (digits / name).unlink()
        planned = plan(digits, out=store.out, **asked)
        for student in planned.plan.sets[0].students:
            store.add(student, Launch(label="mine"))
        return [student.seed for student in planned.plan.sets[0].students]

    assert seeds(name="mine") == [0, 1, 2]
    assert seeds(same_method_as="mine") == [0, 1, 2], "the set that is called so"
    assert seeds("4/00001.png", same_method_as="mine") == [1000, 1001, 1002]
    assert seeds(same_method_as="mine") == [1000, 1001, 1002], "asked again, it keeps its students"
    assert seeds("5/00001.png", same_method_as="mine") == [2000, 2001, 2002]
    assert seeds(same_method_as="mine", ipc=1, subset="first") == [0, 1, 2], "the method's first set of this IPC"
    assert seeds(name="another") == [0, 1, 2], "of another method"


def test_black_pictures_are_refused(digits: Path) -> None:
    """What a program writes that casts floats in 0…1 to 8 bits; one class of it may be meant so."""
    for file in digits.glob("3/*.png"):
        write_png(file, np.ones((8, 8, 1), np.uint8))
    plan(digits)
    for file in digits.glob("*/*.png"):
        write_png(file, np.ones((8, 8, 1), np.uint8))
    with pytest.raises(UsageError, match=f"{digits}: no pixel of its images is above 1, which is black .* 255 times"):
        plan(digits)


def test_a_set_that_was_called_otherwise_says_so(digits: Path, tmp_path: Path) -> None:
    """Its row has one name, and a table without the one just given would be a riddle."""
    store = Store(tmp_path / "runs")
    for student in plan(digits, name="smoke", out=store.out).plan.sets[0].students:
        store.add(student, Launch(label="smoke"))
    assert not [note for note in plan(digits, name="smoke", out=store.out).notes if "called" in note]
    (note,) = [note for note in plan(digits, name="final", out=store.out).notes if "called" in note]
    assert note.startswith(f"{store.out} has students of the same images, called smoke: a set is one row")
    (digits / "4" / "00001.png").unlink()
    assert not [note for note in plan(digits, name="final", out=store.out).notes if "called" in note], "another set"


def test_two_folders_of_one_name_are_two_sets(tmp_path: Path) -> None:
    root = shared_case("name-collision")
    found = [plan(root / name / "train", out=tmp_path) for name in ("methodA", "methodB")]
    assert [one.plan.sets[0].label for one in found] == ["train", "train"]
    assert len({images_of(one).image_set_sha256 for one in found}) == 2
    assert [images_of(one).same_method_as for one in found] == [None, None]


def test_half_of_a_set_in_another_format_counts() -> None:
    found = describe_set(shared_case("set-half-ppm"), NETTE, 3)
    assert (found.ipc, len(found.labels), dict(found.skipped)) == (2, 20, {})


def test_16_bits_are_refused_with_the_command_that_converts() -> None:
    with pytest.raises(Problems) as error:
        describe_set(shared_case("set-16bit-grey"), NETTE, 3)
    assert "n01440764/00000.png: mode I;16, 16 bits a channel" in str(error.value)
    assert "magick mogrify -depth 8" in str(error.value)


def test_a_pipe_in_the_place_of_an_image_stops_nothing(digits: Path) -> None:
    import os

    os.mkfifo(digits / "6" / "00007.png")
    with pytest.raises(Problems, match="00007.png is a named pipe: expected an image file"):
        plan(digits)
    (digits / "6" / "00007.png").unlink()
    os.mkfifo(digits / "6" / "00000.pt")
    os.mkfifo(digits / "labels.pt")
    assert any("2 × named pipe" in note for note in plan(digits).notes)
    with pytest.raises(UsageError, match="labels.pt: expected a file of tensors, got something else"):
        load(digits / "labels.pt")
