"""Text-to-image priors: the network against `diffusers`' own scheduler, the files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from text_pipelines import POOLED, SCHEDULE, SIDE, TOKENS, WIDTH, Scripted, text_prior

from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.check import subject_of
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.digits import Digits
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.diffusion.schedule import alpha_bar, respace
from ddbench.methods.diffusion.text.network import TextNetwork
from ddbench.methods.diffusion.text.prompts import class_prompts

CLASSES = ("cat", "dog", "owl")
STEPS = 6


@pytest.fixture(params=[False, True], ids=["sd", "sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return text_prior(tmp_path / "prior", CLASSES, xl=request.param)


def test_the_noise_levels_are_those_of_diffusers() -> None:
    ours = NoiseScheduleMetadata(kind="scaled_linear", beta_start=0.00085, beta_end=0.012)
    theirs = DDPMScheduler(**SCHEDULE)
    assert torch.allclose(alpha_bar(ours), theirs.alphas_cumprod.double(), rtol=1e-5)
    assert float(alpha_bar(ours)[-1]) == pytest.approx(0.00466, abs=1e-5), "Stable Diffusion's ends at sigma 14.6"
    theirs = DDPMScheduler(**SCHEDULE, timestep_spacing="linspace")
    theirs.set_timesteps(50)
    assert respace(ours, 50).timesteps.flip(0).tolist() == theirs.timesteps.tolist()


def test_sampling_equals_a_loop_of_diffusers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of its pipelines: UNet, guidance on all channels, DDPM's step; with the same draws."""
    prior, noise = Prior.load(find_prior(folder)), Scripted(2, STEPS)
    images = [ImageKey("dog", 0), ImageKey("owl", 0)]
    found = sample(prior, images, [], noise, steps=STEPS, cfg_scale=4.0).latents

    network: Any = prior.network
    texts = load_file(folder / "prompts.safetensors")
    rows = [CLASSES.index("dog"), len(CLASSES), CLASSES.index("owl"), len(CLASSES)]
    more = None
    if "pooled" in texts:
        side = 2.0 * SIDE
        sizes = torch.tensor([[side, side, 0, 0, side, side]]).repeat(4, 1)
        more = {"text_embeds": texts["pooled"][rows], "time_ids": sizes}
    scheduler = DDPMScheduler(
        **SCHEDULE, timestep_spacing="linspace", variance_type="fixed_small", clip_sample=False
    )  # fmt: skip
    scheduler.set_timesteps(STEPS)
    z = noise.first
    for n, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            out = network.unet(
                z.repeat_interleave(2, 0), t, encoder_hidden_states=texts["tokens"][rows], added_cond_kwargs=more
            ).sample
        guided = out[1::2] + 4.0 * (out[0::2] - out[1::2])
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, n=n, **__: noise.steps[n])
        z = scheduler.step(guided, t, z).prev_sample
    assert torch.allclose(found, z, atol=1e-4 * float(z.abs().max()))
    assert prior.decode(found).shape == (2, 2 * SIDE, 2 * SIDE, 3)


def test_other_texts_make_other_images(folder: Path) -> None:
    prior, noise = Prior.load(find_prior(folder)), Scripted(1, STEPS)
    one, other = (
        sample(prior, [ImageKey(name, 0)], [], noise, steps=STEPS, cfg_scale=4.0).latents for name in ("cat", "dog")
    )
    assert not torch.allclose(one, other, atol=1e-3)


def test_the_gradient_reaches_latents_and_texts(folder: Path) -> None:
    prior = Prior.load(find_prior(folder))
    x, label = torch.randn(2, *prior.latent_shape), prior.embed_labels(torch.tensor([0, 1])).clone()
    epsilon, v = prior.predict(x.requires_grad_(), 500, label.requires_grad_())
    assert v is None
    epsilon.sum().backward()
    assert x.grad is not None
    assert label.grad is not None
    assert label.shape[1] in (TOKENS * WIDTH, TOKENS * WIDTH + POOLED)
    tokens = label.grad[:, : TOKENS * WIDTH]
    assert x.grad.abs().sum() > 0
    assert tokens.abs().sum() > 0


