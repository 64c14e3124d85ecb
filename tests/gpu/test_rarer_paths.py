"""What a cell on a GPU does only now and then: going on after a kill, with less memory, looking at further images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pretend
import pytest
import torch

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.cells.classifiers import train_classifier
from ddbench.benchmark.cells.pretrained import PretrainedClassifier
from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.check import subject_of
from ddbench.benchmark.check.comparison import expect_close
from ddbench.benchmark.check.runs import Images, SmallRuns
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd, quick
from ddbench.benchmark.protocols.pixels import hold
from ddbench.benchmark.protocols.trainer import train_student
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import read_set
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.methods.classifier import ClassifierRecipe
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.label_check import check_labels
from ddbench.methods.dm import matching
from ddbench.methods.inversion import inverting
from ddbench.methods.minimax import tune
from ddbench.methods.pretrained import PRETRAINED
from ddbench.reports.quality.features import InceptionFeatures

CUDA = torch.device("cuda", 0)


pytestmark = pytest.mark.usefixtures("this_process")


class Killed(BaseException):
    """No exception that anybody handles."""


KEEPING: Mapping[str, tuple[Any, str, Any, str, dict[str, Any]]] = {
    "dm": (matching.Matching, "_keep", matching, "CHECKPOINT_EVERY", {"iterations": 6}),
    "sre2l": (inverting.BatchInversion, "_keep", inverting, "CHECKPOINT_EVERY", {"steps": 6, "epochs": 1}),
    "minimax": (tune._Tuner, "_save", tune, "CHECKPOINT_STEPS", {"steps": 3, "tuning_steps": 6, "tuning_batch": 4}),
}
"""Method -> who keeps its state and how, where it says how often, and a small run."""


@pytest.mark.parametrize("name", KEEPING)
def test_a_method_goes_on_after_a_kill(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what lay on the GPU, by way of a file."""
    owner, keep, module, often, given = KEEPING[name]
    monkeypatch.setattr(module, often, 2)
    planted, kept, seen = Planted(), getattr(owner, keep), list[pretend.Seen]()

    def run(artefacts: str) -> Images:
        with pretend.gpu() as asked, subject_of(name, given, planted) as subject:
            seen.append(asked)
            runs = SmallRuns(subject.method, subject.params, planted, tmp_path, device="cuda:0")
            return runs.run(classes=(0, 7), artefacts=artefacts, cell=name)

    def then_killed(one: Any) -> None:
        kept(one)
        raise Killed

    counted = list[Any]()
    monkeypatch.setattr(owner, keep, lambda one: counted.append(one) or kept(one))
    undisturbed, times = run("undisturbed"), len(counted)
    with monkeypatch.context() as patched:
        patched.setattr(owner, keep, then_killed)
        with pytest.raises(Killed):
            run("killed")
    counted.clear()
    expect_close(run("killed"), undisturbed, 1e-5, "resumed")
    assert 0 < len(counted) == times - 1, "it went on, and did not begin again"
    waits = [
        event for event in seen[-1].events if event.where.endswith(("_step", " step")) and "async" not in event.kind
    ]
    assert not waits, "a step waits no more than before"


