"""SiT: a tiny network in the released naming, its velocities and the ends of ODE and SDE, against the released program.

`case.json` and `expected.safetensors` were made by willisma/SiT @947f95b.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ddbench.methods.diffusion.flow_sampler import Guided, flow_ode, flow_sde
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.dit_checkpoint import load_dit_checkpoint
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata, PriorMetadata
from ddbench.methods.diffusion.sampler import guided_prediction

CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def case(golden: Path) -> tuple[dict[str, Any], dict[str, Tensor], Prior]:
    folder = golden / "sit"
    if not folder.is_dir():
        pytest.skip(f"no golden case of SiT at {folder}")
    said = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    network = load_dit_checkpoint(folder / "sit.pt", num_heads=said["num_heads"])
    metadata = PriorMetadata(
        space="latents",
        resolution=8 * said["input_size"],
        prediction="velocity",
        learned_variance=False,
        dropped_channels=said["in_channels"],
        schedule=NoiseScheduleMetadata(),
        freq_shift=0,
        norm_eps=1e-6,
        guided_channels=3,
        clip_denoised=False,
        latent_scale=0.18215,
        class_ids=tuple("abcdefghij"),
        null_label=said["null_label"],
    )
    return said, load_file(folder / "expected.safetensors"), Prior(DenoisingNetwork(network, 0), metadata)


def guided(case: tuple[dict[str, Any], dict[str, Tensor], Prior]) -> Guided:
    said, expected, prior = case
    null = torch.full_like(expected["labels"], said["null_label"])
    pair = prior.embed_labels(torch.stack([expected["labels"], null], dim=1))
    return Guided(prior, pair, said["cfg_scale"])


def test_velocities(case: tuple[dict[str, Any], dict[str, Tensor], Prior]) -> None:
    _, expected, prior = case
    with torch.no_grad():
        for row, t in enumerate(expected["t"].tolist()):
            label = prior.embed_labels(expected["y"][row : row + 1])
            found = prior.velocity(expected["x"][row : row + 1], t, label)
            torch.testing.assert_close(found, expected["v"][row : row + 1], **CLOSE)


def test_guided_velocities(case: tuple[dict[str, Any], dict[str, Tensor], Prior]) -> None:
    said, expected, _ = case
    with torch.no_grad():
        torch.testing.assert_close(guided(case)(said["v_cfg_t"], expected["z"]), expected["v_cfg"], **CLOSE)


def test_the_ends_of_the_ode(case: tuple[dict[str, Any], dict[str, Tensor], Prior]) -> None:
    said, expected, _ = case
    times = torch.linspace(said["ode"]["t0"], said["ode"]["t1"], said["ode"]["points"])
    path = [expected["z"]]
    end = flow_ode(guided(case), expected["z"], times, "euler", lambda n, x: path.append(x))
    torch.testing.assert_close(torch.stack(path), expected["ode_euler"], **CLOSE)
    torch.testing.assert_close(end, expected["ode_euler"][-1], **CLOSE)


def test_the_adaptive_ode(case: tuple[dict[str, Any], dict[str, Tensor], Prior]) -> None:
    """The solver's first step is of its version's choice, and four steps are all that it takes: versions of one library
    differ by 6e-4 here. So: as near to the released end as they are, and no farther from the exact one."""
    _, expected, _ = case
    ends = torch.tensor([0.0, 1.0])
    adaptive = flow_ode(guided(case), expected["z"], ends, "dopri5")
    torch.testing.assert_close(adaptive, expected["ode_dopri5"], rtol=0, atol=2e-3)
    x, step = expected["z"], 1 / 100
    with torch.no_grad():
        for n in range(100):  # Runge and Kutta's fourth order, in small steps
            v, t = guided(case), n * step
            a = v(t, x)
            b = v(t + step / 2, x + step / 2 * a)
            c = v(t + step / 2, x + step / 2 * b)
            d = v(t + step, x + step * c)
            x = x + step / 6 * (a + 2 * b + 2 * c + d)
    released = (expected["ode_dopri5"] - x).abs().max()
    assert (adaptive - x).abs().max() < 1.25 * released < 0.02


def test_a_path_of_the_sde(case: tuple[dict[str, Any], dict[str, Tensor], Prior]) -> None:
    said, expected, _ = case
    times = torch.linspace(said["sde"]["t0"], said["sde"]["t1"], said["sde"]["points"])
    path: list[Tensor] = []
    noise = expected["sde_noise"]
    flow_sde(guided(case), expected["z"], times, lambda n: noise[n], lambda n, x: path.append(x))
    torch.testing.assert_close(torch.stack(path), expected["sde"], **CLOSE)


def test_ddpms_chain_asks_it_for_noise(case: tuple[dict[str, Any], dict[str, Tensor], Prior]) -> None:
    """ε̂ = x − t·v at equal signal-to-noise, and guidance of ε is guidance of v."""
    said, expected, prior = case
    chain = prior.schedule(50)
    for k in (0, 20, 49):
        alpha_bar = float(chain.alpha_bar[k])
        t = alpha_bar**0.5 / (alpha_bar**0.5 + (1 - alpha_bar) ** 0.5)
        scale = (t**2 + (1 - t) ** 2) ** 0.5
        on_path = expected["z"] * scale
        with torch.no_grad():
            expected_noise = on_path - t * guided(case)(t, on_path)
            found, v = guided_prediction(
                prior, expected["z"], int(chain.timesteps[k]), guided(case).pair, said["cfg_scale"], 3
            )
        assert v is None
        torch.testing.assert_close(found, expected_noise, rtol=1e-4, atol=1e-5)


def test_the_released_file_is_installed_and_sampled(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `bench prepare prior NAME --from sit.pt --vae DIR` does; then DMGD's own chain takes it."""
    from diffusers import AutoencoderKL

    from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
    from ddbench.methods.diffusion.priors.catalogue import SIT_XL_2, TINY
    from ddbench.methods.diffusion.priors.files import find_prior
    from ddbench.methods.diffusion.priors.install import install
    from ddbench.methods.diffusion.sampler import sample

    if not (golden / "sit").is_dir():
        pytest.skip("no golden case of SiT")
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "sit"
    source.mkdir()
    (source / "sit.pt").write_bytes((golden / "sit" / "sit.pt").read_bytes())
    with torch.random.fork_rng(devices=[]):
        AutoencoderKL(**TINY.autoencoder).save_pretrained(source / "vae")
    metadata = SIT_XL_2.metadata.model_copy(
        update={"resolution": 16, "class_ids": tuple("abcdefghij"), "null_label": 10, "num_heads": 4}
    )
    (source / "prior.json").write_text(metadata.model_dump_json(), encoding="utf-8")
    found = install("tiny-sit", source, None, None, say=lambda line: None)
    assert (found.metadata.prediction, found.metadata.dropped_channels) == ("velocity", 4)
    assert find_prior("tiny-sit").sha256 == found.sha256
    prior = Prior.load(found)
    images = [ImageKey("a", 0), ImageKey("j", 1)]
    noise = StreamNoise(lambda *key: torch.Generator().manual_seed(len(str(key))), images)
    outcome = sample(prior, images, [], noise, steps=4, cfg_scale=4.0)
    assert outcome.latents.isfinite().all()
    assert prior.decode(outcome.latents).shape == (2, 16, 16, 3)


def test_the_full_size_one_lies_on_no_hub() -> None:
    from ddbench.benchmark.core.errors import UsageError
    from ddbench.methods.diffusion.priors.install import install

    with pytest.raises(UsageError, match="lies on no hub: take SiT-XL-2-256.pt"):
        install("sit-xl-2-256", None, None, None, say=lambda line: None)
