"""Soft labels beside a set's images: every layout gives each image its own row; what cannot be known is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from shared_cases import shared_case

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.foreign.soft_labels import Kind, SoftLabels, checked, labels_beside, read_beside
from ddbench.datasets.image_sets import write_png
from ddbench.datasets.imagenet.classes import NETTE

CLASSES = ("a", "b", "c")
VALUES = np.random.default_rng(0).dirichlet([1, 1, 1], 6) * 0.4 + 0.6 * np.eye(3)[[0, 0, 1, 1, 2, 2]]
"""Probabilities of the images in label order, largest at their classes."""


def image_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def folder_of(folder: Path) -> list[Path]:
    for class_id in CLASSES:
        (folder / class_id).mkdir(parents=True)
        for i in range(2):
            write_png(folder / class_id / f"{i}.png", np.zeros((4, 4, 3), np.uint8))
    return [path for class_id in CLASSES for path in image_files(folder / class_id)]


def read(
    folder: Path, class_ids: tuple[str, ...] = CLASSES, order: str | None = None, kind: Kind | None = None
) -> SoftLabels:
    images = [path for class_id in class_ids for path in image_files(folder / class_id)]
    labels = np.repeat(np.arange(len(class_ids)), 2)
    found = labels_beside(folder, images)
    assert found is not None
    return read_beside(found, images, labels, class_ids, order=order, kind=kind)


@pytest.mark.parametrize("layout", ["pt", "npy", "set", "mapping", "both"])
def test_every_layout_gives_each_image_its_row(tmp_path: Path, layout: str) -> None:
    images = folder_of(tmp_path)
    for image, row in zip(images, VALUES, strict=True):
        if layout in ("pt", "both"):
            torch.save(torch.from_numpy(row)[None], image.with_suffix(".pt"))
        elif layout == "npy":
            np.save(image.with_suffix(".npy"), row)
    if layout in ("set", "both"):
        torch.save({"soft_labels": torch.from_numpy(VALUES)}, tmp_path / "labels.pt")
    elif layout == "mapping":
        rows = {f"{p.parent.name}/{p.name}": torch.from_numpy(r) for p, r in zip(images, VALUES, strict=True)}
        torch.save(dict(reversed(rows.items())), tmp_path / "soft_labels.pt")
    found = read(tmp_path)
    assert found.kind == "probabilities"
    assert np.abs(found.values - VALUES).max() < 1e-6
    assert found.label_bytes == VALUES.nbytes
    assert labels_beside(tmp_path / "a", []) is None


def test_rows_and_columns_come_in_the_order_that_is_said(tmp_path: Path) -> None:
    folder_of(tmp_path)
    np.save(tmp_path / "labels.npy", VALUES)  # as written by a program that sorts class ids
    with pytest.raises(UsageError, match="which class a column of the soft labels is"):
        read(tmp_path, ("c", "a", "b"))
    by_text = read(tmp_path, ("c", "a", "b"), order="sorted")
    assert np.abs(by_text.values - VALUES[[4, 5, 0, 1, 2, 3]][:, [2, 0, 1]]).max() < 1e-6
    with pytest.raises(UsageError, match="for 0 % of the images, no more than chance"):
        checked(np.roll(VALUES, 1, axis=1), np.repeat(np.arange(3), 2), None, "x")


def test_logits_are_taken_only_where_they_are_said(tmp_path: Path) -> None:
    folder_of(tmp_path)
    logits = (3 * np.eye(3)[[0, 0, 1, 1, 2, 2]]).astype(np.float16)
    np.save(tmp_path / "labels.npy", logits)
    with pytest.raises(UsageError, match="sum to 3 … 3, so they are no probabilities; .* --labels logits"):
        read(tmp_path)
    found = read(tmp_path, kind="logits")
    assert (found.kind, found.label_bytes) == ("logits", 6 * 3 * 2)
    with pytest.raises(UsageError, match="--labels probabilities: .* sum to 3"):
        read(tmp_path, kind="probabilities")
    np.save(tmp_path / "labels.npy", VALUES)
    with pytest.raises(UsageError, match="--labels logits: .* are probabilities"):
        read(tmp_path, kind="logits")
    assert read(tmp_path).sha256 != found.sha256


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    images = folder_of(tmp_path)
    np.save(images[0].with_suffix(".npy"), VALUES[0])
    with pytest.raises(UsageError, match="beside 1 of 6 images; .*1.png has none"):
        read(tmp_path)
    images[0].with_suffix(".npy").unlink()
    for bad, problem in (
        (VALUES[:5], "expected soft labels of shape \\(6, 3\\)"),
        (np.full((6, 3), np.nan), "not finite"),
        (np.zeros((6, 4)), "expected soft labels of shape"),
    ):
        np.save(tmp_path / "labels.npy", bad)
        with pytest.raises(UsageError, match=problem):
            read(tmp_path)
    np.save(tmp_path / "labels.npy", VALUES)
    np.save(tmp_path / "labels_2.npy", VALUES[::-1])
    with pytest.raises(UsageError, match="contradict each other: labels.npy and labels_2.npy"):
        read(tmp_path)


@pytest.mark.parametrize("strange", [np.full((6, 3), "x"), VALUES.astype(complex)])
def test_labels_that_are_no_numbers(tmp_path: Path, strange: np.ndarray) -> None:
    images = folder_of(tmp_path)
    np.save(tmp_path / "labels.npy", strange)
    with pytest.raises(UsageError, match=r"labels\.npy: expected numbers, of classes .* got (<U1|complex128)"):
        read(tmp_path)
    (tmp_path / "labels.npy").unlink()
    for image, row in zip(images, strange, strict=True):
        np.save(image.with_suffix(".npy"), row)
    with pytest.raises(UsageError, match=r"0\.npy: expected numbers, of classes"):
        read(tmp_path)


def test_the_shared_case_agrees_with_itself() -> None:
    folder = shared_case("set-soft-labels-beside")
    images = [path for class_id in NETTE for path in image_files(folder / class_id)]
    found = labels_beside(folder, images)
    assert found is not None
    assert found.source == "a file beside each of 20 images and labels.pt"
    labels = read_beside(found, images, np.repeat(np.arange(10), 2), NETTE, order=None, kind=None)
    assert labels.values.max(1) == pytest.approx(0.55)
    assert labels.rows([3, 5]).values.tolist() == labels.values[[3, 5]].tolist()
