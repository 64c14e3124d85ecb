"""Students looked at on shifted test sets: they are trained as without, and each image is told by its class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddbench.benchmark.cells import evaluate, shifted
from ddbench.benchmark.cells.cell import EXIT_CHANGED, EXIT_FAILED, EXIT_OK, run_cell
from ddbench.benchmark.core.registry import DATASETS, PROTOCOLS, load_plugin
from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec, EvaluateSpec, ShiftedSpec, cell_id
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_request
from ddbench.benchmark.protocols.pixels import Pixels, Resident
from ddbench.datasets.base import ArraySource
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K
from ddbench.datasets.shifted.pixels import ShiftedImages
from ddbench.reports.results import rows
from ddbench.reports.results.frames import students_frame
from ddbench.reports.results.groups import group
from ddbench.reports.robustness.table import build

CLASSES = ("n03888257", "n01440764")
PLUGIN = f"""
from ddbench.datasets.base import Headline
from ddbench.datasets.imagenet.subsets import ImageNetSubset
from ddbench.datasets.imagenet.splits import Expected

class Pair(ImageNetSubset):
    name = "pair"
    class_ids = {CLASSES}
    class_names = ("parachute", "tench")
    resolution = 16
    prior = None
    headline = Headline(protocol="quick", student="convnet3", ipc=(2,), sets=1, students=1)
    expected = {{"imagenet": Expected(test=dict.fromkeys(class_ids, 2), train=dict.fromkeys(class_ids, 3))}}
"""
ROUNDS = "quick[epochs=3]"


def picture(wnid: str, number: int) -> Image.Image:
    """Red or blue, with noise: what a student can learn in three epochs."""
    noise = np.random.default_rng([int(wnid[1:]), number]).integers(0, 90, (20, 20, 3), dtype=np.uint8)
    noise[..., 0 if wnid == CLASSES[0] else 2] += 160
    return Image.fromarray(noise)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of two classes, and ImageNet-V2 beside it."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / "pair.py").write_text(PLUGIN)
    load_plugin(tmp_path / "pair.py")
    for label, wnid in enumerate(CLASSES):
        files = [f"imagenet/train/{wnid}/{wnid}_{n}.JPEG" for n in range(3)]
        files += [f"imagenet/val/{wnid}/ILSVRC2012_val_{2 * label + n:08d}.JPEG" for n in (1, 2)]
        files += [f"imagenet-v2/{IMAGENET_1K.index(wnid)}/{n}.jpeg" for n in range(10)]
        for number, file in enumerate(files):
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(wnid, number).save(path, "JPEG", quality=95)
    return tmp_path


Run = Callable[..., EvaluateResult]


@pytest.fixture
def run(data: Path) -> Run:
    """Plan and run every cell of `random` here, in this process; returns the student's result."""
    store = Store(data / "runs")
    store.create()

    def now(*test_on: str, code: int = EXIT_OK, **given: Any) -> EvaluateResult:
        options = {
            **{"methods": ["random"], "datasets": ["pair"], "protocol": ROUNDS, "device": "cpu", "out": data / "runs"},
            **{"data": data / "imagenet", "seeds": [0], "plugins": [data / "pair.py"], "compile": "never"},
            **({"test_on": list(test_on), "test_data": [data]} if test_on else {}),
        }
        _, planned = plan_request({**options, **given})
        planned.plan.save(store)
        result = None
        for planned_set, spec in planned.plan.cells():
            cell = store.add(spec, planned_set.launch)
            wanted = code if isinstance(spec, EvaluateSpec) else EXIT_OK
            if cell.result() is None or isinstance(spec, EvaluateSpec):
                (cell.path / "result.json").unlink(missing_ok=True)
                assert run_cell(cell.path) == wanted, cell.result()
            result = cell.result()
        assert isinstance(result, EvaluateResult)
        return result

    return now


def test_a_student_is_trained_as_without_and_seen_as_one_student(run: Run, data: Path) -> None:
    plain, looked = run(), run("imagenet-v2")
    assert looked.cell != plain.cell
    assert looked.metrics == plain.metrics
    (seen,) = looked.shifted
    assert plain.shifted == []
    assert (seen.name, seen.n_images, seen.n_classes, seen.folder) == ("imagenet-v2", 20, 2, "imagenet-v2")
    assert seen.clean_accuracy == looked.metrics.acc_last if looked.metrics else None
    assert [look.condition for look in seen.looks] == [""]
    one, other = (np.load(data / "runs" / "cells" / of.cell / "predictions.npy") for of in (plain, looked))
    assert np.array_equal(one, other)
    results = rows.read(data / "runs")
    assert len(results.evaluates) == 2
    assert len(students_frame(results)) == 1
    ((row,),) = [table.rows for table in group(results)]
    assert [cell.id for cell in row.cells] == [plain.cell]
    ((table,),) = [build(results).tables]
    assert table.rows[0].drop is not None
    assert table.rows[0].drop.mean == pytest.approx(seen.clean_accuracy - seen.accuracy)


