"""Trainings on a pretend GPU: students with hard and soft labels, what goes on after a kill, classifiers, teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pretend
import pytest
import torch
from short_trainings import shortened, teacher_of

from ddbench.benchmark.cells import teachers
from ddbench.benchmark.cells.classifiers import Classifier, train_classifier
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.planning import teacher_files
from ddbench.benchmark.protocols import trainer
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd, quick, soft_rded
from ddbench.benchmark.protocols.epoch import batches_of_test, most_in_test
from ddbench.benchmark.protocols.pixels import Resident
from ddbench.benchmark.protocols.trainer import EpochReport, StudentResult, train_student
from ddbench.datasets import whitening
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.methods.classifier import ClassifierRecipe

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
CLOSE = 1e-4
"""Relative difference of losses."""
SHORT = {"epochs": 5, "looks": 2, "batch_size": 8, "image_size": 16}
OTHERS = {
    "longer": (quick.PROTOCOL.with_overrides(SHORT | {"width": 4}), "convnet3"),
    "resnet": (hard_minimax_sgd.PROTOCOL.with_overrides(SHORT | {"width": 4}), "resnet_ap10"),
    "batchnorm": (hard_minimax_sgd.PROTOCOL.with_overrides(SHORT), "resnet18_bn"),
    "soft batchnorm": (soft_rded.CROP.with_overrides(SHORT), "resnet18_bn"),
}
"""Trainings of other networks than the smallest, and one that is killed."""
CASES = [*OTHERS, *(entry.name for entry in PROTOCOLS)]


def of_case(case: str) -> tuple[Protocol, str]:
    """A short training and its student: each registered protocol, on the smallest network."""
    if case in OTHERS:
        return OTHERS[case]
    return shortened(case, epochs=2), "convnet3"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained_on(
    device: torch.device, case: str, on_epoch: Callable[[EpochReport], None], checkpoint: Path | None = None
) -> StudentResult:
    protocol, student = of_case(case)
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 16, 16, protocol.channels or 1), np.uint8) for n in (20, 30))
    labels = np.arange(30) % 10
    soft_labels = None if protocol.stored is None else rng.standard_normal((20, 10)).astype(np.float32)
    zca = None
    if protocol.whitening is not None:
        zca = whitening.fit(ArraySource(test, labels, [""] * 30), protocol.whitening.epsilon)
    return train_student(
        protocol, student, train, labels[:20], test, labels, num_classes=10, ipc=2, seed=0, device=device,
        teacher=teacher_of(protocol, device), zca=zca, soft_labels=soft_labels, on_epoch=on_epoch,
        checkpoint=checkpoint,
    )  # fmt: skip


def as_on_a_gpu(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Networks with BatchNorm lie in memory otherwise on a GPU, and sums in another order diverge within an epoch."""
    batchnorm = any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    return network.to(memory_format=torch.channels_last) if batchnorm else network


@pytest.mark.parametrize("case", CASES)
def test_a_student_is_the_cpus(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[EpochReport]] = {"cpu": [], "cuda": []}
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "to_device", as_on_a_gpu)
        there = trained_on(CPU, case, seen["cpu"].append)
    with pretend.gpu():
        here = trained_on(CUDA, case, seen["cuda"].append)
    assert [(r.epoch, r.accuracy is None) for r in seen["cuda"]] == [(r.epoch, r.accuracy is None) for r in seen["cpu"]]
    losses = ([report.train_loss for report in reports] for reports in (seen["cuda"], seen["cpu"]))
    np.testing.assert_allclose(*losses, rtol=CLOSE)
    assert (here.predictions != there.predictions).mean() <= 0.1


def test_a_gpu_looks_at_many_small_test_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the CPU at as many as ever, since its results are equal bit for bit."""
    seen: list[int] = []
    batches = Resident.batches

    def noted(self: Resident, order: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
        seen.append(batch_size)
        return batches(self, order, batch_size)

    monkeypatch.setattr(Resident, "batches", noted)
    looks: dict[str, StudentResult] = {}
    for device, most in ((CPU, 128), (CUDA, 128 * 7**2)):  # at 16 px; at 112 px 128
        seen.clear()
        with pretend.gpu():
            looks[device.type] = trained_on(device, "quick", lambda report: None)
        assert seen[-1] == most
    assert (looks["cpu"].predictions != looks["cuda"].predictions).mean() <= 0.1
    large = Resident(torch.zeros(2, 224, 224, 3, dtype=torch.uint8))
    assert (most_in_test(large, CPU), most_in_test(large, CUDA)) == (128, 128)
    assert batches_of_test(Resident(torch.zeros(300, 64, 64, 1, dtype=torch.uint8)), CUDA) == [300]


def test_a_student_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")

    def killed(report: EpochReport) -> None:
        if report.accuracy is not None:
            raise KeyboardInterrupt

    file, reports = tmp_path / "checkpoint.pt", []
    with pretend.gpu():
        whole = trained_on(CUDA, "longer", lambda report: None)
    with pretend.gpu(), pytest.raises(KeyboardInterrupt):
        trained_on(CUDA, "longer", killed, file)
    with pretend.gpu():
        resumed = trained_on(CUDA, "longer", reports.append, file)
    assert 0 < len(reports) < 5
    assert resumed.curve == whole.curve
    np.testing.assert_array_equal(resumed.predictions, whole.predictions)


RECIPE = ClassifierRecipe(
    network="convnet3", image_size=8, epochs=2, augmentation="affine", mean=(0.5,), std=(0.5,), keep_epochs=(1,)
)


def test_a_classifier_is_the_cpus() -> None:
    split = Digits().load("default", None, 8)

    def trained(device: torch.device) -> Any:
        arrays = train_classifier(RECIPE, split.train, withheld=split.validation[::3], num_classes=10, device=device)
        classifier = Classifier(RECIPE, arrays, num_classes=10, channels=1, device=device)
        images = (torch.from_numpy(split.test.read(range(5))).permute(0, 3, 1, 2) / 255).to(device)
        return arrays, [of(images).cpu().numpy() for of in (classifier.logits, classifier.features)]

    expected, outputs = trained(CPU)
    with pretend.gpu():
        found, made = trained(CUDA)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-5, err_msg=name)
    for one, other in zip(made, outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_teacher_is_trained_kept_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    losses: list[float] = []
    with pretend.gpu():
        card = teachers.train(
            "digits", split=None, data=None, recipe=teachers.recipe("convnet3", 8, epochs=2, seed=0), resolution=8,
            device=CUDA, progress=lambda note: None, on_epoch=lambda epoch, loss: losses.append(loss),
        )  # fmt: skip
        soft = soft_rded.HALF.with_overrides({"image_size": 8, "teacher": "convnet3", "epochs": 2})
        found = teacher_files.find(soft, Digits, "default", 8)
        assert found is not None
        network = teachers.load(found, Digits.class_ids, soft, 8, CUDA)
        assert {parameter.device for parameter in network.parameters()} == {CUDA}
    assert (card.device_type, len(losses)) == ("cuda", 2)
    assert losses[1] < losses[0]
