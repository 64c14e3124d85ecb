"""Batched augmentation against torchvision, SciPy, and per-image NumPy written from the protocols' text."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.protocols import augmentation, base
from ddbench.benchmark.protocols.definitions import hard_adamw, hard_minimax_sgd, quick
from ddbench.datasets.whitening import Zca

CPU = torch.device("cpu")
MEAN, STD = np.array(base.IMAGENET_MEAN), np.array(base.IMAGENET_STD)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8)


def crop_colour(**settings: object) -> augmentation.CropColour:
    published = hard_minimax_sgd.PROTOCOL.augmentation
    assert isinstance(published, base.CropColour)
    return augmentation.CropColour(
        published.model_copy(update=settings), augmentation.Normalise(base.IMAGENET_MEAN, base.IMAGENET_STD, CPU)
    )


def torchvision_crops(
    n: int, side: int, scale: tuple[float, float], ratio: tuple[float, float], seed: int
) -> np.ndarray:
    """(n, 4) top, left, height, width."""
    transform, image = v2.RandomResizedCrop(side, scale, ratio), torch.empty(3, side, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = [transform.make_params([image]) for _ in range(n)]
    return np.array([[crop[key] for key in ("top", "left", "height", "width")] for crop in drawn])


def assert_same_distribution(ours: np.ndarray, reference: np.ndarray) -> None:
    assert stats.ks_2samp(ours, reference).pvalue > 1e-3


# Crops


@pytest.mark.parametrize(
    ("side", "scale", "ratio"),
    [
        (224, (0.5, 1.0), (3 / 4, 4 / 3)),  # the protocols'
        (224, (0.08, 1.0), (3 / 4, 4 / 3)),
        (16, (0.5, 1.0), (3 / 4, 4 / 3)),  # rounding to whole pixels shows
        (224, (0.9, 1.6), (3 / 4, 4 / 3)),  # most tries fail; all ten of some images do
    ],
)
def test_crops_are_distributed_as_torchvisions(
    side: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    ours = augmentation.draw_crops(6000, side, scale, ratio, seeded(1)).numpy()
    reference = torchvision_crops(6000, side, scale, ratio, seed=2)
    assert np.array_equal(ours, ours.round())
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= side).all()
    for of in (
        lambda crops: crops[:, 2],  # height
        lambda crops: crops[:, 3],  # width
        lambda crops: crops[:, 2] * crops[:, 3],  # area
        lambda crops: crops[:, 2] / crops[:, 3],  # ratio
        lambda crops: crops[:, 0],  # top
        lambda crops: crops[:, 1],  # left
        lambda crops: 2 * crops[:, 0] + crops[:, 2],  # vertical centre
    ):
        assert_same_distribution(of(ours), of(reference))


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.5, 2.0), (0.3, 0.7)])
def test_crop_falls_back_to_the_centre_as_torchvision_does(ratio: tuple[float, float]) -> None:
    ours = augmentation.draw_crops(4, 51, (4.0, 5.0), ratio, seeded())
    assert np.array_equal(ours.numpy(), torchvision_crops(4, 51, (4.0, 5.0), ratio, seed=0))


@pytest.mark.parametrize("side", [9, 64, 224])
@pytest.mark.parametrize("antialias", [False, True])
def test_crop_equals_torchvisions_resized_crop(side: int, antialias: bool) -> None:
    n = 12
    images = pixels(n, 3, side, side).float()
    crops = augmentation.draw_crops(n, side, (0.05, 1.0), (0.5, 2.0), seeded(3))
    crops[0] = torch.tensor([0, 0, side, side])
    crops[1] = torch.tensor([side - 1, 0, 1, side])
    flips = torch.arange(n) % 2
    ours = augmentation.resized_crop(images, crops.float(), flips)
    for i in range(n):
        top, left, height, width = (int(v) for v in crops[i])
        expected = tvf.resized_crop(images[i], top, left, height, width, [side, side], antialias=antialias)
        expected = tvf.horizontal_flip(expected) if flips[i] else expected
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=0.02)  # of 255: float32 positions at side 224


# Colour


def jittered(image: np.ndarray, alphas: np.ndarray, order: np.ndarray) -> np.ndarray:
    """One RGB image (3, H, W) in [0, 1]: brightness, contrast and saturation one after another."""
    for operation in order:
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        toward = [np.zeros_like(image), np.full_like(image, grey.mean()), np.stack([grey] * 3)][operation]
        image = image + alphas[operation] * (toward - image)
    return image


def test_colour_equals_one_image_after_another() -> None:
    n, side = 24, 11
    rng = np.random.default_rng(0)
    images = pixels(n, 3, side, side, seed=1)
    alphas = rng.uniform(-0.4, 0.4, (n, 3))
    order = np.stack([rng.permutation(3) for _ in range(n)])
    order[n // 2 :] = rng.integers(3, size=(n - n // 2, 3))  # the closed form holds for any sequence, repeated or not
    light = rng.normal(0, 0.1, (n, 3))
    whole = torch.tensor([0.0, 0, side, side, 0]).expand(n, 5)
    rows = torch.cat(
        [
            whole,
            augmentation.jitter_coefficients(torch.tensor(alphas), torch.tensor(order)).float(),
            torch.tensor(light).float(),
        ],
        dim=1,
    )
    ours = crop_colour().apply(images, rows).numpy()
    for i in range(n):
        lit = jittered(images[i].numpy() / 255, alphas[i], order[i]) + light[i][:, None, None]
        expected = (lit - MEAN[:, None, None]) / STD[:, None, None]
        np.testing.assert_allclose(ours[i], expected, rtol=0, atol=2e-5)


def test_jitter_is_distributed_as_the_text_says() -> None:
    n, rng = 6000, np.random.default_rng(5)
    ours = crop_colour().draw(n, 8, seeded(6))[:, 5:8].numpy()
    image = np.array([0.9, 0.2, 0.4, 0.1]).reshape(1, 2, 2) * np.array([1.0, 0.3, 0.6]).reshape(3, 1, 1)
    grey = np.tensordot([0.299, 0.587, 0.114], image, 1)
    reference = np.stack([jittered(image, rng.uniform(-0.4, 0.4, 3), rng.permutation(3)) for _ in range(n)])
    mixed = np.stack([p * image + q * grey + r * grey.mean() for p, q, r in ours])
    for of in (
        lambda x: x[:, 0, 0, 0],
        lambda x: x[:, 1, 1, 1],
        lambda x: x.mean((1, 2, 3)),
        lambda x: x.std((1, 2, 3)),
        lambda x: x[:, 0].mean((1, 2)) - x[:, 1].mean((1, 2)),
    ):
        assert_same_distribution(of(mixed), of(reference))


def test_light_lies_along_the_principal_components() -> None:
    light = crop_colour().draw(40_000, 8, seeded(7))[:, 8:].double().numpy()
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = vectors @ np.diag((0.1 * np.array([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(light.T), expected, rtol=0.05, atol=2e-7)
    # The first component is the grey axis, so light mostly brightens or darkens; rows are channels, not components.
    assert np.corrcoef(light.T).min() > 0.95
    assert stats.kstest(light[:5000, 0] / math.sqrt(expected[0, 0]), "norm").pvalue > 1e-3


def test_flips_are_fair_and_independent_of_the_crop() -> None:
    rows = crop_colour().draw(10_000, 224, seeded(8)).numpy()
    assert set(rows[:, 4]) == {0, 1}
    assert abs(rows[:, 4].mean() - 0.5) < 0.02
    assert abs(np.corrcoef(rows[:, 4], rows[:, 1])[0, 1]) < 0.04
    assert crop_colour(flip_probability=0.0).draw(100, 224, seeded()).numpy()[:, 4].max() == 0
    assert crop_colour(flip_probability=1.0).draw(100, 224, seeded()).numpy()[:, 4].min() == 1


# Shift and zoom


def affine(shift: float = 0.1, scale: tuple[float, float] = (0.9, 1.1)) -> augmentation.Affine:
    return augmentation.Affine(base.Affine(shift=shift, scale=scale), augmentation.Normalise((0.5,), (0.5,), CPU))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 33])
def test_affine_equals_scipys_interpolation(channels: int, side: int) -> None:
    n = 10
    images = pixels(n, channels, side, side, seed=2)
    augment = affine(0.3, (0.6, 1.5))
    rows = augment.draw(n, side, seeded(9))
    ours = augment.apply(images, rows).numpy()
    centre = (side - 1) / 2
    row, column = np.mgrid[:side, :side]
    for i in range(n):
        zoom, right, down = rows[i].tolist()
        at = [(row - centre - down) / zoom + centre, (column - centre - right) / zoom + centre]
        for channel in range(channels):
            source = images[i, channel].numpy().astype(np.float64)
            expected = ndimage.map_coordinates(source, at, order=1, mode="nearest")
            np.testing.assert_allclose(ours[i, channel], (expected / 255 - 0.5) / 0.5, rtol=0, atol=1e-4)


def test_affine_moves_right_down_and_enlarges() -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 4] = 255
    moved = affine().apply(image, torch.tensor([[1.0, 2.0, 1.0]]))
    assert moved[0, 0].argmax() == 5 * 9 + 6
    assert affine().apply(image, torch.tensor([[2.0, 0.0, 0.0]])).sum() > affine().apply(image, torch.ones(1, 3)).sum()


def test_affine_parameters_are_uniform() -> None:
    zoom, right, down = affine().draw(5000, 8, seeded(10)).numpy().T
    assert stats.kstest(zoom, stats.uniform(0.9, 0.2).cdf).pvalue > 1e-3
    for shift in (right, down):
        assert stats.kstest(shift, stats.uniform(-0.8, 1.6).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(np.stack([zoom, right, down])) - np.eye(3)).max() < 0.06


# CutMix


@pytest.mark.parametrize("side", [32, 64, 128, 224])
def test_cut_boxes_are_the_programs_box(side: int) -> None:
    """The programs of Minimax, DMGD, IGD and RDED: [c − ⌊cut/2⌋, c + ⌊cut/2⌋) on each axis, clipped; the loss is
    weighted by the area that is left of it."""
    ours, same, odd = seeded(side), seeded(side), 0
    for _ in range(10_000):
        cut = augmentation.draw_cut(2, side, ours)
        lam = torch.rand((), generator=same, dtype=torch.float64).item()
        centre = torch.randint(side, (2,), generator=same).numpy()
        torch.randperm(2, generator=same)
        length = math.floor(side * math.sqrt(1 - lam))
        low, high = (np.clip(centre + sign * (length // 2), 0, side) for sign in (-1, 1))
        assert (cut.top, cut.left, cut.bottom, cut.right) == (*low, *high)
        assert cut.own_share(side) == 1 - np.prod(high - low) / side**2
        odd += length % 2
    assert 4000 < odd < 6000, "cuts of odd length are where the box of full length would differ"


def test_cut_areas_are_distributed_as_the_text_says() -> None:
    n, side, rng = 4000, 224, np.random.default_rng(11)
    generator = seeded(12)
    ours = np.array([1 - augmentation.draw_cut(2, side, generator).own_share(side) for _ in range(n)])
    half = np.floor(side * np.sqrt(1 - rng.beta(1, 1, n)))[:, None] // 2
    centre = rng.integers(side, size=(n, 2))
    reference = np.prod(np.minimum(centre + half, side) - np.maximum(centre - half, 0), axis=1) / side**2
    assert_same_distribution(ours, reference)


def test_cut_weight_is_the_true_area_and_boxes_come_from_partners() -> None:
    generator, side, batch = seeded(13), 12, 6
    images = torch.arange(batch).float().view(batch, 1, 1, 1).expand(batch, 3, side, side)
    shares = []
    for _ in range(300):
        cut = augmentation.draw_cut(batch, side, generator)
        mixed = cut.apply(images)
        assert 0 <= cut.top <= cut.bottom <= side
        assert 0 <= cut.left <= cut.right <= side
        assert sorted(cut.partners.tolist()) == list(range(batch))
        for i, partner in enumerate(cut.partners.tolist()):
            own = (mixed[i] == i).float().mean().item()
            assert own == pytest.approx(1.0 if partner == i else cut.own_share(side), abs=1e-6)
            assert (mixed[i, :, cut.top : cut.bottom, cut.left : cut.right] == partner).all()
        shares.append(cut.own_share(side))
    assert torch.equal(images, torch.arange(batch).float().view(batch, 1, 1, 1).expand(batch, 3, side, side))
    assert 0 < min(shares) < max(shares) <= 1


# Whole pipelines


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), (base.IMAGENET_MEAN, base.IMAGENET_STD)])
def test_normalise_equals_torchvision(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    images = pixels(4, 3, 6, 6)
    expected = tvf.normalize(tvf.to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(augmentation.Normalise(mean, std, CPU)(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [entry.name for entry in PROTOCOLS])
def test_an_images_result_depends_on_its_row_alone(name: str) -> None:
    protocol, images = PROTOCOLS.load(name), pixels(7, 3, 32, 32)
    mixing = np.random.default_rng(0).normal(0, 3072**-0.5, (3072, 3072)).astype(np.float32)
    zca = None if protocol.whitening is None else Zca(np.full(3072, 0.5, np.float32), mixing)
    augment = augmentation.build(protocol, CPU, zca=zca)
    rows = augment.draw(7, 32, seeded(14))
    assert torch.equal(rows, augment.draw(7, 32, seeded(14)))
    different = 2 if name == "soft-rded-whole-64" else 6  # of a flip there are two, and that one has nothing else
    assert len(torch.unique(rows, dim=0)) >= different, "each draws for itself"
    together = augment.apply(images, rows)
    assert together.shape == (7, 3, 32, 32)
    assert together.dtype == torch.float32
    alone = torch.cat([augment.apply(images[i : i + 1], rows[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert len(torch.unique(augment.apply(images[:1].expand(7, -1, -1, -1), rows), dim=0)) >= different


def test_protocols_take_their_own_normalisation() -> None:
    rows = torch.tensor([[0.0, 0, 8, 8, 0, 1, 0, 0, 0, 0, 0]])
    images = pixels(1, 3, 8, 8)
    scaled = images[0].numpy() / 255
    for protocol, mean, std in (
        (hard_minimax_sgd.PROTOCOL, MEAN[:, None, None], STD[:, None, None]),
        (hard_adamw.IGD, 0.5, 0.5),
    ):
        ours = augmentation.build(protocol, CPU).apply(images, rows)[0].numpy()
        np.testing.assert_allclose(ours, (scaled - mean) / std, rtol=0, atol=1e-5)
    ours = augmentation.build(quick.PROTOCOL, CPU).apply(images, torch.tensor([[1.0, 0.0, 0.0]]))[0].numpy()
    np.testing.assert_allclose(ours, 2 * scaled - 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("draw", [lambda g: crop_colour().draw(9, 32, g), lambda g: affine().draw(9, 32, g)])
def test_draws_use_only_the_generator_they_are_given(draw: Callable[[torch.Generator], Tensor]) -> None:
    before = torch.get_rng_state()
    first, second = draw(seeded(1)), draw(seeded(2))
    augmentation.draw_cut(4, 8, seeded(3))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, second)
