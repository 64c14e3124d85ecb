"""Sets in files of tensors and with soft labels, from what a user says to a row of a table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.spec import EvaluateSpec, ForeignImages
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.running.foreign_set import plan_images
from ddbench.benchmark.running.reporter import Reporter
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import write_png
from ddbench.reports.results.rows import read
from ddbench.reports.tables.leaderboard import build

SPLIT = Digits().load("default", None, 8)
ROWS = np.concatenate([SPLIT.train.of_class(c)[:2] for c in range(10)])
PIXELS, LABELS = SPLIT.train.read(ROWS), SPLIT.train.labels[ROWS]
SOFT = (0.5 * np.eye(10)[LABELS] + 0.05).astype(np.float16)
FLOATS = (PIXELS / 255 * 1.02 - 0.01).astype(np.float32).transpose(0, 3, 1, 2)


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)


def planned(images: Path | str, out: Path, protocol: str = "quick[epochs=1]", **said: Any) -> Planned:
    spec = RunSpec(
        methods=["images"], datasets=["digits"], protocol=protocol, student="convnet3", repeats=1, out=out, device="cpu"
    )
    return plan_images(spec, images, Reporter(None), **said)


def spec_of(plan: Planned) -> EvaluateSpec:
    ((student,),) = [one.students for one in plan.plan.sets]
    return student


def images_of(plan: Planned) -> ForeignImages:
    images = spec_of(plan).images
    assert isinstance(images, ForeignImages)
    return images


def trained(plan: Planned, out: Path) -> EvaluateResult:
    store = Store(out)
    store.create()
    plan.plan.save(store)
    cell = store.add(spec_of(plan), plan.plan.sets[0].launch)
    assert run_cell(cell.path) == EXIT_OK, (cell.path / "result.json").read_text()
    result = cell.result()
    assert isinstance(result, EvaluateResult)
    return result


def soft_set(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({"images": torch.from_numpy(FLOATS), "labels": torch.from_numpy(SOFT), "lr": 0.03}, folder / "set.pt")
    return folder / "set.pt"


def png_set(folder: Path) -> Path:
    for row, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        write_png(folder / str(label) / f"{row % 2:05d}.png", image)
    return folder


def test_floats_and_their_labels_are_trained_on_as_they_are(tmp_path: Path) -> None:
    file, out = soft_set(tmp_path / "made"), tmp_path / "runs"
    plan = planned(file, out, "soft-stored[epochs=1]", normalisation="none")
    result = trained(plan, out)
    assert result.label == "made/set.pt"
    assert result.soft_labels is not None
    assert (result.soft_labels.used, result.soft_labels.kind, result.soft_labels.label_bytes) == (
        True,
        "probabilities",
        20 * 10 * 2,
    )
    assert images_of(plan).soft_labels_sha256 == result.soft_labels.sha256
    assert result.source is not None
    assert (result.source.layout, result.source.normalisation) == ("a mapping", "none")
    assert result.source.learned_learning_rate == pytest.approx(0.03)
    assert list(result.source.files) == ["set.pt"]
    stored = Store(out).set_dir(images_of(plan).image_set_sha256)
    assert np.array_equal(np.load(stored / "images.npy"), FLOATS)
    assert json.loads((stored / "manifest.json").read_text())["class_ids"] == list(Digits.class_ids)
    labels = Store(out).soft_labels(result.soft_labels.sha256)
    again = tmp_path / "again"
    shutil.copytree(stored, again)
    shutil.copyfile(labels, again / "soft_labels.npy")
    assert spec_of(planned(again, out, "soft-stored[epochs=1]")) == spec_of(plan), "stored sets come back as they are"
    np.save(labels, np.load(labels)[::-1])
    other = spec_of(plan).model_copy(update={"seed": 7})
    cell = Store(out).add(other, plan.plan.sets[0].launch)
    assert run_cell(cell.path) != EXIT_OK
    assert "holds other soft labels than this cell was planned with" in (cell.path / "result.json").read_text()


def test_a_whitened_set_is_judged_in_whitened_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    real = SPLIT.train.read(np.arange(len(SPLIT.train))).reshape(-1, 64) / 255
    variances, directions = np.linalg.eigh(np.cov(real, rowvar=False))
    white = (FLOATS.reshape(20, 64) - real.mean(0)) @ (directions / np.sqrt(variances + 0.1)) @ directions.T
    file, out = tmp_path / "images_best.pt", tmp_path / "runs"
    torch.save([torch.from_numpy(white).float().view(20, 1, 8, 8), torch.from_numpy(LABELS)], file)
    with pytest.raises(UsageError, match="bring such a set to a protocol that whitens, --protocol dc-convnet3-zca"):
        planned(file, out, normalisation="zca")
    plan = planned(file, out, "dc-convnet3-zca[epochs=2]", normalisation="zca")
    result = trained(plan, out)
    assert result.source is not None
    assert result.source.normalisation == "zca"
    stored = np.load(Store(out).set_dir(images_of(plan).image_set_sha256) / "images.npy")
    assert np.abs(stored - FLOATS).max() < 1e-5, "pixels lie there, so test images are found among them"
    np.savez(tmp_path / "pixels.npz", images=FLOATS, labels=LABELS)
    same = trained(planned(tmp_path / "pixels.npz", out, "dc-convnet3-zca[epochs=2]", normalisation="none"), out)
    assert same.metrics.curve[0].train_loss == pytest.approx(result.metrics.curve[0].train_loss, rel=1e-4)
    assert len(list((tmp_path / "cache" / "whitening").glob("*.npz"))) == 1, "the set's, and the students'"


def test_labels_that_are_not_used_are_named_and_mark_the_row(tmp_path: Path) -> None:
    folder, out = png_set(tmp_path / "set"), tmp_path / "runs"
    bare = planned(folder, out)
    trained(bare, out)
    np.save(folder / "labels.npy", SOFT)
    plan = planned(folder, out)
    assert any("soft labels come with the set and are not used (labels.npy, 400 bytes)" in note for note in plan.notes)
    assert not any("no images" in note for note in plan.notes)
    assert images_of(plan).image_set_sha256 == images_of(bare).image_set_sha256
    assert spec_of(plan) != spec_of(bare)
    assert spec_of(planned(folder, out, class_order="dataset")) == spec_of(plan), "columns, beside folders of class ids"
    result = trained(plan, out)
    assert result.soft_labels is not None
    assert not result.soft_labels.used
    assert result.metrics == trained(bare, out).metrics
    (table,) = build(read(out)).tables
    assert sorted(row.qualifiers[:1] for row in table.rows) == [[], ["hard labels"]]
    np.save(folder / "labels.npy", np.zeros(3))
    torn = planned(folder, out)
    assert any("not used (labels.npy): quick[epochs=1]@1 trains with hard labels" in note for note in torn.notes)
    with pytest.raises(UsageError, match="expected soft labels of shape"):
        planned(folder, out, "soft-stored")


def test_labels_of_crops_are_named_and_not_taken_for_labels_of_images(tmp_path: Path) -> None:
    folder = png_set(tmp_path / "set")
    bare = planned(folder, tmp_path / "runs")
    (folder / "FKD_cutmix_fp16" / "epoch_0").mkdir(parents=True)
    (folder / "FKD_cutmix_fp16" / "epoch_0" / "batch_0.tar").write_bytes(b"x")
    plan = planned(folder, tmp_path / "runs")
    assert any("not used (labels of crops by epoch in FKD_cutmix_fp16)" in note for note in plan.notes)
    assert images_of(plan).image_set_sha256 == images_of(bare).image_set_sha256
    assert spec_of(plan) != spec_of(bare)
    with pytest.raises(UsageError, match="these are no labels of images"):
        planned(folder, tmp_path / "runs", "soft-stored")


def test_labels_of_a_subset_are_those_of_its_images(tmp_path: Path) -> None:
    folder, out = png_set(tmp_path / "set"), tmp_path / "runs"
    np.save(folder / "labels.npy", SOFT + np.linspace(0, 0.001, 20, dtype=np.float16)[:, None])
    plan = planned(folder, out, "soft-stored", ipc=1, subset="random")
    kept = [int(path.stem) for path in sorted((tmp_path / "set").glob("*/*.png"))][:1]
    labels = plan.plan.sets[0].launch.soft_labels
    assert labels is not None
    assert labels.label_bytes == 10 * 10 * 2
    stored = np.load(Store(out).soft_labels(labels.sha256))
    assert stored.shape == (10, 10)
    assert stored.argmax(1).tolist() == list(range(10))
    assert kept == [0]


def test_labels_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trains with the set's own soft labels, and set has none"):
        planned(png_set(tmp_path / "set"), tmp_path / "runs", "soft-stored")
    spec = RunSpec(methods=["random"], datasets=["digits"], protocol="soft-stored", out=tmp_path, device="cpu")
    with pytest.raises(UsageError, match="sets that are distilled here have hard labels"):
        plan_run(spec)


def test_8_bit_tensors_are_the_set_that_the_same_pictures_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=PIXELS[::-1], labels=LABELS[::-1])
    as_tensors, as_files = (
        planned(tmp_path / "set.npz", tmp_path / "a"),
        planned(png_set(tmp_path / "set"), tmp_path / "b"),
    )
    # Within a class, the file has them the other way round.
    assert images_of(as_tensors) != images_of(as_files)
    np.savez(tmp_path / "set.npz", images=PIXELS, labels=LABELS)
    assert spec_of(planned(tmp_path / "set.npz", tmp_path / "a")) == spec_of(as_files)


def test_test_images_are_found_in_tensors(tmp_path: Path) -> None:
    leaked = PIXELS.copy()
    leaked[0] = SPLIT.test.read(SPLIT.test.of_class(0)[:1])[0]
    np.savez(tmp_path / "set.npz", images=(leaked / 255).astype(np.float32), labels=LABELS)
    with pytest.raises(UsageError, match="1 of the 20 images .* are test images of digits"):
        planned(tmp_path / "set.npz", tmp_path / "runs", normalisation="none")


def test_a_dry_run_leaves_nothing(tmp_path: Path) -> None:
    file = soft_set(tmp_path / "made")
    plan = planned(file, tmp_path / "dry", "soft-stored", normalisation="none", dry_run=True)
    assert not (tmp_path / "dry").exists()
    assert spec_of(plan) == spec_of(planned(file, tmp_path / "wet", "soft-stored", normalisation="none"))


def test_what_says_nothing_of_a_folder_is_refused(tmp_path: Path) -> None:
    folder = png_set(tmp_path / "set")
    with pytest.raises(UsageError, match="--normalisation none: .* is a folder of images"):
        planned(folder, tmp_path / "runs", normalisation="none")
    with pytest.raises(UsageError, match="--set-index 0: .* is a folder of images"):
        planned(folder, tmp_path / "runs", set_index=0)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="expected a folder of images, or a file of tensors"):
        planned(tmp_path / "notes.txt", tmp_path / "runs")


def test_a_set_of_the_hub_keeps_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    own, commit = tmp_path / "hub" / "datasets--someone--digits", "a" * 40
    (own / "refs").mkdir(parents=True)
    (own / "refs" / "main").write_text(commit)
    for file in [*png_set(tmp_path / "blobs").glob("*/*.png")]:  # the hub's cache holds links to its blobs
        link = own / "snapshots" / commit / file.relative_to(tmp_path / "blobs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    plan = planned("hf:someone/digits", tmp_path / "runs")
    source = plan.plan.sets[0].launch.source
    assert source is not None
    assert (source.address, source.revision) == ("hf:someone/digits", commit)
    assert plan.plan.sets[0].label == "someone/digits"
    assert images_of(plan) == images_of(planned(png_set(tmp_path / "set"), tmp_path / "runs"))
