"""Installing a prior in the cache: from the hub, a local `diffusers` folder or an original `.pt`, whole or not at all.

What is written is a prior's folder (`prior_files.py`) whose `prior.json` also says where the files came from, under
which licence, and their checksums, which are compared whenever the prior is used.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import check_free, lock, whole_folder, write_json
from ddbench.methods.diffusion.priors.catalogue import KNOWN, HubFolder, KnownPrior
from ddbench.methods.diffusion.priors.files import (
    CHECKSUMS,
    CONFIG,
    METADATA,
    RANDOM,
    TRANSFORMER,
    VAE,
    VAE_EMA,
    WEIGHTS,
    PriorFiles,
    bundled_priors,
    class_list_problem,
    find_prior,
    installed_folder,
    read_metadata,
)
from ddbench.methods.diffusion.priors.hashes import file_sha256
from ddbench.methods.diffusion.priors.metadata import PriorMetadata

PICKLED = "diffusion_pytorch_model.bin"
"""Weight files that older hub repositories hold instead of safetensors."""
CHECKPOINTS = (".pt", ".pth", ".ckpt")
HEADS = "num_heads"
"""Key in the `prior.json` beside an original checkpoint of its attention heads, which no tensor's shape tells."""


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


def install(
    name: str, source: Path | None, vae: Path | None, revision: str | None, *, say: Callable[[str], None]
) -> PriorFiles:
    """Install a prior under a name, or find that it is installed and whole.

    Args:
        source: folder or checkpoint with its files; None: from the hub.
        vae: folder of its autoencoder, where it does not lie in `source`.
        revision: of the hub's repository of the network, instead of the pinned one.
        say: shows a line.

    Raises:
        UsageError: a name that cannot be used, files that are missing or not this prior's, or no way to the hub.
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
            parts = _download(known, vae, revision, say)
        else:
            assert source is not None
            if revision is not None:
                raise UsageError("--revision names a commit on the hub; it does not go with --from")
            parts = _local(name, known, source.expanduser(), None if vae is None else vae.expanduser())
        with whole_folder(target, existing="refuse", locked=True) as partial:
            _write(name, known, parts, partial, say)
    return find_prior(name)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name) or name.startswith(RANDOM):
        raise UsageError(f"{name!r} cannot name a prior: expected letters, digits, '-', '_' and '.'")
    if name in bundled_priors():
        raise UsageError(f"{name} is a bundled prior and needs no installing; choose another name for your own")


def _write(name: str, known: KnownPrior | None, parts: Parts, folder: Path, say: Callable[[str], None]) -> None:
    """Write a prior's folder and check it as a run would: every weight in its place, and none left over."""
    from ddbench.methods.diffusion.prior import Prior

    files = [parts.transformer, *parts.autoencoders.values()]
    check_free(folder, sum(_bytes_of(path) for path in files), f"installing prior {name}")
    say("writing the network …")
    _write_transformer(parts, folder / TRANSFORMER)
    for role, path in parts.autoencoders.items():
        say(f"writing {role} …")
        _write_autoencoder(path, folder / role)
    config = _config(folder / TRANSFORMER)
    if known is not None:
        _check_network(known, config)
    n_classes = config.get("num_embeds_ada_norm")  # where it is absent, `find_prior` says so
    if n_classes is not None and (problem := class_list_problem(parts.metadata, n_classes)):
        raise UsageError(f"prior {name}, from {parts.transformer}: {problem}")
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(
        folder / METADATA,
        {
            **parts.metadata.model_dump(mode="json", exclude={CHECKSUMS, HEADS, "source", "licence"}),
            "licence": known.licence if known is not None else (parts.metadata.model_extra or {}).get("licence"),
            "source": parts.source,
            CHECKSUMS: {str(path.relative_to(folder)): file_sha256(path) for path in written},
        },
    )
    say("loading it once, to see that it is whole …")
    Prior.load(find_prior(folder))


def _bytes_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return next((file.stat().st_size for file in (path / WEIGHTS, path / PICKLED) if file.is_file()), 0)


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
                f'"{HEADS}": 16 (16 for DiT-XL and DiT-L, 12 for DiT-B, 6 for DiT-S)'
            )
        load_dit_checkpoint(source, num_heads=parts.num_heads).save_pretrained(target)
    elif (source / WEIGHTS).is_file() and _config(source).get("_class_name") == "DiTTransformer2DModel":
        _copy(source, target)
    else:
        weights = next((path for path in (source / WEIGHTS, source / PICKLED) if path.is_file()), source / WEIGHTS)
        load_diffusers_dit(_config(source), weights).save_pretrained(target)


def _write_autoencoder(source: Path, target: Path) -> None:
    if not (source / CONFIG).is_file() or not _bytes_of(source):
        raise UsageError(f"{source} is no autoencoder: expected {CONFIG} and {WEIGHTS} in it")
    if (source / WEIGHTS).is_file():
        _copy(source, target)
        return
    from diffusers import AutoencoderKL

    from ddbench.methods.diffusion.prior import load_strictly

    load_strictly(AutoencoderKL, source, use_safetensors=False).save_pretrained(target)


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for file in (CONFIG, WEIGHTS):
        shutil.copyfile(source / file, target / file)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / CONFIG} cannot be read: {error}") from None
    return dict(found)


# Local files ----------------------------------------------------------------------------------------------------------


