"""MGD3: the guided step against diffusers' scheduler plus the formula, modes against scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from pydantic import ValidationError
from sklearn.cluster import KMeans
from torch import Tensor

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.base import DistilledImage, Method
from ddbench.methods.diffusion import sampler
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.dmgd.method import DMGD
from ddbench.methods.mgd3.method import MGD3, ModesAlone
from ddbench.methods.mgd3.modes import ModeGuidance, class_modes

MakePrior = Callable[..., Path]
CLASSES = ("a", "b", "c")
IMAGES = [ImageKey("a", 0), ImageKey("b", 0), ImageKey("c", 5)]


def load(folder: Path) -> Prior:
    return Prior.load(find_prior(folder))


def distill(method: Method, task: Any) -> dict[tuple[int, int], DistilledImage]:
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


def latents_of(task: Any, class_index: int) -> np.ndarray:
    """(N, D): a pixel prior's latents are the pixels in [-1, 1]."""
    pixels = task.train.read(task.train.of_class(class_index)).astype(np.float32) / 127.5 - 1
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_a_step_is_the_scheduler_s_plus_the_formula(make_prior: MakePrior, learned: bool, clip: bool) -> None:
    prior = load(make_prior(channels=2, learned_variance=learned, clip_denoised=clip))
    steps, stop, scale, cfg_scale = 12, 5, 0.3, 2.5
    modes = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    scheduler = DDPMScheduler(
        timestep_spacing="linspace", clip_sample=clip, variance_type="learned_range" if learned else "fixed_small"
    )
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.tolist()
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(3, 2, 8, 8, generator=generator)
    labels, null = prior.embed_labels(torch.tensor([0, 1, 2])), prior.embed_labels(torch.tensor([3, 3, 3]))
    expected, kl, guided = [], torch.zeros(3), 0
    with torch.no_grad():
        for n, t in enumerate(times):
            output = prior.network(z, prior.embed_time(t) + labels)
            free = prior.network(z, prior.embed_time(t) + null)
            output[:, :2] = free[:, :2] + cfg_scale * (output[:, :2] - free[:, :2])
            stepped = scheduler.step(output, t, z, generator=generator)
            following = stepped.prev_sample
            k = steps - 1 - n
            if k > stop:
                now, then = scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[times[n + 1]]
                beta = 1 - now / then
                variance = beta * (1 - then) / (1 - now)
                if learned:
                    share = (output[:, 2:] + 1) / 2
                    variance = beta**share * variance ** (1 - share)
                pull = modes - stepped.pred_original_sample
                following = following + scale * variance.sqrt() * pull
                kl += 0.5 * (scale * pull).square().flatten(1).sum(1)
                guided += 1
            z = following
            expected.append(z)
    assert guided == 6

    class SameDraws(StreamNoise):
        generator = torch.Generator().manual_seed(3)

        def initial(self, shape: tuple[int, ...]) -> Tensor:
            return torch.randn(3, *shape, generator=self.generator)

        def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
            return self.initial(shape)

    seen: list[Tensor] = []
    outcome = sample(
        prior,
        IMAGES,
        [ModeGuidance(modes, scale=scale, stop_step=stop, clip=clip)],
        SameDraws(partial(seeds.stream, 0), IMAGES),
        steps=steps,
        cfg_scale=cfg_scale,
        on_step=lambda step, z: seen.append(z),
    )
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected), rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(outcome.path_kl_nats["mode"], kl, rtol=1e-3, atol=1e-3)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads split batches of different sizes at different places, and round there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_without_its_pull_it_is_the_plain_prior(make_prior: MakePrior, make_task: Any, random_images: Any) -> None:
    prior = load(make_prior())
    task = make_task(random_images(CLASSES), CLASSES, ipc=2, prior=prior)
    plain = distill(DMGD(DMGD.Params(steps=6, semantic_matching=False, distribution_matching=False)), task)
    unguided = distill(MGD3(MGD3.Params(steps=6, guidance_scale=0)), task)
    guided = distill(MGD3(MGD3.Params(steps=6)), task)
    for key, image in plain.items():
        np.testing.assert_array_equal(unguided[key].latent, image.latent)
        assert unguided[key].guidance_nats == {"mode": 0}
        assert guided[key].guidance_nats["mode"] > 0
        assert not np.array_equal(guided[key].latent, image.latent)


