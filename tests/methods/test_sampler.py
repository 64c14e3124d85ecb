"""The sampler against diffusers' DDPMScheduler, closed forms, and its promises about batches and failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.methods.diffusion.ddim import walk
from ddbench.methods.diffusion.guidance import LabelGuidance, ShiftGuidance, State, Step
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.sampler import Start, sample

MakePrior = Callable[..., Path]
IMAGES = [ImageKey("a", 0), ImageKey("b", 0), ImageKey("c", 5)]


class OneGenerator:
    """Draws whole batches from one generator, in the order in which DDPMScheduler draws them."""

    def __init__(self, seed: int, batch: int) -> None:
        self.generator, self.batch = torch.Generator().manual_seed(seed), batch

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn((self.batch, *shape), generator=self.generator)

    def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return self.initial(shape)

    def labels(self, steps: int, width: int, distribution: Literal["uniform", "normal"]) -> Tensor:
        raise AssertionError("plain sampling draws no label noise")

    def choice(self, n: int) -> Tensor:
        raise AssertionError("plain sampling draws no other class")


class ScaledShift(ShiftGuidance):
    """shift = factor · σ at some steps."""

    name = "scaled"

    def __init__(self, factor: float, ks: Sequence[int]) -> None:
        self.factor, self.ks, self.states = factor, ks, list[State]()

    def shift(self, state: State) -> Tensor | None:
        self.states.append(state)
        return self.factor * state.sigma * torch.ones_like(state.z) if state.step.k in self.ks else None


class OtherLabel(LabelGuidance):
    """Replaces every image's label embedding."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def label(self, step: Step, pair: Tensor) -> Tensor:
        return torch.stack([self.embedding.expand(len(pair), -1), pair[:, 1]], dim=1)


def stream_noise(images: Sequence[ImageKey] = IMAGES, seed: int = 0) -> StreamNoise:
    return StreamNoise(partial(seeds.stream, seed), images)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("guided", ["all", 2])
def test_it_is_the_ddpm_scheduler(make_prior: MakePrior, learned: bool, clip: bool, guided: Any) -> None:
    prior = Prior.load(
        find_prior(make_prior(channels=3, learned_variance=learned, clip_denoised=clip, guided_channels=guided))
    )
    cfg_scale, steps, channels = 2.5, 20, 3 if guided == "all" else guided
    scheduler = DDPMScheduler(
        timestep_spacing="linspace",
        clip_sample=clip,
        variance_type="learned_range" if learned else "fixed_small",
    )
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(3, 3, 8, 8, generator=generator)
    labels, null = prior.embed_labels(torch.tensor([0, 1, 2])), prior.embed_labels(torch.tensor([3, 3, 3]))
    expected = []
    with torch.no_grad():
        for t in scheduler.timesteps.tolist():
            output = prior.network(z, prior.embed_time(t) + labels)
            free = prior.network(z, prior.embed_time(t) + null)
            output[:, :channels] = free[:, :channels] + cfg_scale * (output[:, :channels] - free[:, :channels])
            z = scheduler.step(output, t, z, generator=generator).prev_sample
            expected.append(z)

    seen: list[Tensor] = []
    outcome = sample(
        prior,
        IMAGES,
        [],
        OneGenerator(3, 3),
        steps=steps,
        cfg_scale=cfg_scale,
        on_step=lambda step, z: seen.append(z),
    )
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert torch.equal(outcome.latents, seen[-1])
    assert outcome.path_kl_nats == {}


def test_scale_one_leaves_out_the_null_half(make_prior: MakePrior, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = Prior.load(find_prior(make_prior()))
    rows: list[int] = []
    predict = prior.predict
    monkeypatch.setattr(prior, "predict", lambda x, t, c: rows.append(len(x)) or predict(x, t, c))
    single = sample(prior, IMAGES, [], stream_noise(), steps=5, cfg_scale=1).latents
    assert rows == [3] * 5
    nearly = sample(prior, IMAGES, [], stream_noise(), steps=5, cfg_scale=1 + 1e-7).latents
    assert rows[5:] == [6] * 5
    torch.testing.assert_close(single, nearly, rtol=0, atol=1e-4)


def test_scales_below_one_pull_towards_the_unconditional_model(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))

    def sampled(class_id: str, cfg_scale: float) -> Tensor:
        noise = stream_noise([ImageKey("a", 0)])
        return sample(prior, [ImageKey(class_id, 0)], [], noise, steps=5, cfg_scale=cfg_scale).latents

    torch.testing.assert_close(sampled("a", 0), sampled("b", 0), rtol=0, atol=1e-5)  # no class is left in it
    apart = [float((sampled("a", scale) - sampled("b", scale)).abs().max()) for scale in (0.25, 0.5, 1)]
    assert apart == sorted(apart)
    assert apart[0] > 1e-4
    assert apart[-1] > 1.5 * apart[0]


def test_an_image_does_not_depend_on_its_batch(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))
    together = sample(prior, IMAGES, [], stream_noise(), steps=10, cfg_scale=3).latents
    order = [2, 0, 1]
    shuffled = [IMAGES[i] for i in order]
    torch.testing.assert_close(
        sample(prior, shuffled, [], stream_noise(shuffled), steps=10, cfg_scale=3).latents,
        together[order],
        rtol=0,
        atol=1e-4,
    )
    for row, image in enumerate(IMAGES):
        alone = sample(prior, [image], [], stream_noise([image]), steps=10, cfg_scale=3).latents
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-4)
    other_seed = sample(prior, IMAGES, [], stream_noise(seed=1), steps=10, cfg_scale=3).latents
    assert (other_seed - together).abs().max() > 0.1


