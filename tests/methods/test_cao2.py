"""CaO2: picks against a sort by hand, refinement against a loop of torch's Adam on one latent, the program's inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from ddbench.benchmark.core.seeds import stream
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import ImageNet100, Nette
from ddbench.methods.base import DistilledImage, Method
from ddbench.methods.cao2 import refinement
from ddbench.methods.cao2.method import CaO2
from ddbench.methods.cao2.refinement import denoising_loss, refine
from ddbench.methods.cao2.selection import probabilities, select
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.sampler import sample

CLASSES = ("a", "b", "c")
SMALL = {
    "network": "convnet3", "optimiser": "adamw", "augmentation": "none", "cutmix": False, "normalisation": "half",
    "epochs": 1, "steps": 8,
}  # fmt: skip


def params(**changed: Any) -> CaO2.Params:
    return CaO2.Params.model_validate(SMALL | changed)


@pytest.fixture
def prior(make_prior: Callable[..., Path]) -> Prior:
    return Prior.load(find_prior(make_prior()))


def distill(method: Method, task: Any) -> dict[tuple[int, int], DistilledImage]:
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


class Planted:
    """A classifier of two classes that looks at how bright an image is."""

    sha256 = "planted"

    def network(self) -> Any:
        return lambda x: torch.stack([x.mean((1, 2, 3)), -2 * x.mean((1, 2, 3))], dim=1)

    def normalise(self, images: Tensor) -> Tensor:
        return (images - 0.25) / 0.1


def test_picks() -> None:
    sure = np.array([[0.6, 0.4], [0.1, 0.9], [0.9, 0.1], [0.3, 0.7], [0.8, 0.2]])
    assert select(sure, 0, 5, "descending") == [2, 4, 0, 1, 3]
    assert select(sure, 0, 2, "descending") == [2, 4]
    assert select(sure, 0, 4, "ascending") == [0, 4, 2, 3]
    assert select(sure, 1, 3, "descending") == [1, 3, 2], "a wrong one fills up"
    assert select(np.full((4, 2), 0.5), 1, 2, "descending") == [0, 1], "ties in the order of the pool"


@pytest.mark.parametrize("image_size", [8, 5])
@pytest.mark.parametrize("raw", [False, True])
def test_what_the_classifier_sees(prior: Prior, make_task: Any, random_images: Any, image_size: int, raw: bool) -> None:
    task = make_task(random_images(("a", "b"), image_size=image_size), ("a", "b"), batch_size=2)
    latents = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 2
    images = torch.from_numpy(prior.decode(latents)).permute(0, 3, 1, 2).float() / 255
    seen = v2.functional.resize(images, [image_size, image_size], antialias=True) if image_size != 8 else images
    mean = (2 * seen - 1 if raw else (seen - 0.25) / 0.1).mean((1, 2, 3))
    expected = torch.stack([mean, -2 * mean], dim=1).softmax(1).numpy()
    np.testing.assert_allclose(probabilities(task, prior, Planted(), latents, raw=raw), expected, rtol=1e-4)


@pytest.mark.parametrize("told", ["timestep", "index"])
def test_refinement_is_adam_on_one_latent(prior: Prior, make_task: Any, random_images: Any, told: str) -> None:
    task = make_task(random_images(CLASSES), CLASSES)
    p = params(steps=50, refine_steps=6, refine_rate=0.01, refine_time=told, noise_bank=3)
    images = [ImageKey("a", 0), ImageKey("c", 5), ImageKey("b", 1)]
    latents = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        refined = refine(task, prior, p, images, latents)

    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    for row, image in enumerate(images):
        entry = int(torch.randint(3, (), generator=stream(0, "refinement noise", *image)))
        noise = torch.randn(1, 8, 8, generator=stream(0, "refinement noise bank", entry))
        k = torch.randint(1, 12, (6,), generator=stream(0, "refinement time", *image)).tolist()
        z = latents[row].clone().requires_grad_()
        adam = torch.optim.Adam([z], lr=0.01)
        for index in k:
            t = round(index * 999 / 49)
            noised = float(alpha_bar[t]) ** 0.5 * z + (1 - float(alpha_bar[t])) ** 0.5 * noise
            label = prior.embed_labels(torch.tensor([prior.null_label]))
            found = prior.network(noised[None], prior.embed_time(t if told == "timestep" else index) + label)[0]
            loss = torch.nn.functional.mse_loss(found, noise) + 10 * (found - noise).abs().max()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        torch.testing.assert_close(refined[row], z.detach(), rtol=0, atol=2e-4)
        assert not torch.equal(refined[row], latents[row])


def test_refinement_in_chunks_lowers_the_loss(
    prior: Prior, make_task: Any, random_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(random_images(CLASSES), CLASSES)
    p = params(refine_steps=40, refine_rate=0.02)
    assert p.refine_last == 1
    images = [ImageKey("a", i) for i in range(3)]
    latents = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    refined = refine(task, prior, p, images, latents)
    monkeypatch.setattr(refinement, "CHUNK", 2)
    torch.testing.assert_close(refine(task, prior, p, images, latents), refined, rtol=0, atol=2e-4)

    chain, null = prior.schedule(8), prior.embed_labels(torch.tensor([prior.null_label]))
    noise = torch.stack([refinement._noise(task, prior, p, image) for image in images])

    def loss(z: Tensor) -> Tensor:
        k = torch.ones(3, dtype=torch.int64)
        return denoising_loss(prior, z, noise, chain.alpha_bar[k], chain.timesteps[k], null, max_weight=10)

    with torch.no_grad():
        assert (loss(refined) < loss(latents)).all()


def test_a_set_is_the_best_of_the_pool(prior: Prior, make_task: Any, random_images: Any) -> None:
    task = make_task(random_images(CLASSES), CLASSES, ipc=2, prior=prior, batch_size=5)
    method = CaO2(params(pool=3, refine_steps=0))
    images = distill(method, task)
    for c, class_id in enumerate(CLASSES):
        keys = [ImageKey(class_id, j) for j in range(6)]
        pool = sample(prior, keys, [], StreamNoise(task.stream, keys), steps=8, cfg_scale=2.7).latents
        seen = method._observer.network()(torch.from_numpy(prior.decode(pool)).permute(0, 3, 1, 2) / 127.5 - 1)
        sure = [(int(row.argmax()) != c, -float(row.max()), j) for j, row in enumerate(seen.softmax(1))]
        for i, (_, _, j) in enumerate(sorted(sure)[:2]):
            np.testing.assert_allclose(images[c, i].latent, pool[j], rtol=0, atol=1e-4)
            assert images[c, i].guidance_nats == {}
    refined = distill(CaO2(params(pool=3, refine_steps=2)), task)
    moved = [np.abs(np.subtract(refined[key].latent, image.latent)).max() for key, image in images.items()]
    assert all(0 < distance < 2.1 * 6e-4 for distance in moved), "two steps of Adam at 6e-4"


def test_parameters() -> None:
    assert [CaO2.Params(refine_part=part).refine_last for part in (4, 8)] == [11, 5]
    nette, hundred = (
        CaO2.Params.model_validate({key: d.value for key, d in dataset.method_defaults["cao2"].items()})
        for dataset in (Nette, ImageNet100)
    )
    assert (nette.pool, nette.refine_steps, nette.order) == (2, 0, "descending")
    assert (hundred.pool, hundred.order, hundred.refine_last) == (2, "ascending", 5)
    assert CaO2().supports(Digits, 1) is None
