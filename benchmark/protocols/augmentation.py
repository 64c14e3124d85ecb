"""Augmentation of whole batches on the device; every image has its own parameters, and no Python runs per image.

An augmentation works in two steps. `draw` takes the parameters of n images (an epoch's) from a CPU generator, one row
per image, so they are the same on every device. `apply` turns a batch of images and their rows into what a student
sees.

Shapes: n images of an epoch, B of a batch, C channels, S the side in pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ddbench.benchmark.core.transfers import send
from ddbench.benchmark.protocols import base
from ddbench.benchmark.protocols.rand_augment import RandAugment
from ddbench.datasets.whitening import Zca


class Normalise:
    """(B, C, S, S) pixels in 0 … 255, of any type, to float (pixels / 255 − mean) / std."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        means, stds = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))  # (C or 1, 1, 1)
        self.scale, self.offset = 1 / (255 * stds), -means / stds

    def __call__(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.offset, images.float(), self.scale)


class Whiten(Normalise):
    """(B, C, S, S) pixels in 0 … 255, of any type, to ZCA-whitened float."""

    def __init__(self, zca: Zca, device: torch.device) -> None:
        super().__init__((0.0,), (1.0,), device)
        self.mean, self.matrix = (torch.from_numpy(array).to(device) for array in (zca.mean, zca.matrix))

    def __call__(self, images: Tensor) -> Tensor:
        return ((super().__call__(images).flatten(1) - self.mean) @ self.matrix).view(images.shape)


