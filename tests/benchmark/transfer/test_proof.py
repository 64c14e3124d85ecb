"""`bench verify-results`: everything that can be recomputed is, and one changed byte of it is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddbench.benchmark.commands.verify_results import verify_results_app
from ddbench.benchmark.core.spec import EvaluateSpec, cell_id
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.transfer.proof import prove, same_accuracy
from ddbench.benchmark.transfer.registered import Unknown, label_problems
from ddbench.benchmark.transfer.retrain import retrain
from ddbench.datasets.image_sets import pixels_sha256, set_sha256, write_png


def verify(runs: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(verify_results_app, [str(runs), *words])
    return done.exit_code, " ".join(done.output.split())


def student(runs: Path) -> Path:
    return min((runs / "cells").glob("evaluate-*"))


def changed(file: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def test_a_folder_as_it_was_run(runs: Path) -> None:
    code, said = verify(runs)
    assert (code, "6 × id" in said, "4 × accuracy" in said, "6 × images" in said) == (0, True, True, True)
    assert "Nothing is wrong." in said


def accuracy(runs: Path) -> None:
    file = student(runs) / "predictions.npy"
    labels = np.load(next((runs / "artefacts" / "test-labels").glob("*.npy")))
    predicted = np.load(file)
    first_right = int(np.flatnonzero(predicted == labels)[0])
    predicted[first_right] = (predicted[first_right] + 1) % 10
    np.save(file, predicted)


def all_wrong(runs: Path) -> None:
    np.save(student(runs) / "predictions.npy", np.full(719, 11, np.uint16))


def other_shape(runs: Path) -> None:
    np.save(student(runs) / "predictions.npy", np.zeros((719, 2), np.uint16))


def curve(runs: Path) -> None:
    changed(student(runs) / "result.json", lambda v: v["metrics"].update(acc_best=99.0))


def pixel(runs: Path) -> None:
    file = min((runs / "sets").glob("*/*/*.png"))
    pixels = np.array(Image.open(file))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(file)


def one_image_more(runs: Path) -> None:
    file = min((runs / "sets").glob("*/*/*.png"))
    shutil.copy(file, file.with_name("00007.png"))


def protocol_hash(runs: Path) -> None:
    """Of a cell whose id is right: of a program with another protocol of that name."""
    cell = student(runs)
    changed(cell / "spec.json", lambda v: v["protocol"].update(hash="00" * 32))
    spec = EvaluateSpec.model_validate_json((cell / "spec.json").read_bytes())
    changed(cell / "result.json", lambda v: v.update(cell=cell_id(spec), protocol=spec.protocol.model_dump()))
    cell.rename(cell.with_name(cell_id(spec)))


def seed(runs: Path) -> None:
    changed(student(runs) / "result.json", lambda v: v.update(evaluate_seed=77))


def spec(runs: Path) -> None:
    changed(student(runs) / "spec.json", lambda v: v.update(seed=77))


def label(runs: Path) -> None:
    changed(student(runs) / "result.json", lambda v: v.update(label="dmgd"))


def split_hash(runs: Path) -> None:
    changed(student(runs) / "result.json", lambda v: v["dataset"].update(split_hash="00" * 32))


def images_of_a_student(runs: Path) -> None:
    changed(student(runs) / "result.json", lambda v: v.update(image_set_sha256="00" * 32))


def fewer_images(runs: Path) -> None:
    changed(student(runs) / "result.json", lambda v: v.update(n_images=5))


def fewer_images_of_a_set(runs: Path) -> None:
    changed(min((runs / "cells").glob("distill-*")) / "result.json", lambda v: v.update(n_images=5))


def more_images_per_class(runs: Path) -> None:
    """A set of twenty images said to be of one image per class: no number of it, and its id, tells."""
    cell = min((runs / "cells").glob("distill-*"))
    sets, twice = runs / "sets", {(c, i): np.full((8, 8, 1), 20 * c + i, np.uint8) for c in range(10) for i in range(2)}
    sha256 = set_sha256((str(c), i, pixels_sha256(pixels)) for (c, i), pixels in twice.items())
    for (c, i), pixels in twice.items():
        (sets / sha256[:16] / str(c)).mkdir(parents=True, exist_ok=True)
        write_png(sets / sha256[:16] / str(c) / f"{i:05d}.png", pixels)
    changed(cell / "result.json", lambda v: v.update(image_set_sha256=sha256, n_images=20))
    for made in (runs / "cells").glob("evaluate-*"):
        if json.loads((made / "spec.json").read_text())["images"]["cell"] == cell.name:
            shutil.rmtree(made)


def not_json(runs: Path) -> None:
    (student(runs) / "result.json").write_text("{")


def cost(runs: Path) -> None:
    changed(student(runs) / "result.json", lambda v: v["cost"].update(seconds=-1.0))


@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        (accuracy, "accuracy", "its predictions are right"),
        (all_wrong, "accuracy", "its predictions are right 0.0000 % of the time"),
        (other_shape, "accuracy", "predictions of shape (719, 2)"),
        (curve, "accuracy", "not the last and the best of its curve"),
        (pixel, "images", "have the hash"),
        (one_image_more, "images", "have the hash"),
        (protocol_hash, "protocol", "has the hash"),
        (seed, "result", "evaluate_seed is 77"),
        (spec, "id", "its specification is that of"),
        (label, "result", "it calls itself dmgd, and its method is random"),
        (split_hash, "data", "the split hash or the numbers of images"),
        (images_of_a_student, "images", "trained on images 0000000000000000"),
        (fewer_images, "images", "trained on 5 images, and its set has 10"),
        (fewer_images_of_a_set, "images", " images, and "),
        (more_images_per_class, "images", "its set has 2 images of a class, and the specification says IPC 1"),
        (not_json, "result", "Invalid JSON"),
        (cost, "result", "expected costs of zero or more seconds"),
    ],
)
def test_what_was_changed_is_found(runs: Path, change: Callable[[Path], None], what: str, why: str) -> None:
    change(runs)
    found = prove(Store(runs)).wrong
    assert {finding.what for finding in found} == {what}
    assert all(why in finding.why for finding in found), found
    code, said = verify(runs)
    assert (code, f"{len(found)} wrong" in said) == (1, True)


def test_other_images_of_the_dataset_are_not_wrong_but_not_verified(runs: Path) -> None:
    """Labels that came along prove nothing, and that is said."""
    for cell in (runs / "cells").iterdir():
        changed(cell / "result.json", lambda v: v["dataset"].update(content_hash="ab" * 32))
    (labels,) = (runs / "artefacts" / "test-labels").glob("*.npy")
    labels.rename(labels.with_name(f"{'ab' * 8}.npy"))
    proof = prove(Store(runs))
    assert proof.wrong == []
    assert {finding.what for finding in proof.findings} == {"data", "accuracy"}
    assert "by the labels that came with it: digits has other images here" in str(proof.findings[-1])
    code, said = verify(runs)
    assert (code, "not verified" in said) == (0, True)
    assert "Nothing is wrong of what could be recomputed" in said


def test_names_of_other_methods() -> None:
    from ddbench.benchmark.core.spec import MethodSpec

    method = MethodSpec(name="dmgd", version=1, params={"ot_scale": 0.1, "semantic_matching": True})
    assert list(label_problems("dmgd", method)) == []
    assert list(label_problems("dmgd-dm", method)) == []  # a variant of it
    assert list(label_problems("dmgd[ot_scale=0.1]", method)) == []
    assert list(label_problems("dmgd[ot_scale=0.2]", method)) != []
    assert list(label_problems("random", method)) != []
    with pytest.raises(Unknown, match="no method is called"):
        list(label_problems("unheard-of", method))


@pytest.mark.parametrize(
    ("found", "said", "same"),
    [(12.3456, 12.3456, True), (12.3456, 12.35, True), (12.3456, 12.34, False), (50, 49.9, False)],
)
def test_accuracies_may_be_rounded_and_no_more(found: float, said: float, same: bool) -> None:
    assert same_accuracy(found, said) is same


def test_a_student_trained_again_is_the_same_one(runs: Path) -> None:
    (again,) = retrain(Store(runs), 1)
    assert (again.verdict, again.findings) == ("the same predictions", [])
    assert again.after == again.before


def test_a_student_that_was_not_trained_so_is_found(runs: Path) -> None:
    """Predictions and accuracy agree with one another, and nobody has trained that student."""
    labels = np.load(next((runs / "artefacts" / "test-labels").glob("*.npy")))
    for cell in (runs / "cells").glob("evaluate-*"):
        predicted = np.load(cell / "predictions.npy")
        predicted[:400] = labels[:400]
        np.save(cell / "predictions.npy", predicted)
        found = 100 * float((predicted == labels).mean())
        look = {"epoch": 1, "accuracy": found, "train_loss": 0.1}
        more = {"acc_last": found, "acc_best": found, "top5_last": 99.9, "curve": [look]}
        changed(cell / "result.json", lambda v, more=more: v["metrics"].update(more))
    assert prove(Store(runs)).findings == []
    code, said = verify(runs, "--retrain", "1", "--seed", "3")
    assert (code, "the same machine and versions, and other predictions" in said) == (1, True)
    for cell in (runs / "cells").glob("evaluate-*"):
        changed(cell / "result.json", lambda v: v["environment"]["versions"].update(torch="2.0"))
    (again,) = retrain(Store(runs), 1)
    assert "on another machine or version, where 99 of 100 lie within" in again.verdict
    assert len(again.findings) == 1


def test_a_student_of_a_device_that_is_not_here_is_not_verified(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddbench.benchmark.core.errors import UsageError
    from ddbench.benchmark.engines.local import LocalEngine

    def none(*_: object, **__: object) -> None:
        raise UsageError("no GPU here")

    monkeypatch.setattr(LocalEngine, "open", none)
    (again,) = retrain(Store(runs), 1)
    assert (again.verdict, again.findings, again.after) == ("not verified: no GPU here", [], None)
