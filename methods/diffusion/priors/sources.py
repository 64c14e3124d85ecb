"""Where the parts of a prior come from: the Hugging Face hub, or files on this machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.near_names import did_you_mean
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.methods.diffusion.priors.catalogue import KNOWN, HubFolder, KnownPrior
from ddbench.methods.diffusion.priors.class_labels import read_class_ids
from ddbench.methods.diffusion.priors.files import (
    CONFIG,
    METADATA,
    PROMPTS,
    TRANSFORMER,
    UNET,
    VAE,
    VAE_EMA,
    WEIGHTS,
    check_checksums,
    metadata_of,
    read_metadata,
)
from ddbench.methods.diffusion.priors.metadata import PriorMetadata
from ddbench.methods.diffusion.text.pipelines import SCHEDULER, is_text_pipeline, metadata_of_pipeline
from ddbench.methods.diffusion.text.prompts import ENCODERS, INDEX, TEMPLATE

PICKLED = "diffusion_pytorch_model.bin"
"""Weight files that older repositories hold instead of safetensors."""
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
    tuned: bool = True
    """Whether a checkpoint may have DiffFit's scales."""
    pipeline: Path | None = None
    """A text-to-image pipeline, by whose encoder the texts of `metadata` are still to be encoded."""
    prompts: Path | None = None
    """Texts that are encoded."""


@dataclass(frozen=True)
class Said:
    """What is said of a prior of one's own, beside what its files say."""

    like: str | None = None
    """A known prior: of its shape, and with its metadata."""
    class_ids: Path | None = None
    """File of the class list, instead of that in `prior.json`."""
    check_on: str | None = None
    """Real images that it is compared with (`label_images`)."""
    data: Path | None = None
    """Where the files of that dataset lie."""
    prompt: str | None = None
    """Of a text-to-image prior: what it is told of a class, with {name} in it."""
    negative: str | None = None
    """What it is told in place of "no class"."""


NOTHING_SAID = Said()


def like_known(said: Said) -> KnownPrior:
    """A prior of one's own of a known one's kind, of whose training nothing is known."""
    known = KNOWN.get(said.like or "")
    if known is None:
        raise UsageError(f"--like {said.like}: no such prior is known; {did_you_mean(said.like or '', KNOWN)}")
    content = known.metadata.model_dump(mode="json") | {"trained_on": f"unknown; weights of the kind of {known.name}"}
    class_ids = None if said.class_ids is None else read_class_ids(said.class_ids.expanduser())
    return replace(known, metadata=metadata_of(content, Path(METADATA), class_ids))


# Local files ----------------------------------------------------------------------------------------------------------