def test_weights_held_in_bf16_give_what_autocast_gives(folder: Path) -> None:
    files = find_prior(folder)
    held, plain = (Prior.load(files, precision="bf16") for _ in range(2))
    plain._in_bf16 = True  # as if it held them: autocast casts at every pass
    draw = torch.Generator().manual_seed(0)
    x, label = torch.randn(2, *held.latent_shape, generator=draw), held.embed_labels(torch.tensor([0, 1]))
    with torch.no_grad():
        one, other = held.predict(x, 500, label)[0], plain.predict(x, 500, label)[0]
    assert torch.equal(one, other)
    exact = Prior.load(files)
    with torch.no_grad():
        error = (exact.predict(x, 500, label)[0] - one).abs().max()
    assert 0 < error < 0.1


# Files ----------------------------------------------------------------------------------------------------------------


def edit(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "prior.json").read_text())
    (folder / "prior.json").write_text(json.dumps(content | changes))


def test_its_hash_holds_texts_and_network(tmp_path: Path) -> None:
    folder = text_prior(tmp_path / "prior", CLASSES)
    first = find_prior(folder).sha256
    edit(folder, trained_on="other words")
    assert find_prior(folder).sha256 == first
    edit(folder, conditioning={"prompts": ["a cat", "a dog", "a night owl"]})
    assert find_prior(folder).sha256 != first
    edit(folder, conditioning={"prompts": [f"a {one}" for one in CLASSES]})
    texts = load_file(folder / "prompts.safetensors")
    save_file({"tokens": texts["tokens"] + 1}, folder / "prompts.safetensors")
    assert find_prior(folder).sha256 != first


def test_texts_of_one_encoder_have_one_hash_whichever_processor_made_them(tmp_path: Path) -> None:
    """Where the checksums hold that they are those that were made."""
    import hashlib

    folder = text_prior(tmp_path / "prior", CLASSES)
    found = []
    for noise in (0.0, 1e-7):
        texts = load_file(folder / "prompts.safetensors")
        save_file({"tokens": texts["tokens"] + noise}, folder / "prompts.safetensors")
        sha256 = hashlib.sha256((folder / "prompts.safetensors").read_bytes()).hexdigest()
        edit(
            folder,
            conditioning={"prompts": [f"a {one}" for one in CLASSES], "encoder_sha256": "ab" * 32},
            checksums={"prompts.safetensors": sha256},
        )
        found.append(find_prior(folder).sha256)
    assert found[0] == found[1]
    save_file({"tokens": torch.zeros(4, TOKENS, WIDTH)}, folder / "prompts.safetensors")
    with pytest.raises(UsageError, match="not as it was installed: prompts.safetensors"):
        find_prior(folder)


def rows(texts: dict[str, torch.Tensor]) -> None:
    texts["tokens"] = texts["tokens"][:-1]


def width(texts: dict[str, torch.Tensor]) -> None:
    texts["tokens"] = texts["tokens"][:, :, :-1]


def nothing(texts: dict[str, torch.Tensor]) -> None:
    texts["other"] = texts.pop("tokens")


@pytest.mark.parametrize("change", [rows, width, nothing])
def test_texts_of_other_shapes_are_refused(tmp_path: Path, change: Any) -> None:
    folder = text_prior(tmp_path / "prior", CLASSES)
    texts = load_file(folder / "prompts.safetensors")
    change(texts)
    save_file({name: values.contiguous() for name, values in texts.items()}, folder / "prompts.safetensors")
    with pytest.raises(UsageError, match=r"prompts.safetensors: expected tokens \(4, L, 16\)"):
        find_prior(folder)


def test_pooled_texts_are_asked_of_sdxl_and_of_no_other(tmp_path: Path) -> None:
    plain, xl = text_prior(tmp_path / "plain", CLASSES), text_prior(tmp_path / "xl", CLASSES, xl=True)
    one, other = (load_file(folder / "prompts.safetensors") for folder in (plain, xl))
    save_file(other, plain / "prompts.safetensors")
    save_file(one, xl / "prompts.safetensors")
    with pytest.raises(UsageError, match=r"pooled \(4, 24\)"):
        find_prior(plain)
    with pytest.raises(UsageError, match=r"expected tokens .* and pooled \(4, 24\)"):
        find_prior(xl)


