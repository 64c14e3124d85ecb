"""Installing pipelines as the hub has them, and their own images from the same noise (`make test-text`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from diffusers import DDPMScheduler
from safetensors.torch import load_file
from text_pipelines import SIDE, Scripted, text_pipeline

from ddbench.benchmark.commands.prepare import prepare_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors import install as prior_install
from ddbench.methods.diffusion.priors import sources
from ddbench.methods.diffusion.priors.catalogue import KNOWN, SD_1_5, HubFolder, KnownPrior
from ddbench.methods.diffusion.priors.files import find_prior, installed_folder
from ddbench.methods.diffusion.sampler import sample

pytest.importorskip("transformers", reason="the extra `text` is not installed: make test-text")
STEPS = 5
IDS = ("n01440764", "n02099601", "n02102040")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(params=[False, True], ids=["sd", "sdxl"])
def xl(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def prepare(*words: str | Path) -> None:
    typer.main.get_command(prepare_app)([str(word) for word in words], standalone_mode=False)


def ids_file(folder: Path) -> Path:
    (folder / "ids.txt").write_text("\n".join(IDS))
    return folder / "ids.txt"


def config(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("negative", ["", "cartoon"])
def test_same_noise_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xl: bool, negative: str) -> None:
    pipe = text_pipeline(tmp_path / "pipeline", xl=xl)
    prepare("prior", "tiny", "--from", tmp_path / "pipeline", "--class-ids", ids_file(tmp_path), "--check-on", "none",
            "--prompt", "a photo of a {name}", "--negative", negative)  # fmt: skip
    prior = Prior.load(find_prior("tiny"))
    noise = Scripted(1, STEPS)
    image = [ImageKey(IDS[1], 0)]
    ours = sample(prior, image, [], noise, steps=STEPS, cfg_scale=6.0).latents

    pipe.scheduler = DDPMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="linspace", variance_type="fixed_small", clip_sample=False
    )
    rows = iter(noise.steps)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(rows))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        "a photo of a golden retriever", negative_prompt=negative or None, num_inference_steps=STEPS,
        guidance_scale=6.0, latents=noise.first, height=2 * SIDE, width=2 * SIDE, output_type="latent",
    ).images  # fmt: skip
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
    with torch.no_grad():
        decoded = pipe.vae.decode(theirs / pipe.vae.config.scaling_factor).sample
    levels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(prior.decode(ours).astype(float) - levels).max() <= 1


def test_what_is_installed_says_what_it_is(tmp_path: Path, xl: bool) -> None:
    text_pipeline(tmp_path / "pipeline", xl=xl)
    prepare("prior", "tiny", "--from", tmp_path / "pipeline", "--check-on", "none")
    found = find_prior("tiny").metadata
    assert found.class_ids == IMAGENET_1K
    assert found.conditioning is not None
    assert found.conditioning.prompts == tuple(CLASS_NAMES.values())
    assert found.schedule.kind == "scaled_linear"
    assert found.resolution == 2 * SIDE
    assert found.saw_test_images("0" * 64) is None, "what of the web it saw is not known"
    texts = load_file(installed_folder() / "tiny" / "prompts.safetensors")
    assert texts["tokens"].shape[:2] == (1001, 77)
    assert ("pooled" in texts) is xl
    if xl:
        assert not texts["tokens"][-1].any(), "SDXL's empty text is zeros"


def test_an_installed_prior_is_installed_again_without_its_encoder(tmp_path: Path) -> None:
    text_pipeline(tmp_path / "pipeline")
    prepare("prior", "one", "--from", tmp_path / "pipeline", "--class-ids", ids_file(tmp_path), "--check-on", "none")
    shutil.copytree(installed_folder() / "one", tmp_path / "carried")
    prepare("prior", "two", "--from", tmp_path / "carried", "--check-on", "none")
    assert find_prior("one").sha256 == find_prior("two").sha256


def test_texts_from_a_file(tmp_path: Path) -> None:
    text_pipeline(tmp_path / "pipeline")
    texts = {"n01440764": "a tench, a fish", "n02102040": "an english springer"}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    prepare("prior", "tiny", "--from", tmp_path / "pipeline", "--class-ids", tmp_path / "texts.json", "--check-on",
            "none")  # fmt: skip
    found = find_prior("tiny").metadata
    assert found.conditioning is not None
    assert dict(zip(found.class_ids, found.conditioning.prompts, strict=True)) == texts
    with pytest.raises(UsageError, match="has each class's text; leave out --prompt"):
        prepare("prior", "other", "--from", tmp_path / "pipeline", "--class-ids", tmp_path / "texts.json", "--prompt",
                "{name}")  # fmt: skip


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "predicts 'v_prediction'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}, "expected linear or scaled_linear"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "which no prior here can have"),
        ("scheduler/scheduler_config.json", {"beta_start": None}, "schedule.beta_start"),
        ("unet/config.json", {"cross_attention_dim": 24}, "prior"),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "expected the config of a UNet2DConditionModel"),
        ("text_encoder/config.json", {"hidden_size": 32}, "the text encoder in .* does not load"),
    ],
)
def test_other_pipelines_are_refused(tmp_path: Path, file: str, changes: dict[str, Any], said: str) -> None:
    text_pipeline(tmp_path / "pipeline")
    config(tmp_path / "pipeline" / file, **changes)
    with pytest.raises(UsageError, match=said):
        prepare("prior", "tiny", "--from", tmp_path / "pipeline", "--class-ids", ids_file(tmp_path), "--check-on",
                "none")  # fmt: skip
    assert not (installed_folder() / "tiny").exists()


@pytest.mark.parametrize("part", ["text_encoder/model.safetensors", "tokenizer", "scheduler", "unet", "vae"])
def test_a_missing_part_is_named(tmp_path: Path, part: str) -> None:
    text_pipeline(tmp_path / "pipeline")
    path = tmp_path / "pipeline" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UsageError, match=part.partition("/")[0]):
        prepare("prior", "tiny", "--from", tmp_path / "pipeline", "--class-ids", ids_file(tmp_path), "--check-on",
                "none")  # fmt: skip


def test_a_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    text_pipeline(tmp_path / "pipeline")
    with pytest.raises(UsageError, match="tokens, and the encoder reads 77"):
        prepare(
            "prior", "tiny", "--from", tmp_path / "pipeline", "--prompt", "{name}" + 80 * " a", "--check-on", "none"
        )


def test_an_empty_text_is_no_default(tmp_path: Path) -> None:
    text_pipeline(tmp_path / "pipeline")
    with pytest.raises(UsageError, match=r"expected a text with \{name\} in it"):
        prepare("prior", "tiny", "--from", tmp_path / "pipeline", "--prompt", "", "--check-on", "none")
    with pytest.raises(UsageError, match="weights under another name"):
        prepare("prior", "sd-1.5", "--from", tmp_path / "pipeline", "--prompt", "")


def test_texts_are_of_pipelines_alone(tmp_path: Path, make_prior: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="--prompt and --negative are for text-to-image pipelines"):
        prepare("prior", "tiny", "--from", make_prior(), "--prompt", "{name}")
    with pytest.raises(UsageError, match="weights under another name"):
        prepare("prior", "sd-1.5", "--from", tmp_path, "--prompt", "a {name}")


@pytest.fixture
def known_tiny(monkeypatch: pytest.MonkeyPatch) -> KnownPrior:
    """`sd-1.5`, as small as its network here."""
    import dataclasses

    metadata = SD_1_5.metadata.model_copy(update={"resolution": 2 * SIDE})
    network = {"in_channels": 4, "out_channels": 4, "sample_size": SIDE, "cross_attention_dim": 16,
               "block_out_channels": [8, 16]}  # fmt: skip
    hub = HubFolder("someone/sd", "c" * 40, "unet")
    known = dataclasses.replace(
        SD_1_5, metadata=metadata, network=network, transformer=hub, vae=HubFolder("someone/sd", "c" * 40, "vae")
    )
    assert prior_install.KNOWN is sources.KNOWN is KNOWN
    monkeypatch.setitem(KNOWN, "sd-1.5", known)
    return known


def test_a_known_one_from_the_hubs_cache(tmp_path: Path, known_tiny: KnownPrior) -> None:
    snapshot = tmp_path / "hub" / "models--someone--sd" / "snapshots" / ("c" * 40)
    text_pipeline(snapshot)
    prepare("prior", "sd-1.5", "--check-on", "none")
    found = find_prior("sd-1.5")
    assert found.metadata.trained_on == SD_1_5.metadata.trained_on
    assert found.metadata.licence == SD_1_5.licence
    assert isinstance(found.metadata.source, dict)
    assert found.metadata.source["unet"] == f"someone/sd@{'c' * 40}, unet/"
    assert Prior.load(found).latent_shape == (4, SIDE, SIDE)


def test_another_network_is_not_the_known_one(tmp_path: Path, known_tiny: KnownPrior) -> None:
    text_pipeline(tmp_path / "pipeline")
    config(tmp_path / "pipeline" / "scheduler" / "scheduler_config.json", beta_end=0.02)
    with pytest.raises(UsageError, match=r"is not sd-1.5: its schedule differ"):
        prepare("prior", "sd-1.5", "--from", tmp_path / "pipeline")


def test_without_the_hub_it_says_what_to_copy(known_tiny: KnownPrior) -> None:
    with pytest.raises(UsageError) as told:
        prepare("prior", "sd-1.5")
    text = str(told.value)
    assert "hf download someone/sd" in text
    for part in ("model_index.json", "'unet/*'", "'text_encoder/*'", "'tokenizer/*'", "'scheduler/*'"):
        assert part in text
    assert "bench prepare prior sd-1.5 --from DIR" in text
