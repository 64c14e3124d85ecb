"""A set made of test images is refused by name and by pixels; what only looks like one is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from smooth_images import smooth_noise
from typer.testing import CliRunner

from ddbench.benchmark.commands.cli import app
from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.spec import DatasetSpec, EvaluateSpec, ForeignImages
from ddbench.benchmark.core.store import Store
from ddbench.datasets.base import Dataset
from ddbench.datasets.digits import Digits
from ddbench.datasets.file_dataset import silent
from ddbench.datasets.foreign.near_copies import Match
from ddbench.datasets.foreign.test_images import Print, _beyond_chance, find_test_images, print_of, refusal
from ddbench.datasets.image_sets import describe_set, write_png
from ddbench.reports.results.rows import read
from ddbench.reports.tables.leaderboard import build


def refuse(
    folder: Path, dataset: Dataset, data: Path | None, image_size: int, split: str, *, pixels: bool = True
) -> None:
    prints: dict[Path, Print] = {}
    described = describe_set(
        folder,
        dataset.class_ids,
        dataset.channels,
        look=lambda path, image: prints.update({path: print_of(image, image_size)}),
    )
    spec = DatasetSpec(name=dataset.name, split=split, resolution=image_size)
    found = find_test_images(prints, described.labels, dataset, spec, data, silent if pixels else None)
    if found:
        raise refusal(found, len(prints), dataset, split)


def digits_set(folder: Path, *, leaked: int = 0, inverted: bool = False) -> Path:
    """Two training images a class, the first of `leaked` classes replaced by a test image; names are numbers."""
    data = Digits().load("default", None, 8)
    for c, class_id in enumerate(Digits.class_ids):
        (folder / class_id).mkdir(parents=True)
        images = data.train.read(data.train.of_class(c)[:2])
        if c < leaked:
            images[0] = data.test.read(data.test.of_class(c)[:1])[0]
        for i, pixels in enumerate(255 - images if inverted else images):
            write_png(folder / class_id / f"{i:05d}.png", pixels)
    return folder


def test_test_digits_are_known_by_their_pixels(tmp_path: Path) -> None:
    folder = digits_set(tmp_path / "set", leaked=2)
    with pytest.raises(Problems) as error:
        refuse(folder, Digits(), None, 8, "default")
    text, names = str(error.value), Digits().load("default", None, 8).test.names
    assert f"2 of the 20 images in {folder} are test images of digits" in text
    first = next(name for name in names if name.startswith("0/"))
    assert f"class 0: 00000.png is the test image {first}, by its pixels at 8 px" in text
    assert "make the set of training images alone" in text
    refuse(digits_set(tmp_path / "training"), Digits(), None, 8, "default")
    refuse(digits_set(tmp_path / "others", leaked=2, inverted=True), Digits(), None, 8, "default")


def test_bench_eval_refuses_before_anything_runs(tmp_path: Path) -> None:
    folder, out = digits_set(tmp_path / "set", leaked=1), tmp_path / "runs"
    done = CliRunner().invoke(app, ["eval", "--images", str(folder), "-d", "digits", "--out", str(out)])
    assert isinstance(done.exception, Problems)
    assert "1 of the 20 images" in str(done.exception)
    assert not out.exists()


def tiny_set(tiny: Any, folder: Path, kind: str, name: str = "{i:05d}.png", **shape: int) -> Path:
    """Two images a class of the small ImageNet, as `name` says and of `shape`."""
    root = tiny.folder / "imagenet"
    for wnid in tiny.classes:
        (folder / wnid).mkdir(parents=True)
        files = sorted((root / kind / wnid).iterdir())[:2]
        for i, file in enumerate(files):
            with Image.open(file) as image:
                pixels = image.resize((shape["image_size"], shape["image_size"])) if shape else image.copy()
            pixels.save(folder / wnid / name.format(i=i, stem=file.stem, wnid=wnid))
    return folder


def test_copies_under_other_names_are_known_at_any_evaluation_size(tiny: Any, tmp_path: Path) -> None:
    source, dataset = tiny.tree(), tiny.dataset()
    folder = tiny_set(tiny, tmp_path / "set", "val")
    for image_size in (8, 16, 20):
        with pytest.raises(Problems, match="6 of the 6 images") as error:
            refuse(folder, dataset, source, image_size, "imagenet")
        assert f"00000.png is the test image {tiny.classes[0]}/ILSVRC2012_val_00000001.JPEG" in str(error.value)
    refuse(folder, dataset, source, 16, "imagenet", pixels=False)
    refuse(tiny_set(tiny, tmp_path / "training", "train"), dataset, source, 16, "imagenet")


def test_a_set_that_was_decoded_from_test_images_is_known(tiny: Any, tmp_path: Path) -> None:
    source, dataset = tiny.tree(), tiny.dataset()
    test = dataset.load("imagenet", source, 16).test
    for c, wnid in enumerate(tiny.classes):
        (tmp_path / "set" / wnid).mkdir(parents=True)
        # Under another class's name: what a student has seen does not depend on how it was called.
        write_png(tmp_path / "set" / wnid / "0.png", test.read(test.of_class((c + 1) % 3)[:1])[0])
    with pytest.raises(Problems, match="3 of the 3 images"):
        refuse(tmp_path / "set", dataset, source, 16, "imagenet")


@pytest.mark.parametrize("name", ["{stem}.png", "{stem}.JPEG", "{stem}_{wnid}.jpg"])
def test_names_tell_where_pixels_have_changed(tiny: Any, tmp_path: Path, name: str) -> None:
    source, dataset = tiny.tree(), tiny.dataset()
    folder = tiny_set(tiny, tmp_path / "set", "val", name, image_size=13)
    with pytest.raises(Problems, match="6 of the 6 images") as error:
        refuse(folder, dataset, source, 16, "imagenet", pixels=False)
    assert "by its name" in str(error.value)
    refuse(tiny_set(tiny, tmp_path / "training", "train", name, image_size=13), dataset, source, 16, "imagenet")


def test_what_is_a_test_image_depends_on_the_split(tiny: Any, tmp_path: Path) -> None:
    """fast.ai trains on half of ImageNet's validation images and tests on training images."""
    source, dataset = tiny.tree(tiny.fastai, "imagewoof2"), tiny.dataset()
    folder = source / "train"
    with pytest.raises(Problems) as error:
        refuse(folder, dataset, source, 16, "imagenet")
    assert "3 of the 9 images" in str(error.value)
    assert "(--split fastai)" in str(error.value)
    refuse(folder, dataset, source, 16, "fastai")
    with pytest.raises(Problems, match="9 of the 9 images"):
        refuse(source / "val", dataset, source, 16, "fastai")


