"""Finding priors on disk: names, damaged files, contradictions, hashes. No torch is needed for any of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.methods.diffusion.priors import files as prior_files
from ddbench.methods.diffusion.priors.files import bundled_priors, find_prior

MakePrior = Callable[..., Path]


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_folder_is_found(make_prior: MakePrior) -> None:
    folder = make_prior(("n1", "n2"), trained_on="noise")
    found = find_prior(str(folder))
    assert found.folder == folder == found.network
    assert found.autoencoder is None
    assert found.trained_on == "noise"
    assert found.metadata.class_ids == ("n1", "n2")
    assert [found.metadata.label_of(c) for c in ("n2", "n1")] == [1, 0]


def test_an_unknown_class_is_told(make_prior: MakePrior) -> None:
    with pytest.raises(UsageError, match="does not know class 'n9'; it knows 2 classes"):
        find_prior(make_prior(("n1", "n2"))).metadata.label_of("n9")


def test_bundled_priors_are_found_by_name(
    make_prior: MakePrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(make_prior(), bundle / "tiny")
    monkeypatch.setattr(prior_files, "BUNDLED", bundle)
    assert bundled_priors() == ["tiny"]
    assert find_prior("tiny").folder == bundle / "tiny"
    with pytest.raises(UsageError, match="there is no prior 'tinny'.*did you mean 'tiny'"):
        find_prior("tinny")


def test_every_bundled_prior_is_whole() -> None:
    for name in bundled_priors():
        assert find_prior(name).name == name


@pytest.mark.parametrize("file", ["prior.json", "config.json", "diffusion_pytorch_model.safetensors"])
def test_a_missing_file_is_named(make_prior: MakePrior, file: str) -> None:
    folder = make_prior()
    (folder / file).unlink()
    with pytest.raises(UsageError, match=f"{file} is missing"):
        find_prior(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_weights_are_refused(make_prior: MakePrior, keep: int) -> None:
    weights = make_prior() / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UsageError, match="copy it again"):
        find_prior(weights.parent)


def test_other_files_are_not_taken_for_weights(make_prior: MakePrior) -> None:
    weights = make_prior() / "diffusion_pytorch_model.safetensors"
    weights.write_bytes((20).to_bytes(8, "little") + b"x" * 40)
    with pytest.raises(UsageError, match="not a safetensors file"):
        find_prior(weights.parent)
    weights.write_bytes(b"a text of some length that is no header at all")
    with pytest.raises(UsageError, match="truncated"):
        find_prior(weights.parent)


def test_quantised_weights_are_not_read_as_numbers(make_prior: MakePrior) -> None:
    weights = make_prior() / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out_2.weight"] = (tensors["proj_out_2.weight"] * 100).astype("int8")
    save_file(tensors, weights)
    with pytest.raises(UsageError, match=r"proj_out_2.weight \(I8\) is no tensor of floating-point numbers"):
        find_prior(weights.parent)


def test_all_metadata_problems_are_told_at_once(make_prior: MakePrior) -> None:
    folder = make_prior()
    edit(folder / "prior.json", freq_shift=None, clip_denoised="perhaps", class_ids=["a", "b", "a"])
    with pytest.raises(Problems) as caught:
        find_prior(folder)
    assert len(caught.value.problems) == 3
    for part in ("freq_shift", "clip_denoised", "a more than once"):
        assert part in str(caught.value)
    (folder / "prior.json").write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        find_prior(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learned_variance": True}, "needs out_channels = 2"),
        ({"guided_channels": 3}, "the network has 1 channels"),
        ({"null_label": 7}, "all 3 classes.*null_label 3.*found 3 class_ids and null_label 7.*Correct prior.json"),
        ({"null_label": 1}, "found 3 class_ids and null_label 1"),
        ({"class_ids": ["a", "c"]}, "all 3 classes.*found 2 class_ids and null_label 3"),
        ({"class_ids": ["a", "c"], "null_label": 2}, "all 3 classes.*found 2 class_ids and null_label 2"),
        ({"class_ids": ["a", "b", "c", "d"], "null_label": 4}, "all 3 classes.*found 4 class_ids and null_label 4"),
        ({"resolution": 64}, "images have side 8"),
        ({"latent_scale": 0.18215}, "expected 1"),
        ({"space": "latents of an autoencoder"}, "no autoencoder in vae/"),
        ({"prediction": "v"}, "prediction"),
    ],
)
def test_metadata_that_contradicts_the_network(make_prior: MakePrior, changes: dict[str, Any], message: str) -> None:
    folder = make_prior()
    edit(folder / "prior.json", **changes)
    with pytest.raises(UsageError, match=message):
        find_prior(folder)


def test_another_network_is_refused(make_prior: MakePrior) -> None:
    folder = make_prior()
    edit(folder / "config.json", _class_name="UNet2DModel")
    with pytest.raises(UsageError, match="expected the config of a DiTTransformer2DModel, got 'UNet2DModel'"):
        find_prior(folder)
    edit(folder / "config.json", _class_name="DiTTransformer2DModel", sample_size=None)
    with pytest.raises(UsageError, match=r"config\.json lacks sample_size"):
        find_prior(folder)


def test_the_hash_covers_what_makes_images_and_nothing_else(make_prior: MakePrior, tmp_path: Path) -> None:
    folder = make_prior()
    sha256 = find_prior(folder).sha256
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    edit(moved / "prior.json", trained_on="something", training={"loss": 1.0}, note="a further key")
    edit(moved / "config.json", _diffusers_version="0.0.1")
    assert find_prior(moved).sha256 == sha256

    edit(moved / "prior.json", clip_denoised=False)
    assert find_prior(moved).sha256 != sha256
    edit(moved / "prior.json", clip_denoised=True, class_ids=["a", "c", "b"])
    assert find_prior(moved).sha256 != sha256

    shutil.copytree(folder, tmp_path / "changed")
    weights = tmp_path / "changed" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out_2.bias"][0] += 1
    save_file(tensors, weights)
    assert find_prior(tmp_path / "changed").sha256 != sha256


def test_exposure_to_test_images(make_prior: MakePrior) -> None:
    metadata = find_prior(make_prior(train_split_hashes=("aa",), seen_test_split_hashes=("bb",))).metadata
    assert [metadata.saw_test_images(split) for split in ("aa", "bb", "cc")] == [False, True, None]


def test_planning_needs_no_torch() -> None:
    modules = "ddbench.methods.diffusion.priors.files, ddbench.methods.dmgd.method, ddbench.methods.selection"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
