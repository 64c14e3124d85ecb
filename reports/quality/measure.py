"""Measures the distilled sets of a results folder against the images that they were distilled from.

Legend: R real images that are looked at, S distilled images of a set, K classes, F features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from ddbench.benchmark.core.environment import cpu_model
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import write_atomically
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.protocols.definitions import quick
from ddbench.benchmark.protocols.images import fit
from ddbench.datasets.base import Dataset
from ddbench.datasets.float_images import FloatImages, as_uint8
from ddbench.datasets.foreign.test_images import Print, find_test_images, print_of
from ddbench.datasets.image_sets import read_set
from ddbench.datasets.set_layout import layout_of
from ddbench.reports.quality import features as feature_extractors
from ddbench.reports.quality import neighbours, spread, transport
from ddbench.reports.quality.features import Extractor
from ddbench.reports.quality.measures import KEYS, PRECISION_NEIGHBOURS, VERSION
from ddbench.reports.quality.nearest import nearest, sheet
from ddbench.reports.quality.real_images import RealImages, Show, drawn, look_at, transport_images_per_class
from ddbench.reports.quality.records import (
    FeatureSpace,
    QualityRecord,
    Sample,
    Sheet,
    Space,
    folder_of,
    sheet_name,
    write_record,
)
from ddbench.reports.quality.sets import FinishedSet
from ddbench.reports.quality.spaces import Wanted

FEW = 30
"""Distilled images below which recall is marked."""


@dataclass(frozen=True)
class Measuring:
    """Measures sets of one dataset in one feature space."""

    dataset: Dataset
    resolution: int
    """Side of the dataset's images, pixels."""
    extractor: Extractor
    space: Space
    real: RealImages
    real_per_class: int | None
    """The most real images of a class that were looked at; None: all."""
    device: torch.device
    data: Path | None
    """Where the dataset's files are."""

    def measure(self, made: FinishedSet, store: Store) -> QualityRecord:
        """Measure one set; its record and its sheet are written.

        Raises:
            UsageError: images that cannot be read.
            RunError: other images than those that its results name.
        """
        began = time.perf_counter()
        real = self.real
        pixels, labels, shapes, prints = self._read(made)
        features = self.extractor.features(pixels)
        predicted, classes = self.extractor.classes(pixels), len(self.dataset.class_ids)
        found = nearest(pixels, real.source, real.rows, self.device)
        values: dict[str, float | str] = {
            **self._in_feature_space(features, labels),
            "label_agreement_percent": "Inception does not know the dataset's classes"
            if predicted is None
            else 100 * float(np.mean(predicted == labels)),
            **self._by_pixels(found.distance),
            "test_images": float(len(self._test_images(made, labels, prints))),
            "stored_bytes_per_class": self._stored_bytes(made) / classes,
            "raw_bytes_per_class": sum(int(np.prod(shape)) for shape in shapes) / classes,
        }

        image_size = max(max(shape[:2]) for shape in shapes)
        grid = sheet(real.source, real.rows[found.row], labels, image_size, classes)
        folder_of(store).mkdir(exist_ok=True)
        write_atomically(folder_of(store) / sheet_name(made.image_set_sha256), grid.png)
        record = QualityRecord(
            version=VERSION,
            image_set_sha256=made.image_set_sha256,
            dataset=made.dataset,
            ipc=made.ipc,
            image_size=image_size,
            features=FeatureSpace(
                space=self.space,
                dimensions=features.shape[1],
                weights_sha256=self.extractor.weights_sha256,
                validation_accuracy_percent=self.extractor.validation_accuracy_percent,
            ),
            sample=Sample(
                real_per_class=self.real_per_class,
                real=len(real.rows),
                train=len(real.source),
                distilled=len(labels),
                transport_real=len(real.carried),
                transport_distilled=len(self._carried(labels)),
                reference_queries=real.queries,
            ),
            values={key: value for key in KEYS if not isinstance(value := values[key], str)},
            missing={key: why for key in KEYS if isinstance(why := values[key], str)},
            caveats=self._caveats(features, shapes),
            sheet=Sheet(
                file=sheet_name(made.image_set_sha256),
                image_size=grid.image_size,
                columns=grid.columns,
                rows=grid.rows,
            ),
            seconds=round(time.perf_counter() - began, 3),
            device=_device_name(self.device),
            versions={name: _version(name) for name in ("ddbench", "torch", "torchmetrics", "POT", "scikit-learn")},
        )
        write_record(store, record)
        return record

    def _read(self, made: FinishedSet) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]], list[Print]]:
        """(images at the dataset's side, their classes, the images' own shapes, what they are known by)."""
        shapes: list[tuple[int, ...]] = []
        prints: list[Print] = []

        def at_that_size(pixels: np.ndarray) -> np.ndarray:
            shapes.append(pixels.shape)
            prints.append(print_of(as_uint8(pixels), self.resolution))
            return fit(quick.PROTOCOL, as_uint8(pixels), self.resolution)

        images = read_set(
            made.folder,
            self.dataset.class_ids,
            self.dataset.channels,
            fit=at_that_size,
            subset=made.subset,
            reading=made.reading,
        )
        if images.sha256 != made.image_set_sha256:
            raise RunError(
                f"the images are not the ones that were distilled: expected SHA-256 {made.image_set_sha256}, found "
                f"{images.sha256}"
            )
        return np.asarray(images.pixels), images.labels, shapes, prints

    def _test_images(self, made: FinishedSet, labels: np.ndarray, prints: Sequence[Print]) -> dict[Path, str]:
        listed = layout_of(made.folder, self.dataset.class_ids, made.subset, made.reading).files
        by_file = dict(zip((path for here in listed for path in here), prints, strict=True))
        spec = DatasetSpec(name=self.dataset.name, split=made.dataset.split, resolution=self.resolution)
        return find_test_images(by_file, labels, self.dataset, spec, self.data, lambda what, done, total: None)

    def _by_pixels(self, distances: np.ndarray) -> dict[str, float | str]:
        """Values, or why they are missing, from the distance of each image to its nearest real one."""
        unit, same = (
            self.real.typical_distance,
            "at least half of the real images occur twice, so their distance gives no unit",
        )
        return {
            "copies_percent": 100 * float(np.mean(distances == 0)),
            "nearest_median_ratio": float(np.median(distances)) / unit if unit > 0 else same,
            "nearest_minimum_ratio": float(distances.min()) / unit if unit > 0 else same,
        }

    def _in_feature_space(self, features: np.ndarray, labels: np.ndarray) -> dict[str, float | str]:
        """Values, or why they are missing."""
        real, count = self.real, len(features)
        recall: float | str = f"it needs more than {PRECISION_NEIGHBOURS} images"
        if count > PRECISION_NEIGHBOURS:
            own_radii = neighbours.radii(features, PRECISION_NEIGHBOURS)
            recall = 100 * neighbours.inside(real.features, features, own_radii)
        diversity = spread.diversity_percent(spread.class_spread(features, labels), real.spread)
        mine = self._carried(labels)
        costs = transport.squared_distances(real.features[real.carried], features[mine])
        between = transport.label_distances(real.gaussians, transport.class_gaussians(features, labels))
        return {
            "coverage_percent": 100 * neighbours.coverage(real.features, real.coverage_radii, features),
            "precision_percent": 100 * neighbours.inside(features, real.features, real.precision_radii),
            "recall_percent": recall,
            "diversity_percent": "it needs two images of a class" if diversity is None else diversity,
            "frechet_distance": real.frechet.to(features) if count > 1 else "it needs two images",
            "transport_distance": max(0.0, transport.least_cost(costs)) ** 0.5,
            "otdd": transport.otdd(costs, real.labels[real.carried], labels[mine], between),
        }

    def _carried(self, labels: np.ndarray) -> np.ndarray:
        """Positions of the distilled images that take part in transport."""
        each, ids = transport_images_per_class(self.dataset), self.dataset.class_ids
        chosen = [drawn(np.flatnonzero(labels == c), each, "transport, distilled", ids[c]) for c in np.unique(labels)]
        return np.concatenate(chosen)

    def _caveats(self, features: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[str]:
        count, dimensions = features.shape
        found = []
        if count < FEW:
            found.append(
                f"recall: the balls around {count} images reach as far as those lie apart, so that a high value says "
                "little"
            )
        if count <= dimensions:
            found.append(
                f"Fréchet: {count} images in {dimensions} dimensions have a singular covariance; such distances fall "
                "with the number of images, so compare sets of one size only"
            )
        if len(self.real.rows) < len(self.real.source):
            found.append(
                f"copies and nearest images were looked for among {len(self.real.rows):,} of "
                f"{len(self.real.source):,} training images"
            )
        if any(shape[:2] != (self.resolution, self.resolution) for shape in shapes):
            found.append(f"images were brought to the dataset's {self.resolution} px before they were compared")
        return found

    def _stored_bytes(self, made: FinishedSet) -> int:
        listed = layout_of(made.folder, self.dataset.class_ids, made.subset, made.reading).files
        files, floats = [path for here in listed for path in here], FloatImages.at(made.folder)
        return sum(path.stat().st_size for path in files) if floats is None else floats.stored_bytes(files)


def open_measuring(
    sets: Sequence[FinishedSet],
    dataset: Dataset,
    wanted: Wanted,
    store: Store,
    *,
    real_per_class: int | None,
    data: Path | None,
    device: torch.device,
    show: Show,
    say: Callable[[str], None],
) -> Measuring:
    """Open the images and the feature space for sets of one dataset.

    Args:
        data: where its files are; None: where the cells found them.
        say: takes notes on the training of the classifier.

    Raises:
        UsageError: no data, a feature space that does not fit, or too few real images.
        RunError: the images are not those that the sets were distilled from.
    """
    record = sets[0].dataset
    places = [made.data_dir for made in sets if made.data_dir is not None]
    data = data or next(iter(places), None)
    split = dataset.load(record.split, data, record.resolution)
    if split.content_hash != record.content_hash:
        raise RunError(
            f"the images of {record.name} are not those that its sets were distilled from: expected content hash "
            f"{record.content_hash}, found {split.content_hash}; say with --data where those are"
        )
    space = wanted.space(type(dataset), record)
    extractor: Extractor
    if wanted.inception is not None and wanted.inception_sha256 is not None:
        extractor = feature_extractors.InceptionFeatures(wanted.inception, wanted.inception_sha256, device)
    else:
        scratch = folder_of(store) / ".scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        extractor = feature_extractors.classifier(
            wanted.params(type(dataset)), dataset, split, record.resolution,
            store=store, scratch=scratch, device=device, say=say,
        )  # fmt: skip
    real = look_at(dataset, split, extractor, per_class=real_per_class, device=device, show=show)
    return Measuring(dataset, record.resolution, extractor, space, real, real_per_class, device, data)


def _device_name(device: torch.device) -> str:
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    return f"{device.type}: {model}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
