"""What stands in for Woof and for DiT-XL/2 on a real GPU is installed by `bench prepare`, and runs on a pretend one."""

from __future__ import annotations

import sys
from pathlib import Path

import pretend
import pytest
import torch
import typer
from narrow_priors import narrow
from PIL import Image

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.commands.prepare import prepare_app
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.imagenet.subsets import Woof
from ddbench.methods.diffusion.priors import catalogue, files
from ddbench.methods.diffusion.priors.catalogue import KNOWN

sys.path.append(str(Path(__file__).parents[1] / "speed"))
import gpu_headline

NAME = Woof.prior
pytestmark = pytest.mark.usefixtures("this_process")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior of Woof's headline."""
    assert NAME is not None
    known = narrow(NAME)
    monkeypatch.setitem(KNOWN, NAME, known)
    monkeypatch.setitem(catalogue.WITH_RANDOM_WEIGHTS, NAME, known)


def test_it_runs_from_random_weights_to_finite_images(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    counts = dict.fromkeys(Woof.class_ids, 2)
    gpu_headline.write_images(tmp_path / "data", counts, tests=1, size=(40, 30))
    plugin = tmp_path / "plugin.py"
    plugin.write_text(gpu_headline.plugin(counts, tests=1))
    load_plugin(plugin)
    assert DATASETS.load(gpu_headline.DATASET).headline == Woof.headline
    gpu_headline.write_prior(str(NAME), tmp_path / "networks")
    install = ["prior", str(NAME), "--from", str(tmp_path / "networks"), "--check-on", "none"]
    typer.main.get_command(prepare_app)(install, standalone_mode=False)

    options = {
        "methods": "dmgd[support=mean]", "datasets": gpu_headline.DATASET, "data": str(tmp_path / "data"),
        "device": "cuda:0", "seeds": 0, "repeats": 1, "ipc": 1, "protocol": "quick[epochs=1,image_size=16]",
        "plugins": [str(plugin)],
        "student": "convnet3", "set": {"steps": 3},
    }  # fmt: skip
    store = Store(tmp_path / "runs")
    store.create()
    with pretend.gpu() as seen:
        plan, _, _ = plan_run(run_spec({}, options))
        for planned, spec in plan.cells():
            cell = store.add(spec, planned.launch)
            assert run_cell(cell.path) == EXIT_OK, cell.result()
    assert seen.tf32
    (folder,) = store.sets.iterdir()
    assert len([Image.open(file).load() for file in folder.glob("*/*.png")]) == 10
    cells = gpu_headline.of_cells(tmp_path / "runs", since=0.0)
    (made,) = (cell.result() for cell in store.cell_dirs() if cell.id.startswith("distill"))
    assert isinstance(made, DistillResult)
    assert made.prior is not None
    assert made.prior.name == NAME
    told = gpu_headline.summed(cells, seconds=100.0)
    assert told["done"] == {"ok": 2, "at work": 0, "failed": 0}
    assert {"latents", "support", "sample", "decode"} <= told["phase_seconds"]["sets"].keys()
    assert "train" in told["phase_seconds"]["students"]
    spent = told["sets_seconds"] + told["students_seconds"]
    assert told["in_no_cell_seconds"] == pytest.approx(100 - spent, abs=0.02)


def test_random_weights_lead_from_any_latent_to_a_finite_one() -> None:
    """What the denoiser ends in bounds ε, however large its input: fifty steps of full size end in numbers too."""
    from ddbench.methods.diffusion.prior import Prior

    prior = Prior.load(files.find_prior("random:tiny"))
    labels = prior.embed_labels(torch.tensor([0]))
    sizes = []
    for scale in (1.0, 1e3, 1e6):
        x = scale * torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
        epsilon, v = prior.predict(x, 500, labels)
        assert v is not None
        sizes += [float(epsilon.detach().abs().max()), float(v.detach().abs().max())]
    assert max(sizes) < 10
