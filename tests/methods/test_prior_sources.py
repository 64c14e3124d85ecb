"""Priors as people bring them, by the command: cases that lie ready, class lists and maps, labels on real images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.commands.prepare import prepare_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.digits import Digits
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.catalogue import KNOWN, TINY
from ddbench.methods.diffusion.priors.class_labels import read_class_ids
from ddbench.methods.diffusion.priors.dit_checkpoint import load_dit_checkpoint
from ddbench.methods.diffusion.priors.files import find_prior, installed_priors

MakePrior = Callable[..., Path]
CASES = Path(__file__).parents[3] / "shared" / "cases"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12313128\n"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def prepare(*words: str | Path) -> None:
    typer.main.get_command(prepare_app)(["prior", *(str(word) for word in words)], standalone_mode=False)


def autoencoder(folder: Path, blocks: int, channels: int = 3) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(4,) * blocks,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            latent_channels=4,
            norm_num_groups=2,
        )
    model.save_pretrained(folder)
    return folder


# The cases that lie ready ---------------------------------------------------------------------------------------------


def case(name: str) -> Path:
    if not (CASES / name).is_dir():
        pytest.skip(f"no case {name} at {CASES}")
    return CASES / name


@pytest.mark.parametrize("name", ["prior-ddp-module-prefix", "prior-fp16-pt"])
def test_cases_that_are_read(golden: Path, tmp_path: Path, name: str) -> None:
    """Both are the golden checkpoint, wrapped and rounded."""
    prepare("mine", "--from", case(name), "--vae", autoencoder(tmp_path / "vae", 4))
    found = Prior.load(find_prior("mine")).network
    plain = load_file(golden / "dit-checkpoint" / "forward.safetensors")
    with torch.no_grad():
        output = found(plain["x"], found.embed_time(plain["t"]) + found.embed_labels(plain["y"]))
    within = 1e-5 if "ddp" in name else 5e-3
    torch.testing.assert_close(output, plain["output"], rtol=0, atol=within)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prior-ema-zero", r"under `ema`, every tensor is all zero\. Its `model` is there"),
        ("prior-lfs-pointer", r"diffusion_pytorch_model.safetensors is a Git-LFS pointer.*`git lfs pull`"),
    ],
)
def test_cases_that_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare("mine", "--from", case(name), "--vae", autoencoder(tmp_path / "vae", 4))
    assert installed_priors() == []


@pytest.mark.parametrize(
    "file",
    [f"transformer/{WEIGHTS}", "transformer/config.json", "prior.json", f"vae/{WEIGHTS}", "vae/config.json"],
)
def test_a_pointer_in_the_place_of_any_file(make_prior: MakePrior, tmp_path: Path, file: str) -> None:
    folder = make_prior(channels=4, space="latents", resolution=8, clip_denoised=False, latent_scale=0.5)
    (folder / "transformer").mkdir()
    for name in ("config.json", WEIGHTS):
        (folder / name).rename(folder / "transformer" / name)
    autoencoder(folder / "vae", 1)
    assert find_prior(folder).autoencoder is not None
    (folder / file).write_text(LFS)
    for refused in (lambda: find_prior(folder), lambda: prepare("mine", "--from", folder)):
        with pytest.raises(UsageError, match=rf"{file} is a Git-LFS pointer"):
            refused()
    if file.endswith(".safetensors"):
        (folder / file).rename((folder / file).with_suffix(".bin"))
        with pytest.raises(UsageError, match=r"diffusion_pytorch_model.bin is a Git-LFS pointer"):
            prepare("mine", "--from", folder)


@pytest.mark.parametrize("layout", ["fp16", "bin", "sharded"])
def test_an_autoencoder_in_other_layouts(make_prior: MakePrior, layout: str) -> None:
    folder = make_prior(channels=4, space="latents", resolution=8, clip_denoised=False, latent_scale=0.5)
    plain = autoencoder(folder / "vae", 1) / WEIGHTS
    expected = load_file(plain)
    plain.unlink()
    if layout == "fp16":
        save_file(
            {k: v.half() for k, v in expected.items()}, plain.with_name("diffusion_pytorch_model.fp16.safetensors")
        )
    elif layout == "bin":
        torch.save(expected, plain.with_suffix(".bin"))
    else:
        shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
        save_file(expected, plain.with_name(shard))
        index = {"weight_map": dict.fromkeys(expected, shard)}
        plain.with_name(f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=rf"{WEIGHTS} is missing .* converted by bench prepare prior NAME --from"):
        find_prior(folder)
    prepare("mine", "--from", folder)
    found = Prior.load(find_prior("mine")).autoencoder.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.half().float() if layout == "fp16" else tensor)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_folder_with_weights_that_no_training_left(make_prior: MakePrior, part: str) -> None:
    """Also where it is used in place, without being installed."""
    folder = make_prior(channels=4, space="latents", resolution=8, clip_denoised=False, latent_scale=0.5)
    weights = (autoencoder(folder / "vae", 1) if part == "vae" else folder) / WEIGHTS
    autoencoder(folder / "vae", 1)
    tensors = load_file(weights)
    name = "decoder.conv_in.bias" if part == "vae" else "proj_out_2.weight"
    tensors[name] = torch.full_like(tensors[name], torch.nan if part == "vae" else 0)
    save_file(tensors, weights)
    message = f"{name} is {'not finite' if part == 'vae' else 'all zero: the output layer, as in a network that was'}"
    for refused in (lambda: Prior.load(find_prior(folder)), lambda: prepare("mine", "--from", folder)):
        with pytest.raises(UsageError, match=message):
            refused()
    assert installed_priors() == []


# Class lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1\nn2\n\nn3\n", ["n1", "n2", "n3"]),
        ("n01440764 tench\nn02102040 English springer\n", ["n01440764", "n02102040"]),
        ("2 n1\n0,n2\n", {"n1": 2, "n2": 0}),
        ('["a", "b"]', ["a", "b"]),
        ('\n{"a": 1, "b": 0}', {"a": 1, "b": 0}),
    ],
)
def test_forms_of_a_class_list(tmp_path: Path, text: str, expected: Any) -> None:
    (tmp_path / "list").write_text(text)
    assert read_class_ids(tmp_path / "list") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", "holds no class ids"),
        ("", "is empty"),
        ("1 a\n2 a", "a class id is there twice"),
        ("a b\nc d", "'a b'; expected a class id a line"),
        ("[1, 2]", "expected a list of texts"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("[" * 50_000, "no list of class ids"),
    ],
)
def test_what_is_no_class_list(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_class_ids(tmp_path / "list")


def test_a_map_names_some_of_the_networks_labels(make_prior: MakePrior, tmp_path: Path) -> None:
    folder = make_prior(("a", "b", "c", "d"))
    (tmp_path / "two").write_text("3 x\n1 y\n")
    prepare("mine", "--from", folder, "--class-ids", tmp_path / "two")
    files = find_prior("mine")
    assert files.metadata.class_ids == (None, "y", None, "x")
    assert [files.metadata.label_of(class_id) for class_id in "xy"] == [3, 1]
    with pytest.raises(UsageError, match=r"does not know class 'a'; it knows 2 classes \(y, x\)"):
        files.metadata.label_of("a")
    assert files.sha256 != find_prior(folder).sha256

    whole = json.loads((folder / "prior.json").read_text()) | {"class_ids": {"d": 3, "c": 2, "a": 0, "b": 1}}
    before = find_prior(folder).sha256
    (folder / "prior.json").write_text(json.dumps(whole))
    assert find_prior(folder).sha256 == before, "a map of all labels is the list"


@pytest.mark.parametrize(
    ("class_ids", "message"),
    [
        ({"a": 0, "b": 0}, "maps both 'a' and 'b' to label 0"),
        ({"a": 4}, "maps 'a' to 4; expected a label from 0 to 3"),
        ({"a": -1}, "expected a label from 0 to 3"),
        ({"a": "1"}, "maps 'a' to '1'"),
        ({"a": True}, "maps 'a' to True"),
        ({}, "expected the id of at least one class"),
    ],
)
def test_maps_that_are_none(make_prior: MakePrior, class_ids: dict[str, Any], message: str) -> None:
    folder = make_prior(("a", "b", "c", "d"))
    content = json.loads((folder / "prior.json").read_text()) | {"class_ids": class_ids}
    (folder / "prior.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message):
        find_prior(folder)


def test_a_config_with_fewer_classes_than_the_weights(make_prior: MakePrior) -> None:
    """Nette's list and Nette's count on a network of twenty labels: only the weights tell."""
    folder = make_prior(tuple(f"n{i}" for i in range(20)))
    for file, key in (("prior.json", "null_label"), ("config.json", "num_embeds_ada_norm")):
        content = json.loads((folder / file).read_text()) | {key: 10}
        if file == "prior.json":
            content["class_ids"] = content["class_ids"][:10]
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(
        UsageError, match=r"embedding_table.weight of shape \[11, 32\], the weights beside it have \[21, 32\]"
    ):
        find_prior(folder)


# Labels on real images ------------------------------------------------------------------------------------------------


def digits_with(tmp_path: Path, class_ids: list[str]) -> Path:
    folder = tmp_path / f"digits of {''.join(class_ids)}"
    shutil.copytree(find_prior("digits").folder or "", folder, dirs_exist_ok=True)
    content = json.loads((folder / "prior.json").read_text()) | {"class_ids": class_ids}
    (folder / "prior.json").write_text(json.dumps(content))
    return folder


def digits_of_letters(tmp_path: Path) -> Path:
    return digits_with(tmp_path, list("abcdefghij"))


def test_labels_are_compared_with_images_that_are_at_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = list(Digits.class_ids)
    prepare("right", "--from", digits_with(tmp_path, own))
    assert "class list checked: it fits 10 images of 10 classes (p = 0.0001)" in capsys.readouterr().out
    shuffled = [own[i] for i in np.random.default_rng(0).permutation(10)]
    with pytest.raises(UsageError, match="class list does not fit the network: .* no better under their own labels"):
        prepare("wrong", "--from", digits_with(tmp_path, shuffled))
    assert installed_priors() == ["right"]

    prepare("unchecked", "--from", digits_with(tmp_path, shuffled), "--check-on", "none")
    assert "class list not checked: as asked" in capsys.readouterr().out


def test_labels_are_compared_with_images_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = Digits().load("default", None, 8).train
    for label, class_id in enumerate(Digits.class_ids[:7]):
        (tmp_path / "images" / class_id).mkdir(parents=True)
        for i, pixels in enumerate(train.read(train.of_class(label)[:2])):
            Image.fromarray(pixels[..., 0]).save(tmp_path / "images" / class_id / f"{i}.png")
    own = list(Digits.class_ids)
    prepare("right", "--from", digits_with(tmp_path, own), "--check-on", tmp_path / "images")
    assert "it fits 7 images of 7 classes" in capsys.readouterr().out
    with pytest.raises(UsageError, match="14 real images of 7 classes are denoised no better"):
        prepare("wrong", "--from", digits_with(tmp_path, own[2:] + own[:2]), "--check-on", tmp_path / "images")
    for class_id in Digits.class_ids[5:7]:
        shutil.rmtree(tmp_path / "images" / class_id)
    prepare("few", "--from", digits_with(tmp_path, own), "--check-on", tmp_path / "images")
    assert "not checked: images of 5 of its classes were found, 6 are needed" in capsys.readouterr().out
    with pytest.raises(UsageError, match="expected a folder of images for each class, named such as 0"):
        prepare("none", "--from", digits_with(tmp_path, own), "--check-on", tmp_path)
    with pytest.raises(UsageError, match=r"--data .*images: holds no dataset of the prior's classes"):
        prepare("other", "--from", digits_of_letters(tmp_path), "--data", tmp_path / "images")
    with pytest.raises(UsageError, match="--check-on nette: the prior lists other classes"):
        prepare("other", "--from", digits_with(tmp_path, own), "--check-on", "nette")
    with pytest.raises(UsageError, match="mean 'digits'"):
        prepare("none", "--from", digits_with(tmp_path, own), "--check-on", "digit")


# Tuned weights of Minimax Diffusion's program -------------------------------------------------------------------------


def test_tuned_weights_of_a_known_priors_kind_need_no_metadata(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = {"num_attention_heads": 4, "attention_head_dim": 12, "num_layers": 2, "in_channels": 4, "out_channels": 8}
    network |= {"patch_size": 2, "sample_size": 8, "num_embeds_ada_norm": 10}
    ids = tuple(f"n{i}" for i in range(10))
    metadata = TINY.metadata.model_copy(update={"class_ids": ids, "null_label": 10, "resolution": 8})
    monkeypatch.setitem(KNOWN, "golden", replace(TINY, name="golden", network=network, metadata=metadata))
    file, vae = golden / "difffit-checkpoint" / "difffit.pt", autoencoder(tmp_path / "vae", 1)
    with pytest.raises(
        UsageError, match=r"holds tuned weights, with DiffFit's scales \(blocks\.0.*a name of their own"
    ):
        prepare("golden", "--from", file, "--vae", vae)
    prepare("golden", "--from", golden / "dit-checkpoint" / "original.pt", "--vae", vae)
    prepare("tuned", "--from", file, "--vae", vae, "--like", "golden")
    plain, tuned = find_prior("golden"), find_prior("tuned")
    assert tuned.metadata.class_ids == ids
    assert tuned.trained_on == "unknown; weights of the kind of golden"
    assert tuned.sha256 != plain.sha256

    (tmp_path / "own").write_text("0 x\n4 y\n")  # as programs number the folders that they tune on
    prepare("own", "--from", file, "--vae", vae, "--like", "golden", "--class-ids", tmp_path / "own")
    assert find_prior("own").metadata.label_of("y") == 4
    for words, message in (
        (("golden", "--from", file, "--like", "golden"), "golden's classes, texts and network are known"),
        (("more", "--from", file, "--like", "goldne"), "--like goldne: no such prior is known; did you mean 'golden'"),
        (
            ("more", "--from", file, "--vae", vae, "--like", "dit-xl-2-256"),
            "not dit-xl-2-256's: attention_head_dim is 3",
        ),
        (("more", "--from", file, "--vae", vae), "Weights of a known prior's kind need none: --like dit-xl-2-256"),
    ):
        with pytest.raises(UsageError, match=message):
            prepare(*words)


def test_methods_run_on_a_checkpoint_with_difffits_scales(golden: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    autoencoder(given / "vae", 1, channels=1)
    shutil.copyfile(golden / "difffit-checkpoint" / "difffit-training.pt", given / "tuned.pt")
    metadata = {
        "space": "latents", "resolution": 8, "prediction": "epsilon", "learned_variance": True, "freq_shift": 0,
        "schedule": {}, "norm_eps": 1e-6, "guided_channels": 3, "clip_denoised": False, "latent_scale": 0.18215,
        "class_ids": Digits.class_ids, "null_label": 10, "num_heads": 4,
    }  # fmt: skip
    (given / "prior.json").write_text(json.dumps(metadata))
    prepare("tuned", "--from", given, "--check-on", "none")
    expected = load_dit_checkpoint(given / "tuned.pt", num_heads=4).state_dict()
    found = Prior.load(find_prior("tuned")).network.to_diffusers().state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    methods = "dmgd[steps=3,support=mean],mgd3[steps=3],igd[steps=3,network=convnet3,checkpoints=0,real_images=2]"
    options = {
        "methods": methods, "datasets": "digits", "prior": "tuned", "ipc": 1, "seeds": 0, "repeats": 1,
        "device": "cpu", "protocol": "quick[epochs=1]",
    }  # fmt: skip
    plan, _, _ = plan_run(run_spec({}, options))
    store = Store(tmp_path / "runs")
    store.create()
    for planned, spec in plan.cells():
        cell = store.add(spec, planned.launch)
        assert run_cell(cell.path) == EXIT_OK, cell.result()
    assert len(list(store.sets.iterdir())) == 3
