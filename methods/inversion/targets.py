"""What a batch's statistics are compared with: BatchNorm's running statistics, or those of the real images.

The second come from one pass of the trained teacher over all training images, each seen as one random crop (G-VBSM,
EDC) or as it is (WMDD). Of all images: their mean and biased variance as of one great batch. Of a class: the mean, over
its images, of the means and variances within each (EDC), a running mean of them in random order (LPLD), or as of one
great batch (WMDD). No program's way to add up its batches is followed, so that the batch size changes no target.

Legend: K classes, B images, D numbers: the channels and blocks of all statistics, one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddbench.methods.base import DistillTask
from ddbench.methods.inversion import view
from ddbench.methods.inversion.barycentre import barycentres
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.statistics import LayerInputs, Moments
from ddbench.methods.normalisation import unit_range
from ddbench.methods.observer import Observer

CROP_SCALE = 0.08
"""Least area of a real image's crop, as a fraction of it: torchvision's."""


@dataclass(frozen=True)
class Targets:
    """For each statistic of a teacher, in the order of `LayerInputs`, the moments that are wanted."""

    whole: Sequence[Moments]
    """Of all real images."""
    by_class: Sequence[Moments] = ()
    """Of each class, one a row: (K, ·); empty where no class's are asked for."""
    points: Tensor | None = None
    """(K, images of a class, features) where the features of images are to lie; None where nowhere in particular."""

    def of(self, labels: Tensor) -> list[Moments]:
        """The mean, over labels (B,), of their classes' moments."""
        return [Moments(one.mean[labels].mean(0), one.variance[labels].mean(0)) for one in self.by_class]

    def of_each(self, classes: Tensor) -> list[Moments]:
        """The moments of each of these classes, (G, ·)."""
        return [Moments(one.mean[classes], one.variance[classes]) for one in self.by_class]


def load_targets(task: DistillTask, params: InversionParams, teacher: Observer, name: str) -> Targets:
    """Look at the real images through a teacher, if its own statistics are not all that is asked for.

    The statistics of each class are artefacts, of all classes of the dataset whichever the cell has.

    Args:
        name: of its network, for messages.

    Raises:
        UsageError: it has no layers to match.
    """
    inputs = LayerInputs(teacher.network(), name, params.convolution_statistics)
    kept = inputs.kept()
    points = barycentres(task, teacher) if params.barycentre_weight else None
    if not params.looks_at_real_statistics:
        return Targets([one for one in kept if one is not None], points=points)
    found = [_of_class(task, params, teacher, inputs, c) for c in range(len(task.class_ids))]
    lengths = found[0]["lengths"].tolist()

    def parted(name: str) -> list[Tensor]:
        rows = torch.from_numpy(np.stack([one[name] for one in found])).to(task.device)
        return list(rows.split(lengths, -1))

    passed = [Moments(*both) for both in zip(*_of_all(task, found, lengths), strict=True)]
    whole = [own or seen for own, seen in zip(kept, passed, strict=True)]
    if not params.class_statistics_share:
        return Targets(whole, points=points)
    names = ("mean", "variance") if params.class_statistics_apart else ("class_mean", "class_variance")
    return Targets(whole, [Moments(*both) for both in zip(*map(parted, names), strict=True)], points)


def _of_all(
    task: DistillTask, found: Sequence[Mapping[str, np.ndarray]], lengths: list[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Means and variances of all images from those of classes, statistic by statistic."""
    counts = np.array([len(task.train.of_class(c)) for c in range(len(found))])
    share = (counts / counts.sum())[:, None]
    means, variances = (np.stack([one[name] for one in found]).astype(np.float64) for name in ("mean", "variance"))
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean) ** 2)).sum(0)
    mean_parts, variance_parts = (
        list(torch.from_numpy(row.astype(np.float32)).to(task.device).split(lengths)) for row in (mean, variance)
    )
    return mean_parts, variance_parts


def _of_class(
    task: DistillTask, params: InversionParams, teacher: Observer, inputs: LayerInputs, class_index: int
) -> Mapping[str, np.ndarray]:
    """Of one class `mean` and `variance` as of one batch, and `class_mean` and `class_variance` of those within images,
    (D,) float32; `lengths` of the statistics."""
    class_id = task.class_ids[class_index]

    def make() -> dict[str, np.ndarray]:
        indices, means, variances, lengths = task.train.of_class(class_index), [], [], [0]
        for start in range(0, len(indices), task.batch_size):
            task.progress(f"statistics of class {class_id}: {start} of {len(indices)} images")
            crops = _crops(task, params, indices[start : start + task.batch_size])
            with torch.no_grad(), inputs.seen(apart=True) as found:
                teacher.network()(teacher.normalise(crops))
            lengths = [one.mean.shape[1] for one in found]
            means.append(torch.cat([one.mean for one in found], 1).double().cpu().numpy())
            variances.append(torch.cat([one.variance for one in found], 1).double().cpu().numpy())
        mean, variance = np.concatenate(means), np.concatenate(variances)
        shares = _shares(task, params.class_statistics_momentum, class_id, len(indices))[:, None]
        rows = {
            "mean": mean.mean(0),
            "variance": variance.mean(0) + mean.var(0),
            "class_mean": (shares * mean).sum(0),
            "class_variance": (shares * variance).sum(0),
        }
        return {name: row.astype(np.float32) for name, row in rows.items()} | {"lengths": np.array(lengths)}

    key = {
        "train": task.train_hash,
        "class_id": class_id,
        "classifier": teacher.sha256,
        "device": task.device.type,
        "seed": task.seed,
        "crop_scale": CROP_SCALE,
        **params.model_dump(
            include={"flip", "convolution_statistics", "class_statistics_momentum", "class_statistics_view"}
        ),
    }
    return task.cache.arrays("statistics", key, make)


def _shares(task: DistillTask, momentum: float, class_id: str, count: int) -> np.ndarray:
    """What each of the class's images counts in its statistics, 1 in all: (count,). The last of a running mean has the
    share `momentum`, those before it `momentum` of what is left."""
    if not momentum:
        return np.full(count, 1 / count)
    order = torch.randperm(count, generator=task.stream("inversion order", class_id)).numpy()
    shares = np.empty(count)
    shares[order] = momentum * (1 - momentum) ** np.arange(count)[::-1]
    return shares / shares.sum()


def _crops(task: DistillTask, params: InversionParams, indices: np.ndarray) -> Tensor:
    """One random crop of each of these training images, at the run's side, or all of it: (B, C, S, S) in [0, 1]."""
    images = unit_range(task.train.read(indices), task.device)
    if params.class_statistics_view == "whole":
        return images
    streams = [task.stream("inversion crops", task.train.names[i]) for i in indices]
    views = [view.draw(images.shape[-1], CROP_SCALE, 0, params.flip, stream) for stream in streams]
    return torch.cat([one.of(images[i : i + 1]) for i, one in enumerate(views)])
