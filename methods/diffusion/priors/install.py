"""Installing a prior in the cache: from the hub, a local `diffusers` folder or an original `.pt`, whole or not at all.

What is written is a prior's folder (`prior_files.py`) whose `prior.json` also says where the files came from, under
which licence, and their checksums, which are compared whenever the prior is used.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import check_free, lock, whole_folder, write_json
from ddbench.methods.diffusion.priors.catalogue import KNOWN, HubFolder, KnownPrior
from ddbench.methods.diffusion.priors.class_labels import read_class_ids
from ddbench.methods.diffusion.priors.configs import read_autoencoder_config, read_transformer_config
from ddbench.methods.diffusion.priors.file_kinds import check_kind, read_object
from ddbench.methods.diffusion.priors.files import (
    CONFIG,
    METADATA,
    RANDOM,
    TRANSFORMER,
    VAE,
    VAE_EMA,
    WEIGHTS,
    PriorFiles,
    bundled_priors,
    check_safetensors,
    class_list_problem,
    find_prior,
    installed_folder,
    read_metadata,
)
from ddbench.methods.diffusion.priors.hashes import file_sha256
from ddbench.methods.diffusion.priors.hub import PICKLED, download
from ddbench.methods.diffusion.priors.label_images import NONE, label_images
from ddbench.methods.diffusion.priors.metadata import PriorMetadata

QUICK_ON_A_CPU = 50_000_000
"""Weights of the largest network whose labels are checked without being asked to."""
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


@dataclass
class Parts:
    """The files that a prior is made of, wherever they lie now."""

    transformer: Path
    """The network: a folder of `diffusers`' two files, or an original checkpoint."""
    metadata: PriorMetadata
    num_heads: int | None
    """Attention heads of the network; read for an original checkpoint only."""
    autoencoders: dict[str, Path] = field(default_factory=dict)
    """Autoencoders: `vae` and `vae_ema` -> folder of `diffusers`' two files."""
    source: dict[str, str] = field(default_factory=dict)
    """What came from where, in words."""


@dataclass(frozen=True)
class LabelSource:
    """What is said of the class list, beside what the files say."""

    class_ids: Path | None = None
    """File of the class list, instead of that in `prior.json`."""
    check_on: str | None = None
    """Real images that it is compared with (`label_images`)."""
    data: Path | None = None
    """Where the files of that dataset lie."""


def install(
    name: str,
    source: Path | None,
    vae: Path | None,
    revision: str | None,
    *,
    labels: LabelSource = LabelSource(),
    say: Callable[[str], None],
) -> PriorFiles:
    """Install a prior under a name, or find that it is installed and whole.

    Args:
        source: folder or checkpoint with its files; None: from the hub.
        vae: folder of its autoencoder, where it does not lie in `source`.
        revision: of the hub's repository of the network, instead of the pinned one.
        labels: of its class list and how it is checked.
        say: shows a line.

    Raises:
        UsageError: a name that cannot be used, files that are missing or not this prior's, weights that no training
            left, labels that fit no better than chance, or no way to the hub.
        RunError: too little free disk.
    """
    known, target = KNOWN.get(name), installed_folder() / name
    _check_name(name)
    if source is None and known is None and not target.exists():
        raise UsageError(
            f"{name!r} is not a prior that can be downloaded; there are {', '.join(KNOWN)}. "
            f"A prior of your own is installed from its files: bench prepare prior {name} --from DIR"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock(target.parent / f".{name}.lock"):
        if target.exists():
            if source is not None or revision is not None:
                raise UsageError(f"{name} is already installed in {target}; remove that folder to install another")
            say(f"{name} is already installed in {target}; its files are compared with their checksums")
            return find_prior(name)
        if known is not None:
            say(f"Licence of {name}: {known.licence}.")
        if known is not None and source is None:
            parts = _from_hub(known, vae, revision, say)
        else:
            assert source is not None
            if revision is not None:
                raise UsageError("--revision names a commit on the hub; it does not go with --from")
            parts = _local(name, known, source.expanduser(), None if vae is None else vae.expanduser(), labels)
        with whole_folder(target, existing="refuse", locked=True) as partial:
            _write(name, known, parts, partial, say)
            _check_labels(find_prior(partial), labels, say)
    return find_prior(name)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name) or name.startswith(RANDOM):
        raise UsageError(f"{name!r} cannot name a prior: expected letters, digits, '-', '_' and '.'")
    if name in bundled_priors():
        raise UsageError(f"{name} is a bundled prior and needs no installing; choose another name for your own")


