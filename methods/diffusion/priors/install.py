"""Installing a prior in the cache: from the hub, a local `diffusers` folder or an original `.pt`, whole or not at all.

What is written is a prior's folder (`prior_files.py`) whose `prior.json` also says where the files came from, under
which licence, and their checksums, which are compared whenever the prior is used.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import check_free, whole_folder, write_json
from ddbench.benchmark.core.sharing.locks import lock
from ddbench.methods.diffusion.priors.catalogue import KNOWN, KnownPrior
from ddbench.methods.diffusion.priors.configs import read_autoencoder_config, read_transformer_config, read_unet_config
from ddbench.methods.diffusion.priors.file_kinds import check_kind, read_object
from ddbench.methods.diffusion.priors.files import (
    CONFIG,
    METADATA,
    PROMPTS,
    RANDOM,
    TRANSFORMER,
    UNET,
    WEIGHTS,
    PriorFiles,
    bundled_priors,
    check_prompts,
    check_safetensors,
    class_list_problem,
    find_prior,
    installed_folder,
)
from ddbench.methods.diffusion.priors.hashes import file_sha256
from ddbench.methods.diffusion.priors.label_images import NONE, label_images
from ddbench.methods.diffusion.priors.sources import (
    NOTHING_SAID,
    PICKLED,
    Parts,
    Said,
    from_files,
    from_hub,
    like_known,
)
from ddbench.methods.diffusion.text.prompts import encode

QUICK_ON_A_CPU = 50_000_000
"""Weights of the largest network whose labels are checked without being asked to."""


def install(
    name: str,
    source: Path | None,
    vae: Path | None,
    revision: str | None,
    *,
    said: Said = NOTHING_SAID,
    say: Callable[[str], None],
) -> PriorFiles:
    """Install a prior under a name, or find that it is installed and whole.

    Args:
        source: folder or checkpoint with its files; None: from the hub.
        vae: folder of its autoencoder, where it does not lie in `source`.
        revision: of the hub's repository of the network, instead of the pinned one.
        said: what it is like, its class list, and how that is checked.
        say: shows a line.

    Raises:
        UsageError: a name that cannot be used, files that are missing or not this prior's, weights that no training
            left, labels that fit no better than chance, or no way to the hub.
        RunError: too little free disk.
    """
    known, target = KNOWN.get(name), installed_folder() / name
    _check_name(name)
    of_ones_own = (said.class_ids, said.like, said.prompt, said.negative)
    if known is not None and any(given is not None for given in of_ones_own):
        raise UsageError(
            f"{name}'s classes, texts and network are known; --class-ids, --prompt, --negative and --like are for "
            "weights under another name"
        )
    if source is None and known is None and not target.exists():
        raise UsageError(
            f"{name!r} is not a prior that can be downloaded; there are {', '.join(KNOWN)}. "
            f"A prior of your own is installed from its files: bench prepare prior {name} --from DIR"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    lease = target.parent / f".{name}.lease"
    with lock(lease):
        if target.exists():
            if source is not None or revision is not None:
                raise UsageError(f"{name} is already installed in {target}; remove that folder to install another")
            say(f"{name} is already installed in {target}; its files are compared with their checksums")
            found = find_prior(name)
            if said.check_on is not None:
                _check_labels(found, said, say)
            return found
        kind = known if said.like is None else like_known(said)
        if kind is not None:
            say(f"Licence of {kind.name}: {kind.licence}.")
        if known is not None and source is None:
            if known.transformer is None:
                raise UsageError(
                    f"{name} lies on no hub: take {known.released}, and install it with an autoencoder "
                    f"({known.vae.repo if known.vae else 'its own'}): bench prepare prior {name} --from FILE --vae DIR"
                )
            parts = from_hub(known, vae, revision, say)
        else:
            if source is None:
                raise UsageError(f"--like {said.like} says what the files of --from are; name them")
            if revision is not None:
                raise UsageError("--revision names a commit on the hub; it does not go with --from")
            parts = from_files(name, kind, source.expanduser(), None if vae is None else vae.expanduser(), said)
        with whole_folder(target, existing="refuse", lease=lease) as partial:
            try:
                _write(name, kind, parts, partial, say)
                _check_labels(find_prior(partial), said, say)
            except UsageError as error:  # of what was written: what it was made of is what can be mended
                said_of = str(error).replace(str(partial / TRANSFORMER), str(source or name))
                said_of = said_of.replace(str(partial / UNET), str(source or name))
                raise UsageError(said_of.replace(str(partial), str(source or name))) from None
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
    text = parts.metadata.conditioning
    network = folder / (TRANSFORMER if text is None else UNET)
    if text is None:
        _write_transformer(parts, network)
    else:
        _write_as_it_is(parts.transformer, network, read_unet_config)
    for role, path in parts.autoencoders.items():
        say(f"writing {role} …")
        _write_as_it_is(path, folder / role, read_autoencoder_config)
    if known is not None:
        _check_network(known, read_object(network / CONFIG))
    if text is None:
        n_classes = read_transformer_config(network / CONFIG).num_embeds_ada_norm
        if problem := class_list_problem(parts.metadata, n_classes):
            raise UsageError(f"prior {name}, from {parts.transformer}: {problem}")
    elif parts.pipeline is not None:
        say(f"encoding the texts of {len(text.prompts)} classes, the first of them {text.prompts[0]!r} …")
        encode(parts.pipeline, text, folder / PROMPTS, say)
    else:
        assert parts.prompts is not None
        check_prompts(parts.prompts, network, len(text.prompts))
        shutil.copyfile(parts.prompts, folder / PROMPTS)
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


def _check_labels(files: PriorFiles, said: Said, say: Callable[[str], None]) -> None:
    """Load the prior, and compare its class list with real images where some are at hand."""
    import torch

    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.priors.label_check import LEAST_CLASSES, check_labels

    say("loading it once, to see that it is whole …")
    prior = Prior.load(files, device="cuda" if torch.cuda.is_available() else "cpu")
    size = sum(weight.numel() for weight in prior.network.parameters())
    if said.check_on is None and said.data is None and prior.device.type == "cpu" and size > QUICK_ON_A_CPU:
        say("class list not checked: on a CPU that takes this network minutes; --check-on DATASET or FOLDER does it")
        return
    found = label_images(files.metadata, prior.image_shape[2], said.check_on, said.data)
    if found is None:
        nothing = "no images of its classes are at hand; --check-on DATASET or FOLDER names some"
        say(f"class list not checked: {'as asked' if said.check_on == NONE else nothing}")
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
        load_dit_checkpoint(source, num_heads=parts.num_heads, tuned=parts.tuned).save_pretrained(target)
        return
    config, files = read_object(source / CONFIG), _weights_in(source)
    if config.get("_class_name") == "DiTTransformer2DModel" and "pos_embed.proj.weight" in _plain_names(source, files):
        _copy(source, target)
    else:
        load_diffusers_dit(config, *files).save_pretrained(target)


def _write_as_it_is(source: Path, target: Path, read_config: Callable[[Path], object]) -> None:
    """A network whose tensors keep their names."""
    from safetensors.torch import save_file

    from ddbench.methods.diffusion.priors.weight_files import read_weights

    if not (source / CONFIG).exists():
        raise UsageError(f"{source} is no {target.name}: expected {CONFIG} and {WEIGHTS} in it")
    read_config(source / CONFIG)
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
