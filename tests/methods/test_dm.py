"""DM: its augmentation, the closed form of its step on a linear embedding, and that a killed run ends the same."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.seeds import stream
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import Woof
from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.classifier import penultimate
from ddbench.methods.dm import matching, siamese
from ddbench.methods.dm.matching import Matching, match_means
from ddbench.methods.dm.method import DM
from ddbench.methods.dm.params import OPERATIONS
from ddbench.methods.normalisation import Normalisation

CPU = torch.device("cpu")
HALF = Normalisation("half", CPU)


def images(count: int = 3, channels: int = 3, image_size: int = 9) -> Tensor:
    return torch.randn(count, channels, image_size, image_size, generator=stream(0, "test images"), dtype=torch.float64)


# Augmentation ---------------------------------------------------------------------------------------------------------


def resampled(x: Tensor, row_matrix: np.ndarray) -> np.ndarray:
    """SciPy's bilinear sampling about the centre, 0 outside; `row_matrix` acts on (row, column)."""
    centre = (np.array(x.shape[-2:]) - 1) / 2
    offset = centre - row_matrix @ centre
    planes = [
        ndimage.affine_transform(plane, row_matrix, offset, order=1, mode="grid-constant", cval=0)
        for plane in x.flatten(0, 1).numpy()
    ]
    return np.stack(planes).reshape(x.shape)


def test_scale_and_rotation_equal_scipy() -> None:
    x = images()
    stretched = siamese.resample(x, ((1.15, 0.0), (0.0, 0.85)))
    np.testing.assert_allclose(stretched, resampled(x, np.diag([0.85, 1.15])), atol=1e-9)
    angle = math.radians(11)
    turned = siamese.resample(x, ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))
    by_row = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    np.testing.assert_allclose(turned, resampled(x, by_row), atol=1e-9)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, -1), (-2, 1), (2, 2)])
def test_shift_equals_scipy(down: int, right: int) -> None:
    x = images()
    expected = ndimage.shift(x.numpy(), (0, 0, down, right), order=0, cval=0)
    np.testing.assert_array_equal(siamese.shift(x, down, right), expected)


@pytest.mark.parametrize(("size", "row", "column"), [(5, 4, 4), (5, 0, 8), (4, 0, 9), (4, 5, 2)])
def test_cutout_blackens_the_square_around_its_centre(size: int, row: int, column: int) -> None:
    x = images()
    cut = siamese.cutout(x, size, row, column)
    for r in range(9):
        for c in range(9):
            inside = all(0 <= at - centre + size // 2 < size for at, centre in ((r, row), (c, column)))
            assert torch.equal(cut[..., r, c], torch.zeros(3, 3) if inside else x[..., r, c])


def test_colour_is_brightness_then_saturation_then_contrast() -> None:
    x = images().numpy()
    expected = []
    for image in x:
        bright = image + 0.3
        saturated = bright.mean(0) + 1.7 * (bright - bright.mean(0))
        expected.append(saturated.mean() + 0.6 * (saturated - saturated.mean()))
    ours = siamese.colour(images(), brightness=0.3, saturation=1.7, contrast=0.6)
    np.testing.assert_allclose(ours, np.stack(expected), atol=1e-12)


def test_contrast_equals_torchvisions_where_that_does_not_clamp() -> None:
    grey = images(channels=1).mul(0.05).add(0.5)
    ours = siamese.colour(grey, brightness=0, saturation=1, contrast=0.7)
    np.testing.assert_allclose(ours, vision.adjust_contrast(grey, 0.7), atol=1e-9)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_image_gets_the_same_and_gradients_are_right(operation: str) -> None:
    real, synthetic = images(4), images(2, image_size=9) * 0.5
    for draw in range(4):
        augment = siamese.draw((operation,), 9, stream(draw, "augmentation"))
        both = augment(torch.cat([real, synthetic]))
        torch.testing.assert_close(both, torch.cat([augment(real), augment(synthetic)]))
        assert torch.autograd.gradcheck(augment, (synthetic[:1, :, :4, :4].clone().requires_grad_(),))


def test_one_operation_is_drawn_and_its_numbers_cover_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, tuple[Any, ...]]] = []
    for name in ("colour", "shift", "cutout", "resample"):
        monkeypatch.setattr(siamese, name, lambda x, name=name, **k: seen.append((name, tuple(k.values()))) or x)
    image_size, x, flips = 16, images(1, image_size=16), 0
    for draw in range(3000):
        flips += not torch.equal(siamese.draw(OPERATIONS, image_size, stream(draw, "augmentation"))(x), x)
    found = {name: [numbers for other, numbers in seen if other == name] for name in dict(seen)}
    counts = Counter(name for name, _ in seen)
    # Two of six are resamplings, and half of the flips mirror: four standard deviations around what is expected.
    for count, share in [*((counts[n], 1 / 6) for n in ("colour", "shift", "cutout")), (counts["resample"], 1 / 3)]:
        assert abs(count - 3000 * share) < 4 * math.sqrt(3000 * share * (1 - share))
    assert abs(flips - 250) < 4 * math.sqrt(250 * 11 / 12)
    for column, (low, high) in zip(
        np.array(found["colour"]).T, [(-0.5, 0.5), (0, 2), (0.5, 1.5)], strict=True
    ):  # brightness, saturation, contrast
        assert low <= column.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < column.max() <= high
    assert {numbers for pair in found["shift"] for numbers in pair} == set(range(-2, 3))
    assert {numbers[0] for numbers in found["cutout"]} == {8}
    assert {numbers for triple in found["cutout"] for numbers in triple[1:]} == set(range(17))
    matrices = np.array([matrix for (matrix,) in found["resample"]])
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 1, 1]))
    turned = angles != 0
    assert -15 <= angles.min() < -14.5
    assert 14.5 < angles.max() <= 15
    factors = matrices[~turned][:, [0, 1], [0, 1]]
    assert 1 / 1.2 <= factors.min() < 0.84
    assert 1.19 < factors.max() <= 1.2
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.2, "the two axes are drawn apart"


