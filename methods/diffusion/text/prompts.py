"""What a text-to-image prior is told of each class, and its encoding, once, when the prior is installed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.classes import CLASS_NAMES
from ddbench.methods.diffusion.priors.file_kinds import read_object
from ddbench.methods.diffusion.priors.hashes import file_sha256
from ddbench.methods.diffusion.priors.metadata import TextConditioning

TEMPLATE = "{name}"
"""The class's name and no more, as D4M and CoDA have it."""
ENCODERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
"""Folders of a pipeline that its encoded texts depend on."""
NOT_OF_TEXTS = ("unet", "vae", "safety_checker", "feature_extractor", "image_encoder")
"""What a pipeline has that encodes no text."""
INDEX = "model_index.json"
AT_ONCE = 32
"""Texts that are encoded together."""
PACKAGE = (
    "a text-to-image prior's texts are encoded when it is installed, which takes the package transformers: pip install "
    "'ddbench[text]'. Runs need it no more"
)


def class_prompts(class_ids: Iterable[str | None], template: str = TEMPLATE) -> tuple[str, ...]:
    """The text of each class: `template` with ImageNet's name of it in place of {name}; of a class that ImageNet does
    not have, its id.

    Raises:
        UsageError: a template without {name}, which would make all classes one.
    """
    if "{name}" not in template:
        raise UsageError(
            f"--prompt {template!r}: expected a text with {{name}} in it, in whose place a class's name goes"
        )
    names = [CLASS_NAMES.get(class_id or "", (class_id or "").replace("_", " ")) for class_id in class_ids]
    return tuple(template.replace("{name}", name) for name in names)


def encoder_sha256(pipeline: Path) -> str:
    """SHA-256 over the files, by name and content, that a pipeline's encoded texts depend on.

    Raises:
        UsageError: one of its parts is not there.
    """
    content, parts = hashlib.sha256(), read_object(pipeline / INDEX)
    for folder in (part for part in ENCODERS if part in parts):
        files = sorted(path for path in (pipeline / folder).glob("*") if path.is_file())
        if not files:
            raise UsageError(f"{folder}/ is missing from {pipeline}, whose {INDEX} names it; copy it there")
        for file in files:
            content.update(f"{folder}/{file.name} {file_sha256(file)}\n".encode())
    return content.hexdigest()


def encode(pipeline: Path, texts: TextConditioning, file: Path, say: Callable[[str], None]) -> None:
    """Write the encoded texts of all classes and of none, by the pipeline's own `encode_prompt`.

    Raises:
        UsageError: no `transformers`, parts of the pipeline that are missing or pickled, or a text that is longer than
            the encoder reads.
    """
    import torch
    from safetensors.torch import save_file

    _check_package()
    parts: list[tuple[Any, ...]] = []
    with torch.no_grad(), _quiet():
        pipe = _text_parts(pipeline)
        _check_lengths([*texts.prompts, texts.negative], pipe)
        for done in range(0, len(texts.prompts), AT_ONCE):
            if done and done % (10 * AT_ONCE) == 0:
                say(f"… {done} of {len(texts.prompts)} texts")
            some = list(texts.prompts[done : done + AT_ONCE])
            told = pipe.encode_prompt(
                prompt=some, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            parts.append(told[::2])  # (tokens, pooled), and between them those of "no class", which were not asked for
        told = pipe.encode_prompt(
            prompt=texts.prompts[0],
            negative_prompt=texts.negative or None,  # SDXL has zeros where there is none, and an encoded "" is not that
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
        )
        parts.append(told[1::2])
    names = ("tokens", "pooled")[: len(parts[0])]
    columns = zip(*parts, strict=True)
    save_file({name: torch.cat(made).float().contiguous() for name, made in zip(names, columns, strict=True)}, file)


def _check_package() -> None:
    if find_spec("transformers") is None:
        raise UsageError(PACKAGE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and hints of the libraries; what is wrong is told by what they raise."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    for library, _ in before:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity in before:
            library.set_verbosity(verbosity)
            library.enable_progress_bar()


def _text_parts(pipeline: Path) -> Any:
    """The pipeline without its networks."""
    from diffusers import DiffusionPipeline

    absent = {part: None for part in read_object(pipeline / INDEX) if part in NOT_OF_TEXTS}
    try:
        return DiffusionPipeline.from_pretrained(
            pipeline, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, **absent
        )
    except MemoryError:
        raise
    except Exception as error:  # of foreign files transformers raises whatever it stumbles over
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UsageError(
            f"the text encoder in {pipeline} does not load: {said}. Expected {', '.join(ENCODERS[:2])} as the hub has "
            "them, the weights as model.safetensors"
        ) from None


def _check_lengths(texts: Sequence[str], pipe: Any) -> None:
    tokenizers = (getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2"))
    for tokenizer in (found for found in tokenizers if found is not None):
        for text in texts:
            length = len(tokenizer(text).input_ids)
            if length > tokenizer.model_max_length:
                raise UsageError(
                    f"the text {text!r} has {length} tokens, and the encoder reads {tokenizer.model_max_length}; "
                    "shorten --prompt or --negative"
                )
