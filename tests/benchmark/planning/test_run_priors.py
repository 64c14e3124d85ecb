"""Runs with priors by name: whose resolution a run takes, whose images a latent prior sees, what is timing only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.planning.setting import Setting

BENCH = Path(sys.executable).with_name("bench")
CLASSES = ("n02096294", "n02093754")
PLUGIN = '''
from ddbench.datasets.base import Headline
from ddbench.datasets.imagenet.subsets import ImageNetSubset
from ddbench.datasets.imagenet.splits import Expected

class TinyForPriors(ImageNetSubset):
    """Two classes of ImageNet, few images."""
    name = "tiny-for-priors"
    class_ids = ("n02096294", "n02093754")
    class_names = ("Australian terrier", "Border terrier")
    resolution = 24
    headline = Headline(protocol="quick", student="convnet3", ipc=(1,), sets=1, students=1)
    expected = {"imagenet": Expected(test=dict.fromkeys(class_ids, 2), train=dict.fromkeys(class_ids, 4))}
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("plugin") / "tiny_for_priors.py"
    file.write_text(PLUGIN)
    load_plugin(file)
    yield file
    del DATASETS.entries()["tiny-for-priors"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DDBENCH_PRIOR", raising=False)
    for label, wnid in enumerate(CLASSES):
        files = [f"train/{wnid}/{wnid}_{n}.JPEG" for n in range(4)]
        files += [f"val/{wnid}/ILSVRC2012_val_{2 * label + n:08d}.JPEG" for n in (1, 2)]
        for number, file in enumerate(files):
            noise = np.random.default_rng([label, number]).integers(0, 256, (40, 52, 3), dtype=np.uint8)
            path = tmp_path / "imagenet" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(path)
    return tmp_path / "imagenet"


@pytest.fixture
def pixel_prior(make_prior: Callable[..., Path]) -> Path:
    return make_prior((*CLASSES, "n02111889"), image_size=16, channels=3, width=16)


def setting(plugin: Path, data: Path, methods: Sequence[str] = ("random", "dmgd"), **given: object) -> Setting:
    flags = {"methods": list(methods), "datasets": ["tiny-for-priors"], "data": data, "plugins": [plugin]}
    _, (found,), _ = plan_run(run_spec({}, flags | given))
    return found


def test_a_run_takes_its_pixel_priors_side(
    plugin: Path, data: Path, pixel_prior: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = setting(plugin, data, prior=str(pixel_prior))
    assert found.spec.resolution == 16
    assert "resolution 16 (the prior's)" in found.assumed
    assert found.images_at == ()
    # Only where a method needs it, and never against the user's word.
    assert setting(plugin, data, ["random"], prior=str(pixel_prior)).spec.resolution == 24
    with pytest.raises(Problems, match=r"makes images of 16 px, the run asks for 24 px"):
        setting(plugin, data, prior=str(pixel_prior), resolution=24)

    # $DDBENCH_PRIOR is the default; --prior wins, and a dataset with a bundled prior keeps its own.
    monkeypatch.setenv("DDBENCH_PRIOR", str(pixel_prior))
    by_variable = setting(plugin, data)
    assert by_variable.spec.resolution == 16
    assert f"prior {pixel_prior} ($DDBENCH_PRIOR)" in by_variable.assumed
    assert setting(plugin, data, prior="random:tiny").spec.resolution == 24
    plan, (digits,), _ = plan_run(run_spec({}, {"methods": ["dmgd"], "datasets": ["digits"]}))
    assert plan.sets[0].launch.prior == "digits"
    assert not any("DDBENCH_PRIOR" in one for one in digits.assumed)


def test_a_latent_prior_works_at_any_resolution(plugin: Path, data: Path) -> None:
    found = setting(plugin, data, ["dmgd", "dit"], prior="random:tiny")
    assert (found.spec.resolution, found.prior_image_size) == (24, 16)
    assert found.images_at == ((16, "adm"),)
    assert setting(plugin, data, ["dit", "random"], prior="random:tiny").images_at == ()
    assert setting(plugin, data, ["minimax"], prior="random:tiny").images_at == ((16, "adm"),)


def test_the_datasets_own_prior_that_is_absent(plugin: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="dit-xl-2-256 is not installed. `bench prepare prior dit-xl-2-256`"):
        setting(plugin, data, ["dmgd", "dit"])


def test_a_timing_run_on_a_latent_prior(plugin: Path, data: Path, tmp_path: Path) -> None:
    """The whole road on a CPU: images decoded before any cell, latents in float16, 16 px sets, 24 px students, and no
    leaderboard."""
    command = [BENCH, "run", "-m", "dmgd[steps=6,support_points=2,ot_window_first=1,ot_window_last=4],random"]
    command += ["-d", "tiny-for-priors", "--data", data, "--prior", "random:tiny", "--protocol", "quick[epochs=1]"]
    command += ["--ipc", "2", "--device", "cpu", "--plugin", plugin, "--out", "runs"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert said.index("decoding tiny-for-priors at 16 px for its prior: 8 of 8") < said.index("distill dmgd")

    results = [json.loads(path.read_bytes()) for path in (tmp_path / "runs/cells").glob("*/result.json")]
    (made,) = [r for r in results if r["kind"] == "distill" and r["method"]["name"] == "dmgd"]
    assert made["prior"]["timing_only"]
    assert made["prior"]["trained_on"] == "nothing: random weights, for timing only"
    assert 0 < made["cost"]["measured"]["latents_float16_error_rms"] < 1e-2
    phases = {phase["name"]: phase["seconds"] for phase in made["cost"]["phases"]}
    assert phases["latents"] > 0
    assert phases["support"] > 0
    (folder,) = [path for path in (tmp_path / "runs/sets").iterdir() if made["image_set_sha256"].startswith(path.name)]
    assert {Image.open(image).size for image in folder.rglob("*.png")} == {(16, 16)}
    students = [r for r in results if r["kind"] == "evaluate"]
    assert {r["status"] for r in students} == {"ok"}
    assert sum(r["prior"] is not None and r["prior"]["timing_only"] for r in students) == 1

    leaderboard = said[said.rindex("tiny-for-priors (") :]
    table, left_out = leaderboard.split("Left out (1)")
    assert "random" in table
    assert "dmgd" not in table
    assert "timing only: its prior has random weights, so no table has its 1 students" in left_out


def test_dit_receives_labels_by_wnid(plugin: Path, data: Path) -> None:
    """Also from the catalogue's list: the dataset's second class is the prior's 182, not 1."""
    from ddbench.methods.diffusion.priors.files import find_prior

    metadata = find_prior("random:dit-xl-2-256").metadata
    assert [metadata.label_of(c) for c in DATASETS.load("tiny-for-priors").class_ids] == [193, 182]


def test_an_installed_prior_is_found_by_name(
    plugin: Path, data: Path, pixel_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddbench.benchmark.planning.listing import rows
    from ddbench.methods.diffusion.priors.install import install

    install("mine", pixel_prior, None, None, say=lambda line: None)
    monkeypatch.setenv("DDBENCH_PRIOR", "mine")
    shutil.rmtree(pixel_prior)
    assert setting(plugin, data).spec.resolution == 16
    listed = {row["name"]: row.get("tags", []) for row in rows("priors")}
    assert listed["mine"] == ["16 px", "installed"]
    assert listed["digits"] == ["8 px", "bundled"]
    assert listed["dit-xl-2-256"] == ["256 px", "not installed: bench prepare prior dit-xl-2-256"]
