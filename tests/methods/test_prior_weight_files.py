"""Weights from elsewhere: every way in which programs wrap the same tensors, and files that are no weights."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.dit_checkpoint import load_diffusers_dit, load_dit_checkpoint
from ddbench.methods.diffusion.priors.weight_files import read_weights, weight_files

MakePrior = Callable[..., Path]
Weights = dict[str, Tensor]
STEM = "diffusion_pytorch_model"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12313128\n"


def prefixed(prefix: str, weights: Mapping[str, Tensor]) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def zeros(weights: Mapping[str, Tensor]) -> Weights:
    """All but the computed table, which no program keeps an average of."""
    return {name: tensor if name == "pos_embed" else torch.zeros_like(tensor) for name, tensor in weights.items()}


WRAPPED: dict[str, Callable[[Weights], Any]] = {
    "DistributedDataParallel": lambda w: {"ema": prefixed("module.", w)},
    "compiled": lambda w: prefixed("_orig_mod.", w),
    "compiled and distributed": lambda w: {"model": prefixed("module._orig_mod.", w)},
    "compiled blocks": lambda w: {k.replace("blocks.1.", "blocks.1._orig_mod."): v for k, v in w.items()},
    "some names wrapped": lambda w: {("module." if "blocks" in k else "") + k: v for k, v in w.items()},
    "Lightning": lambda w: {"state_dict": prefixed("model.", w), "epoch": 3, "callbacks": {}},
    "another prefix": lambda w: prefixed("diffusion.network.", w),
    "model alone": lambda w: {"model": w, "opt": {"state": {}, "param_groups": []}, "args": Namespace(lr=1e-4)},
    "numbers of NumPy": lambda w: {
        "model": w,
        "loss": np.float64(0.5),
        "best": np.int64(3),
        "path": Path("/a/b"),
        "flag": np.bool_(True),
    },
    "nested twice": lambda w: {"state_dict": {"model": w}},
    "average before model": lambda w: {"model": zeros(w), "ema": w},
    "average of no model": lambda w: {"model": None, "ema": w},
    "model of no average": lambda w: {"model": w, "ema": None},
    "flat average": lambda w: {**prefixed("model.", zeros(w)), **prefixed("ema.", w)},
    "numbers beside": lambda w: {**w, "epoch": 3},
    "parameters": lambda w: {name: torch.nn.Parameter(tensor) for name, tensor in w.items()},
}


@pytest.fixture
def original(golden: Path) -> Path:
    return golden / "dit-checkpoint" / "original.pt"


def loaded(path: Path) -> Weights:
    return dict(load_dit_checkpoint(path, num_heads=4).state_dict())


def check_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("how", WRAPPED)
def test_wrapped_weights_are_read(original: Path, tmp_path: Path, how: str) -> None:
    torch.save(WRAPPED[how](torch.load(original, weights_only=True)), tmp_path / "wrapped.pt")
    check_equal(loaded(tmp_path / "wrapped.pt"), loaded(original))


@pytest.mark.parametrize("kind", ["half", "half kept in float32", "bfloat16", "float64", "safetensors", "legacy"])
def test_precisions_and_containers(original: Path, tmp_path: Path, kind: str) -> None:
    """Of a file in float16 the position table is compared at that precision; the values stay those of the file."""
    weights = torch.load(original, weights_only=True)
    dtype = {"half": torch.half, "half kept in float32": torch.half, "bfloat16": torch.bfloat16}.get(kind)
    stored = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in weights.items()}
    rounded = {name: tensor.float() for name, tensor in stored.items()}
    if kind == "half kept in float32":
        stored = rounded
    if kind == "float64":
        stored = {name: tensor.double() for name, tensor in weights.items()}
    file = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind == "safetensors":
        save_file(stored, file)
    else:
        torch.save(stored, file, _use_new_zipfile_serialization=kind != "legacy")
    expected = tmp_path / "expected.pt"
    torch.save({**rounded, "pos_embed": weights["pos_embed"]}, expected)
    check_equal(loaded(file), loaded(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("wrong", ["another table", "another width", "another number of tokens"])
def test_a_wrong_position_table_is_refused(original: Path, tmp_path: Path, dtype: torch.dtype, wrong: str) -> None:
    weights = torch.load(original, weights_only=True)
    table = weights["pos_embed"]
    weights["pos_embed"] = {
        "another table": table.flip(1),
        "another width": table[..., :-4],
        "another number of tokens": table[:, :-1],
    }[wrong]
    torch.save({name: tensor.to(dtype) for name, tensor in weights.items()}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="pos_embed is not the sine-cosine table"):
        loaded(tmp_path / "x.pt")


# What no training leaves ----------------------------------------------------------------------------------------------


def test_an_average_of_zeros_is_told_with_the_weights_that_are_there(original: Path, tmp_path: Path) -> None:
    weights = torch.load(original, weights_only=True)
    for bad, said in (
        (zeros(weights), "every tensor is all zero"),
        ({**weights, "pos_embed": weights["pos_embed"] / 0}, "not finite"),
    ):
        torch.save({"model": weights, "ema": bad}, tmp_path / "x.pt")
        with pytest.raises(UsageError, match=rf"under `ema`, .*{said}\. Its `model` is there .*\['model'\], NEW"):
            loaded(tmp_path / "x.pt")
    torch.save({"model": zeros(weights), "ema": zeros(weights)}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="under `ema`, every tensor is all zero$"):
        loaded(tmp_path / "x.pt")
    torch.save({"model": weights, "ema": [weights["pos_embed"]]}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="expected a state dict"):  # not the model instead, which samples worse
        loaded(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "final_layer.linear.weight",
            0.0,
            "final_layer.linear.weight is all zero: the output layer, as in .* never trained",
        ),
        ("blocks.0.mlp.fc1.weight", 0.0, "blocks.0.mlp.fc1.weight is all zero"),
        ("blocks.1.attn.qkv.weight", 0.5, "blocks.1.attn.qkv.weight is one and the same number throughout"),
        ("blocks.1.attn.qkv.bias", float("nan"), "blocks.1.attn.qkv.bias is not finite"),
        ("y_embedder.embedding_table.weight", float("-inf"), "y_embedder.embedding_table.weight is not finite"),
    ],
)
def test_weights_that_no_training_left_are_refused_by_name(
    original: Path, tmp_path: Path, name: str, value: float, message: str
) -> None:
    weights = torch.load(original, weights_only=True)
    weights[name] = torch.full_like(weights[name], value)
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=message):
        loaded(tmp_path / "x.pt")
    one = torch.load(original, weights_only=True)
    one["blocks.0.attn.proj.bias"] = torch.zeros(48)  # a bias may be constant
    torch.save(one, tmp_path / "x.pt")
    loaded(tmp_path / "x.pt")


# Folders of diffusers -------------------------------------------------------------------------------------------------


def sharded(folder: Path, tensors: Weights, form: str, variant: str = "") -> None:
    """Two files and their index, as save_pretrained lays them out above its shard size."""
    dot = f".{variant}" if variant else ""
    names, weight_map = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{STEM}{dot}-{number:05d}-of-00002.{form}"
        chosen = {name: tensors[name] for name in part}
        save_file(chosen, folder / file) if form == "safetensors" else torch.save(chosen, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{STEM}.{form}.index{dot}.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "layout", ["sharded", "sharded bin", "sharded fp16", "fp16", "fp16 bin", "bin", "original names", "misnamed"]
)
def test_every_layout_of_a_folder(make_prior: MakePrior, layout: str) -> None:
    folder = make_prior()
    plain = folder / f"{STEM}.safetensors"
    tensors, config = load_file(plain), json.loads((folder / "config.json").read_text())
    expected = dict(load_diffusers_dit(config, plain).state_dict())
    plain.unlink()
    if layout.startswith("sharded"):
        sharded(folder, tensors, "bin" if "bin" in layout else "safetensors", "fp16" if "fp16" in layout else "")
    elif layout == "misnamed":
        torch.save(tensors, plain)
    elif layout == "original names":
        save_file(original_names(expected), plain)
    elif layout == "fp16":
        save_file(tensors, folder / f"{STEM}.fp16.safetensors")
        torch.save(zeros(tensors), folder / f"{STEM}.bin")  # safetensors go first
    else:
        torch.save(tensors, folder / f"{STEM}{'.fp16' if 'fp16' in layout else ''}.bin")
    check_equal(dict(load_diffusers_dit(config, *weight_files(folder)).state_dict()), expected)


def original_names(weights: Weights) -> Weights:
    """The inverse of the renaming, written down from the original's own names."""
    block = {
        "attn1.to_out.0": "attn.proj",
        "ff.net.0.proj": "mlp.fc1",
        "ff.net.2": "mlp.fc2",
        "norm1.linear": "adaLN_modulation.1",
    }
    top = {
        "pos_embed.proj": "x_embedder.proj",
        "proj_out_1": "final_layer.adaLN_modulation.1",
        "proj_out_2": "final_layer.linear",
    }
    time = "transformer_blocks.0.norm1.emb.timestep_embedder.linear_"
    found = {}
    for leaf in ("weight", "bias"):
        found |= {f"{new}.{leaf}": weights[f"{old}.{leaf}"] for old, new in top.items()}
        found |= {f"t_embedder.mlp.{i}.{leaf}": weights[f"{time}{i // 2 + 1}.{leaf}"] for i in (0, 2)}
        for layer in (0, 1):
            own = f"transformer_blocks.{layer}"
            found |= {f"blocks.{layer}.{new}.{leaf}": weights[f"{own}.{old}.{leaf}"] for old, new in block.items()}
            qkv = [weights[f"{own}.attn1.to_{part}.{leaf}"] for part in "qkv"]
            found[f"blocks.{layer}.attn.qkv.{leaf}"] = torch.cat(qkv)
    found["y_embedder.embedding_table.weight"] = weights[
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
    ]
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    width = weights["pos_embed.proj.weight"].shape[0]
    found["pos_embed"] = torch.as_tensor(get_2d_sincos_pos_embed(width, 4, base_size=4, output_type="pt"))[None].float()
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def test_an_index_that_lists_nothing_or_what_is_not_there(make_prior: MakePrior) -> None:
    folder = make_prior()
    plain = folder / f"{STEM}.safetensors"
    tensors = load_file(plain)
    plain.unlink()
    sharded(folder, tensors, "safetensors")
    shard = folder / f"{STEM}-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_text(LFS)
    with pytest.raises(UsageError, match=r"00002-of-00002.safetensors is a Git-LFS pointer"):
        weight_files(folder)
    shard.unlink()
    with pytest.raises(UsageError, match="00002-of-00002.safetensors is missing"):
        weight_files(folder)
    shard.write_bytes(content)
    first = folder / f"{STEM}-00001-of-00002.safetensors"
    first.write_bytes(content)
    with pytest.raises(UsageError, match="which another of the 2 files holds too"):
        read_weights(weight_files(folder))
    for index in ({}, {"weight_map": []}, {"weight_map": {"a": "../x.safetensors"}}, {"weight_map": {"a": 3}}):
        (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UsageError, match=r"lists no shards|is missing"):
            weight_files(folder)


