"""A known prior's files from the Hugging Face hub."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.methods.diffusion.priors.catalogue import HubFolder, KnownPrior
from ddbench.methods.diffusion.priors.files import CONFIG, TRANSFORMER, VAE, VAE_EMA, WEIGHTS

PICKLED = "diffusion_pytorch_model.bin"
"""Weight files that older repositories hold instead of safetensors."""


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
    known_places = {TRANSFORMER: network, VAE: known.vae, VAE_EMA: known.vae_ema}
    wanted = {role: hub for role, hub in known_places.items() if role in roles and hub is not None}
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
