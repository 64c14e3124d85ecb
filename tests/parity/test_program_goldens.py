"""Methods that sample from a diffusion prior, beside what their authors' programs computed of the same inputs
(`golden_small/programs`): tuning, guidance terms through the one sampler, inversion, scores, refinement."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import task_for
from hashed_numbers import CLASSES, HEADS, SHAPE, spread, uniform, write_dit
from safetensors.torch import load_file
from torch import Tensor, nn

from ddbench.datasets.base import ArraySource
from ddbench.methods.base import DistillTask
from ddbench.methods.cao2 import refinement
from ddbench.methods.cao2.params import CaO2Params
from ddbench.methods.cao2.selection import select
from ddbench.methods.coda.sampling import sample_pulled
from ddbench.methods.d3hr.groups import group_scores
from ddbench.methods.diffusion.ddim import ddim_levels, walk
from ddbench.methods.diffusion.guidance import Guidance, Step
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.dit_checkpoint import load_dit_checkpoint
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata, PriorMetadata
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.igd.deviation import Deviation
from ddbench.methods.igd.influence import Influence, alignment_loss
from ddbench.methods.manifoldgd import manifold
from ddbench.methods.manifoldgd.manifold import ManifoldGuidance, annealed_radius
from ddbench.methods.mgd3.modes import ModeGuidance
from ddbench.methods.minimax import tune
from ddbench.methods.minimax.params import Tuning

EXPECTED = Path(__file__).parents[1] / "golden_small" / "programs" / "expected.safetensors"
CLASS_IDS = tuple("abcdefghij")
KEPT = [0, 4, 10, 24, 49]
"""Executed steps after which a chain's latents were kept."""
IMAGE = [ImageKey("d", 0)]
MODE = 0.5 * spread("mode", 1, *SHAPE)

Expected = dict[str, Tensor]


@pytest.fixture(scope="module")
def expected() -> Expected:
    return load_file(EXPECTED)


@pytest.fixture
def prior(tmp_path: Path) -> Prior:
    metadata = PriorMetadata(
        space="latents",
        resolution=64,
        prediction="epsilon",
        learned_variance=True,
        schedule=NoiseScheduleMetadata(),
        freq_shift=0,
        norm_eps=1e-6,
        guided_channels=3,
        clip_denoised=False,
        latent_scale=0.18215,
        class_ids=CLASS_IDS,
        null_label=CLASSES,
    )
    network = DenoisingNetwork(load_dit_checkpoint(write_dit(tmp_path), num_heads=HEADS), 0)
    return Prior(network, metadata, sha256="hashed")


def agree(found: Tensor, expected: Tensor, within: float = 2e-4) -> None:
    """Relative to the numbers of the same latent; rows are latents."""
    size = expected.flatten(1).std(1).view(-1, *[1] * (expected.ndim - 1))
    assert ((found - expected).abs() / size).max() < within


class Drawing:
    """torch, but for what is drawn: name of a function -> what its calls give in turn."""

    def __init__(self, **draws: Callable[..., Tensor]) -> None:
        self.__dict__.update(draws)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


# Tuning ---------------------------------------------------------------------------------------------------------------

STEPS, BATCH = 8, 6


@pytest.mark.parametrize(("method", "inversion_weight"), [("minimax", 0.0), ("ims3_im", 5000.0)])
def test_eight_steps_of_tuning(
    method: str, inversion_weight: float, expected: Expected, prior: Prior, tmp_path: Path, monkeypatch: Any
) -> None:
    drops = [uniform(f"dropped {s}", BATCH) for s in range(STEPS)]
    if inversion_weight:
        of_inversion = [uniform(f"dropped in inversion {s}", BATCH) for s in range(STEPS)]
        drops = [drop for both in zip(drops, of_inversion, strict=True) for drop in both]
    times = iter([(1000 * uniform(f"times {s}", BATCH)).long() for s in range(STEPS)])
    noises, dropped = iter([spread(f"noise {s}", BATCH, *SHAPE) for s in range(STEPS)]), iter(drops)
    drawing = Drawing(
        rand=lambda *a, **k: next(dropped), randint=lambda *a, **k: next(times), randn=lambda *a, **k: next(noises)
    )
    monkeypatch.setattr(tune, "torch", drawing)
    batches = [
        (spread(f"latents {s}", BATCH, *SHAPE), (7 * uniform(f"class {s}", BATCH)).long() % 3) for s in range(STEPS)
    ]
    monkeypatch.setattr(tune._Tuner, "_batch", lambda self, step, draw: batches[step])
    losses, looked_at = list[list[float]](), tune._Tuner._looked_at

    def keep(self: Any, of_steps: Tensor, first: int) -> list[list[float]]:
        losses.extend(of_steps.tolist())
        return looked_at(self, of_steps, first)

    monkeypatch.setattr(tune._Tuner, "_looked_at", keep)
    recipe = Tuning(tuning_steps=STEPS, tuning_batch=BATCH, memory=3, ema=0.9, inversion_weight=inversion_weight)
    tuned = tune.tuned_prior(tuning_task(prior, tmp_path), prior, recipe)

    t, y = torch.tensor([3, 400, 700, 999]), torch.tensor([7, 2, 5, CLASSES])
    network: Any = tuned.network
    with torch.no_grad():
        output = network(spread("x", 4, *SHAPE), network.embed_time(t) + network.embed_labels(y))
    agree(output, expected[f"{method}.output"], 2e-5)
    of_program = expected[f"{method}.losses"].numpy()
    weighted = np.array(losses) * [1, 0.002, 0.008, -inversion_weight][: len(losses[0])]
    np.testing.assert_allclose(weighted[:, :3], of_program[:, :3], rtol=1e-5, atol=1e-7)
    total = weighted.sum(1) + (1 if inversion_weight else 0)
    np.testing.assert_allclose(total, of_program[:, 3], rtol=1e-5, atol=1e-4)


