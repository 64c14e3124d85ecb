"""Teachers: trained by a recipe, found by runs, named in cells and tables, refused where they do not fit."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from ddbench.benchmark.cells import teachers
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.spec import DatasetSpec, DistilledBy, EvaluateSpec, ProtocolSpec, cell_id
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning import teacher_files
from ddbench.benchmark.planning.teacher_files import TeacherCard
from ddbench.benchmark.protocols.definitions import quick, soft_rded
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import ImageNet1K, Woof
from ddbench.reports.results import groups
from ddbench.reports.results.rows import EvaluateCell, Results

CPU = torch.device("cpu")
SOFT = soft_rded.HALF.with_overrides({"image_size": 8, "teacher": "convnet3", "epochs": 2})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and no file in torch's own."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "cache"
    torch.set_num_threads(threads)


def trained(epochs: int = 2, seed: int = 0) -> TeacherCard:
    return teachers.train(
        "digits",
        split=None,
        data=None,
        recipe=teachers.recipe("convnet3", 8, epochs=epochs, seed=seed),
        resolution=8,
        device=CPU,
        progress=lambda note: None,
        on_epoch=lambda epoch, loss: None,
    )


def test_trained_found_and_loaded() -> None:
    card = trained(epochs=3)
    split = Digits().load("default", None, 8)
    assert (card.n_train, card.n_validation) == (len(split.train) - len(split.validation), len(split.validation))
    found = teacher_files.find(SOFT, Digits, "default", 8)
    assert found is not None
    assert found.record.model_dump(exclude={"accuracy_of", "recipe"}) == {
        "network": "convnet3",
        "sha256": card.sha256,
        "accuracy": card.validation_accuracy,
    }
    network = teachers.load(found, Digits.class_ids, SOFT, 8, CPU)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    # The recorded accuracy is that of the loaded network on the part that was withheld.
    images = torch.from_numpy(split.train.read(split.validation)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (SOFT.mean, SOFT.std))
    right = network((images - mean) / std).argmax(1).numpy() == split.train.labels[split.validation]
    assert card.validation_accuracy == pytest.approx(100 * right.mean(), abs=1e-3)
    assert right.mean() > 0.15  # beyond chance, after 24 steps
    teacher_files.check_split(found, split.split_hash, "digits")
    with pytest.raises(UsageError, match="may have seen test images"):
        teacher_files.check_split(found, "0" * 64, "digits")


def test_the_last_one_trained_is_in_use_and_equal_trainings_are_equal() -> None:
    first, second = trained(seed=0), trained(seed=1)
    assert first.sha256 != second.sha256
    found = teacher_files.find(SOFT, Digits, "default", 8)
    assert found is not None
    assert found.record.sha256 == second.sha256
    assert trained(seed=0).sha256 == first.sha256


def test_taken_over_from_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = trained()
    teachers.export(card, tmp_path / "copy")
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match="needs a teacher"):
        teacher_files.find(SOFT, Digits, "default", 8)
    assert teachers.take_over(Digits, tmp_path / "copy", imagenet_1k="") == card
    found = teacher_files.find(SOFT, Digits, "default", 8)
    assert found is not None
    assert found.record.sha256 == card.sha256
    with pytest.raises(UsageError, match="is a teacher of digits, not of woof"):
        teachers.take_over(Woof, tmp_path / "copy", imagenet_1k="")
    weights = next((tmp_path / "copy").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(UsageError, match=r"is damaged: expected SHA-256"):
        teachers.take_over(Digits, tmp_path / "copy", imagenet_1k="")
    with pytest.raises(UsageError, match="expected a folder with one teacher"):
        teachers.take_over(Digits, tmp_path / "nothing", imagenet_1k="")


def test_changed_weights_are_refused(cache: Path) -> None:
    trained()
    found = teacher_files.find(SOFT, Digits, "default", 8)
    assert found is not None
    data = found.weights.read_bytes()
    found.weights.write_bytes(data[:-4] + bytes(4))
    with pytest.raises(RunError, match="does not hold the teacher that it should"):
        teachers.load(found, Digits.class_ids, SOFT, 8, CPU)


def test_a_dataset_of_one_size_says_which_sides_a_teacher_can_have() -> None:
    with pytest.raises(UsageError, match=r"digits can be opened at 8 px, and the teacher is to see 32 px; use"):
        teachers.train(
            "digits",
            split=None,
            data=None,
            recipe=teachers.recipe("resnet18_bn", 32, epochs=1),
            resolution=8,
            device=CPU,
            progress=lambda note: None,
            on_epoch=lambda epoch, loss: None,
        )


def test_absent_teachers_say_how_to_get_them(cache: Path) -> None:
    with pytest.raises(UsageError) as woof:
        teacher_files.find(soft_rded.HALF, Woof, "imagenet", 224)
    assert "bench train-teacher --dataset woof\n" in str(woof.value)
    with pytest.raises(UsageError) as other:
        teacher_files.find(SOFT, Woof, "fastai", 224)
    assert "bench train-teacher --dataset woof --network convnet3 --split fastai --image-size 8" in str(other.value)
    with pytest.raises(UsageError) as imagenet:
        teacher_files.find(soft_rded.HALF, ImageNet1K, "imagenet", 224)
    for place in (cache / "teachers", cache.parent / "torch" / "hub" / "checkpoints"):
        assert str(place / "resnet18-f37072fd.pth") in str(imagenet.value)
    assert teacher_files.find(quick.PROTOCOL, Digits, "default", 8) is None


def test_imagenets_teacher_is_one_pinned_file(tmp_path: Path) -> None:
    """With a file of the same names and shapes, whose hash the protocol pins instead."""
    reference = torchvision.models.resnet18(weights=None)
    state = {
        name: tensor for name, tensor in reference.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    file = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert soft_rded.HALF.teacher is not None
    pinned = soft_rded.HALF.model_copy(
        update={"teacher": soft_rded.HALF.teacher.model_copy(update={"imagenet_1k": sha256})}
    )
    found = teacher_files.find(pinned, ImageNet1K, "imagenet", 224)
    assert found is not None
    assert (found.weights, found.record.sha256, found.record.accuracy) == (file, sha256, 69.758)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(
            teachers.load(found, ImageNet1K.class_ids, pinned, 224, CPU)(images), reference.eval()(images)
        )
    published = teacher_files.find(soft_rded.HALF, ImageNet1K, "imagenet", 224)
    assert published is not None
    with pytest.raises(RunError, match="expected SHA-256 f37072fd"):
        teachers.load(published, ImageNet1K.class_ids, soft_rded.HALF, 224, CPU)
    assert teachers.take_over(ImageNet1K, file, imagenet_1k=sha256) is None
    kept = teacher_files.find(pinned, ImageNet1K, "imagenet", 224)
    assert kept is not None
    assert kept.weights != file
    with pytest.raises(UsageError, match="is not torchvision's: expected SHA-256 f37072fd"):
        teachers.take_over(ImageNet1K, file, imagenet_1k=soft_rded.RESNET18_IMAGENET1K_V1)


def test_hubs_folder_is_where_torch_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("TORCH_HOME", str(tmp_path)), ("TORCH_HOME", None), ("XDG_CACHE_HOME", str(tmp_path / "x"))):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
        assert teacher_files._hub_file().parent == Path(torch.hub.get_dir()) / "checkpoints"


def spec(**given: Any) -> EvaluateSpec:
    return EvaluateSpec(
        images=DistilledBy(cell="distill-" + "0" * 16),
        dataset=DatasetSpec(name="digits", split="default", resolution=8),
        ipc=1,
        protocol=ProtocolSpec(name="quick", version=1, overrides={}, hash=quick.PROTOCOL.hash),
        student="convnet3",
        seed=0,
        device_type="cpu",
        **given,
    )


def test_a_cell_is_named_by_its_teacher_and_cells_without_one_keep_their_names() -> None:
    assert "teacher_sha256" not in spec().model_dump(mode="json")
    ids = {cell_id(spec(**given)) for given in ({}, {"teacher_sha256": "a"}, {"teacher_sha256": "b"})}
    assert len(ids) == 3


def test_tables_of_different_teachers_are_apart(tmp_path: Path) -> None:
    cells = {
        name: EvaluateCell(name, spec(**given), "random")
        for name, given in {"a": {"teacher_sha256": "a" * 64}, "b": {"teacher_sha256": "b" * 64}, "hard": {}}.items()
    }
    tables = groups.group(Results(Store(tmp_path), {}, cells, []))
    assert [[cell.id for row in table.rows for cell in row.cells] for table in tables] == [["hard"], ["a"], ["b"]]
    assert len({table.title for table in tables}) == 3


def test_run_with_soft_labels_from_end_to_end(tmp_path: Path) -> None:
    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", "from ddbench.benchmark.commands.cli import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    out = str(tmp_path / "runs")
    run = (
        "run", "-d", "digits", "-m", "random", "--ipc", "1", "--seeds", "0", "--repeats", "1", "--out", out,
        "--protocol", "soft-rded-shuffle[epochs=2,image_size=8,teacher=convnet3]", "--student", "convnet3",
    )  # fmt: skip
    refused = bench(*run)
    assert refused.returncode == 2
    assert "bench train-teacher --dataset digits --network convnet3 --image-size 8" in refused.stderr
    trained = bench("train-teacher", "-d", "digits", "--network", "convnet3", "--image-size", "8", "--epochs", "1")
    assert trained.returncode == 0, trained.stderr
    assert "epoch 1 of 1" in trained.stdout
    done = bench(*run)
    assert done.returncode == 0, done.stderr
    assert "teacher convnet3" in done.stdout
    (result,) = [json.loads(path.read_bytes()) for path in (tmp_path / "runs").glob("cells/evaluate-*/result.json")]
    assert result["teacher"]["sha256"] in trained.stdout
    assert f"{result['teacher']['accuracy']:.2f} % of the" in trained.stdout
    assert np.isfinite(result["metrics"]["curve"][0]["train_loss"])
    assert (result["images_seen"], result["stored_label_bytes"]) == (2 * 10, None)
    assert "the teacher labelled 20 images for each student" in done.stdout.replace("\n", " ")

    for protocol, passes, stored in (
        ("soft-fkd[epochs=3,image_size=8,teacher=convnet3]", 30, 30 * (10 * 2 + 29)),
        ("soft-budget[updates=2,image_size=8,teacher=convnet3]", 200, None),
    ):
        done = bench(*run[:14], protocol, *run[15:])
        assert done.returncode == 0, done.stderr
        results = [json.loads(path.read_bytes()) for path in (tmp_path / "runs").glob("cells/evaluate-*/result.json")]
        (result,) = [one for one in results if one["protocol_label"].startswith(protocol.partition("[")[0])]
        assert (result["images_seen"], result["stored_label_bytes"]) == (passes, stored)
        said = done.stdout.replace("\n", " ")
        assert f"the teacher labelled {passes} images for each student" in said
        assert stored is None or f"they take {stored:,} bytes" in said