def test_no_operations_are_the_identity() -> None:
    x = images()
    assert siamese.draw((), 9, stream(0, "augmentation"))(x) is x


# The step -------------------------------------------------------------------------------------------------------------


def linear_network(features: int = 5, image_size: int = 4, channels: int = 1) -> nn.Module:
    """Embeds linearly: its last linear layer takes W x."""
    first = nn.Linear(channels * image_size**2, features, bias=False, dtype=torch.float64)
    first.weight.data = torch.randn(first.weight.shape, generator=stream(0, "weights"), dtype=torch.float64) / 4
    return nn.Sequential(nn.Flatten(), first, nn.Linear(features, 3, dtype=torch.float64))


def test_loss_and_gradient_equal_the_closed_form_of_a_linear_embedding() -> None:
    """‖W d‖² with d = mean real − mean synthetic; its gradient is −2 Wᵀ W d / n for each of the n images."""
    network = linear_network()
    real = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), np.uint8)
    synthetic = images(3, 1, 4)
    weight = network[1].weight.detach().numpy()  # type: ignore[union-attr, operator]
    difference = ((real / 255 - 0.5) / 0.5).reshape(7, 16).mean(0) - synthetic.reshape(3, 16).mean(0).numpy()
    expected = -2 * weight.T @ weight @ difference / 3
    for block in (64, 3, 2, 1):
        loss, gradient = match_means(lambda x: network[:2](x.double()), real, synthetic, block, HALF)  # type: ignore[index]
        assert loss.item() == pytest.approx(((weight @ difference) ** 2).sum(), rel=1e-6)
        np.testing.assert_allclose(gradient.reshape(3, 16), np.tile(expected, (3, 1)), rtol=1e-5, atol=1e-7)


Make = Callable[..., DistillTask]


@pytest.fixture
def dm_task(make_task: Make, random_images: Callable[..., ArraySource]) -> Make:
    """A task with the linear network for every iteration, and 12 images of 4×4 in each of two classes."""

    def make(network: Callable[..., nn.Module] | None = None, **given: Any) -> DistillTask:
        task = make_task(random_images(("a", "b"), image_size=4), ("a", "b"), **given)
        asked = network or (lambda *_: linear_network().float())
        return dataclasses.replace(task, network=asked)

    return make


def params(**given: Any) -> Any:
    return DM.Params(**{"iterations": 6, "normalisation": "half", "augmentation": "none", "learning_rate": 0.1} | given)


def run(task: DistillTask, **given: Any) -> dict[tuple[int, int], DistilledImage]:
    method = DM(params(**given))
    method.prepare(task)
    return {(i.class_index, i.image_index): i for finished in method.distill(task) for i in finished}