def test_doubles_of_training_images_and_plain_colours_prove_nothing(tiny: Any, tmp_path: Path) -> None:
    source, dataset, wnid = tiny.tree(), tiny.dataset(), tiny.classes[0]
    plain = Image.fromarray(np.full((20, 24, 3), 7, np.uint8))
    plain.save(source / "val" / wnid / "ILSVRC2012_val_00000001.JPEG")
    double = source / "val" / wnid / "ILSVRC2012_val_00000002.JPEG"
    double.write_bytes((source / "train" / wnid / f"{wnid}_100.JPEG").read_bytes())
    folder = tiny_set(tiny, tmp_path / "set", "train")
    for i, name in enumerate(("ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002")):
        (folder / wnid / f"{i + 2}.JPEG").write_bytes((source / "val" / wnid / f"{name}.JPEG").read_bytes())
    refuse(folder, dataset, source, 16, "imagenet")
    (folder / wnid / "2.JPEG").rename(folder / wnid / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(Problems, match="1 of the 8 images"):
        refuse(folder, dataset, source, 16, "imagenet")


def near_copy(image: Image.Image, path: Path) -> None:
    image.resize((90, 90)).save(path, "JPEG", quality=60)


@pytest.fixture
def smooth(tiny: Any) -> Path:
    """The small ImageNet of images that look like something."""
    source: Path = tiny.tree()
    for image, path in zip(smooth_noise(18, 3), sorted(source.glob("*/*/*.JPEG")), strict=True):
        image.save(path, "JPEG", quality=95)
    return source


def test_near_copies_are_known_in_their_class(tiny: Any, smooth: Path, tmp_path: Path) -> None:
    dataset = tiny.dataset()
    for wnid in tiny.classes:
        (tmp_path / "set" / wnid).mkdir(parents=True)
        training, test = (sorted((smooth / part / wnid).iterdir())[0] for part in ("train", "val"))
        near_copy(Image.open(training), tmp_path / "set" / wnid / "0.jpg")
        near_copy(Image.open(test), tmp_path / "set" / wnid / "1.jpg")
    with pytest.raises(Problems, match="3 of the 6 images") as error:
        refuse(tmp_path / "set", dataset, smooth, 48, "imagenet")
    name = f"{tiny.classes[0]}/ILSVRC2012_val_00000001.JPEG"
    assert f"1.jpg is a near copy of the test image {name} (correlation " in str(error.value)
    assert "--allow-test-images" in str(error.value)


def test_what_looks_more_like_a_training_image_is_one(tiny: Any, smooth: Path, tmp_path: Path) -> None:
    wnid = tiny.classes[0]
    test = Image.open(smooth / "val" / wnid / "ILSVRC2012_val_00000001.JPEG").convert("RGB")
    twin = smooth / "train" / wnid / f"{wnid}_100.JPEG"  # the same motif, a little off
    test.crop((4, 4, 96, 96)).resize((96, 96)).save(twin, "JPEG", quality=95)
    for c in tiny.classes:
        (tmp_path / "set" / c).mkdir(parents=True)
        near_copy(Image.open(smooth / "train" / c / f"{c}_100.JPEG"), tmp_path / "set" / c / "0.jpg")
    refuse(tmp_path / "set", tiny.dataset(), smooth, 48, "imagenet")
    near_copy(test, tmp_path / "set" / wnid / "1.jpg")
    with pytest.raises(Problems, match="1 of the 4 images"):
        refuse(tmp_path / "set", tiny.dataset(), smooth, 48, "imagenet")


def test_one_likeness_in_a_thousand_is_chance() -> None:
    near = {Path("a"): Match(0, 0.96), Path("b"): Match(1, 0.99)}
    assert set(_beyond_chance(near, 999)) == set(near)
    assert set(_beyond_chance(near, 1000)) == {Path("b")}


def test_a_set_may_be_taken_all_the_same(tmp_path: Path) -> None:
    folder, out = digits_set(tmp_path / "set", leaked=2), tmp_path / "runs"
    asked = ["eval", "--images", str(folder), "-d", "digits", "--out", str(out), "--repeats", "1"]
    asked += ["--protocol", "quick[epochs=1]", "--allow-test-images"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    (cell,) = Store(out).cell_dirs()
    spec, result = cell.spec(), cell.result()
    assert isinstance(spec, EvaluateSpec)
    assert isinstance(result, EvaluateResult)
    assert isinstance(spec.images, ForeignImages)
    assert (spec.images.with_test_images, result.test_images, result.n_images) == (True, 2, 20)
    assert "2 of its 20 images are test images" in done.output
    (row,) = build(read(out)).tables[0].rows
    assert (row.name, row.rank, row.test_images) == ("set (with test images)", None, 2)
    harvest = CliRunner().invoke(app, [*asked, "--reuse", "only-cache"])
    assert "not looked for" in harvest.output
    assert len(Store(out).cell_dirs()) == 1, "its id does not hang on what was found"