def test_a_recorded_training_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has recorded."""
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    pixels, labels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8), np.arange(12) % 4
    recipe = ClassifierRecipe(
        network="convnet3", image_size=8, epochs=4, batch_size=4, augmentation="affine", mean=(0.5,), std=(0.5,),
        records_dynamics=True,
    )  # fmt: skip
    epochs = list[int]()

    def trained(file: Path, until: int = 4) -> Mapping[str, np.ndarray]:
        def on_epoch(epoch: int, loss: float) -> None:
            epochs.append(epoch)
            if epoch > until:
                raise Killed

        with pretend.gpu():
            return train_classifier(
                recipe, ArraySource(pixels, labels, [""] * 12), withheld=np.array([], int), num_classes=4, device=CUDA,
                on_epoch=on_epoch, checkpoint=file,
            )  # fmt: skip

    undisturbed = trained(tmp_path / "undisturbed.pt")
    with pytest.raises(Killed):
        trained(tmp_path / "killed.pt", until=2)
    resumed = trained(tmp_path / "killed.pt")
    assert epochs == [1, 2, 3, 4, 1, 2, 3, 3, 4]
    assert resumed.keys() == undisturbed.keys()
    for name, array in undisturbed.items():
        np.testing.assert_allclose(resumed[name], array, rtol=1e-5, atol=1e-6)


FURTHER: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "covariance": ("d3hr", {"covariance": "full", "steps": 8, "groups": 20}, {}),
    "euler": ("flow", {"sampler": "euler", "steps": 3}, {}),
    "dopri5": ("flow", {"sampler": "dopri5"}, {"ipc": 1}),
    "chosen checkpoints": (
        "igd",
        {"network": "convnet3", "checkpoints": "cosine<0.9@1", "real_images": 4, "steps": 2},
        {},
    ),
    "inversion in parts": ("sre2l", {"steps": 2, "epochs": 1}, {"batch_size": 3}),
}
"""What no registered name has as its default: a method, its parameters, and how it is run."""


@pytest.mark.filterwarnings("error:t is not on the same device as y0")
@pytest.mark.parametrize("what", FURTHER)
def test_images_are_the_cpus(what: str, tmp_path: Path) -> None:
    name, given, how = FURTHER[what]
    planted = Planted()

    def made(device: str) -> Images:
        with subject_of(name, given, planted) as subject:
            runs = SmallRuns(subject.method, subject.params, planted, tmp_path / device, device=device)
            return runs.run(classes=(0, 7), **how)

    expected = made("cpu")
    with pretend.gpu():
        on_gpu = made("cuda:0")
    assert on_gpu.keys() == expected.keys()
    # Near noise the flow of a prior of noise divides by a time of 0.006, and its images by float error; a solver that
    # chooses its steps by what it finds carries that on, by how much depends on the processor (6 % of values on one).
    apart = np.stack([np.abs(on_gpu[key].pixels.astype(int) - image.pixels) for key, image in expected.items()])
    assert (apart > 1).mean() <= (0.2 if what == "dopri5" else 0.01)
    assert apart.mean() <= 1


def test_a_prior_of_velocities_predicts_noise() -> None:
    """For one time, and for a time of each image that lies on the GPU."""

    def predicted(device: torch.device) -> list[torch.Tensor]:
        known = Prior.load(find_prior("digits"))
        prior = Prior(known.network, known.metadata.model_copy(update={"prediction": "velocity"}), device=device)
        x = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8).to(device)
        labels = prior.embed_labels(torch.tensor([0, 3]))
        return [prior.predict(x, t, labels)[0].cpu() for t in (500, torch.tensor([20, 900]).to(device))]

    expected = predicted(torch.device("cpu"))
    with pretend.gpu():
        found = predicted(CUDA)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_cell_goes_on_with_less_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its images are the same within a level."""
    predict, room = Prior.predict, [64]

    def limited(self: Prior, x: torch.Tensor, *rest: Any) -> Any:
        if len(x) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return predict(self, x, *rest)

    def made(out: Path) -> tuple[DistillResult, np.ndarray]:
        options = {"methods": "dmgd[steps=4]", "datasets": "digits", "ipc": 1, "seeds": 0, "device": "cuda:0"}
        (planned,) = plan_run(run_spec({}, options), students=False)[0].sets
        assert planned.spec is not None
        store = Store(out)
        store.create()
        cell = store.add(planned.spec, planned.launch)
        with pretend.gpu():
            assert run_cell(cell.path) == EXIT_OK, cell.result()
        result = cell.result()
        assert isinstance(result, DistillResult)
        pixels = read_set(store.set_dir(str(result.image_set_sha256)), Digits.class_ids, Digits.channels).pixels
        return result, np.stack(list(pixels)).astype(int)

    monkeypatch.setattr(Prior, "predict", limited)
    enough, images = made(tmp_path / "enough")
    room[0] = 8
    too_little, again = made(tmp_path / "too little")
    assert enough.cost is not None
    assert too_little.cost is not None
    assert (enough.cost.oom_batch_sizes, too_little.cost.oom_batch_sizes) == ([], [32, 16, 8])
    assert np.abs(images - again).max() <= 1


def test_a_trained_student_looks_at_further_images() -> None:
    """As at shifted test sets."""
    rng = np.random.default_rng(0)
    train, test, further = (rng.integers(0, 256, (n, 16, 16, 1), np.uint8) for n in (20, 10, 30))
    labels = np.arange(30) % 10
    protocol = quick.PROTOCOL.with_overrides({"epochs": 2, "looks": 1, "batch_size": 8, "image_size": 16})
    looked = {}
    for device in ("cpu", "cuda:0"):
        with pretend.gpu():
            done = train_student(
                protocol, "convnet3", train, labels[:20], test, labels[:10], num_classes=10, ipc=2, seed=0,
                device=device,
            )  # fmt: skip
            pixels = hold(ArraySource(further, labels, [""] * 30), torch.device(device))
            looked[device] = done.look(pixels, 10)
    assert looked["cpu"].shape == (30, 10)
    assert (looked["cpu"][:, 0] != looked["cuda:0"][:, 0]).mean() <= 0.1


def test_the_class_list_is_checked() -> None:
    split = Digits().load("default", None, 8)
    images = {c: split.train.read(split.train.of_class(i)[:2]) for i, c in enumerate(Digits.class_ids)}
    expected = check_labels(Prior.load(find_prior("digits")), images)
    with pretend.gpu():
        assert check_labels(Prior.load(find_prior("digits"), device=CUDA), images) == expected


def test_inceptions_features(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "inception.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), np.uint8)

    def features(device: torch.device) -> np.ndarray:
        return InceptionFeatures(tmp_path / "inception.pth", "0" * 64, device).features(pixels)

    expected = features(torch.device("cpu"))
    with pretend.gpu():
        made = features(CUDA)
    np.testing.assert_allclose(made, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("student", ["mobilenet_v2", "shufflenet_v2_x0_5", "resnet18"])
def test_further_students(student: str) -> None:
    """Convolutions by channel, layers that draw, networks that torchvision initialises: that they train there."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (8, 32, 32, 3), np.uint8), np.arange(8) % 4
    short = {"image_size": 32, "epochs": 1, "looks": 1, "batch_size": 4}
    protocol = hard_minimax_sgd.PROTOCOL.with_overrides(short)
    with pretend.gpu() as seen:
        done = train_student(
            protocol, student, pixels, labels, pixels, labels, num_classes=4, ipc=2, seed=0, device=CUDA
        )
    assert np.isfinite(done.curve[-1].train_loss)
    assert seen.launches["aten._fused_sgd_.default"] == 2


def test_a_classifier_that_comes_trained() -> None:
    known = PRETRAINED["efficientnet_lite0"]
    pytest.importorskip(known.file.partition("/")[0])
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def features(device: torch.device) -> torch.Tensor:
        classifier = PretrainedClassifier(known.network, IMAGENET_1K[:10], 32, known.sha256, device)
        with torch.no_grad():
            return classifier.features(images.to(device)).cpu()

    expected = features(torch.device("cpu"))
    with pretend.gpu():
        found = features(CUDA)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
