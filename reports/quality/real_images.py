"""What all sets of a dataset are measured against, computed once.

Legend: R real images that are looked at, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import Dataset, ImageSource, SplitData
from ddbench.reports.quality import neighbours, spread, transport
from ddbench.reports.quality.features import Extractor
from ddbench.reports.quality.frechet import FrechetDistance
from ddbench.reports.quality.measures import COVERAGE_NEIGHBOURS, PRECISION_NEIGHBOURS
from ddbench.reports.quality.nearest import nearest

TRANSPORT_IMAGES = 5000
"""The most images of R, and of S, between which transport is solved: 25 million pairs take about a minute."""
REFERENCE_QUERIES = 1000
"""Images of R whose nearest other one gives the unit of pixel distances."""
READ = 256
"""Images that are read at once."""

Show = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, how much there is)."""


@dataclass(frozen=True)
class RealImages:
    """What all sets of a dataset are measured against, computed once."""

    source: ImageSource
    rows: np.ndarray
    """(R,) indices of the images into `source`."""
    labels: np.ndarray
    """(R,) classes of the images."""
    features: np.ndarray
    """(R, F) features of the images, float64."""
    coverage_radii: np.ndarray
    precision_radii: np.ndarray
    """(R,) distance to the k-th nearest other image."""
    spread: dict[int, float]
    gaussians: dict[int, transport.ClassGaussian]
    frechet: FrechetDistance
    carried: np.ndarray
    """Positions in `rows` of the images between which and a set the transport problems are solved."""
    typical_distance: float
    """Median distance of pixels to the nearest other image of R."""
    queries: int


def look_at(
    dataset: Dataset,
    split: SplitData,
    extractor: Extractor,
    *,
    per_class: int | None,
    device: torch.device,
    show: Show,
) -> RealImages:
    """Look at the training images of a split.

    Args:
        per_class: the most images of a class that are looked at; None: all.
        show: told how far it is.

    Raises:
        UsageError: too few of them to measure against.
    """
    source, classes = split.train, range(len(dataset.class_ids))
    rows = np.concatenate([drawn(source.of_class(c), per_class, "real images", dataset.class_ids[c]) for c in classes])
    labels = np.asarray(source.labels)[rows]
    if len(rows) <= COVERAGE_NEIGHBOURS:
        raise UsageError(
            f"{len(rows)} real images are too few to measure against: the {COVERAGE_NEIGHBOURS}th nearest other "
            "one is needed; raise --limit-real"
        )
    blocks = []
    for start in range(0, len(rows), READ):
        show("features of the real images", start, len(rows))
        blocks.append(extractor.features(source.read(rows[start : start + READ])))
    features = np.concatenate(blocks)
    show("neighbours among the real images", 0, 3)
    coverage_radii = neighbours.radii(features, COVERAGE_NEIGHBOURS)
    show("neighbours among the real images", 1, 3)
    precision_radii = neighbours.radii(features, PRECISION_NEIGHBOURS)
    show("neighbours among the real images", 2, 3)
    each = transport_images_per_class(dataset)
    carried = [drawn(np.flatnonzero(labels == c), each, "transport, real", dataset.class_ids[c]) for c in classes]
    queries = drawn(np.arange(len(rows)), REFERENCE_QUERIES, "reference", dataset.class_ids[0])
    found = nearest(
        source.read(rows[queries]),
        source,
        rows,
        device,
        own=queries,
        progress=lambda done, total: show("pixels of the real images", done, total),
    )
    return RealImages(
        source=source,
        rows=rows,
        labels=labels,
        features=features,
        coverage_radii=coverage_radii,
        precision_radii=precision_radii,
        spread=spread.class_spread(features, labels),
        gaussians=transport.class_gaussians(features, labels),
        frechet=FrechetDistance(features),
        carried=np.concatenate(carried),
        typical_distance=float(np.median(found.distance)),
        queries=len(queries),
    )


def transport_images_per_class(dataset: Dataset) -> int:
    return max(1, TRANSPORT_IMAGES // len(dataset.class_ids))


def drawn(among: np.ndarray, most: int | None, purpose: str, class_id: str) -> np.ndarray:
    """At most `most` of them, in order: the same ones for every set."""
    if most is None or len(among) <= most:
        return among
    stream = seeds.stream(0, "quality", purpose, class_id)
    return np.sort(among[torch.randperm(len(among), generator=stream).numpy()[:most]])
