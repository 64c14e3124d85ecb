"""Sets in files of tensors: every layout gives the images that were put in, and nothing is guessed."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from shared_cases import shared_case

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets import whitening
from ddbench.datasets.base import ArraySource
from ddbench.datasets.float_images import FloatImages, as_uint8, store_floats
from ddbench.datasets.foreign.tensors import TensorSet, read_tensors, tensor_file
from ddbench.datasets.image_sets import describe_set, read_set
from ddbench.datasets.imagenet.classes import NETTE, WOOF

CLASSES = ("a", "b", "c")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
LABELS = np.array([2, 0, 1, 0, 2, 1])
IN_ORDER = [1, 3, 2, 5, 0, 4]
"""The images sorted by class."""
VALUES = torch.from_numpy((PIXELS / 255 - MEAN) / STD).permute(0, 3, 1, 2)
"""As a program has them in memory: (N, C, H, W), normalised."""
TENSORS = torch.from_numpy(LABELS)


def read(file: Path, normalisation: str | None = "imagenet", **said: Any) -> TensorSet:
    return read_tensors(file, CLASSES, 3, normalisation=normalisation, **said)


def pt(file: Path, content: Any) -> Path:
    torch.save(content, file)
    return file


def beside(folder: Path) -> Path:
    pt(folder / "labels_best.pt", TENSORS)
    return pt(folder / "images_best.pt", VALUES.float())


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "beside": beside,
    "pair": lambda to: pt(to / "data_best.pt", [VALUES.float(), TENSORS]),
    "repetitions": lambda to: pt(to / "res_DM.pt", {"data": [(VALUES.float(), TENSORS)], "accs": {"A": [1.0]}}),
    "mapping": lambda to: pt(to / "set.pth", {"images": VALUES, "labels": TENSORS, "syn_lr": torch.tensor(0.02)}),
    "one-hot": lambda to: pt(to / "set.pt", {"x": VALUES, "y": torch.eye(3)[TENSORS]}),
    "float labels": lambda to: pt(to / "set.pt", (VALUES, TENSORS.float()[:, None])),
    "safetensors": lambda to: save(to / "set.safetensors"),
    "npz": lambda to: npz(to / "set.npz", images=VALUES.numpy(), labels=LABELS),
}


def save(file: Path) -> Path:
    save_file({"images": VALUES.float().contiguous(), "labels": TENSORS}, file)
    return file


def npz(file: Path, **arrays: np.ndarray) -> Path:
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_images_that_were_put_in(tmp_path: Path, layout: str) -> None:
    found = read(LAYOUTS[layout](tmp_path))
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.pixels.dtype == np.float32
    assert np.abs(found.pixels - PIXELS[IN_ORDER] / 255).max() < 1e-6
    assert found.soft_labels is None
    assert (found.learned_learning_rate is not None) == (layout == "mapping")


@pytest.mark.parametrize("layout", ["channels last", "channels first"])
def test_uint8_needs_no_normalisation_and_stays_as_it_is(tmp_path: Path, layout: str) -> None:
    images = PIXELS if layout == "channels last" else PIXELS.transpose(0, 3, 1, 2)
    found = read(npz(tmp_path / "set.npz", images=images, labels=LABELS), None)
    assert found.pixels.dtype == np.uint8
    assert np.array_equal(found.pixels, PIXELS[IN_ORDER])


def test_half_precision_and_a_rate_beside_are_read(tmp_path: Path) -> None:
    pt(beside(tmp_path), VALUES.bfloat16())
    pt(tmp_path / "lr_best.pt", torch.tensor(0.0123))
    found = read(tmp_path / "images_best.pt")
    assert np.abs(found.pixels - PIXELS[IN_ORDER] / 255).max() < 0.01
    assert found.learned_learning_rate == pytest.approx(0.0123)
    assert "a learning rate of 0.0123 comes with the set; no protocol uses it" in found.notes


def test_values_beyond_the_range_are_kept(tmp_path: Path) -> None:
    learnt = torch.rand(6, 3, 8, 8, dtype=torch.float64) * 1.2 - 0.1
    found = read(npz(tmp_path / "set.npz", images=learnt.numpy(), labels=LABELS), "none")
    assert np.array_equal(found.pixels, learnt.permute(0, 2, 3, 1).numpy().astype(np.float32)[IN_ORDER])
    assert "outside 0…1, which are kept" in found.notes[0]


def test_soft_labels_give_classes_and_stay(tmp_path: Path) -> None:
    logits = 5 * torch.eye(3)[TENSORS] + torch.rand(6, 3)
    found = read(pt(tmp_path / "set.pt", (VALUES, logits)))
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.soft_labels is not None
    assert np.array_equal(found.soft_labels, logits.numpy()[IN_ORDER])
    turned = tmp_path / "classes.txt"
    turned.write_text("c\na\nb\n")  # number 0 is class c
    other = read(tmp_path / "set.pt", order=str(turned))
    assert other.soft_labels is not None
    assert other.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(other.soft_labels[:2], logits.numpy()[[2, 5]][:, [1, 2, 0]]), "class a is number 1"


def test_a_file_of_several_sets_asks_which(tmp_path: Path) -> None:
    file = pt(tmp_path / "res.pt", {"data": [(VALUES, TENSORS), (VALUES.flip(0), TENSORS.flip(0))]})
    with pytest.raises(UsageError, match="holds 2 sets .* say which with --set-index 0 … 1"):
        read(file)
    assert np.array_equal(read(file, set_index=1).pixels, read(file, set_index=0).pixels[[1, 0, 3, 2, 5, 4]])
    with pytest.raises(UsageError, match="--set-index 2: .* holds 2"):
        read(file, set_index=2)
    with pytest.raises(UsageError, match="--set-index -1: .* holds 2, numbered from 0"):
        read(file, set_index=-1)


@pytest.mark.parametrize(
    ("values", "said", "problem"),
    [
        (VALUES, None, "say how they were normalised with --normalisation: imagenet"),
        (VALUES, "none", "this is not how they were made: imagenet"),
        (VALUES, "zca", "bring such a set to a protocol that whitens, --protocol dc-convnet3-zca"),
        (VALUES, "imagnet", "expected none, imagenet, cifar10, cifar100, zca or mean="),
        (VALUES, "mean=0.5,std=0", "positive standard deviations"),
        (VALUES, "mean=0.1,0.2,std=0.5", "2 values for 3 channels"),
        (torch.from_numpy(PIXELS / 255).permute(0, 3, 1, 2), None, "--normalisation: none, if these are pixels in 0…1"),
        (torch.from_numpy(PIXELS / 255).permute(0, 3, 1, 2), "imagenet", "say --normalisation none"),
        (torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float(), "none", "as pixels in 0…255 do; save them as uint8"),
        (torch.from_numpy(PIXELS).permute(0, 3, 1, 2).long(), None, "expected uint8 or float images, got int64"),
        (VALUES.index_fill(0, torch.tensor([1]), torch.nan), "imagenet", "1 of 6 images hold values that are not fini"),
        (VALUES[:, :2], "imagenet", "neither axis 1 nor axis 3 could be the channels"),
        (VALUES[..., :3], "imagenet", "both axes 1 and 3 could be the channels"),
        (VALUES[:, :1], "none", "1 channels, the dataset's 3"),
        (VALUES.flatten(1), "imagenet", "no images in it"),
        (VALUES[:0], "imagenet", "got shape \\(0, 3, 8, 8\\)"),
    ],
)
def test_images_that_are_not_what_is_said(tmp_path: Path, values: torch.Tensor, said: str | None, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as error:
        read(pt(tmp_path / "set.pt", (values, TENSORS)), said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (TENSORS[:5], "6 images, but labels of shape"),
        (TENSORS + 0.5, "expected labels as class numbers"),
        (TENSORS - 1, "expected labels as class numbers"),
        (TENSORS + 1, "labels 1 to 3; which class each is"),
        (TENSORS * 0, "no images of 2 of 3 classes: b, c"),
        (torch.rand(6, 4), "expected a column for each of the dataset's 3 classes"),
        (torch.full((6, 3), torch.nan), "soft labels that are not finite"),
        (torch.eye(3)[TENSORS * 0] + 0.1, "the class of an image is where its soft label is largest"),
        (torch.tensor(1), "6 images, but labels of shape"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: torch.Tensor, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        read(pt(tmp_path / "set.pt", (VALUES, labels)))


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (np.array(["a", "b", "c", "a", "b", "c"]), r"got <U1 of shape \(6,\), such as 'a'"),
        (np.full((6, 3), "x"), r"got <U1 of shape \(6, 3\), such as 'x'"),
        (np.eye(3)[LABELS].astype(complex), r"got complex128 of shape \(6, 3\)"),
    ],
)
def test_labels_that_are_no_numbers(tmp_path: Path, labels: np.ndarray, got: str) -> None:
    file = npz(tmp_path / "set.npz", images=VALUES.numpy(), labels=labels)
    with pytest.raises(UsageError, match=rf"labels: expected numbers, of classes .*{got}"):
        read(file)


def test_floats_that_were_cast_to_8_bits_are_no_pixels(tmp_path: Path) -> None:
    black = (PIXELS / 255).astype(np.uint8)
    with pytest.raises(UsageError, match=r"its uint8 values go from 0 to 1, which is black of 0…255"):
        read(npz(tmp_path / "set.npz", images=black, labels=LABELS), None)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content, problem in (
        ("a.pt", b"", "not a whole file of tensors"),
        ("b.pt", b"<html>not found</html>", "not a whole file|never loaded"),
        ("c.npz", b"PK\x03\x04 torn", "not a whole file of tensors"),
        ("d.npy", pickle.dumps([1]), "not a whole file|pickle"),
        ("e.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git-LFS pointer"),
        ("f.safetensors", b"\x08" * 40, "not a whole file of tensors"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=problem) as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)
    whole = beside(tmp_path).read_bytes()
    (tmp_path / "images_best.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="not a whole file of tensors"):
        read(tmp_path / "images_best.pt")


def test_a_file_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (10**7, 3, 10**4, 10**4)}
    np.lib.format.write_array_header_1_0(header, claimed)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    (tmp_path / "set.npy").write_bytes(header.getvalue())
    for file in (tmp_path / "set.npz", tmp_path / "set.npy"):
        with pytest.raises(UsageError, match="do not fit into this machine's memory"):
            read(file)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    for content in ({"images": VALUES, "labels": TENSORS, "args": Bomb()}, {"args": SimpleNamespace(ipc=1)}):
        with pytest.raises(UsageError, match="holds pickled objects beside tensors"):
            read(pt(tmp_path / "set.pt", content))
    with pytest.raises(UsageError, match="never loaded"):
        read(npz(tmp_path / "set.npz", images=np.array([Bomb()], object)))
    assert not marker.exists()


def test_what_may_be_whitened_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"by its name, its images were whitened\. If they are, say --normalisation zca"
    ):
        read(pt(tmp_path / "syn_zca.pt", (VALUES, TENSORS)), None)
    pixels = torch.from_numpy(PIXELS / 255).permute(0, 3, 1, 2)
    assert np.allclose(read(pt(tmp_path / "images_zca_0.pt", (pixels, TENSORS)), "none").pixels, PIXELS[IN_ORDER] / 255)
    with pytest.raises(UsageError, match="the file says that its images are whitened; say --normalisation zca"):
        read(pt(tmp_path / "s.pt", {"images": VALUES, "labels": TENSORS, "zca": True}))
    read(pt(tmp_path / "noZCA.pt", (VALUES, TENSORS)))


def test_whitened_images_are_taken_back_by_the_training_images(tmp_path: Path) -> None:
    """(pixels − mean) W by NumPy in float64, of random training images."""
    flat = np.random.default_rng(1).integers(0, 256, (300, 192)) / 255
    u, s, _ = np.linalg.svd(np.cov(flat, rowvar=False))
    w = u @ np.diag((s + 0.1) ** -0.5) @ u.T
    white = ((PIXELS.transpose(0, 3, 1, 2).reshape(6, -1) / 255 - flat.mean(0)) @ w).reshape(6, 3, 8, 8)
    train = (255 * flat).round().astype(np.uint8).reshape(300, 3, 8, 8).transpose(0, 2, 3, 1)
    sides: list[int] = []

    def zca(side: int) -> whitening.Zca:
        sides.append(side)
        return whitening.fit(ArraySource(train, np.zeros(300), [""] * 300), 0.1)

    content = {"images": torch.from_numpy(white).float(), "labels": TENSORS, "zca": True}
    found = read(pt(tmp_path / "set.pt", content), "zca", zca=zca)
    assert sides == [8]
    assert found.pixels.dtype == np.float32
    assert np.abs(found.pixels - PIXELS[IN_ORDER] / 255).max() < 1e-5
    assert "ZCA whitening by the training images taken back" in found.notes[0]
    with pytest.raises(UsageError, match="% of them lie far outside 0…1, .* was it done with another data set"):
        read(pt(tmp_path / "other.pt", (torch.from_numpy(20 * white), TENSORS)), "zca", zca=zca)
    with pytest.raises(UsageError, match="this is not how they were made"):
        read(pt(tmp_path / "set.pt", (content["images"] * 3, TENSORS)), "none", zca=zca)


def test_labels_of_unknown_order_are_asked_for(tmp_path: Path) -> None:
    labels = torch.arange(10)
    file = pt(tmp_path / "set.pt", (VALUES[:1].expand(10, 3, 8, 8), labels))
    with pytest.raises(UsageError, match="Say it with --class-order sorted or imagenet or dataset"):
        read_tensors(file, WOOF, 3, normalisation="imagenet")
    assert read_tensors(file, NETTE, 3, normalisation="imagenet").labels.tolist() == list(range(10))
    by_text = read_tensors(file, WOOF, 3, normalisation="imagenet", order="sorted")
    assert by_text.labels.tolist() == list(range(10)), "in label order, whatever the numbers were"


def test_which_file_of_a_folder_is_meant(tmp_path: Path) -> None:
    assert tensor_file(beside(tmp_path)) == tmp_path / "images_best.pt" == tensor_file(tmp_path)
    pt(tmp_path / "images_0.pt", VALUES)
    assert tensor_file(tmp_path) == tmp_path / "images_best.pt"
    (tmp_path / "images_best.pt").rename(tmp_path / "images_1.pt")
    with pytest.raises(UsageError, match="holds several files of tensors \\(images_0.pt, images_1.pt\\)"):
        tensor_file(tmp_path)
    (tmp_path / "a").mkdir()
    assert tensor_file(tmp_path) is None, "a folder of class folders"
    with pytest.raises(UsageError, match="images without labels; .* beside it as labels_1.pt"):
        read(tmp_path / "images_1.pt")


def test_a_set_of_floats_is_kept_and_named_by_its_values(tmp_path: Path) -> None:
    found = read(beside(tmp_path))
    store_floats(tmp_path / "stored", found.pixels, found.labels, CLASSES, {"method": "x"})
    again = read_set(tmp_path / "stored", CLASSES, 3)
    assert again.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert all(np.array_equal(one, two) for one, two in zip(again.pixels, found.pixels, strict=True))
    touched = found.pixels.copy()
    touched[3, 0, 0, 0] = np.nextafter(touched[3, 0, 0, 0], np.float32(9))
    store_floats(tmp_path / "touched", touched, found.labels, CLASSES, {})
    assert describe_set(tmp_path / "touched", CLASSES, 3).sha256 != again.sha256
    with pytest.raises(UsageError, match="expected 1 channels, got 3"):
        describe_set(tmp_path / "stored", CLASSES, 1)
    np.save(tmp_path / "stored" / "labels.npy", np.array([0, 9]))
    with pytest.raises(UsageError, match="of a set of floats"):
        FloatImages.at(tmp_path / "stored")


def test_the_same_images_in_four_forms() -> None:
    folder = shared_case("set-tensors")
    found = [
        read_tensors(folder / name, NETTE, 3, normalisation="imagenet")
        for name in ("images_best.pt", "data_best.pt", "res_DM_nette_ConvNet_2ipc.pt", "set.npz")
    ]
    assert {one.pixels.dtype for one in found} == {np.dtype(np.float32), np.dtype(np.uint8)}
    for one in found:
        assert np.abs(as_uint8(one.pixels).astype(int) - as_uint8(found[0].pixels)).max() <= 1
        assert one.labels.tolist() == [c for c in range(10) for _ in range(2)]
