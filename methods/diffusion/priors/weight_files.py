"""Weights as files hold them, from whatever program: pickled or safetensors, whole or in shards, bare or nested.

Nothing pickled is ever run (`weights_only`); what a file is, its first bytes say, not its name. Weights that no
training can have left are refused: not finite, or the same number throughout a matrix.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.file_kinds import check_kind, read_object
from ddbench.methods.diffusion.priors.files import check_safetensors

AVERAGES = ("ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema_model")
"""Keys under which checkpoints keep the moving average of the weights, which is what samples; it goes first."""
CONTAINERS = (*AVERAGES, "state_dict", "model", "model_state_dict", "module", "net", "weights")
WRAPPERS = frozenset({"module", "_orig_mod", "model", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that DistributedDataParallel, torch.compile and their like put in; no layer of ours is called so."""
DEEPEST = 4
ANCHORS = ("x_embedder.proj.weight", "pos_embed.proj.weight")
"""A DiT's first layer, in the original's naming and in that of `diffusers`: what stands before it is a prefix."""

SCALAR = np.float64(0).__reduce__()[0]
DATA_ONLY: list[Any] = [
    *(argparse.Namespace, PosixPath, np.dtype, *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}),
    *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What training formats keep beside weights, and what holds data only: a command line, a path, numbers of NumPy."""

NAME = re.compile(r"diffusion_pytorch_model(?:\.(\w+))?\.(safetensors|bin)(\.index(?:\.(\w+))?\.json)?")
VARIANTS = ("", "fp32", "fp16", "bf16")

OUTPUT_LAYERS = ("proj_out_2.weight", "final_layer.linear.weight")
"""The output layer's name in `diffusers` and in the original's files; an untrained DiT starts with zeros there."""
COMPUTED = "pos_embed"
"""The original's name of a table that is computed, not trained."""


def weight_files(folder: Path) -> list[Path]:
    """The weights in a folder of `diffusers`: one file, or the shards that its index lists; empty where there are none.

    Safetensors go before pickled tensors, and what has no variant in its name before `.fp16.` and `.bf16.`.

    Raises:
        UsageError: an index that is none, or a shard that is missing.
    """
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := NAME.fullmatch(path.name):
            variant = match[1] or match[4] or ""
            rank = VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)
            found.append((match[2] == "bin", rank, bool(match[3]), path))
    if not found:
        return []
    *_, indexed, best = min(found)
    check_kind(best)
    if not indexed:
        return [best]
    shards = read_object(best).get("weight_map")
    names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise UsageError(f"{best} lists no shards; expected `weight_map` with a file beside it for each tensor")
    for name in names:
        check_kind(folder / name)
    return [folder / name for name in names]


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of one network in files, float32 on the CPU, without the prefixes that wrappers put before them.

    Of a checkpoint that keeps a moving average, that is taken; the tensors keep the precision's values that they had.

    Raises:
        UsageError: no file of weights, or a damaged or unsafe one; no state dict in it; weights that no training left.
    """
    merged: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _one_file(file).items():
            if name in merged:
                raise UsageError(f"{file} holds {name}, which another of the {len(files)} files holds too")
            merged[name] = tensor
    return merged


def _one_file(path: Path) -> dict[str, Tensor]:
    head = check_kind(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        content = _unpickled(path)
    elif head[8:9] == b"{":
        check_safetensors(path)
        try:
            content = load_file(path)
        except Exception as error:  # whatever reading a foreign file raises is the file's fault
            raise UsageError(f"{path} cannot be read as safetensors: {_first_line(error)}") from None
    elif head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z")):
        raise UsageError(f"{path} is a packed archive; unpack it and name the file of weights in it")
    else:
        raise UsageError(
            f"{path} cannot be read as a checkpoint: expected what torch.save or safetensors write, found a file that "
            f"begins with {head[:24]!r}"
        )
    weights = _cleaned(path, _state_dict(path, content, ()))
    if problems := weight_problems(weights):
        raise UsageError(f"{path}: {'; '.join(problems)}")
    return {name: tensor.detach().float() for name, tensor in weights.items()}


def _unpickled(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
                if unpacked > size:  # torch.save packs nothing
                    raise UsageError(f"{path} claims {unpacked:,} bytes in a file of {size:,}; copy it again")
                if (broken := archive.testzip()) is not None:  # torch.load compares no checksums
                    raise UsageError(f"{path} is damaged: its part {broken} has another checksum; copy it again")
        with torch.serialization.safe_globals(DATA_ONLY), path.open("rb") as file:  # of a path torch goes by the name
            return torch.load(file, map_location="cpu", weights_only=True)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # an unpickler of foreign bytes raises whatever it stumbles over
        if found := re.search(r"GLOBAL ([\w.]+)|(?:global|class|type) `?([\w.]+)`? (?:which|was not)", str(error)):
            raise UsageError(
                f"{path} cannot be read as a checkpoint: it holds objects that are no tensors "
                f"({found[1] or found[2]}), and loading those would run code. Where you trust the file, save the "
                "tensors alone: torch.save(model.state_dict(), FILE)"
            ) from None
        raise UsageError(
            f"{path} cannot be read as a checkpoint: it is truncated, damaged or none ({_first_line(error)})"
        ) from None


def _state_dict(path: Path, content: Any, place: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights in what a file holds, however it nests them; `place` are the keys on the way."""
    none = UsageError(f"{path}: expected a state dict, or a training checkpoint with one under `ema` or `model`")
    if not isinstance(content, Mapping) or len(place) > DEEPEST:
        raise none
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    inner = {key: content[key] for key in CONTAINERS if content.get(key) and not isinstance(content[key], Tensor)}
    for key in AVERAGES:  # flat files have `ema.blocks.0…` beside `model.blocks.0…`
        if flat := {name: tensor for name, tensor in tensors.items() if name.startswith(f"{key}.")}:
            rest = {name: tensor for name, tensor in tensors.items() if name not in flat}
            inner[key] = {name.removeprefix(f"{key}."): tensor for name, tensor in flat.items()}
            inner = {key: inner[key], **({"model": rest} if rest else {})}
            break
    if not inner:
        if not tensors:
            raise none
        _check_plain(path, tensors)
        return tensors
    key = next(iter(inner))
    weights = _state_dict(path, inner.pop(key), (*place, key))
    if problems := weight_problems(weights):
        said = f"{path}: of the weights under `{'.'.join((*place, key))}`, {'; '.join(problems)}"
        for other in inner:
            if _is_fine(path, inner[other], (*place, other)):
                keys = "".join(f"[{part!r}]" for part in (*place, other))
                said += (
                    f". Its `{'.'.join((*place, other))}` is there and holds numbers: save that alone, "
                    f"torch.save(torch.load(FILE, weights_only=True){keys}, NEW), and install NEW"
                )
                break
        raise UsageError(said)
    return weights


