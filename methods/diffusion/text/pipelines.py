"""A text-to-image pipeline as the hub lays it out, and the `prior.json` that its configs amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.configs import read_autoencoder_config, read_unet_config
from ddbench.methods.diffusion.priors.file_kinds import read_object
from ddbench.methods.diffusion.priors.files import CONFIG, UNET, VAE, metadata_of
from ddbench.methods.diffusion.priors.metadata import PriorMetadata, TextConditioning
from ddbench.methods.diffusion.text.prompts import INDEX, class_prompts, encoder_sha256

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
SCHEDULER = "scheduler/scheduler_config.json"
SCHEDULES = ("linear", "scaled_linear")
OTHERWISE = {"trained_betas": None, "rescale_betas_zero_snr": False}
"""Settings of a scheduler that would change what the network expects, and what they have to be."""


def is_text_pipeline(folder: Path) -> bool:
    """Whether it holds a Stable Diffusion pipeline."""
    file = folder / INDEX
    return file.is_file() and read_object(file).get("_class_name") in PIPELINES


def metadata_of_pipeline(
    folder: Path, vae: Path | None, classes: Sequence[str] | Mapping[str, str], template: str, negative: str
) -> PriorMetadata:
    """What its configs say of it, and what is told it of each class.

    Args:
        vae: folder of another autoencoder than its own.
        classes: their ids; or each id's text, in place of `template`.

    Raises:
        UsageError: a part that is missing, or a network that predicts something else than noise.
    """
    network, coder_file = read_unet_config(folder / UNET / CONFIG), (vae or folder / VAE) / CONFIG
    coder, scheduler = read_autoencoder_config(coder_file), read_object(folder / SCHEDULER)
    _check_scheduler(folder / SCHEDULER, scheduler)
    prompts = tuple(classes.values()) if isinstance(classes, Mapping) else class_prompts(classes, template)
    class_ids = list(classes)
    texts = TextConditioning(prompts=prompts, negative=negative, encoder_sha256=encoder_sha256(folder))
    content: dict[str, Any] = {
        "space": "latents of its own autoencoder" if vae is None else "latents of the autoencoder that was named",
        "resolution": network.sample_size * 2 ** (len(coder.block_out_channels) - 1),
        "prediction": "epsilon",
        "learned_variance": False,
        "schedule": {
            "kind": scheduler["beta_schedule"],
            "steps": scheduler["num_train_timesteps"],
            "beta_start": scheduler["beta_start"],
            "beta_end": scheduler["beta_end"],
        },
        "freq_shift": 0,
        "norm_eps": 1e-5,
        "guided_channels": "all",
        "clip_denoised": False,
        "latent_scale": read_object(coder_file).get("scaling_factor", 0.18215),
        "class_ids": class_ids,
        "null_label": len(class_ids),
        "trained_on": "unknown: a text-to-image pipeline",
        "conditioning": texts.model_dump(mode="json"),
    }
    return metadata_of(content, folder / INDEX)


def _check_scheduler(file: Path, scheduler: Mapping[str, Any]) -> None:
    absent = [key for key in ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps") if key not in scheduler]
    if absent:
        raise UsageError(f"{file} lacks {', '.join(absent)}, so the network's noise levels are not known")
    if scheduler["beta_schedule"] not in SCHEDULES:
        raise UsageError(f"{file}: beta_schedule is {scheduler['beta_schedule']!r}; expected {' or '.join(SCHEDULES)}")
    predicts = scheduler.get("prediction_type", "epsilon")
    if predicts != "epsilon":
        raise UsageError(f"{file}: the network predicts {predicts!r}; only networks that predict noise are read")
    for key, expected in OTHERWISE.items():
        if scheduler.get(key, expected) != expected:
            raise UsageError(f"{file}: {key} is {scheduler[key]!r:.60}, which no prior here can have")