def test_swapped_folders_turn_the_accuracy_over(run: Run, data: Path) -> None:
    right = run("imagenet-v2", protocol="quick[epochs=40]").shifted[0].accuracy
    assert right != 50  # else nothing is told apart
    numbers = [data / "imagenet-v2" / str(IMAGENET_1K.index(wnid)) for wnid in CLASSES]
    numbers[0].rename(data / "spare")
    numbers[1].rename(numbers[0])
    (data / "spare").rename(numbers[1])
    wrong = run("imagenet-v2", protocol="quick[epochs=40]").shifted[0].accuracy
    assert wrong == pytest.approx(100 - right)


def test_killed_while_looking_it_goes_on_and_ends_alike(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    undisturbed = run("imagenet-v2")
    trained = []
    look_at, train = shifted.look_at, evaluate.train_student

    def killed(*_: Any) -> None:
        raise SystemExit(143)

    def counted(*args: Any, **more: Any) -> Any:
        return train(*args, **{**more, "on_epoch": lambda report: trained.append(report.epoch)})

    monkeypatch.setattr(shifted, "look_at", killed)
    with pytest.raises(SystemExit):
        run("imagenet-v2")
    monkeypatch.setattr(shifted, "look_at", look_at)
    monkeypatch.setattr(evaluate, "train_student", counted)
    again = run("imagenet-v2")
    assert trained == []  # the training was over, and is not made again
    assert again.metrics == undisturbed.metrics
    assert [one.model_copy(update={"seconds": 0}) for one in again.shifted] == [
        one.model_copy(update={"seconds": 0}) for one in undisturbed.shifted
    ]


def test_files_that_change_after_planning(run: Run, data: Path) -> None:
    run("imagenet-v2")
    results = rows.read(data / "runs")
    (student,) = results.evaluates.values()
    picture(CLASSES[0], 99).resize((99, 99)).save(data / "imagenet-v2" / "701" / "3.jpeg")
    cell = results.store.cell(student.id)
    (cell.path / "result.json").unlink()
    assert run_cell(cell.path) == EXIT_FAILED != EXIT_CHANGED
    failed = cell.result()
    assert failed is not None
    assert "imagenet-v2" in str(failed.reason)
    assert "have changed since this cell was planned" in str(failed.reason)


def test_corruptions_made_here(run: Run, data: Path) -> None:
    pytest.importorskip("imagecorruptions", reason="no working extra `robust`", exc_type=ImportError)
    result = run("imagenet-c-made[corruption=fog,contrast,severity=5]", test_data=[])
    (seen,) = result.shifted
    assert [look.condition for look in seen.looks] == ["fog/5", "contrast/5"]
    assert (seen.n_images, seen.folder, seen.image_size) == (4, None, 16)
    assert seen.made_by["imagecorruptions-imaug"]
    assert seen.accuracy == pytest.approx(sum(look.accuracy for look in seen.looks) / 2)


def test_the_id_of_cells_without_shifted_sets_is_as_it_was(run: Run, data: Path) -> None:
    plain = run()
    spec = Store(data / "runs").cell(plain.cell).spec()
    assert isinstance(spec, EvaluateSpec)
    assert "test_on" not in spec.model_dump(mode="json")
    looked = spec.model_copy(update={"test_on": (ShiftedSpec(name="imagenet-v2", sha256="ab"),)})
    assert looked.student_id == spec.student_id == cell_id(spec) != cell_id(looked)
    assert not isinstance(spec, DistillSpec)


def test_it_chooses_among_the_classes_that_the_set_has() -> None:
    """ImageNet-R has 19 of ImageNet-100's classes: whoever says another one is asked for its next best."""
    dataset = DATASETS.load("imagenet-100")
    protocol = PROTOCOLS.load("quick")
    which = shifted.shifted_set("imagenet-r")
    inside = [dataset.class_ids.index(wnid) for wnid in which.shared(dataset.class_ids)]
    outside = [label for label in range(100) if label not in inside]
    assert len(inside) == 19
    assert set(which.wnids) <= set(CLASS_NAMES)
    # Its three images: the class itself after classes that the set lacks; another class of the set first; itself first.
    order = [[*outside[:3], inside[0]], [outside[0], inside[2], inside[1]], [inside[2]]]
    answers = np.array([[*first, *(label for label in range(100) if label not in first)] for first in order])

    def look(pixels: Pixels, most: int) -> np.ndarray:
        assert most == 100
        return answers[: len(pixels)]

    images = ShiftedImages(np.zeros((3, 32, 32, 3), np.uint8), np.array(inside[:3]), "00")
    # Of the dataset's own test images the second is of a class that the set lacks.
    test = ArraySource(np.zeros((2, 32, 32, 3), np.uint8), np.array([inside[0], outside[0]]), ["a", "b"])
    seen = shifted.look_at(
        ShiftedSpec(name="imagenet-r", sha256="00"), {"": images}, look, protocol, dataset,
        DatasetSpec(name="imagenet-100", split="imagenet", resolution=32), Path("imagenet-r"), torch.device("cpu"),
        test, Resident(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)),
    )  # fmt: skip
    assert seen.accuracy == pytest.approx(200 / 3)
    assert seen.clean_accuracy == 100
    assert (seen.n_images, seen.n_classes) == (3, 19)