def test_image_j_follows_mode_j(
    make_prior: MakePrior, make_task: Any, random_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(random_images(CLASSES), CLASSES, ipc=3, prior=load(make_prior()), classes=(2, 0), batch_size=4)
    given: list[tuple[ImageKey, Tensor]] = []

    def spy(prior: Prior, images: Any, terms: Any, *args: Any, **kwargs: Any) -> Any:
        given.extend(zip(images, terms[0].modes, strict=True))
        return sample(prior, images, terms, *args, **kwargs)

    monkeypatch.setattr(sampler, "sample", spy)
    distill(MGD3(MGD3.Params(steps=3)), task)
    assert [image for image, _ in given] == [ImageKey(c, j) for c in "ca" for j in range(3)]
    for image, mode in given:
        class_index = CLASSES.index(image.class_id)
        search = KMeans(3, n_init=1, random_state=seeds.sklearn_seed(0, "k-means", image.class_id))
        centres = search.fit(latents_of(task, class_index)).cluster_centers_
        np.testing.assert_allclose(mode.flatten().numpy(), centres[image.image_index], atol=1e-5)


def test_modes_that_are_real_images(make_prior: MakePrior, make_task: Any, random_images: Any) -> None:
    prior, train = load(make_prior()), random_images(CLASSES)
    task = make_task(train, CLASSES, ipc=4, prior=prior)
    real = latents_of(task, 1)
    centroids, nearest, drawn = (
        class_modes(task, prior, MGD3.Params(modes=modes), 1).reshape(4, -1)
        for modes in ("centroid", "nearest", "random")
    )
    for centroid, found in zip(centroids, nearest, strict=True):
        np.testing.assert_array_equal(found, min(real, key=lambda latent: ((latent - centroid) ** 2).sum()))

    rows = [int(np.flatnonzero((real == mode).all(1))[0]) for mode in drawn]
    assert len(set(rows)) == 4
    other_seed = class_modes(
        make_task(train, CLASSES, ipc=4, prior=prior, seed=1), prior, MGD3.Params(modes="random"), 1
    )
    assert not np.array_equal(other_seed.reshape(4, -1), drawn)

    pictures = distill(ModesAlone(), task)
    for j, mode in enumerate(nearest):
        np.testing.assert_allclose(pictures[1, j].pixels.astype(np.float32).flatten() / 127.5 - 1, mode, atol=1e-5)
    done = [pictures[0, 0], pictures[1, 2]]
    rest = distill(ModesAlone(), make_task(train, CLASSES, ipc=4, prior=prior, done=done))
    assert rest.keys() == pictures.keys() - {(0, 0), (1, 2)}


@pytest.mark.parametrize(("steps", "stop"), [(50, 25), (25, 12), (250, 127), ("10", 5)])
def test_the_stop_step_keeps_its_time_in_other_chains(steps: Any, stop: int) -> None:
    assert MGD3.Params(steps=steps).stop_step == stop
    assert MGD3.Params(steps=steps, stop_step=1).stop_step == 1


def test_defaults_are_the_papers() -> None:
    p = MGD3.Params()
    assert (p.steps, p.cfg_scale, p.guidance_scale, p.stop_step, p.modes) == (50, 4.0, 0.1, 25, "centroid")
    with pytest.raises(ValidationError, match=r"stop_step ≤ steps - 1 = 49.*got 50"):
        MGD3.Params(stop_step=50)


@pytest.mark.parametrize("method", [MGD3(), ModesAlone()])
def test_a_class_with_fewer_images_than_modes_is_refused(
    method: Method, make_prior: MakePrior, make_task: Any, random_images: Any
) -> None:
    task = make_task(random_images(CLASSES, per_class=4), CLASSES, ipc=5, prior=load(make_prior()))
    with pytest.raises(UsageError, match=r"class a has 4 training images.*--ipc 4 or less"):
        method.prepare(task)
