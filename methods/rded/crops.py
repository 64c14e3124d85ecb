"""Crops for RDED (Sun et al., CVPR 2024, algorithm 1): drawn, scored, chosen and put together.

Legend: N images that are looked at, B crops, C channels, S the run's side in pixels, f the factor, s = S / f.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from ddbench.datasets.base import ImageSource
from ddbench.methods.base import DistillTask
from ddbench.methods.normalisation import to_levels, unit_range
from ddbench.methods.observer import Observer
from ddbench.methods.rded.params import RDEDParams

JPEG_QUALITY = 75
"""Quality of the JPEG files: Pillow's default, which the program leaves as it is."""


def best_crops(
    task: DistillTask, params: RDEDParams, source: ImageSource, side: int, observer: Observer, class_index: int
) -> Mapping[str, np.ndarray]:
    """The best of several random crops of each of the images of a class that are looked at, best image first.

    Made once for the classifier's weights and the set's seed, whatever the IPC.

    Returns:
        `images` (N,), positions in `source`; `boxes` (N, 4), top, left, height, width in its pixels; `losses` (N,),
        ascending.
    """
    class_id, factor = task.class_ids[class_index], params.factor_at(side)

    def make() -> dict[str, np.ndarray]:
        indices = task.train.of_class(class_index)
        order = torch.randperm(len(indices), generator=task.stream("rded images", class_id))
        images = indices[order.numpy()[: params.pool]]
        found = [best_of(block) for block in blocks(images)]
        boxes, losses = (np.concatenate(column) for column in zip(*found, strict=True))
        best_first = np.argsort(losses, kind="stable")
        return {"images": images[best_first], "boxes": boxes[best_first], "losses": losses[best_first]}

    def blocks(images: np.ndarray) -> Iterator[np.ndarray]:
        size = max(1, task.batch_size // params.crops)
        for start in range(0, len(images), size):
            task.progress(f"crops of class {class_id}: {start} of {len(images)} images")
            yield images[start : start + size]

    def best_of(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = unit_range(source.read(block), task.device)
        drawn = [
            draw_boxes(params.crops, pixels.shape[-1], params.min_scale, task.stream("rded crops", source.names[i]))
            for i in block
        ]
        boxes = np.stack(drawn)  # (block, crops, 4)
        cut_out = cut(pixels.repeat_interleave(params.crops, 0), boxes.reshape(-1, 4), side // factor)
        losses = score(observer, cut_out, class_index, side).reshape(len(block), params.crops)
        best = losses.argmin(1)
        rows = np.arange(len(block))
        return boxes[rows, best], losses[rows, best]

    key = {
        "train": task.train_hash,
        "class_id": class_id,
        "classifier": observer.sha256,
        "device": task.device.type,
        "seed": task.seed,
        "factor": factor,
        **params.model_dump(include={"pool", "crops", "min_scale", "source_scale"}),
    }
    return task.cache.arrays("crops", key, make)


def draw_boxes(count: int, side: int, min_scale: float, generator: torch.Generator) -> np.ndarray:
    """Square boxes in an image of `side` pixels, as torchvision's `RandomResizedCrop` with ratio 1 draws them: area
    ~ U(min_scale, 1) of the image, then a uniform place. (count, 4) int64: top, left, height, width."""
    u = torch.rand(count, 3, generator=generator, dtype=torch.float64).numpy()
    edge = np.rint(side * np.sqrt(min_scale + (1 - min_scale) * u[:, 0])).clip(1, side)
    top, left = np.floor(u[:, 1:].T * (side - edge + 1))
    return np.stack([top, left, edge, edge], 1).astype(np.int64)


def cut(images: Tensor, boxes: np.ndarray, size: int) -> Tensor:
    """One box of each image (B, C, ·, ·) in [0, 1], resized bilinearly with antialiasing: (B, C, size, size)."""
    pieces = [
        vision.resized_crop(image, *box, [size, size], antialias=True)
        for image, box in zip(images, boxes.tolist(), strict=True)
    ]
    return torch.stack(pieces)


def score(observer: Observer, crops: Tensor, class_index: int, side: int) -> np.ndarray:
    """Cross-entropy of the class for each crop (B, C, s, s) in [0, 1], seen in the middle of an image of S = `side`
    that is 0 (in normalised space) around it: (B,)."""
    before = (side - crops.shape[-1]) // 2
    after = side - crops.shape[-1] - before
    with torch.no_grad():
        logits = observer.network()(F.pad(observer.normalise(crops), (before, after, before, after)))
        labels = torch.full((len(crops),), class_index, device=logits.device)
        return F.cross_entropy(logits.float(), labels, reduction="none").cpu().numpy()


def collages(
    source: ImageSource, best: Mapping[str, np.ndarray], ipc: int, factor: int, side: int, device: torch.device
) -> np.ndarray:
    """The best crops, f × f to an image: image j holds numbers j, j + IPC, j + 2 IPC, …, row by row.

    Returns:
        (IPC, S, S, C) uint8.
    """
    images, boxes = (best[name][: ipc * factor**2] for name in ("images", "boxes"))
    crops = cut(unit_range(source.read(images), device), boxes, side // factor)
    grid = crops.unflatten(0, (factor, factor, ipc))  # (row, column, IPC, C, s, s)
    return to_levels(grid.permute(2, 3, 0, 4, 1, 5).reshape(ipc, -1, side, side))


def through_jpeg(image: np.ndarray) -> np.ndarray:
    """(S, S, C) uint8 as it comes back from a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(file, "JPEG", quality=JPEG_QUALITY)
    with Image.open(file) as opened:
        return np.asarray(opened).reshape(image.shape)
