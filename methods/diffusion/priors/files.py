"""A prior on disk: where its files lie, what its `prior.json` says, and the hash that names it in results.

Nothing here imports torch: planning reads, checks and hashes a prior without loading it.

    <prior>/prior.json                               what the weights do not say (`PriorMetadata`)
    <prior>/config.json                              a `diffusers` DiTTransformer2DModel …
    <prior>/diffusion_pytorch_model.safetensors      … and its weights; both may lie in `transformer/` instead
    <prior>/unet/, prompts.safetensors               instead of those, a text-to-image UNet2DConditionModel, same two
                                                     files, and the encoded texts of its classes
    <prior>/vae/                                     an AutoencoderKL, same two files; absent for a pixel prior
    <prior>/vae_ema/                                 another that encodes, for methods that ask for it; may be absent

A name stands for a bundled prior, else for one that `bench prepare prior` installed in the cache, else for a folder.
`random:NAME` is a known prior's network with random weights, for timing only.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.near_names import did_you_mean
from ddbench.datasets.cache import cache_dir
from ddbench.methods.diffusion.priors.catalogue import KNOWN, WITH_RANDOM_WEIGHTS, KnownPrior
from ddbench.methods.diffusion.priors.class_labels import class_list
from ddbench.methods.diffusion.priors.configs import (
    TransformerConfig,
    UNetConfig,
    read_autoencoder_config,
    read_transformer_config,
    read_unet_config,
    shape_problems,
    validated,
)
from ddbench.methods.diffusion.priors.file_kinds import check_kind, read_object
from ddbench.methods.diffusion.priors.hashes import file_sha256
from ddbench.methods.diffusion.priors.metadata import PriorMetadata

BUNDLED = Path(__file__).parents[3] / "datasets" / "priors"
METADATA = "prior.json"
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
TRANSFORMER, UNET = "transformer", "unet"
PROMPTS = "prompts.safetensors"
"""`tokens` (K + 1, L, W), the encoded texts of K classes in label order and, last, of "no class"; of SDXL `pooled`
(K + 1, P) too."""
VAE, VAE_EMA = "vae", "vae_ema"
NETWORK = "transformer"
"""The network's key in a prior's hash, whichever kind it is."""
RANDOM = "random:"


@dataclass(frozen=True)
class PriorFiles:
    """A prior that was found and whose files are whole."""

    name: str
    """The prior as it was asked for: a bundled or installed prior's name, or a folder."""
    folder: Path | None
    metadata: PriorMetadata
    network: Path | None
    """Folder of the network's config and weights."""
    autoencoder: Path | None
    """Folder of the autoencoder's config and weights, None for a pixel prior."""
    sha256: str
    """SHA-256 over weights, configs and the metadata fields that can change an image; no paths, no descriptions."""
    autoencoder_ema: Path | None = None
    """Folder of the further encoder's config and weights, None where there is none."""
    prompts: Path | None = None
    """The encoded texts of a text-to-image network's classes."""
    random: KnownPrior | None = None
    """The network that gets random weights, where it has no files."""

    @property
    def trained_on(self) -> str:
        return self.metadata.trained_on

    @property
    def timing_only(self) -> bool:
        """Its weights are random: what it makes says nothing but how long it took."""
        return self.random is not None