# What is no weights ---------------------------------------------------------------------------------------------------


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data/0", bytes(2**24))


def expanded(path: Path) -> None:
    torch.save({"x_embedder.proj.weight": torch.zeros(1).expand(10**12)}, path)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "pointer": (lambda path: path.write_text(LFS), "is a Git-LFS pointer .*git lfs pull"),
    "page": (lambda path: path.write_text("\n<!DOCTYPE html><html>Sign in</html>"), "is a web page"),
    "text": (lambda path: path.write_text("Repository not found, or access denied"), "cannot be read as a checkpoint"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(50)), "packed archive"),
    "bomb": (bomb, "claims 16,777,216 bytes in a file of"),
    "expanded": (expanded, "claims 1,000,000,000,000 numbers"),
    "list": (lambda path: torch.save([1, 2], path), "expected a state dict"),
    "numbers": (lambda path: torch.save({"model": {"a": 1}}, path), "expected a state dict"),
    "integers": (lambda path: torch.save({"a": torch.arange(3)}, path), "no plain tensor of floating-point .*int64"),
    "sparse": (lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path), "no plain tensor"),
    "another": (lambda path: torch.save({"conv.weight": torch.rand(3)}, path), "no tensor 'x_embedder.proj.weight'"),
    "twice": (
        lambda path: torch.save({"module.a": torch.rand(3), "a": torch.rand(3)}, path),
        "holds a twice, under different prefixes",
    ),
    "safetensors": (lambda path: path.write_bytes((20).to_bytes(8, "little") + b"{" + b"x" * 40), "not a safetensors"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_weights_is_called_what_it_is(tmp_path: Path, kind: str) -> None:
    write, message = BROKEN[kind]
    write(tmp_path / "x.pt")
    with pytest.raises(UsageError, match=message) as caught:
        loaded(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_nothing_pickled_is_run(tmp_path: Path) -> None:
    for name, content in {"zip": {"a": Payload(tmp_path / "ran")}, "old": Payload(tmp_path / "ran")}.items():
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=name == "zip")
        with pytest.raises(
            UsageError, match=r"objects that are no tensors \(posix.mkdir\), and loading those would run"
        ):
            loaded(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(UsageError, match="cannot be read as a checkpoint"):
        loaded(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_cut_off_anywhere_is_refused(original: Path, tmp_path: Path) -> None:
    whole = original.read_bytes()
    for share in (0.0001, 0.01, 0.5, 0.9, 0.9999):
        (tmp_path / "x.pt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UsageError, match="truncated, damaged or none"):
            loaded(tmp_path / "x.pt")


def test_a_changed_byte_is_found(original: Path, tmp_path: Path) -> None:
    content = bytearray(original.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UsageError, match="is damaged: its part .*/data/.* has another checksum; copy it again"):
        loaded(tmp_path / "x.pt")


def test_eight_bit_floats_are_numbers_too(original: Path, tmp_path: Path) -> None:
    weights = torch.load(original, weights_only=True)
    weights["blocks.0.attn.qkv.weight"] = weights["blocks.0.attn.qkv.weight"].to(torch.float8_e5m2)
    torch.save(weights, tmp_path / "x.pt")
    found = loaded(tmp_path / "x.pt")["transformer_blocks.0.attn1.to_q.weight"]
    assert torch.equal(found, weights["blocks.0.attn.qkv.weight"].float().chunk(3)[0])


def test_a_link_to_nothing(make_prior: MakePrior) -> None:
    plain = make_prior() / f"{STEM}.safetensors"
    plain.unlink()
    plain.symlink_to("nowhere")
    with pytest.raises(UsageError, match=f"{STEM}.safetensors is missing"):
        weight_files(plain.parent)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(UsageError, match="is no regular file"):
        loaded(tmp_path / "x.pt")