def _local(name: str, known: KnownPrior | None, source: Path, vae: Path | None) -> Parts:
    """The parts in a folder, or a checkpoint with its parts beside it."""
    if not source.exists():
        raise UsageError(f"--from {source}: no such folder or file")
    transformer = _transformer_in(source)
    beside = source if source.is_dir() else source.parent
    own = read_metadata(beside / METADATA) if (beside / METADATA).is_file() else None
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
    extra = {} if own is None else own.model_extra or {}
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
    heads = extra.get(HEADS) if known is None else known.network["num_attention_heads"]
    said = {TRANSFORMER: str(transformer), **{role: str(path) for role, path in autoencoders.items()}}
    before = {f"{part}, before": str(place) for part, place in dict(extra.get("source") or {}).items()}
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


# The hub --------------------------------------------------------------------------------------------------------------


def _download(known: KnownPrior, vae: Path | None, revision: str | None, say: Callable[[str], None]) -> Parts:
    """The parts from the hub, or from its own cache on this machine; a broken download goes on where it stopped."""
    assert known.transformer is not None
    network = known.transformer
    if revision is not None:
        network = HubFolder(network.repo, revision, network.folder)
    if network.revision is None:
        say(
            f"WARNING: no revision of {network.repo} is pinned in this version of ddbench, so what its main branch is "
            "now is taken. The commit is noted in prior.json; give it with --revision to get the same files again."
        )
    wanted = {TRANSFORMER: network}
    if vae is None and known.vae is not None:
        wanted[VAE] = known.vae
    if known.vae_ema is not None:
        wanted[VAE_EMA] = known.vae_ema
    found, source = dict[str, Path](), dict[str, str]()
    with _quiet_hub():
        for role, hub in wanted.items():
            inside = f", {hub.folder}/" if hub.folder else ""
            say(f"{role}: {hub.repo}{inside} …")
            try:
                found[role], commit = _fetch(hub)
            except _no_access() as error:
                raise UsageError("\n".join(_offline(known, network, error))) from None
            source[role] = f"{hub.repo}@{commit}{inside}"
    if vae is not None:
        found[VAE] = vae.expanduser()
        source[VAE] = str(vae)
    heads = known.network["num_attention_heads"]
    transformer = found.pop(TRANSFORMER)
    return Parts(transformer, known.metadata, heads, found, source)


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without a line for every attempt to reach the hub; what failed in the end is told once."""
    from huggingface_hub import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _fetch(hub: HubFolder) -> tuple[Path, str]:
    """A folder of the hub on this machine, and the commit that it is of."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    prefix = f"{hub.folder}/" if hub.folder else ""
    config = Path(hf_hub_download(hub.repo, prefix + CONFIG, revision=hub.revision))
    commit = config.parents[len(PurePosixPath(hub.folder).parts)].name  # …/snapshots/<commit>/<folder>/config.json
    for weights in (WEIGHTS, PICKLED):
        try:
            _check_room(hub, prefix + weights, commit)
            hf_hub_download(hub.repo, prefix + weights, revision=commit)
            break
        except EntryNotFoundError as error:
            missing = error
    else:
        raise missing
    return config.parent, commit


def _check_room(hub: HubFolder, file: str, commit: str) -> None:
    """Raises RunError if the hub's cache has no room for a file that is still to be downloaded."""
    from huggingface_hub import constants, hf_hub_download

    plan = hf_hub_download(hub.repo, file, revision=commit, dry_run=True)
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if plan.will_download and plan.file_size is not None and free < plan.file_size:
        raise RunError(
            f"{hub.repo}/{file} needs {plan.file_size / 2**30:.2f} GiB in {cache}, where {free / 2**30:.2f} GiB are "
            "free; make room, or put that cache on another disk: export HF_HOME=/path/with/room"
        )


def _no_access() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    return HfHubHTTPError, OfflineModeIsEnabled, FileNotFoundError, ConnectionError, TimeoutError


def _offline(known: KnownPrior, network: HubFolder, error: Exception) -> Iterator[str]:
    """What is said where the hub could not be reached: what to copy where."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    yield f"prior {known.name} is not on this machine, and could not be downloaded ({said})."
    yield "On a machine that reaches the hub, put its files into one folder DIR:"
    yield _get(network, "DIR", f"--include '{network.folder}/*'")
    for hub, folder in ((known.vae, VAE), (known.vae_ema, VAE_EMA)):
        if hub is not None:
            yield _get(hub, f"DIR/{folder}", f"{CONFIG} {WEIGHTS}")
    yield "copy DIR to this machine, and install it:"
    yield f"  bench prepare prior {known.name} --from DIR"
    yield f"DIR then holds {TRANSFORMER}/, {VAE}/ and {VAE_EMA}/ (the last for methods that encode with it), each with"
    yield f"{CONFIG} and {WEIGHTS} (or {PICKLED}). The original checkpoint will do too:"
    yield f"  bench prepare prior {known.name} --from DiT.pt --vae DIR/{VAE}"
    yield "Files that lie in the hub's own cache on this machine (HF_HOME) are found without a network."


def _get(hub: HubFolder, folder: str, files: str) -> str:
    pinned = "" if hub.revision is None else f" --revision {hub.revision}"
    return f"  hf download {hub.repo} {files}{pinned} --local-dir {folder}"


def _hub_words(hub: HubFolder | None) -> str:
    return "" if hub is None else f"such as {hub.repo}"