def test_steps_are_those_of_sgd_with_momentum_on_the_sum_over_classes(dm_task: Make) -> None:
    task = dm_task(ipc=2)
    ours = Matching(task, params(real_batch=64), (0, 1))
    weight = linear_network()[1].weight.detach().float()  # type: ignore[union-attr, operator]
    real = HALF.from_pixels(task.train.read(np.arange(24))).reshape(2, 12, 16)
    pixels = ours.state["images"].clone().requires_grad_()
    optimiser = torch.optim.SGD([pixels], lr=0.1, momentum=0.5)
    for _ in range(4):
        losses = ours.step()
        ours.iteration += 1
        distance = ((real.mean(1) - pixels.reshape(2, 2, 16).mean(1)) @ weight.T).square().sum()
        assert losses.sum().item() == pytest.approx(distance.item(), rel=1e-5)
        optimiser.zero_grad()
        distance.backward()
        optimiser.step()
    torch.testing.assert_close(ours.state["images"], pixels.detach(), rtol=1e-5, atol=1e-6)


def test_the_mean_embedding_goes_to_that_of_the_real_images(dm_task: Make) -> None:
    task = dm_task(ipc=2)
    whole = Matching(task, params(real_batch=64, learning_rate=0.3), (0,))
    losses = []
    for _ in range(200):
        losses.append(whole.step().item())
        whole.iteration += 1
    assert losses[-1] < 1e-4 * losses[0]


def test_the_loss_falls_on_digits_also_under_networks_that_were_not_drawn(make_task: Make) -> None:
    from ddbench.benchmark.protocols.networks import build

    def network(name: str, image_size: int, *key: str | int) -> nn.Module:
        return build(name, 10, image_size, 1, 16, generator=stream(0, "network", name, *key))

    train = Digits().load("default", None, 8).train
    task = dataclasses.replace(make_task(train, Digits.class_ids, ipc=2), network=network)
    given = {"learning_rate": 3.0, "network_image_size": 16, "init": "noise", "real_batch": 64}
    moved = Matching(task, params(**given), (0, 3))
    others = [network("convnet3", 16, "others", i) for i in range(3)]

    def loss() -> float:
        found = []
        for k, class_index in enumerate(moved.classes):
            real = train.read(train.of_class(class_index))
            for other in others:

                def embed(x: Tensor, other: nn.Module = other) -> Tensor:
                    return penultimate(other, nn.functional.interpolate(x, (16, 16), mode="bilinear"))

                found.append(match_means(embed, real, moved.state["images"][k], 256, HALF)[0])
        return torch.stack(found).mean().item()

    before = loss()
    for _ in range(30):
        moved.step()
        moved.iteration += 1
    assert loss() < 0.4 * before


def test_every_iteration_asks_for_its_own_network_and_leaves_it_untrained(dm_task: Make) -> None:
    asked = []

    def network(*key: Any) -> nn.Module:
        asked.append((key, linear_network().float()))
        return asked[-1][1]

    run(dm_task(network, ipc=1), iterations=3, network="convnet3")
    assert [key for key, _ in asked] == [("convnet3", 4, "dm", iteration) for iteration in range(3)]
    assert not any(parameter.requires_grad for _, net in asked for parameter in net.parameters())


# Images ---------------------------------------------------------------------------------------------------------------


def test_images_start_from_real_ones_of_their_class_in_a_nested_order(dm_task: Make) -> None:
    task = dm_task(ipc=5)
    starts = HALF.to_pixels(Matching(task, params(), (1,)).state["images"][0])
    real = [image.tobytes() for image in task.train.read(task.train.of_class(1))]
    chosen = [real.index(image.tobytes()) for image in starts]
    assert len(set(chosen)) == 5
    fewer = HALF.to_pixels(Matching(dm_task(ipc=2), params(), (1,)).state["images"][0])
    np.testing.assert_array_equal(fewer, starts[:2])
    noise = Matching(task, params(init="noise"), (1,)).state["images"]
    assert abs(noise.mean().item()) < 0.4
    assert 0.6 < noise.std().item() < 1.4