def _check_plain(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise UsageError(f"{path}: {name} is no plain tensor of floating-point numbers ({kind})")
        if tensor.numel() * tensor.element_size() > path.stat().st_size:
            raise UsageError(f"{path}: {name} claims {tensor.numel():,} numbers, more than the file can hold")


def _is_fine(path: Path, content: Any, place: tuple[str, ...]) -> bool:
    try:
        return not weight_problems(_state_dict(path, content, place))
    except UsageError:
        return False


def _cleaned(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the network's own names."""
    bare = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in tensors}
    prefixes = {name.removesuffix(anchor) for name in bare.values() for anchor in ANCHORS if name.endswith(anchor)}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = bare[name].removeprefix(prefix)
        if short in found:
            raise UsageError(f"{path} holds {short} twice, under different prefixes; save one network's tensors alone")
        found[short] = tensor
    return found


def _first_line(error: Exception) -> str:
    return f"{error}".strip().partition("\n")[0][:200] or type(error).__name__


def weight_problems(weights: Mapping[str, Tensor]) -> list[str]:
    """What cannot be true of trained weights, each with the names of the tensors.

    A vector may be constant (biases of a layer that learned none); a matrix of two or more numbers may not.
    """
    unlike: dict[str, list[str]] = {}
    nothing = True
    for name, weight in weights.items():
        if weight.numel() == 0:
            continue
        low, high = (bound.item() for bound in torch.aminmax(weight.float()))
        nothing = nothing and (low == high == 0 or name == COMPUTED)
        if not (abs(low) < float("inf") and abs(high) < float("inf")):  # NaN compares as false
            unlike.setdefault("not finite", []).append(name)
        elif low == high and weight.dim() > 1 and weight.numel() > 1 and name != COMPUTED:
            kind = "all zero" if low == 0 else "one and the same number throughout"
            unlike.setdefault(kind, []).append(name)
    if nothing and weights:
        return ["every tensor is all zero"]
    untrained = ": the output layer, as in a network that was never trained"
    return [
        f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {kind}"
        + (untrained if kind == "all zero" and any(name.endswith(OUTPUT_LAYERS) for name in names) else "")
        for kind, names in unlike.items()
    ]


def _listed(names: list[str], most: int = 3) -> str:
    first = sorted(names, key=lambda name: (not name.endswith(OUTPUT_LAYERS), name))[:most]
    return ", ".join(first) + (f" and {len(names) - most} more" if len(names) > most else "")