def sample(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples of float images (B, C, S, S) on one axis-parallel grid per image: (B, C, S', S').

    Args:
        x: (B, S') columns in pixels; 0 is the centre of the first column, and the border repeats outside.
        y: (B, S') rows in pixels.
    """
    last = images.shape[-1] - 1
    columns = (x * (2 / last) - 1)[:, None, :].expand(-1, y.shape[1], -1)
    rows = (y * (2 / last) - 1)[:, :, None].expand(-1, -1, x.shape[1])
    grid = torch.stack([columns, rows], dim=-1)  # (B, S', S', 2); −1 and 1 are the centres of the border pixels
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def draw_crops(
    n: int, side: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Crops as torchvision's `RandomResizedCrop` draws them, for square images: (n, 4) top, left, height, width.

    Ten tries of an area ~ U(scale) · S² and a ratio whose logarithm is uniform; the first that fits is placed
    uniformly. Where none fits: the largest central crop whose ratio is allowed.
    """
    area = side**2 * _uniform((n, 10), *scale, generator)
    aspect = torch.exp(_uniform((n, 10), math.log(ratio[0]), math.log(ratio[1]), generator))
    widths, heights = torch.sqrt(area * aspect).round(), torch.sqrt(area / aspect).round()  # (n, 10)
    fits = (widths > 0) & (widths <= side) & (heights > 0) & (heights <= side)
    first = fits.int().argmax(1, keepdim=True)
    size = torch.stack([heights.gather(1, first), widths.gather(1, first)], dim=2)[:, 0]  # (n, 2)
    corner = (torch.rand(n, 2, generator=generator, dtype=torch.float64) * (side - size + 1)).floor()

    nearest = min(max(1.0, ratio[0]), ratio[1])
    central = torch.tensor([round(side / max(1.0, nearest)), round(side * min(1.0, nearest))], dtype=torch.float64)
    none_fits = ~fits.any(1, keepdim=True)
    size = torch.where(none_fits, central, size)
    corner = torch.where(none_fits, (side - central).div(2, rounding_mode="floor"), corner)
    return torch.cat([corner, size], dim=1)


def resized_crop(images: Tensor, crops: Tensor, flips: Tensor) -> Tensor:
    """Crops of float images (B, C, S, S), resized bilinearly to (S, S) and, where asked, mirrored left to right.

    The samples lie where torchvision's `resized_crop` takes them: pixel centres map to pixel centres, and the crop's
    border repeats. A crop is never larger than the image, so it is never shrunk, and antialiasing would change nothing.

    Args:
        crops: (B, 4) top, left, height, width in pixels.
        flips: (B,) 0 or 1.
    """
    top, left, height, width = crops[:, :, None].unbind(1)  # (B, 1) each
    side = images.shape[-1]
    out = torch.arange(side, device=images.device, dtype=images.dtype)
    out_x = torch.where(flips[:, None] > 0, side - 1 - out, out)  # (B, S)
    x = left + ((out_x + 0.5) * (width / side) - 0.5).clamp(min=0).minimum(width - 1)
    y = top + ((out + 0.5) * (height / side) - 0.5).clamp(min=0).minimum(height - 1)
    return sample(images, x, y)


def jitter_coefficients(alphas: Tensor, order: Tensor) -> Tensor:
    """Colour jitter in closed form: (n, 3) coefficients p, q, r, so that the jittered image is
    p · x + q · grey(x) + r · mean(grey(x)).

    Each operation is a lerp x ← (1 − α) x + α t toward t = black (0), the mean of grey(x) (1) or grey(x) (2). Without
    clamping all three are linear and leave that form, and grey(p x + q grey(x) + r m) = (p + q) grey(x) + r m.

    Args:
        alphas: (n, 3) α of brightness, contrast, saturation.
        order: (n, 3) the operations (0, 1, 2) from first to last.
    """
    p = torch.ones_like(alphas[:, 0])
    q, r = torch.zeros_like(p), torch.zeros_like(p)
    for operation in order.unbind(1):
        alpha = alphas.gather(1, operation[:, None])[:, 0]
        to_mean, to_grey = alpha * (operation == 1), alpha * (operation == 2)
        grey = p + q
        p, q, r = (
            (1 - alpha) * p,
            (1 - alpha) * q + to_grey * grey,
            (1 - alpha) * r + to_mean * (grey + r) + to_grey * r,
        )
    return torch.stack([p, q, r], dim=1)


class Augmentation(ABC):
    """What a trainer does with an epoch's images."""

    on_host = False
    """Whether `apply` takes images and rows on the CPU, and brings them to the device while that has work to do."""
    batch_size = 1
    """Images, one after another from the first that is drawn, whose rows have something in common."""

    @abstractmethod
    def draw(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        """(n, P) float32 on the CPU: one row of parameters per image."""

    @abstractmethod
    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        """(B, C, S, S) uint8 and their (B, P) rows, on one device, to normalised float (B, C, S, S) on the device."""


class Affine(Augmentation):
    """Shift and zoom about the centre (`base.Affine`), then normalisation."""

    def __init__(self, settings: base.Affine, normalise: Normalise) -> None:
        self.settings, self.normalise = settings, normalise

    def draw(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        """(n, 3): zoom, shift right and shift down in pixels."""
        zoom = _uniform((n, 1), *self.settings.scale, generator)
        shift = _uniform((n, 2), -self.settings.shift * side, self.settings.shift * side, generator)
        return torch.cat([zoom, shift], dim=1).float()

    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        zoom, right, down = rows[:, :, None].unbind(1)  # (B, 1) each
        centre = (images.shape[-1] - 1) / 2
        out = torch.arange(images.shape[-1], device=images.device, dtype=rows.dtype) - centre
        return self.normalise(sample(images.float(), (out - right) / zoom + centre, (out - down) / zoom + centre))


class CropColour(Augmentation):
    """RandomResizedCrop, flip, colour jitter, PCA lighting (`base.CropColour`), then normalisation; RGB only."""

    def __init__(self, settings: base.CropColour, normalise: Normalise) -> None:
        self.settings = settings
        device = normalise.scale.device
        self.scale, self.offset = (values.flatten().expand(3) for values in (normalise.scale, normalise.offset))
        self.grey = torch.tensor(settings.grey, device=device)
        self.identity = torch.eye(3, device=device)

    def draw(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        """(n, 11): crop (4), flip (1), jitter's coefficients (3), light added to R, G, B in [0, 1] (3)."""
        settings = self.settings
        crops = draw_crops(n, side, settings.scale, settings.ratio, generator)
        flips = _uniform((n, 1), 0, 1, generator) < settings.flip_probability
        alphas = _uniform((n, 3), -settings.jitter, settings.jitter, generator)
        order = torch.rand(n, 3, generator=generator, dtype=torch.float64).argsort(1)
        light_alphas = settings.lighting_std * torch.randn(n, 3, generator=generator, dtype=torch.float64)
        eigenvalues = torch.tensor(settings.lighting_eigenvalues, dtype=torch.float64)
        eigenvectors = torch.tensor(settings.lighting_eigenvectors, dtype=torch.float64)
        light = (light_alphas * eigenvalues) @ eigenvectors.T
        return torch.cat([crops, flips, jitter_coefficients(alphas, order), light], dim=1).float()

    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        crops, flips, jitter, light = rows.split([4, 1, 3, 3], dim=1)
        x = resized_crop(images.float(), crops, flips[:, 0])
        # Jitter, lighting and normalisation are together one affine map of an image's colours: x ← M x + b.
        p, q, r = jitter[:, :, None].unbind(1)  # (B, 1) each
        mean_grey = x.mean((2, 3)) @ self.grey[:, None]  # (B, 1)
        matrix = self.scale[:, None] * (p[:, :, None] * self.identity + q[:, :, None] * self.grey)  # (B, 3, 3)
        bias = self.scale * (r * mean_grey + 255 * light) + self.offset  # (B, 3)
        return torch.baddbmm(bias[:, :, None], matrix, x.flatten(2)).view_as(x)


class Crop(Augmentation):
    """Shuffled halves and RandAugment where asked, RandomResizedCrop, flip (`base.Crop`), then normalisation."""

    def __init__(self, settings: base.Crop, normalise: Normalise) -> None:
        self.settings, self.normalise = settings, normalise
        self.rand_augment = None if settings.rand_augment is None else RandAugment(settings.rand_augment)
        self.on_host = settings.rand_augment is not None

    def draw(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        """(n, 7 or 9): crop (4), flip (1), whether left and right change places, whether upper and lower do, seeds of
        RandAugment (2)."""
        settings = self.settings
        crops = draw_crops(n, side, settings.scale, settings.ratio, generator)
        flips = _uniform((n, 1), 0, 1, generator) < settings.flip_probability
        swaps = torch.rand(n, 2, generator=generator) < 0.5
        own = [] if self.rand_augment is None else [self.rand_augment.draw(n, generator)]
        return torch.cat([crops, flips, swaps & settings.shuffle, *own], dim=1).float()

    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        if self.settings.shuffle:
            images = swap_halves(images, rows[:, 5:7])
        if self.rand_augment is not None:
            device = self.normalise.scale.device
            images, rows = send(self.rand_augment(images, rows[:, 7:]), device), send(rows, device)
        crops, flips = rows[:, :5].split([4, 1], dim=1)
        return self.normalise(resized_crop(images.float(), crops, flips[:, 0]))


def swap_halves(images: Tensor, swaps: Tensor) -> Tensor:
    """Images (B, C, S, S) whose left ⌊S/2⌋ columns go behind the others where `swaps` (B, 2) asks for it, and then the
    upper ⌊S/2⌋ rows below the others. Of a collage of 2×2 images, this permutes the four."""
    half = images.shape[-1] // 2
    left, upper = (swaps > 0)[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    images = torch.where(left, images.roll(-half, 3), images)
    return torch.where(upper, images.roll(-half, 2), images)


class Siamese(Augmentation):
    """Normalisation, then an operation of `base.Siamese`.

    All its operations but the colours are one resampling and one mask, so rows hold what makes those of the operation
    that was drawn, and of the others nothing: the device needs no word from the host.

    Args:
        batch_size: images that share an operation, those of a step.
    """

    def __init__(self, settings: base.Siamese, normalise: Normalise, batch_size: int) -> None:
        self.settings, self.normalise, self.batch_size = settings, normalise, batch_size

    def draw(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        """(n, 13): brightness, saturation, contrast; the square's top, left, bottom and right; the six numbers of the
        map from an image's coordinates, −1 to 1, to those that are sampled."""
        settings = self.settings
        operation = torch.randint(len(settings.operations), (-(-n // self.batch_size),), generator=generator)
        operation = operation.repeat_interleave(self.batch_size)[:n]
        u = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        rows = torch.zeros(n, 13, dtype=torch.float64)
        rows[:, [1, 2, 7, 11]] = 1  # neither colour, nor map, changes anything
        for index, name in enumerate(settings.operations):
            mine = operation == index
            rows[mine] = _OPERATIONS[name](settings, side, u[mine], rows[mine])
        return rows.float()

    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        x = self.normalise(images)
        colours, (top, left, bottom, right), maps = (
            rows[:, :3].unbind(1),
            rows[:, 3:7, None].unbind(1),
            rows[:, 7:].view(-1, 2, 3),
        )
        grid = F.affine_grid(maps, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        at = torch.arange(x.shape[-1], device=x.device, dtype=rows.dtype)
        inside = ((at >= top) & (at < bottom))[:, :, None] & ((at >= left) & (at < right))[:, None, :]
        x = x.masked_fill(inside[:, None], 0)
        brightness, saturation, contrast = (values[:, None, None, None] for values in colours)
        x = x + brightness
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * saturation + grey
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * contrast + mean


def _color(settings: base.Siamese, side: int, u: Tensor, rows: Tensor) -> Tensor:
    rows[:, 0] = (u[:, 0] - 0.5) * settings.brightness
    rows[:, 1] = u[:, 1] * settings.saturation
    rows[:, 2] = u[:, 2] + settings.contrast
    return rows


def _crop(settings: base.Siamese, side: int, u: Tensor, rows: Tensor) -> Tensor:
    """Whole pixels, which a map from −1 to 1 counts as 2 / side."""
    furthest = int(settings.crop_padding * side + 0.5)
    rows[:, [9, 12]] = (((2 * furthest + 1) * u[:, :2]).floor() - furthest) * 2 / side
    return rows


def _cutout(settings: base.Siamese, side: int, u: Tensor, rows: Tensor) -> Tensor:
    """The centre lies on a pixel for an odd square, between two, or on the border, for an even one."""
    size = int(settings.cutout * side + 0.5)
    corner = ((side + 1 - size % 2) * u[:, :2]).floor() - size // 2
    rows[:, 3:5], rows[:, 5:7] = corner, corner + size
    return rows


def _flip(settings: base.Siamese, side: int, u: Tensor, rows: Tensor) -> Tensor:
    rows[:, 7] = torch.where(u[:, 0] < settings.flip_probability, -1.0, 1.0)
    return rows


def _scale(settings: base.Siamese, side: int, u: Tensor, rows: Tensor) -> Tensor:
    rows[:, [7, 11]] = 1 / settings.scale + (settings.scale - 1 / settings.scale) * u[:, :2]
    return rows


def _rotate(settings: base.Siamese, side: int, u: Tensor, rows: Tensor) -> Tensor:
    angle = (2 * u[:, 0] - 1) * math.radians(settings.rotation_degrees)
    rows[:, 7], rows[:, 8], rows[:, 10], rows[:, 11] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
    return rows


_OPERATIONS: Mapping[str, Callable[[base.Siamese, int, Tensor, Tensor], Tensor]] = {
    "color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate,
}  # fmt: skip


class Plain(Augmentation):
    """Normalisation alone."""

    def __init__(self, normalise: Normalise) -> None:
        self.normalise = normalise

    def draw(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        return torch.empty(n, 0)

    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        return self.normalise(images)


def make(settings: base.Augmentation | None, normalise: Normalise, batch_size: int = 1) -> Augmentation:
    """The augmentation that `settings` describe; None: normalisation alone.

    Args:
        batch_size: images of a step, where those have something in common.
    """
    match settings:
        case None:
            return Plain(normalise)
        case base.Affine():
            return Affine(settings, normalise)
        case base.CropColour():
            return CropColour(settings, normalise)
        case base.Crop():
            return Crop(settings, normalise)
        case base.Siamese():
            return Siamese(settings, normalise, batch_size)


def normalise_of(protocol: base.Protocol, device: torch.device, dataset: str | None, zca: Zca | None) -> Normalise:
    """What `protocol` does to every image of a dataset, in training and in tests.

    Raises:
        ValueError: a whitening where none belongs, or none.
    """
    if (protocol.whitening is None) != (zca is None):
        wanted = "None" if protocol.whitening is None else "the whitening of the dataset's training images"
        raise ValueError(f"protocol {protocol.label}: a whitening was given, or was not; expected as zca: {wanted}")
    return Normalise(*protocol.normalisation(dataset), device) if zca is None else Whiten(zca, device)


def build(
    protocol: base.Protocol,
    device: torch.device,
    dataset: str | None = None,
    batch_size: int = 1,
    zca: Zca | None = None,
) -> Augmentation:
    """The augmentation that `protocol` describes, for images of a dataset on `device`; as `make`."""
    return make(protocol.augmentation, normalise_of(protocol, device, dataset, zca), batch_size)


class Cut(NamedTuple):
    """CutMix of one batch: every image gets the box of its partner."""

    top: int
    left: int
    bottom: int
    right: int
    """Edges of the box in pixels, from `top` on; bottom and right are excluded."""
    partners: Tensor
    """Positions in the batch of the images that the boxes are cut from, (B,)."""

    def apply(self, images: Tensor) -> Tensor:
        """Mixed copies of (B, C, S, S)."""
        box = (..., slice(self.top, self.bottom), slice(self.left, self.right))
        mixed = images.clone()
        mixed[box] = images[box][self.partners.to(images.device)]
        return mixed

    def own_share(self, side: int) -> float:
        """The fraction of an image that is still its own: the weight of its own label in the loss."""
        return 1 - (self.bottom - self.top) * (self.right - self.left) / side**2


def draw_cut(batch: int, side: int, generator: torch.Generator) -> Cut:
    """CutMix with β = 1 (Yun et al., ICCV 2019), its box as the evaluators' programs draw it: λ ~ U(0, 1), cut =
    ⌊S √(1 − λ)⌋, a uniform pixel c, and [c − ⌊cut/2⌋, c + ⌊cut/2⌋) on each axis, clipped to the image (so an odd cut
    gives a box one pixel smaller); partners are a random permutation of the batch."""
    mix = torch.rand((), generator=generator, dtype=torch.float64).item()
    half = int(side * math.sqrt(1 - mix)) // 2
    row, column = torch.randint(side, (2,), generator=generator).tolist()
    partners = torch.randperm(batch, generator=generator)
    return Cut(max(row - half, 0), max(column - half, 0), min(row + half, side), min(column + half, side), partners)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
