"""IGD: both gradients against differences in float64, class gradients against a closed form, order and memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ddbench.benchmark.planning.contestants import contestants
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import ImageNet1K, ImageNetSubset, Nette, Woof
from ddbench.methods.base import DistilledImage, Method
from ddbench.methods.diffusion.guidance import State, Step
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.igd.checkpoints import take_checkpoints
from ddbench.methods.igd.deviation import Deviation
from ddbench.methods.igd.influence import Influence, Surrogate, alignment_loss, loss_gradient, rms
from ddbench.methods.igd.method import IGD

MakePrior = Callable[..., Path]
CLASSES = ("a", "b", "c")
WINDOW = (30, 45)
ALPHA_BAR = 0.3
SMALL = {"network": "convnet3", "optimiser": "adamw", "augmentation": "none", "checkpoints": "0+1", "real_images": 6}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distill(method: Method, task: Any) -> dict[tuple[int, int], DistilledImage]:
    method.prepare(task)
    return {(image.class_index, image.image_index): image for images in method.distill(task) for image in images}


class TinyPrior:
    """A prior in float64: a denoiser and a decoder that are nonlinear, two labels, one number each."""

    guided_channels = 1
    null_label = 2
    products = nullcontext

    def __init__(self) -> None:
        self.denoiser = drawn(2, 2, 3, 3, seed=1)
        self.decoder = drawn(1, 2, 3, 3, seed=2)

    def label_of(self, class_id: str) -> int:
        return "ab".index(class_id)

    def embed_labels(self, labels: Tensor) -> Tensor:
        return labels[..., None].double()

    def predict(self, x: Tensor, t: int, label: Tensor) -> tuple[Tensor, None]:
        return torch.conv2d(torch.tanh(x + label[:, :, None, None]), self.denoiser, padding=1), None

    def to_images(self, latents: Tensor) -> Tensor:
        return torch.tanh(torch.conv2d(latents, self.decoder, padding=1))


def tiny_surrogate(seed: int) -> nn.Module:
    """Smooth, so that differences of it converge."""
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 2)).double()
    for index, parameter in enumerate(network.parameters()):
        parameter.data = 0.4 * drawn(*parameter.shape, seed=10 * seed + index)
    return network.requires_grad_(False)


SURROGATES = [tiny_surrogate(1), tiny_surrogate(2)]
TARGETS = drawn(2, sum(p.numel() for p in SURROGATES[0].parameters()), seed=5)
IMAGES = [ImageKey("b", 0), ImageKey("a", 1), ImageKey("b", 1), ImageKey("a", 0), ImageKey("a", 2)]


def tiny_influence(**changed: Any) -> Influence:
    def alignment(class_index: int) -> Callable[[Tensor], Tensor]:
        return lambda image: alignment_loss(SURROGATES, image[None], class_index, TARGETS)

    given: dict[str, Any] = {"cfg_scale": 2.5, "scale": 5.0, "step_size": 0.0015, "window": WINDOW}
    alignments = [alignment("ab".index(image.class_id)) for image in IMAGES]
    return Influence(TinyPrior(), IMAGES, alignments, **given | changed)  # type: ignore[arg-type]


def state_at(z: Tensor, k: int = 40) -> State:
    """Of the tiny prior, written out; z is (B, 2, 4, 4)."""
    prior = TinyPrior()
    labels = torch.tensor([[["ab".index(i.class_id)], [2]] for i in IMAGES]).double()
    own, null = (prior.predict(z, 0, labels[:, half])[0] for half in (0, 1))
    epsilon = own.clone()
    epsilon[:, :1] = null[:, :1] + 2.5 * (own[:, :1] - null[:, :1])
    x0 = (z - math.sqrt(1 - ALPHA_BAR) * epsilon) / math.sqrt(ALPHA_BAR)
    return State(Step(0, k, 800), z, epsilon, x0, torch.tensor([0.1]).double(), ALPHA_BAR)


def influence_loss(z: Tensor) -> Tensor:
    """(B,): the cosine of gradients, each by torch's own backward on the network's own parameters."""
    images, losses = TinyPrior().to_images(state_at(z).x0), []
    for image, key in zip(images, IMAGES, strict=True):
        cosines = []
        for network, target in zip(SURROGATES, TARGETS, strict=True):
            network.requires_grad_(True).zero_grad()
            logits = network(image[None].detach())
            nn.functional.cross_entropy(logits, torch.tensor(["ab".index(key.class_id)])).backward()  # type: ignore[no-untyped-call]
            found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
            network.requires_grad_(False)
            cosines.append((found @ target) / (found.norm() * target.norm()))
        losses.append(1 - sum(cosines) / 2)
    return torch.stack(losses)


def test_influence_is_the_slope_through_surrogate_decoder_guidance_and_denoiser() -> None:
    z = drawn(len(IMAGES), 2, 4, 4, seed=7)
    with torch.no_grad():
        gradient = tiny_influence().gradient(state_at(z))
    for seed in (1, 2, 3):
        direction, eps = drawn(*z.shape, seed=seed), 1e-5
        slope = (influence_loss(z + eps * direction) - influence_loss(z - eps * direction)) / (2 * eps)
        torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-8)


def test_influence_s_shift_is_the_program_s() -> None:
    state, term = state_at(drawn(len(IMAGES), 2, 4, 4, seed=7)), tiny_influence()
    with torch.no_grad():
        shift, g = term.shift(state), term.gradient(state)
    assert shift is not None
    for row in range(len(IMAGES)):
        size = math.sqrt(float((state.epsilon[row] ** 2).mean())) / math.sqrt(float((g[row] ** 2).mean()))
        rho = 0.0015 * size * math.sqrt(1 - ALPHA_BAR)
        torch.testing.assert_close(shift[row], -5 * rho * g[row])
    lower = influence_loss(state.z + shift)
    assert (lower < influence_loss(state.z)).all(), "a small step against the gradient lowers the loss"


def test_a_surrogate_without_gradient_shifts_nothing() -> None:
    term = tiny_influence()
    term.alignments = [lambda image: 0 * image.sum()] * len(IMAGES)
    shift = term.shift(state_at(drawn(len(IMAGES), 2, 4, 4)))
    assert shift is not None
    assert not shift.any()


@pytest.mark.parametrize(("k", "guided"), [(29, False), (30, True), (45, True), (46, False)])
def test_the_window_includes_its_ends(k: int, guided: bool) -> None:
    state = state_at(drawn(len(IMAGES), 2, 4, 4), k)
    deviation = Deviation([[drawn(2, 4, 4)]] * len(IMAGES), scale=1.0, window=WINDOW)
    assert (tiny_influence().shift(state) is not None) == guided
    assert (deviation.shift(state) is not None) == guided


def test_deviation_is_the_slope_of_the_cosine_with_the_most_similar() -> None:
    z = drawn(len(IMAGES), 2, 4, 4, seed=3)
    near, far = z[1] + 0.3 * drawn(2, 4, 4, seed=4), -z[1]
    memory = [[drawn(2, 4, 4, seed=6)], [far, near], [], [drawn(2, 4, 4, seed=8), drawn(2, 4, 4, seed=9)], []]
    shift = Deviation(memory, scale=50.0, window=WINDOW).shift(state_at(z))
    assert shift is not None

    def nearest(row: int, at: Tensor) -> Tensor:
        return torch.stack([cosine_similarity(at.flatten(), m.flatten(), dim=0) for m in memory[row]]).max()

    for row, latents in enumerate(memory):
        if not latents:
            assert not shift[row].any(), "there is nothing to deviate from"
            continue
        direction, eps = drawn(2, 4, 4, seed=row), 1e-6
        slope = (nearest(row, z[row] + eps * direction) - nearest(row, z[row] - eps * direction)) / (2 * eps)
        torch.testing.assert_close((shift[row] * direction).sum(), -50 * slope, rtol=1e-5, atol=1e-7)
    assert Deviation([[]] * len(IMAGES), scale=50.0, window=WINDOW).shift(state_at(z)) is None


def test_a_loss_gradient_is_the_closed_form_of_a_linear_classifier() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double().requires_grad_(False)
    x = drawn(5, 1, 2, 2)
    layer: Any = linear[1]
    error = (x.flatten(1) @ layer.weight.T + layer.bias).softmax(1) - torch.eye(3).double()[1]
    by_hand = torch.cat([(error.T @ x.flatten(1) / 5).flatten(), error.mean(0)])
    torch.testing.assert_close(loss_gradient(linear, x, 1), by_hand)
    assert not any(p.requires_grad for p in linear.parameters()), "the network itself stays frozen"


def test_class_gradients_are_means_over_the_first_images_by_name(
    make_prior: MakePrior, make_task: Any, random_images: Any, memory_cache: Any
) -> None:
    train = random_images(CLASSES, per_class=64)
    task = make_task(train, CLASSES, cache=memory_cache)
    params = IGD.Params.model_validate(SMALL | {"real_images": 60})
    surrogate = Surrogate(task, params, image_size=8)
    found = torch.tensor(surrogate.class_gradient(1))
    images = torch.from_numpy(train.read(train.of_class(1)[:60])).permute(0, 3, 1, 2) / 255
    x = (images - 0.5) / 0.5
    assert len(surrogate.networks) == 2
    assert not np.array_equal(found[0], found[1])
    for row, network in zip(found, surrogate.networks, strict=True):
        one_by_one = torch.stack([loss_gradient(network, image[None], 1) for image in x]).mean(0)
        torch.testing.assert_close(row, one_by_one, rtol=1e-3, atol=1e-5)
    Surrogate(task, params, image_size=8).class_gradient(1)
    assert memory_cache.made.count("class-gradient") == 1, "made once for all cells"
    # The loss of images with that very gradient is 0.
    both = alignment_loss(surrogate.networks, x, 1, found)
    assert abs(both.item()) < 1e-4


def test_checkpoints_are_taken_where_gradients_have_turned_by_the_programs_rule() -> None:
    """By hand, the mean of two cosines: with epoch 0 0.9, 0.8, then 0.5, which is below 0.7; with epoch 3 then 0. From
    one epoch to the next they would be 0.9, 0.98, 0.9, 0: only the last is below."""
    gradients = torch.tensor(
        [
            [[1.0, 0.0], [2.0, 0.0]],
            [[4.0, 3.0], [1.0, 0.0]],
            [[3.0, 4.0], [1.0, 0.0]],
            [[0.0, 1.0], [1.0, 0.0]],
            [[0.0, 2.0], [-1.0, 0.0]],
        ]
    )
    assert take_checkpoints(lambda epoch: gradients[epoch], range(5), 0.7) == [0, 3, 4]
    assert take_checkpoints(lambda epoch: gradients[epoch], range(5), 0.49) == [0, 4]
    # Equal gradients, so short that the program's 1e-6 makes cosines of 1/2 and 4/5 of them.
    assert take_checkpoints(lambda epoch: 1e-3 * gradients[0], range(2), 0.66) == [0, 1]
    assert take_checkpoints(lambda epoch: 1e-3 * gradients[0], range(2), 0.64) == [0]


def test_the_rule_takes_from_all_epochs_of_one_training(make_task: Any, random_images: Any, memory_cache: Any) -> None:
    def surrogate(checkpoints: str, classes: list[int] | None = None) -> Surrogate:
        task = make_task(random_images(CLASSES), CLASSES, classes=classes, cache=memory_cache)
        return Surrogate(task, IGD.Params.model_validate(SMALL | {"checkpoints": checkpoints}), image_size=8)

    every, named, first = surrogate("cosine<1.1@2"), surrogate("0+1+2"), surrogate("cosine<-1.1@2")
    assert (every.chosen, named.chosen, first.chosen) == ([0, 1, 2], None, [0])
    np.testing.assert_array_equal(every.class_gradient(1), named.class_gradient(1))
    np.testing.assert_array_equal(first.class_gradient(1), named.class_gradient(1)[:1])
    assert memory_cache.made.count("classifier") == 1, "one training for all three"
    cosines = [
        np.mean([_cosine(*named.class_gradient(c)[[0, epoch]]) for c in range(len(CLASSES))]) for epoch in (1, 2)
    ]
    between = f"{np.mean(cosines):.6f}"
    expected = [0, *(epoch for epoch, cosine in zip((1, 2), cosines, strict=True) if cosine < float(between))]
    if expected[-1] == 1:  # what follows a checkpoint that was taken is compared with that one
        later = np.mean([_cosine(*named.class_gradient(c)[[1, 2]]) for c in range(len(CLASSES))])
        expected += [2] if later < float(between) else []
    assert len(expected) > 1
    made = memory_cache.made.count("checkpoints")
    assert surrogate(f"cosine<{between}@2").chosen == expected
    assert surrogate(f"cosine<{between}@2", classes=[2]).chosen == expected, "a shard takes what the whole takes"
    assert memory_cache.made.count("checkpoints") == made + 1
    with pytest.raises(ValueError, match=r"or cosine<0\.7@50, got 'cosine'"):
        IGD.Params.model_validate({"checkpoints": "cosine"})


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.astype(float) @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-6))


def test_influence_through_a_real_prior_and_classifier(
    make_prior: MakePrior, make_task: Any, random_images: Any
) -> None:
    """float32, so the slope is coarse; the direction must agree."""
    prior = Prior.load(find_prior(make_prior()))
    task = make_task(random_images(CLASSES), CLASSES, prior=prior)
    surrogate = Surrogate(task, IGD.Params.model_validate(SMALL), image_size=8)
    image = ImageKey("b", 0)
    term = Influence(
        prior, [image], [surrogate.alignment(1)], cfg_scale=4.0, scale=5.0, step_size=0.0015, window=WINDOW
    )
    own, null = (prior.embed_labels(torch.tensor([label])) for label in (1, prior.null_label))

    def state(z: Tensor) -> State:
        with torch.no_grad():
            free = prior.predict(z, 700, null)[0]
            epsilon = free + 4 * (prior.predict(z, 700, own)[0] - free)
        x0 = (z - math.sqrt(1 - ALPHA_BAR) * epsilon) / math.sqrt(ALPHA_BAR)
        return State(Step(0, 35, 700), z, epsilon, x0, torch.tensor([0.1]), ALPHA_BAR)

    z = drawn(1, 1, 8, 8).float()
    with torch.no_grad():
        g = term.gradient(state(z))
        direction, eps = g / g.norm(), 1e-2
        up, down = (float(surrogate.alignment(1)(state(z + s * eps * direction).x0[0])) for s in (1, -1))
    assert (up - down) / (2 * eps) == pytest.approx(float(g.norm()), rel=0.1)


def test_images_of_a_class_know_those_before_them(make_prior: MakePrior, make_task: Any, random_images: Any) -> None:
    task = make_task(random_images(CLASSES), CLASSES, ipc=3, prior=Prior.load(find_prior(make_prior())))
    settings = SMALL | {"steps": 8, "deviation_scale": 2.0}
    images = distill(IGD(IGD.Params.model_validate(settings)), task)
    alone = distill(IGD(IGD.Params.model_validate(settings | {"deviation_scale": 0})), task)
    without = distill(IGD(IGD.Params.model_validate(settings | {"influence_scale": 0})), task)
    short = distill(IGD(IGD.Params.model_validate(settings | {"memory": 1})), task)
    for (c, i), image in images.items():
        assert set(image.guidance_nats) == {"deviation", "influence"}
        assert image.guidance_nats["influence"] > 0
        assert (image.guidance_nats["deviation"] > 0) == (i > 0), "a first image has nothing to deviate from"
        assert np.array_equal(image.latent, alone[c, i].latent) == (i == 0)
        assert not np.array_equal(image.latent, without[c, i].latent)
        if i < 2:
            np.testing.assert_array_equal(image.latent, short[c, i].latent)
    assert set(without[0, 1].guidance_nats) == {"deviation"}
    pairs = [
        (float(cosine_similarity(*(torch.tensor(of[c, i].latent).flatten() for i in (0, 1)), dim=0)))
        for of in (images, alone)
        for c in range(3)
    ]
    assert sum(pairs[:3]) < sum(pairs[3:]), "deviation makes the second image less like the first"


def test_parameters() -> None:
    assert [IGD.Params().deviation_at(ipc) for ipc in (1, 10, 11, 50, 100)] == [50, 50, 120, 120, 120]
    assert IGD.Params(deviation_scale=0).deviation_at(10) == 0  # type: ignore[arg-type] - as --set reads it
    assert IGD.Params(deviation_scale=7).deviation_scale == IGD.Params(deviation_scale="7.0").deviation_scale  # type: ignore[arg-type]
    for wrong in ("", "a", "-1", "nan", "inf", "50@10", "50@10+-1", "1@2+3@4+5"):
        with pytest.raises(ValidationError, match="low@ipc\\+high"):
            IGD.Params(deviation_scale=wrong)
    assert IGD.Params(checkpoints=5).epochs == (5,)  # type: ignore[arg-type] - as YAML reads it
    recipe = IGD.Params().recipe(256)
    assert (recipe.epochs, recipe.keep_epochs, recipe.schedule) == (40, (0, 2, 11), "constant")
    assert (recipe.network, recipe.learning_rate, recipe.mean, recipe.std) == ("convnet6", 0.01, (0.5,), (0.5,))
    for wrong in ("", "1+", "a", "-1", "1,2"):
        with pytest.raises(ValidationError, match="joined by"):
            IGD.Params(checkpoints=wrong)
    with pytest.raises(ValidationError, match="window_first ≤ window_last"):
        IGD.Params(window_first=46)
    scaled = IGD.Params(steps=99)
    assert (scaled.window_first, scaled.window_last) == (60, 90)
    checkpoints = {d.name: d.method_defaults["igd"]["checkpoints"].value for d in (Woof, ImageNet1K)}
    assert checkpoints == {"woof": "0+5+16+40", "imagenet-1k": "0+5+18+52"}


@pytest.mark.parametrize(
    ("dataset", "plain", "k", "tuned"),
    [
        (Nette, [50, 120, 120], 15, [10, 10, 10]),
        (Woof, [50, 120, 120], 10, [50, 100, 100]),
        (ImageNet1K, [120, 120, 120], 10, [100, 100, 100]),
    ],
)
def test_its_scales_are_those_of_the_papers_table_7(
    dataset: type[ImageNetSubset], plain: list[float], k: float, tuned: list[float]
) -> None:
    def of(name: str) -> Any:
        (found,) = contestants(name, dataset, {}, set())
        return found.instance().params

    for name, influence, deviation in (("igd", 5, plain), ("igd-minimax", k, tuned), ("igd-minimax-small", k, tuned)):
        assert of(name).influence_scale == influence
        assert [of(name).deviation_at(ipc) for ipc in (10, 50, 100)] == deviation


def test_what_it_asks_for() -> None:
    class OneClass(Digits):
        class_ids = ("0",)

    assert "one class" in str(IGD().supports(OneClass, 1))
    assert IGD(IGD.Params(influence_scale=0)).supports(OneClass, 1) is None
    assert IGD().supports(Nette, 100) is None
    latent: Any = SimpleNamespace(resolution=256)
    assert IGD().images_at(224, latent) == ((256, "bilinear"),)
    assert IGD().images_at(256, latent) == ()
    assert rms(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).flatten().tolist() == pytest.approx([12.5**0.5, 0])