def test_texts_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = text_prior(tmp_path / "prior", CLASSES)
    texts = load_file(folder / "prompts.safetensors")
    texts["tokens"][1, 0, 0] = np.nan
    save_file(texts, folder / "prompts.safetensors")
    with pytest.raises(UsageError, match="tokens is not finite"):
        Prior.load(find_prior(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conditioning": {"prompts": ["a cat"]}}, "expected a prompt for each class"),
        ({"null_label": 2}, "expected a prompt for each class"),
        ({"conditioning": {"prompts": ["a", "b", "c"], "spoken": True}}, "conditioning.spoken"),
        ({"learned_variance": True}, "needs out_channels = 8, but the network has 4"),
        ({"resolution": 32}, "resolution is 32, but the network's images have side 16"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = text_prior(tmp_path / "prior", CLASSES, **changes)
    with pytest.raises(UsageError, match=said):
        find_prior(folder)


def test_a_network_without_its_texts_is_refused(tmp_path: Path) -> None:
    folder = text_prior(tmp_path / "prior", CLASSES)
    (folder / "prompts.safetensors").unlink()
    with pytest.raises(UsageError, match=r"prompts.safetensors is missing"):
        find_prior(folder)


# Methods --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [{"methods": "minimax"}, {"methods": "dmgd-minimax"}, {"methods": "dit", "prior": "minimax({prior})"}],
    ids=["minimax", "on-a-tuned-prior", "tuned-by-name"],
)
def test_minimax_is_refused_before_a_run(tmp_path: Path, asked: dict[str, str]) -> None:
    folder = text_prior(tmp_path / "prior", Digits.class_ids)
    given = {"datasets": "digits", "ipc": "1", "seeds": "0", "device": "cpu", "prior": str(folder)}
    spec = run_spec({}, given | {key: text.format(prior=folder) for key, text in asked.items()})
    with pytest.raises(UsageError, match="this prior is a text-to-image network"):
        plan_run(spec)


# Words ----------------------------------------------------------------------------------------------------------------


def test_prompts_are_the_classes_names() -> None:
    ids = ("n01440764", "n02099601", "my_class")
    assert class_prompts(ids) == ("tench", "golden retriever", "my class")
    assert class_prompts(ids, "a photo of a {name}")[0] == "a photo of a tench"
    with pytest.raises(UsageError, match=r"expected a text with \{name\} in it"):
        class_prompts(ids, "a photo")


def test_a_time_that_is_no_whole_step_is_one_to_the_network(folder: Path) -> None:
    """`flow` asks between the training's steps."""
    prior = Prior.load(find_prior(folder))
    assert isinstance(prior.network, TextNetwork)
    label = prior.embed_labels(torch.tensor([0]))
    given = prior.network.conditioning(prior.network.embed_time(torch.tensor([12.5])), label)
    assert given[0, 0] == 12.5
    assert torch.equal(given[:, 1:], label)


# Every method that samples a prior -----------------------------------------------------------------------------------

SAMPLERS = [
    entry.name for entry in METHODS if entry.variant_of is None and METHODS.load(entry.name).needs_prior
    and METHODS.load(entry.name).tuning is None
]  # fmt: skip


def test_there_are_methods_to_try() -> None:
    assert {"dmgd", "mgd3", "d4m", "d3hr", "igd", "cao2", "manifoldgd", "flow"} <= set(SAMPLERS)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.mark.parametrize("name", SAMPLERS)
def test_it_samples_a_text_prior(name: str, planted: Planted, tmp_path: Path) -> None:
    folder = text_prior(tmp_path / "prior", Digits.class_ids, channels=1, side=Digits.resolution // 2)
    with subject_of(name, {}, planted) as subject:
        subject.runs.prior = str(folder)
        images = subject.runs.run(classes=(3,), ipc=2)
    assert set(images) == {(3, 0), (3, 1)}
    assert not np.array_equal(images[3, 0].pixels, images[3, 1].pixels)
