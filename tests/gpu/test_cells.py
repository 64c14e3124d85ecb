"""Whole cells on a pretend GPU, sets measured there, and priors with an autoencoder."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pretend
import pytest
import torch
from typer.testing import CliRunner

from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.cells.classifiers import with_classifiers
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.commands.cli import app
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.protocols.pixels import Streamed
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import read_set
from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.dmgd.distribution import DistributionMatching

CLASSES = ("n02096294", "n02093754")


pytestmark = pytest.mark.usefixtures("this_process")


def run_here(out: Path, device: str) -> tuple[DistillResult, EvaluateResult]:
    """`dmgd` on digits and its student, in this process."""
    store = Store(out)
    store.create()
    options = {"methods": "dmgd[steps=4]", "datasets": "digits", "ipc": 1, "seeds": 0, "repeats": 1, "device": device}
    plan, _, _ = plan_run(run_spec({}, options | {"protocol": "quick[epochs=4]"}))
    found: dict[str, Any] = {}
    for planned, spec in plan.cells():
        cell = store.add(spec, planned.launch)
        assert run_cell(cell.path) == EXIT_OK, cell.result()
        found[spec.kind] = cell.result()
    return found["distill"], found["evaluate"]


def quality_of(out: Path, device: str) -> dict[str, float | None]:
    asked = f"--out {out} --features convnet3[epochs=1] --limit-real 10 --device {device} --json"
    done = CliRunner().invoke(app, ["quality", *asked.split()])
    assert done.exit_code == 0, done.output
    (record,) = (json.loads(file.read_text()) for file in (out / "quality").glob("*.json"))
    return record["values"]


def test_cells_and_measures_of_quality_are_the_cpus(tmp_path: Path) -> None:
    distilled, student = run_here(tmp_path / "cpu", "cpu")
    measured = quality_of(tmp_path / "cpu", "cpu")
    with pretend.gpu():
        distilled_there, student_there = run_here(tmp_path / "gpu", "cuda:0")
        measured_there = quality_of(tmp_path / "gpu", "cuda:0")

    assert distilled_there.device_type == student_there.device_type == "cuda"
    images, images_there = (
        np.stack(read_set(Store(tmp_path / at).set_dir(str(of.image_set_sha256)), Digits.class_ids, 1).pixels)
        for at, of in (("cpu", distilled), ("gpu", distilled_there))
    )
    assert np.abs(images.astype(int) - images_there).max() <= 1
    assert [look.epoch for look in student_there.metrics.curve] == [look.epoch for look in student.metrics.curve]
    assert measured_there == pytest.approx(measured, rel=1e-2, nan_ok=True)


def test_a_cell_multiplies_in_tf32_where_its_priors_networks_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a container's variables have allowed for the whole process."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before, allowed = (matmul.allow_tf32, cudnn.allow_tf32), list[bool]()
    shift = DistributionMatching.shift
    monkeypatch.setattr(
        DistributionMatching, "shift", lambda *given: allowed.append(matmul.allow_tf32) or shift(*given)
    )
    try:
        matmul.allow_tf32, cudnn.allow_tf32 = True, False
        with pretend.gpu() as seen:
            distilled, student = run_here(tmp_path, "cuda:0")
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
    assert set(allowed) == {False}
    assert {place.partition(":")[0] for place in seen.tf32} == {"methods/diffusion/network.py"}
    flags, of_student = ((result.environment or {})["determinism"] for result in (distilled, student))
    assert (flags["tf32_matmul"], flags["tf32_cudnn"], flags["tf32_prior"]) == (False, True, True)
    assert (of_student["tf32_matmul"], of_student["tf32_cudnn"]) == (False, False), "the protocol's"
    assert "tf32_prior" not in of_student


def test_a_student_on_a_full_gpu_streams_its_images_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed: list[int] = []
    batches = Streamed.batches
    monkeypatch.setattr(Streamed, "batches", lambda of, *given: streamed.append(len(of)) or batches(of, *given))
    with pretend.gpu():
        _, student = run_here(tmp_path / "free", "cuda:0")
        assert not streamed
    with pretend.gpu(memory=1 << 20):
        _, on_full = run_here(tmp_path / "full", "cuda:0")
    assert set(streamed) == {10, on_full.dataset.n_test}, "training images and test images"
    assert on_full.metrics == student.metrics


def test_a_student_that_does_not_fit_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs_out(*_: Any, **__: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere")

    monkeypatch.setattr("ddbench.benchmark.cells.evaluate.train_student", runs_out)
    with pretend.gpu(), pytest.raises(AssertionError):
        run_here(tmp_path, "cuda:0")
    (student,) = (cell.result() for cell in Store(tmp_path).cell_dirs() if cell.id.startswith("evaluate"))
    assert student is not None
    assert student.status == "oom"
    assert "out of memory: CUDA error: out of memory. A step needs about " in str(student.reason)


# Priors with an autoencoder -------------------------------------------------------------------------------------------


def images_of(name: str, given: dict[str, Any], device: str, folder: Path) -> dict[tuple[int, int], DistilledImage]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)
    train = ArraySource(pixels, np.repeat([0, 1], 12), [f"{c}/{i:02d}.JPEG" for c in CLASSES for i in range(12)])
    prior = Prior.load(find_prior("random:tiny"), device=device)
    folder.mkdir()
    task = DistillTask(
        class_ids=CLASSES, class_indices=(0, 1), ipc=2, seed=0, train=train, train_hash="noise",
        device=torch.device(device), precision="fp32", batch_size=4, scratch=folder, done={}, load_prior=lambda: prior,
        cache=DiskArtefacts(folder / "artefacts", Meter(torch.device(device), folder / "spent.json")),
        phase=lambda name: nullcontext(), progress=lambda note: None, train_at=lambda image_size, resize="": train,
    )  # fmt: skip
    method_class = METHODS.load(name)
    method = method_class(method_class.Params.model_validate(given))
    task = with_classifiers(task, np.arange(0, 24, 6))
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


SMALL_CLASSIFIER = {"network": "convnet3", "epochs": 1}
OF_LATENTS: dict[str, dict[str, Any]] = {
    "dmgd": {"steps": 4, "support_points": 4},
    "d3hr": {"steps": 4, "groups": 20},
    "mgd3": {"steps": 4},
    "minimax": {"steps": 3, "tuning_steps": 3, "tuning_batch": 4, "ema": 0.5, "encoder": "vae"},
    "igd": {"steps": 3, "checkpoints": "0", "real_images": 4, "network": "convnet3", "deviation_scale": 5.0},
    "cao2": {"steps": 3, "pool": 2, "refine_steps": 2, **SMALL_CLASSIFIER},
}


@pytest.mark.parametrize("name", OF_LATENTS)
def test_latents_are_the_cpus(name: str, tmp_path: Path) -> None:
    expected = images_of(name, OF_LATENTS[name], "cpu", tmp_path / "cpu")
    with pretend.gpu() as seen:
        made = images_of(name, OF_LATENTS[name], "cuda:0", tmp_path / "gpu")
    assert made.keys() == expected.keys()
    for key, image in expected.items():
        assert np.abs(made[key].pixels.astype(int) - image.pixels).max() <= 1
        np.testing.assert_allclose(made[key].latent, image.latent, atol=2e-3 * np.abs(image.latent).max())
    assert seen.launches["aten.convolution.default"] or seen.launches["aten.convolution_overrideable.default"]