def from_files(name: str, known: KnownPrior | None, source: Path, vae: Path | None, said: Said) -> Parts:
    """The parts in a folder, or a checkpoint with its parts beside it.

    Args:
        known: the prior that they are, or are like; None: a `prior.json` says what they are.

    Raises:
        UsageError: a part that is missing, or none of what was said fits it.
    """
    if not source.exists():
        raise UsageError(f"--from {source}: no such folder or file")
    if is_text_pipeline(source) and not (source / METADATA).exists():
        return of_pipeline(source, vae, known, said)
    if known is not None and known.of_text and not (source / METADATA).exists():
        raise UsageError(
            f"--from {source}: expected a pipeline as the hub has {known.name}: "
            f"a folder with {INDEX}, {UNET}/, {VAE}/ and its text encoder"
        )
    if said.prompt is not None or said.negative is not None:
        raise UsageError(f"--prompt and --negative are for text-to-image pipelines, and {source} has no {INDEX} of one")
    transformer = _transformer_in(source)
    beside = source if source.is_dir() else source.parent
    class_ids = None if said.class_ids is None else read_class_ids(said.class_ids.expanduser())
    own = read_metadata(beside / METADATA, class_ids) if (beside / METADATA).exists() else None
    if own is not None and source.is_dir():
        check_checksums(source, own)
    if known is None and own is None:
        raise UsageError(
            f"{beside} has no {METADATA}, which says what weights do not: resolution, classes in label order, noise "
            "schedule, … docs/priors.md lists its fields and shows one. Weights of a known prior's kind need none: "
            f"--like {next(iter(KNOWN))}"
        )
    if known is not None and own is not None and own.class_ids != known.metadata.class_ids:
        raise UsageError(
            f"{beside / METADATA} lists other classes than {known.name}'s, or in another order. Install these weights "
            f"under a name of their own; or remove that file, if they are {known.name}'s"
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
    heads = metadata.num_heads if known is None else known.network.get("num_attention_heads")
    now = {TRANSFORMER: str(transformer), **{role: str(path) for role, path in autoencoders.items()}}
    before = own.source if own is not None else {}
    before = before if isinstance(before, dict) else {TRANSFORMER: before}
    places = {**now, **{f"{part}, before": place for part, place in before.items()}}
    prompts = None if metadata.conditioning is None else beside / PROMPTS
    return Parts(transformer, metadata, heads, autoencoders, places, tuned=name not in KNOWN, prompts=prompts)


def of_pipeline(source: Path, vae: Path | None, known: KnownPrior | None, said: Said) -> Parts:
    """The parts of a text-to-image pipeline.

    Args:
        known: the prior that it is, or is like.

    Raises:
        UsageError: a part that is missing; or it is not that prior.
    """
    classes: Sequence[str] | Mapping[str, str] = IMAGENET_1K
    if said.class_ids is not None:
        classes = _texts_of(read_class_ids(said.class_ids.expanduser()), said)
    template = TEMPLATE if said.prompt is None else said.prompt
    found = metadata_of_pipeline(source, vae, classes, template, said.negative or "")
    if known is not None:
        different = [key for key in ("schedule", "resolution", "latent_scale", "prediction")
                     if getattr(found, key) != getattr(known.metadata, key)]  # fmt: skip
        if different:
            raise UsageError(f"{source} is not {known.name}: its {' and '.join(different)} differ")
        found = found.model_copy(update={"trained_on": known.metadata.trained_on})
    autoencoders = {VAE: vae or source / VAE}
    places = {UNET: str(source / UNET), VAE: str(autoencoders[VAE]), "texts": str(source)}
    return Parts(source / UNET, found, None, autoencoders, places, pipeline=source)


def _texts_of(given: Sequence[str] | Mapping[str, Any], said: Said) -> Sequence[str] | Mapping[str, str]:
    """Class ids, or class id -> text, as a file of them says."""
    if isinstance(given, Mapping):
        if wrong := [class_id for class_id, text in given.items() if not isinstance(text, str) or not text.strip()]:
            raise UsageError(
                f"--class-ids {said.class_ids}: expected a text for {wrong[0]}, got {given[wrong[0]]!r:.60}"
            )
        if said.prompt is not None:
            raise UsageError(f"--class-ids {said.class_ids} has each class's text; leave out --prompt")
    return given


def _transformer_in(source: Path) -> Path:
    if source.is_file():
        if source.suffix not in CHECKPOINTS:
            raise UsageError(f"--from {source}: expected a folder, or a checkpoint ({', '.join(CHECKPOINTS)})")
        return source
    for folder in (source / TRANSFORMER, source / UNET, source):
        if (folder / CONFIG).is_file():
            return folder
    checkpoints = [path for path in sorted(source.iterdir()) if path.suffix in CHECKPOINTS]
    if len(checkpoints) == 1:
        return checkpoints[0]
    raise UsageError(
        f"--from {source}: found no network in it; expected {TRANSFORMER}/{CONFIG} and {TRANSFORMER}/{WEIGHTS}, the "
        f"same two files in the folder itself, or one checkpoint ({len(checkpoints)} files are there that may be one)"
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


# The hub --------------------------------------------------------------------------------------------------------------


def from_hub(known: KnownPrior, vae: Path | None, revision: str | None, say: Callable[[str], None]) -> Parts:
    """A known prior's parts from the hub; its autoencoder from `vae`, where that is named. Raises as `download`."""
    roles = {TRANSFORMER, VAE, VAE_EMA} - ({VAE} if vae is not None else set())
    found, source = download(known, roles, revision, say)
    if known.of_text:
        parts = of_pipeline(found[TRANSFORMER].parent, vae, known, NOTHING_SAID)
        return replace(parts, source={UNET: source.pop(TRANSFORMER), **source, "texts": "the same"})
    if vae is not None:
        found[VAE], source[VAE] = vae.expanduser(), str(vae)
    transformer = found.pop(TRANSFORMER)
    return Parts(transformer, known.metadata, known.network.get("num_attention_heads"), found, source)


def download(
    known: KnownPrior, roles: Collection[str], revision: str | None, say: Callable[[str], None]
) -> tuple[dict[str, Path], dict[str, str]]:
    """A known prior's parts from the hub, or from its own cache on this machine; a broken download goes on where it
    stopped.

    Args:
        roles: which of its parts.
        revision: commit of the network's repository, instead of the pinned one.
        say: shows a line.

    Returns:
        Part -> its folder; part -> repository and commit, in words.

    Raises:
        UsageError: no way to the hub; it says what to copy where.
        RunError: too little free disk.
    """
    assert known.transformer is not None
    network = known.transformer
    if revision is not None:
        network = HubFolder(network.repo, revision, network.folder)
    if network.revision is None:
        say(
            f"WARNING: no revision of {network.repo} is pinned in this version of ddbench, so what its main branch is "
            "now is taken. The commit is noted in prior.json; give it with --revision to get the same files again."
        )
    if known.vae is not None and known.of_text:
        known = replace(known, vae=HubFolder(network.repo, network.revision, known.vae.folder))
    known_places = {TRANSFORMER: network, VAE: known.vae, VAE_EMA: known.vae_ema}
    wanted = {role: hub for role, hub in known_places.items() if role in roles and hub is not None}
    found, source = dict[str, Path](), dict[str, str]()
    with _quiet_hub():
        for role, hub in wanted.items():
            inside = f", {hub.folder}/" if hub.folder else ""
            say(f"{role}: {hub.repo}{inside} …")
            try:
                found[role], commit = _fetch(hub)
                if known.of_text and role == TRANSFORMER:
                    _fetch_texts(hub.repo, commit)
            except _no_access() as error:
                raise UsageError("\n".join(_offline(known, network, error))) from None
            source[role] = f"{hub.repo}@{commit}{inside}"
    return found, source


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


def _fetch_texts(repo: str, commit: str) -> None:
    """What a pipeline's texts are encoded by, and how its noise runs."""
    from huggingface_hub import snapshot_download

    patterns = [f"{folder}/*{end}" for folder in ENCODERS for end in (".json", ".txt", "/model.safetensors")]
    snapshot_download(repo, revision=commit, allow_patterns=[INDEX, SCHEDULER, *patterns])


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
    if known.of_text:
        folders = " ".join(f"--include '{folder}/*'" for folder in (UNET, VAE, *ENCODERS, Path(SCHEDULER).parent))
        yield _get(network, "DIR", f"--include {INDEX} {folders}")
        yield "copy DIR to this machine, and install it:"
        yield f"  bench prepare prior {known.name} --from DIR"
        return
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