def test_a_label_term_changes_the_condition(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))
    images = [ImageKey("a", 0)]
    term = OtherLabel(prior.embed_labels(torch.tensor([1])))
    changed = sample(prior, images, [term], stream_noise(images), steps=5, cfg_scale=2).latents

    # Class b, sampled with the draws of class a's image.
    as_b = sample(prior, [ImageKey("b", 0)], [], stream_noise(images), steps=5, cfg_scale=2).latents
    torch.testing.assert_close(changed, as_b)


@pytest.mark.parametrize("learned", [False, True])
def test_path_kl_is_its_closed_form(make_prior: MakePrior, learned: bool) -> None:
    prior = Prior.load(find_prior(make_prior(channels=2, learned_variance=learned)))
    numbers = 2 * 8 * 8
    # At three steps with noise ½·(0.1)²·D each; the last step (k = 0) has none and does not count.
    term = ScaledShift(0.1, [0, 2, 5, 9])
    outcome = sample(prior, IMAGES, [term], stream_noise(), steps=10, cfg_scale=2)
    torch.testing.assert_close(outcome.path_kl_nats["scaled"], torch.full((3,), 3 * 0.5 * 0.01 * numbers))
    idle = sample(prior, IMAGES, [ScaledShift(0.1, [])], stream_noise(), steps=10, cfg_scale=2)
    assert idle.path_kl_nats["scaled"].tolist() == [0, 0, 0]

    # The last step's shift does move the image, by 0.1 of the σ that stands in for σ_0.
    last = sample(prior, IMAGES, [ScaledShift(0.1, [0])], stream_noise(), steps=10, cfg_scale=2)
    state = term.states[-1]
    assert (state.step.n, state.step.k, state.step.t) == (9, 0, 0)
    torch.testing.assert_close(last.latents - idle.latents, (0.1 * state.sigma).expand_as(idle.latents))


def test_the_state_is_consistent(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior(learned_variance=True)))
    term = ScaledShift(0, [])
    sample(prior, IMAGES, [term], stream_noise(), steps=10, cfg_scale=2)
    assert [state.step.k for state in term.states] == list(range(9, -1, -1))
    assert [state.step.n for state in term.states] == list(range(10))
    for state in term.states:
        again = state.alpha_bar**0.5 * state.x0 + (1 - state.alpha_bar) ** 0.5 * state.epsilon
        torch.testing.assert_close(again, state.z, rtol=1e-4, atol=1e-4)


def test_a_breakdown_names_step_and_class(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))

    class Breaks(ShiftGuidance):
        name = "breaks"

        def shift(self, state: State) -> Tensor | None:
            delta = torch.zeros_like(state.z)
            if state.step.k == 6:
                delta[1, 0, 3, 3] = float("inf")
            return delta

    with pytest.raises(RunError, match=r"class b, image 0 is not finite after step 4 of 10 \(t = 666\)"):
        sample(prior, IMAGES, [Breaks()], stream_noise(), steps=10, cfg_scale=2)


@pytest.mark.parametrize(("precision", "mend"), [("fp32", "copy them again"), ("bf16", "use --precision fp32")])
def test_weights_that_break_the_first_step_are_told_from_guidance(
    make_prior: MakePrior, precision: str, mend: str
) -> None:
    files = find_prior(make_prior())
    prior = Prior.load(files, precision=precision)

    class Breaks(ShiftGuidance):
        name = "breaks"

        def shift(self, state: State) -> Tensor | None:
            return torch.full_like(state.z, float("inf"))

    with pytest.raises(RunError, match=r"after step 1 of 10 \(t = 999\)\. Lower the guidance"):
        sample(prior, IMAGES, [Breaks()], stream_noise(), steps=10, cfg_scale=2)
    prior = Prior.load(files, precision=precision)
    prior.network.transformer.proj_out_2.bias[0] = float("nan")
    with pytest.raises(RunError, match=rf"after step 1 .* without any guidance: its weights are at fault.*{mend}"):
        sample(prior, IMAGES, [], stream_noise(), steps=10, cfg_scale=2)
    with pytest.raises(RunError, match=r"DDIM broke down: .* its weights are at fault"):
        walk(prior, IMAGES, torch.zeros(len(IMAGES), 1, 8, 8), [999, 500], cfg_scale=1)


def test_an_unknown_class_is_refused(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))
    images = [ImageKey("z", 0)]
    with pytest.raises(UsageError, match="does not know class 'z'"):
        sample(prior, images, [], stream_noise(images), steps=5, cfg_scale=2)


def test_a_chain_that_starts_in_the_middle_is_the_rest_of_the_whole(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))
    draws = torch.randn(10, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    class Scripted(OneGenerator):
        def __init__(self, skipped: int) -> None:
            self.skipped = skipped

        def initial(self, shape: tuple[int, ...]) -> Tensor:
            assert self.skipped == 0, "a given start needs no noise of its own"
            return draws[-1]

        def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
            return draws[self.skipped + n]

    whole: list[Tensor] = []
    rest: list[Step] = []
    last = sample(
        prior, IMAGES, [], Scripted(0), steps=10, cfg_scale=2, on_step=lambda step, z: whole.append(z)
    ).latents
    outcome = sample(
        prior,
        IMAGES,
        [],
        Scripted(4),
        steps=10,
        cfg_scale=2,
        start=Start(5, whole[3]),
        on_step=lambda step, z: rest.append(step),
    )
    assert torch.equal(outcome.latents, last)
    assert [(step.n, step.k) for step in rest] == list(enumerate(range(5, -1, -1)))