def tuning_task(prior: Prior, folder: Path) -> DistillTask:
    """Classes whose labels are those of the program's batches; the images are never looked at."""
    images = ArraySource(np.zeros((12, 8, 8, 4), np.uint8), np.arange(12) % 3, [("", str(i)) for i in range(12)])
    kept = SimpleNamespace(arrays=lambda kind, key, make: make())
    return dataclasses.replace(
        task_for(prior, [0, 1, 2], 1),
        class_ids=("h", "c", "f"),
        train=images,
        train_at=lambda *args: images,
        scratch=folder,
        cache=kept,  # type: ignore[arg-type]  # all that is called of it
    )


# The sampler ----------------------------------------------------------------------------------------------------------


class Draws:
    def initial(self, shape: tuple[int, ...]) -> Tensor:
        return spread("initial noise", 1, *shape)

    def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return spread(f"step noise {n}", 1, *shape)

    def labels(self, *args: Any) -> Tensor:
        raise NotImplementedError

    def choice(self, n: int) -> Tensor:
        raise NotImplementedError


def chain(prior: Prior, terms: Sequence[Guidance], on_step: Callable[[Step], None] = lambda step: None) -> Tensor:
    """(50, C, h, w): the latents after each step."""
    after: list[Tensor] = []

    def keep(step: Step, z: Tensor) -> None:
        after.append(z)
        on_step(step)

    sample(prior, IMAGE, terms, Draws(), steps=50, cfg_scale=4.0, on_step=keep)
    return torch.cat(after)


def test_the_plain_chain(expected: Expected, prior: Prior) -> None:
    agree(chain(prior, [])[KEPT], expected["sampler.plain"])


def test_mode_guidance(expected: Expected, prior: Prior) -> None:
    term = ModeGuidance(MODE, scale=0.1, stop_step=25, clip=False)
    agree(chain(prior, [term])[KEPT], expected["sampler.mode"])


@pytest.mark.parametrize(
    ("case", "stop_step", "radius", "warm_steps", "of_term"),
    [
        ("manifold", 25, 0.1, 5, {"scale": 0.1, "bandwidth": 0.1, "tangent_dimensions": 3}),
        ("manifold_strong", 0, 3.0, 10, {"scale": 5.0, "bandwidth": 20.0, "tangent_dimensions": 4}),
    ],
)
def test_manifold_guidance(
    case: str,
    stop_step: int,
    radius: float,
    warm_steps: int,
    of_term: dict[str, Any],
    expected: Expected,
    prior: Prior,
    monkeypatch: Any,
) -> None:
    at = SimpleNamespace(n=1, drawn=0)

    def randn(*shape: int, generator: Any) -> Tensor:
        at.drawn += 1
        return spread(f"{'directions' if at.drawn % 2 else 'noise of points'} {at.n}", *shape)

    drawing = Drawing(randn=randn, rand=lambda count, generator: uniform(f"radii {at.n}", count))
    monkeypatch.setattr(manifold, "torch", drawing)
    terms: list[Guidance] = [
        ModeGuidance(MODE, scale=0.1, stop_step=stop_step, clip=False),
        ManifoldGuidance(
            MODE,
            [torch.Generator()],
            radius_at=annealed_radius(radius, 2.0, warm_steps),
            stop_step=stop_step,
            **of_term,
        ),
    ]

    def next_step(step: Step) -> None:
        at.n = step.n + 2

    agree(chain(prior, terms, next_step)[KEPT], expected[f"sampler.{case}"])


# IGD ------------------------------------------------------------------------------------------------------------------

WINDOW = (30, 45)


def deviation() -> Deviation:
    return Deviation([[spread(f"finished {i}", 1, *SHAPE)[0] for i in range(4)]], scale=50.0, window=WINDOW)


def influence(prior: Prior, scale: float) -> Influence:
    networks = [surrogate(k) for k in range(2)]
    numbers = sum(p.numel() for p in networks[0].parameters())
    real = torch.stack([spread(f"real gradient {k}", numbers) for k in range(2)])
    alignment = [lambda image: alignment_loss(networks, image[None], 2, real)]
    return Influence(prior, IMAGE, alignment, cfg_scale=4.0, scale=scale, step_size=0.0015, window=WINDOW)