def _write(name: str, known: KnownPrior | None, parts: Parts, folder: Path, say: Callable[[str], None]) -> None:
    """Write a prior's folder and check it as a run would: every weight in its place, and none left over."""
    files = [parts.transformer, *parts.autoencoders.values()]
    check_free(folder, sum(_bytes_of(path) for path in files), f"installing prior {name}")
    say("writing the network …")
    _write_transformer(parts, folder / TRANSFORMER)
    for role, path in parts.autoencoders.items():
        say(f"writing {role} …")
        _write_autoencoder(path, folder / role)
    config = read_object(folder / TRANSFORMER / CONFIG)
    if known is not None:
        _check_network(known, config)
    n_classes = read_transformer_config(folder / TRANSFORMER / CONFIG).num_embeds_ada_norm
    if problem := class_list_problem(parts.metadata, n_classes):
        raise UsageError(f"prior {name}, from {parts.transformer}: {problem}")
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(
        folder / METADATA,
        {
            **parts.metadata.model_dump(mode="json", exclude={"num_heads", "source", "licence", "checksums"}),
            "licence": parts.metadata.licence if known is None else known.licence,
            "source": parts.source,
            "checksums": {str(path.relative_to(folder)): file_sha256(path) for path in written},
        },
    )


def _check_labels(files: PriorFiles, labels: LabelSource, say: Callable[[str], None]) -> None:
    """Load the prior, and compare its class list with real images where some are at hand."""
    import torch

    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.priors.label_check import LEAST_CLASSES, check_labels

    say("loading it once, to see that it is whole …")
    prior = Prior.load(files, device="cuda" if torch.cuda.is_available() else "cpu")
    size = sum(weight.numel() for weight in prior.network.parameters())
    if labels.check_on is None and prior.device.type == "cpu" and size > QUICK_ON_A_CPU:
        say("class list not checked: on a CPU that takes this network minutes; --check-on DATASET or FOLDER does it")
        return
    found = label_images(files.metadata, prior.image_shape[2], labels.check_on, labels.data)
    if found is None:
        nothing = "no images of its classes are at hand; --check-on DATASET or FOLDER names some"
        say(f"class list not checked: {'as asked' if labels.check_on == NONE else nothing}")
        return
    where, images = found
    say(f"comparing the class list with {where} …")
    fit = check_labels(prior, images)
    if fit is None:
        say(f"class list not checked: images of {len(images)} of its classes were found, {LEAST_CLASSES} are needed")
    else:
        say(f"class list checked: it fits {fit.images} images of {fit.classes} classes (p = {fit.p_value:.4f})")


def _bytes_of(path: Path) -> int:
    from ddbench.methods.diffusion.priors.weight_files import weight_files

    return sum(file.stat().st_size for file in ([path] if path.is_file() else weight_files(path)))


def _check_network(known: KnownPrior, config: Mapping[str, Any]) -> None:
    wrong = [
        f"{key} is {config.get(key)}, expected {value}"
        for key, value in known.network.items()
        if config.get(key) != value
    ]
    if wrong:
        raise UsageError(
            f"these weights are not {known.name}'s: {'; '.join(wrong)}. Install them under a name of their own, with a "
            f"{METADATA} beside them (docs/priors.md)"
        )


# Writing the parts ----------------------------------------------------------------------------------------------------


def _write_transformer(parts: Parts, target: Path) -> None:
    from ddbench.methods.diffusion.priors.dit_checkpoint import load_diffusers_dit, load_dit_checkpoint

    source = parts.transformer
    if source.is_file():
        if parts.num_heads is None:
            raise UsageError(
                f"{source} does not say how many attention heads it has; write it into the {METADATA} beside it: "
                '"num_heads": 16 (16 for DiT-XL and DiT-L, 12 for DiT-B, 6 for DiT-S)'
            )
        load_dit_checkpoint(source, num_heads=parts.num_heads).save_pretrained(target)
        return
    config, files = read_object(source / CONFIG), _weights_in(source)
    if config.get("_class_name") == "DiTTransformer2DModel" and "pos_embed.proj.weight" in _plain_names(source, files):
        _copy(source, target)
    else:
        load_diffusers_dit(config, *files).save_pretrained(target)


def _write_autoencoder(source: Path, target: Path) -> None:
    from safetensors.torch import save_file

    from ddbench.methods.diffusion.priors.weight_files import read_weights

    if not (source / CONFIG).exists():
        raise UsageError(f"{source} is no autoencoder: expected {CONFIG} and {WEIGHTS} in it")
    read_autoencoder_config(source / CONFIG)
    files = _weights_in(source)
    if _plain_names(source, files):
        _copy(source, target)
        return
    target.mkdir()
    shutil.copyfile(source / CONFIG, target / CONFIG)
    weights = {name: tensor.contiguous() for name, tensor in read_weights(files).items()}
    save_file(weights, target / WEIGHTS, {"format": "pt"})


def _weights_in(folder: Path) -> list[Path]:
    from ddbench.methods.diffusion.priors.weight_files import weight_files

    if files := weight_files(folder):
        return files
    raise UsageError(f"{WEIGHTS} is missing from {folder}; expected it there, in shards, or pickled as {PICKLED}")