def test_images_depend_neither_on_the_classes_beside_them_nor_on_blocks(dm_task: Make) -> None:
    given = {"augmentation": "_".join(OPERATIONS), "real_batch": 5}
    together = run(dm_task(ipc=2), **given)
    alone = run(dm_task(ipc=2, classes=[1], batch_size=1), **given)
    assert alone.keys() == {(1, 0), (1, 1)}
    for key, image in alone.items():
        assert np.abs(image.pixels.astype(int) - together[key].pixels).max() <= 1
    assert any((run(dm_task(ipc=2, seed=1), **given)[key].pixels != together[key].pixels).any() for key in together)


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_bits(
    dm_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "CHECKPOINT_EVERY", 2)
    given = {"iterations": 7, "augmentation": "_".join(OPERATIONS), "real_batch": 5}
    undisturbed = run(dm_task(ipc=2), **given)
    steps = []

    def dying(self: Matching) -> Tensor:
        if self.iteration == 5 and len(steps) < 6:
            raise KeyboardInterrupt
        steps.append(self.iteration)
        return step(self)

    step = Matching.step
    monkeypatch.setattr(Matching, "step", dying)
    task = dm_task(ipc=2)
    with pytest.raises(KeyboardInterrupt):
        run(task, **given)
    assert list(task.scratch.iterdir())
    steps.append(-1)
    resumed = run(task, **given)
    assert steps == [0, 1, 2, 3, 4, -1, 4, 5, 6]
    assert not list(task.scratch.iterdir()), "a committed round leaves no checkpoint"
    for key, image in undisturbed.items():
        np.testing.assert_array_equal(resumed[key].pixels, image.pixels)


def test_a_damaged_checkpoint_or_one_of_other_classes_is_not_taken(dm_task: Make) -> None:
    task = dm_task(ipc=1)
    expected = run(task)
    (task.scratch / "dm-0.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0 half")
    again = run(task)
    other = Matching(task, params(), (0,))
    other.state["images"] += 9
    other.iteration = 5
    other._keep()
    once_more = run(task)
    for key, image in expected.items():
        np.testing.assert_array_equal(again[key].pixels, image.pixels)
        np.testing.assert_array_equal(once_more[key].pixels, image.pixels)


def test_classes_are_finished_in_chunks_of_a_batch_and_done_ones_are_left_out(dm_task: Make) -> None:
    method = DM(params())
    whole = run(dm_task(ipc=2))
    task = dm_task(ipc=2, batch_size=2, done=[whole[0, 0], whole[0, 1], whole[1, 1]])
    (finished,) = method.distill(task)
    assert [(image.class_index, image.image_index) for image in finished] == [(1, 0)]
    assert np.abs(finished[0].pixels.astype(int) - whole[1, 0].pixels).max() <= 1


def test_a_loss_that_is_not_finite_ends_the_run_with_class_and_iteration(dm_task: Make) -> None:
    with pytest.raises(RunError, match="loss of class a is not finite at iteration 100; choose a learning_rate below"):
        run(dm_task(ipc=1), iterations=300, learning_rate=1e9)


def test_more_images_than_a_class_has_need_noise_to_start_from(dm_task: Make) -> None:
    with pytest.raises(
        UsageError,
        match="class a has 12 training images, fewer than the 13 to start from; choose --ipc 12 or less, or init=",
    ):
        run(dm_task(ipc=13))
    assert len(run(dm_task(ipc=13), init="noise", iterations=1)) == 26


def test_what_it_cannot_do_is_said_while_planning() -> None:
    assert DM().supports(Woof, 10) is None
    assert "normalisation=imagenet is for RGB" in str(DM().supports(Digits, 10))
    assert DM(params()).supports(Digits, 10) is None
    with pytest.raises(ValidationError, match="unknown operation 'blur'"):
        params(augmentation="color_blur")


def test_pixels_survive_normalisation() -> None:
    for name in ("half", "imagenet"):
        normalisation = Normalisation(name, CPU)  # type: ignore[arg-type]
        pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)
        x = normalisation.from_pixels(pixels)
        expected = vision.normalize(
            vision.to_dtype(torch.from_numpy(pixels).permute(0, 3, 1, 2), scale=True),
            [0.5] * 3 if name == "half" else [0.485, 0.456, 0.406],
            [0.5] * 3 if name == "half" else [0.229, 0.224, 0.225],
        )
        torch.testing.assert_close(x, expected)
        np.testing.assert_array_equal(normalisation.to_pixels(x), pixels)
        assert normalisation.to_pixels(x + 9).min() == 255