def surrogate(k: int) -> nn.Module:
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.GroupNorm(6, 6), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten()
    network = nn.Sequential(*layers, nn.Linear(96, 5))
    for i, p in enumerate(network.parameters()):
        p.data = spread(f"surrogate {k} {i}", *p.shape) / max(1, p[0].numel()) ** 0.5
    return network.eval().requires_grad_(False)


def test_deviation(expected: Expected, prior: Prior) -> None:
    agree(chain(prior, [deviation()])[KEPT], expected["sampler.deviation"])


def test_influence(expected: Expected, prior: Prior, monkeypatch: Any) -> None:
    monkeypatch.setattr(prior, "to_images", lambda latents: torch.tanh(0.3 * latents)[:, :3])
    both = chain(prior, [deviation(), influence(prior, 5.0)])
    agree(both[KEPT], expected["sampler.deviation_and_influence"])
    assert (both[[-1]] - expected["sampler.deviation"][[-1]]).abs().max() > 0.1, "it counts"
    strong = chain(prior, [influence(prior, 300.0)])  # its first step alone: errors of rounding grow fast at that scale
    agree(strong[[4]], expected["sampler.influence_strong"])


# CoDA -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "scale"), [(0.9, 0.05), (1.0, 0.1), (0.5, 0.05)])
def test_pulled_sampling(share: float, scale: float, expected: Expected, prior: Prior, monkeypatch: Any) -> None:
    """On SDXL's noise schedule."""
    schedule = NoiseScheduleMetadata(kind="scaled_linear", beta_start=0.00085, beta_end=0.012)
    monkeypatch.setattr(prior, "metadata", prior.metadata.model_copy(update={"schedule": schedule}))
    found = sample_pulled(
        prior,
        IMAGE,
        MODE,
        Draws(),
        steps=25,
        cfg_scale=5.0,
        guidance_scale=scale,
        guided_from=15.0,
        guided_share=share,
    )
    agree(found.latents, expected[f"coda.{share}"])


# D3HR -----------------------------------------------------------------------------------------------------------------


def test_inversion(expected: Expected, prior: Prior) -> None:
    real, images = 0.8 * spread("real latents", 5, *SHAPE), [ImageKey("d", i) for i in range(5)]
    found = walk(prior, images, real, ddim_levels(1000, 50)[:31], cfg_scale=4.0)
    agree(found, expected["d3hr.inverted"])


@pytest.mark.parametrize("level", [30, 31])
def test_sampling_down_to_the_last_but_one_level(level: int, expected: Expected, prior: Prior) -> None:
    downwards = ddim_levels(1000, 50)[level:0:-1]
    found = walk(prior, IMAGE, expected["d3hr.inverted"][1:2], downwards, cfg_scale=4.0)
    agree(found, expected[f"d3hr.at_20_from_{20 * level}"])


def test_scores_of_groups(expected: Expected) -> None:
    variance, mean = torch.var_mean(expected["d3hr.inverted"].flatten(1), 0)
    groups = mean + variance.sqrt() * spread("groups", 7, 4, 256)
    found = group_scores(groups, mean, variance.sqrt(), 0.1)
    torch.testing.assert_close(found, expected["d3hr.scores"], rtol=1e-6, atol=1e-6)


# CaO2 -----------------------------------------------------------------------------------------------------------------


def test_which_samples_are_kept(expected: Expected) -> None:
    for label, seen, chosen in zip((3, 7), expected["cao2.probabilities"], expected["cao2.chosen"], strict=True):
        assert select(seen.numpy(), label, 3, "descending") == chosen.tolist()


def test_refinement(expected: Expected, prior: Prior, monkeypatch: Any) -> None:
    bank, losses, loss_of = spread("bank", 16, *SHAPE), list[Tensor](), refinement.denoising_loss

    def keep(*args: Any, **options: Any) -> Tensor:
        loss = loss_of(*args, **options)
        losses.append(loss.detach())
        return loss

    monkeypatch.setattr(refinement, "denoising_loss", keep)
    entries, k = expected["cao2.noise_entry"], expected["cao2.k"]
    monkeypatch.setattr(refinement, "_noise", lambda task, prior, params, image: bank[entries[image.image_index]])
    monkeypatch.setattr(refinement, "_indices", lambda task, params, image: k[image.image_index])
    pools = [spread(f"pool of {c}", 12, *SHAPE)[chosen] for c, chosen in enumerate(expected["cao2.chosen"])]
    latents, images = torch.cat(pools), [ImageKey("d", i) for i in range(6)]
    params = CaO2Params(refine_steps=20, refine_time="index")
    refined = refinement.refine(task_for(prior, [3], 1), prior, params, images, latents)
    torch.testing.assert_close(torch.stack(losses, 1), expected["cao2.losses"], rtol=1e-4, atol=0)
    torch.testing.assert_close(refined, expected["cao2.refined"], rtol=0, atol=1e-5)
    assert (refined - latents).abs().max() > 0.005