def bundled_priors() -> list[str]:
    """Names of the priors that come with the benchmark."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{METADATA}"))


def installed_folder() -> Path:
    """Where `bench prepare prior` puts priors, one folder each."""
    return cache_dir() / "priors"


def installed_priors() -> list[str]:
    """Names of the priors that `bench prepare prior` installed."""
    found = installed_folder().glob(f"*/{METADATA}")
    return sorted(path.parent.name for path in found if not path.parent.name.startswith("."))


def find_prior(name_or_path: str | Path) -> PriorFiles:
    """Find a prior by its name or folder, and check that its files fit together and are those that were installed.

    Raises:
        UsageError: unknown name, missing, truncated or changed file, metadata that is incomplete or contradicts the
            config, or a known prior that is not installed (the message says how to install it).
    """
    name = str(name_or_path)
    if name.startswith(RANDOM):
        return _with_random_weights(name)
    folder = _folder_of(name)
    metadata = read_metadata(folder / METADATA)
    text = metadata.conditioning is not None
    network = folder if (folder / CONFIG).is_file() else folder / (UNET if text else TRANSFORMER)
    parts = {NETWORK: network}
    for role, place in (("autoencoder", VAE), ("autoencoder_ema", VAE_EMA)):
        if (folder / place).is_dir():
            parts[role] = folder / place
    if problems := _contradictions(metadata, parts):
        raise Problems([f"prior {folder}: {problem}" for problem in problems])

    content: dict[str, Any] = {"metadata": metadata.what_makes_images()}
    for role, part in parts.items():
        shapes = check_safetensors(part / WEIGHTS)
        if problems := shape_problems(part / CONFIG, shapes):
            raise Problems([f"prior {folder}: {problem}" for problem in problems])
        settings = {k: v for k, v in read_object(part / CONFIG).items() if not k.startswith("_")}
        content[role] = [settings, file_sha256(part / WEIGHTS)]
    if text:
        check_prompts(folder / PROMPTS, network, len(metadata.class_ids))
        content["prompts"] = _name_of_texts(folder / PROMPTS, metadata)
    check_checksums(folder, metadata)
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    autoencoder, ema = parts.get("autoencoder"), parts.get("autoencoder_ema")
    return PriorFiles(name, folder, metadata, network, autoencoder, sha256, ema, folder / PROMPTS if text else None)


def _folder_of(name: str) -> Path:
    """The folder that a name stands for.

    Raises:
        UsageError: none.
    """
    bundled, installed = bundled_priors(), installed_priors()
    if name in bundled:
        return BUNDLED / name
    if name in installed:
        return installed_folder() / name
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name in KNOWN:
        known = KNOWN[name]
        how = (
            f"`bench prepare prior {name}` downloads it (about {known.size_gb} GB; {known.licence}); "
            f"`bench prepare prior {name} --from DIR` takes files that you have."
        )
        if known.transformer is None:
            how = (
                f"`bench prepare prior {name} --from FILE --vae DIR` takes {known.released} ({known.licence}), and an "
                "autoencoder."
            )
        raise UsageError(
            f"prior {name} is not installed. {how} Or name another prior with --prior NAME|FOLDER or $DDBENCH_PRIOR."
        )
    raise UsageError(
        f"there is no prior {name!r}; {did_you_mean(name, [*bundled, *installed, *KNOWN])} It is neither a bundled "
        f"prior ({', '.join(bundled) or 'there are none'}), nor an installed one "
        f"({', '.join(installed) or 'there are none'}), nor an existing folder. Give a folder with {METADATA}, "
        f"{CONFIG} and {WEIGHTS}."
    )


def _with_random_weights(name: str) -> PriorFiles:
    known = WITH_RANDOM_WEIGHTS.get(name.removeprefix(RANDOM))
    if known is None:
        names = ", ".join(f"{RANDOM}{one}" for one in WITH_RANDOM_WEIGHTS)
        raise UsageError(f"there is no prior {name!r}; with random weights, for timing only, there are {names}")
    metadata = known.metadata.model_copy(update={"trained_on": "nothing: random weights, for timing only"})
    return PriorFiles(name, None, metadata, None, None, random_sha256(known.name), random=known)


def random_sha256(name: str) -> str:
    """What names `random:<name>` in results; derived from the name alone."""
    return hashlib.sha256(f"random weights, version 1: {name}".encode()).hexdigest()


def check_checksums(folder: Path, metadata: PriorMetadata) -> None:
    """Raises UsageError if files are not those that were installed; nothing to compare where none were noted."""
    for name, expected in metadata.checksums.items():
        path = folder / name
        found = file_sha256(path) if path.is_file() else "no such file"
        if found != expected:
            raise UsageError(
                f"prior {folder} is not as it was installed: {name} has SHA-256 {found}, expected {expected}. Remove "
                f"the folder and install it again, bench prepare prior {folder.name}; of a copy that was changed on "
                f"purpose, remove the checksums from {METADATA}"
            )


def read_metadata(path: Path, class_ids: list[str] | dict[str, Any] | None = None) -> PriorMetadata:
    """Read a `prior.json`.

    Args:
        class_ids: instead of the file's own, as `read_class_ids` gives them.

    Raises:
        UsageError: no such file, not JSON, or missing and ill-typed fields, all of them in one message.
    """
    return metadata_of(read_object(path), path, class_ids)


def metadata_of(
    content: dict[str, Any], path: Path, class_ids: list[str] | dict[str, Any] | None = None
) -> PriorMetadata:
    """What a `prior.json` at `path` with this content would say; raises as `read_metadata`."""
    if class_ids is not None:
        content = {**content, "class_ids": class_ids}
    if isinstance(content.get("class_ids"), dict):
        content = {**content, "class_ids": class_list(content["class_ids"], content.get("null_label"))}
    return validated(PriorMetadata, content, path)


def check_safetensors(path: Path) -> dict[str, list[int]]:
    """Check that a safetensors file is as long as its header says, without reading its tensors.

    Returns:
        The shape of each tensor by its name.

    Raises:
        UsageError: missing, truncated, not a safetensors file, or one with tensors of other kinds than floats.
    """
    if not path.exists():
        raise UsageError(
            f"{path.name} is missing from {path.parent}. Copy it there again; weights in another format, in several "
            f"files or under another name are converted by bench prepare prior NAME --from {path.parent}"
        )
    head = check_kind(path)
    if head[:2] in (b"PK", b"\x80\x02"):
        raise UsageError(
            f"{path} holds pickled tensors under the name of safetensors; bench prepare prior NAME --from "
            f"{path.parent} converts them"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        header_bytes = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if 8 + header_bytes > size:
            raise UsageError(f"{path} is truncated ({size} bytes, its header is incomplete); copy it again")
        try:
            header: Mapping[str, Any] = json.loads(file.read(header_bytes))
            tensors = {key: tensor for key, tensor in header.items() if key != "__metadata__"}
            ends = [int(tensor["data_offsets"][1]) for tensor in tensors.values()]
            shapes = {key: [int(number) for number in tensor["shape"]] for key, tensor in tensors.items()}
            kinds = {key: str(tensor["dtype"]) for key, tensor in tensors.items()}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
            raise UsageError(f"{path} is not a safetensors file (its header is not the expected JSON)") from None
    if other := [f"{key} ({kind})" for key, kind in kinds.items() if not kind.startswith(("F", "BF"))]:
        raise UsageError(f"{path}: {other[0]} is no tensor of floating-point numbers; quantised weights are not read")
    expected = 8 + header_bytes + max(ends, default=0)
    if size != expected:
        raise UsageError(f"{path} is damaged: expected {expected} bytes, found {size}; copy it again")
    return shapes


def _name_of_texts(path: Path, metadata: PriorMetadata) -> str:
    """What they were made with, where checksums hold that they are those that were made; else a hash of themselves."""
    assert metadata.conditioning is not None
    made_with = metadata.conditioning.encoder_sha256
    return file_sha256(path) if made_with is None or PROMPTS not in metadata.checksums else made_with


def check_prompts(path: Path, network: Path, classes: int) -> None:
    """Check that a prior's encoded texts are its network's and as many as its classes, and one more.

    Raises:
        UsageError: missing, damaged, or of other shapes.
    """
    shapes, config = check_safetensors(path), read_unet_config(network / CONFIG)
    tokens, pooled = shapes.get("tokens", []), shapes.get("pooled", [classes + 1, 0])
    expected = f"tokens ({classes + 1}, L, {config.cross_attention_dim})"
    if config.pooled_width:
        expected += f" and pooled ({classes + 1}, {config.pooled_width})"
    fits = len(tokens) == 3 and [tokens[0], tokens[2]] == [classes + 1, config.cross_attention_dim]
    if not fits or pooled != [classes + 1, config.pooled_width]:
        raise UsageError(
            f"{path}: expected {expected}, the texts of {classes} classes and of none, as the network reads them; "
            f"found {', '.join(f'{name} {tuple(shape)}' for name, shape in sorted(shapes.items())) or 'nothing'}. "
            "Install it again: bench prepare prior NAME --from PIPELINE"
        )


def _contradictions(metadata: PriorMetadata, parts: Mapping[str, Path]) -> Sequence[str]:
    """What in the metadata cannot be true of the networks that the configs describe."""
    network: TransformerConfig | UNetConfig
    if metadata.conditioning is not None:
        network, classes_problem = read_unet_config(parts[NETWORK] / CONFIG), None
    else:
        network = read_transformer_config(parts[NETWORK] / CONFIG)
        classes_problem = class_list_problem(metadata, network.num_embeds_ada_norm)
    problems = []
    channels = network.in_channels
    out_channels = network.out_channels or channels
    expected_out = channels * (2 if metadata.learned_variance else 1) + metadata.dropped_channels
    if out_channels != expected_out:
        dropped = f" and dropped_channels {metadata.dropped_channels}" if metadata.dropped_channels else ""
        problems.append(
            f"learned_variance is {str(metadata.learned_variance).lower()}{dropped}, which needs out_channels = "
            f"{expected_out}, but the network has {out_channels}"
        )
    if metadata.guided_channels != "all" and metadata.guided_channels > channels:
        problems.append(f"guided_channels is {metadata.guided_channels}, but the network has {channels} channels")
    if classes_problem is not None:
        problems.append(classes_problem)
    pixels = metadata.of_pixels
    if pixels and "autoencoder" in parts:
        problems.append("space is pixels, but there is an autoencoder in vae/; remove it or correct the metadata")
    if not pixels and "autoencoder" not in parts:
        problems.append("space is latents, but there is no autoencoder in vae/; add it")
    scale = 1
    for role in ("autoencoder_ema", "autoencoder"):
        if role not in parts:
            continue
        coder = read_autoencoder_config(parts[role] / CONFIG)
        if coder.latent_channels != channels:
            problems.append(
                f"the autoencoder in {parts[role].name}/ has {coder.latent_channels} latent channels, the network "
                f"{channels}; they do not belong together"
            )
        scale = 2 ** (len(coder.block_out_channels) - 1)
    if metadata.resolution != network.sample_size * scale:
        problems.append(
            f"resolution is {metadata.resolution}, but the network's images have side {network.sample_size * scale}"
        )
    if pixels and metadata.latent_scale != 1:
        problems.append(f"latent_scale is {metadata.latent_scale}, but a pixel prior has none: expected 1")
    return problems


def class_list_problem(metadata: PriorMetadata, n_classes: int) -> str | None:
    """Why a prior's labels are not its network's; None if they are.

    A list of another length cannot be in the network's label order: it would make images of one class under another's
    name.

    Args:
        n_classes: `num_embeds_ada_norm` of the network; its label table has one row more, the last, for no class.
    """
    listed = len(metadata.class_ids)
    if listed == metadata.null_label == n_classes:
        return None
    return (
        f"expected class_ids of all {n_classes} classes of the network in label order, and null_label {n_classes} "
        f"(num_embeds_ada_norm in {CONFIG}; an original checkpoint's label table less its last row); found {listed} "
        f"class_ids and null_label {metadata.null_label}. Correct {METADATA}: list the classes that a run does not use "
        "too, or give a map from class id to label"
    )