def _plain_names(folder: Path, files: list[Path]) -> set[str]:
    """The tensors' names, where all lie in the one file of safetensors that a prior has; else none."""
    plain = files == [folder / WEIGHTS] and check_kind(files[0])[8:9] == b"{"
    return set(check_safetensors(files[0])) if plain else set()


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for file in (CONFIG, WEIGHTS):
        shutil.copyfile(source / file, target / file)


def _from_hub(known: KnownPrior, vae: Path | None, revision: str | None, say: Callable[[str], None]) -> Parts:
    roles = {TRANSFORMER, VAE, VAE_EMA} - ({VAE} if vae is not None else set())
    found, source = download(known, roles, revision, say)
    if vae is not None:
        found[VAE], source[VAE] = vae.expanduser(), str(vae)
    transformer = found.pop(TRANSFORMER)
    return Parts(transformer, known.metadata, known.network["num_attention_heads"], found, source)


# Local files ----------------------------------------------------------------------------------------------------------


def _local(name: str, known: KnownPrior | None, source: Path, vae: Path | None, labels: LabelSource) -> Parts:
    """The parts in a folder, or a checkpoint with its parts beside it."""
    if not source.exists():
        raise UsageError(f"--from {source}: no such folder or file")
    transformer = _transformer_in(source)
    if known is not None and labels.class_ids is not None:
        raise UsageError(f"{name}'s class list is known; weights with another are installed under a name of their own")
    beside = source if source.is_dir() else source.parent
    class_ids = None if labels.class_ids is None else read_class_ids(labels.class_ids.expanduser())
    own = read_metadata(beside / METADATA, class_ids) if (beside / METADATA).exists() else None
    if known is None and own is None:
        raise UsageError(
            f"{beside} has no {METADATA}, which says what weights do not: resolution, classes in label order, noise "
            "schedule, … docs/priors.md lists its fields and shows one"
        )
    if known is not None and own is not None and own.class_ids != known.metadata.class_ids:
        raise UsageError(
            f"{beside / METADATA} lists other classes than {name}'s, or in another order. Install these weights under "
            f"a name of their own; or remove that file, if they are {name}'s"
        )
    metadata = own if known is None else known.metadata
    assert metadata is not None
    autoencoders = {} if vae is None else {VAE: vae}
    if vae is None and (beside / VAE).is_dir():
        _check_own_autoencoder(name, known, beside)
        autoencoders[VAE] = beside / VAE
    if (beside / VAE_EMA).is_dir():
        autoencoders[VAE_EMA] = beside / VAE_EMA
    if VAE not in autoencoders and not metadata.of_pixels:
        raise UsageError(
            f"{name} works in latents, and {beside} has no {VAE}/; name its autoencoder with --vae DIR "
            f"(a folder with {CONFIG} and {WEIGHTS}{'' if known is None else f', {_hub_words(known.vae)}'})"
        )
    heads = metadata.num_heads if known is None else known.network["num_attention_heads"]
    said = {TRANSFORMER: str(transformer), **{role: str(path) for role, path in autoencoders.items()}}
    said_before = own.source if own is not None else {}
    earlier = said_before if isinstance(said_before, dict) else {TRANSFORMER: said_before}
    before = {f"{part}, before": place for part, place in earlier.items()}
    return Parts(transformer, metadata, heads, autoencoders, {**said, **before})


def _transformer_in(source: Path) -> Path:
    if source.is_file():
        if source.suffix not in CHECKPOINTS:
            raise UsageError(f"--from {source}: expected a folder, or a checkpoint ({', '.join(CHECKPOINTS)})")
        return source
    for folder in (source / TRANSFORMER, source):
        if (folder / CONFIG).is_file():
            return folder
    checkpoints = [path for path in sorted(source.iterdir()) if path.suffix in CHECKPOINTS]
    if len(checkpoints) == 1:
        return checkpoints[0]
    raise UsageError(
        f"--from {source}: found no network in it; expected {TRANSFORMER}/{CONFIG} and {TRANSFORMER}/{WEIGHTS}, the "
        f"same two files in the folder itself, or one original checkpoint ({len(checkpoints)} *.pt files are there)"
    )


def _check_own_autoencoder(name: str, known: KnownPrior | None, folder: Path) -> None:
    """A pipeline on the hub brings an autoencoder of its own; which one it is cannot be told from its files."""
    if known is not None and (folder / "model_index.json").is_file():
        raise UsageError(
            f"{folder} is a copy of a pipeline with an autoencoder of its own, which need not be the one that papers "
            f"decode with. Name that one: --vae DIR, {_hub_words(known.vae)}; or take the pipeline's own: "
            f"--vae {folder / VAE}"
        )


def _hub_words(hub: HubFolder | None) -> str:
    return "" if hub is None else f"such as {hub.repo}"
