"""Real training images at hand, on which a prior's class list can be checked: a dataset's, or those in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.datasets.base import Dataset, ImageSource, Resize
from ddbench.datasets.decoded_cache import fit_image
from ddbench.datasets.file_dataset import FileDataset
from ddbench.datasets.image_files import list_images, read_8bit
from ddbench.methods.diffusion.priors.metadata import PriorMetadata

MOST_CLASSES, MOST_IMAGES = 10, 8
UNASKED_IMAGES = 25_000
"""A dataset with more training images is not decoded unless it is asked for."""
NONE = "none"


def label_images(
    metadata: PriorMetadata, channels: int, check_on: str | None, data: Path | None
) -> tuple[str, Mapping[str, np.ndarray]] | None:
    """Some training images of classes that a prior lists, evenly spread over them.

    Args:
        channels: of the prior's images.
        check_on: a dataset's name, a folder with a folder for each class, or `none`; None: the first dataset whose
            classes the prior lists and whose images are where runs would find them.
        data: where the dataset's files lie, if not there.

    Returns:
        Where they are from, in words; class id -> (n, H, W, channels) uint8 at the prior's size. None: there are none.

    Raises:
        UsageError: what was asked for is not there, or has no class that the prior lists.
    """
    if check_on == NONE:
        return None
    if check_on is not None and check_on not in DATASETS:
        if not Path(check_on).expanduser().is_dir():
            DATASETS.load(check_on)  # an unknown name: says which there are
        return f"images in {check_on}", _of_folder(Path(check_on).expanduser(), metadata, channels)
    for name in [entry.name for entry in DATASETS] if check_on is None else [check_on]:
        try:
            dataset = DATASETS.load(name)()
            fits = dataset.channels == channels and set(dataset.class_ids) <= set(metadata.class_ids)
            if not fits:
                raise UsageError(
                    f"--check-on {name}: the prior lists other classes, or its images have other than "
                    f"{dataset.channels} channels"
                )
            split = _split_at_hand(dataset, data, most=UNASKED_IMAGES if check_on is None and data is None else None)
            source = dataset.train_at(split, data, metadata.resolution, _resize(metadata))
        except UsageError:
            if check_on is None:
                continue  # not at hand
            raise
        return f"training images of {name}", _of_source(source, dataset.class_ids)
    if data is not None:
        raise UsageError(f"--data {data}: holds no dataset of the prior's classes; name one with --check-on DATASET")
    return None


def _split_at_hand(dataset: Dataset, data: Path | None, most: int | None) -> str:
    """The first split that is whole where runs would find it; UsageError if there is none."""
    if not isinstance(dataset, FileDataset):
        return dataset.splits[0]
    for split in dataset.splits:
        found = dataset.inspect(split, data)
        if not found.problems and (most is None or sum(found.train.values()) <= most):
            return split
    raise UsageError(f"--check-on {dataset.name}: found no whole split; `bench verify {dataset.name}` says why")


def _of_source(source: ImageSource, class_ids: tuple[str, ...]) -> dict[str, np.ndarray]:
    chosen = _spread(len(class_ids), MOST_CLASSES)
    return {class_ids[c]: source.read(source.of_class(c)[:MOST_IMAGES]) for c in chosen}


def _of_folder(folder: Path, metadata: PriorMetadata, channels: int) -> dict[str, np.ndarray]:
    known = [class_id for class_id in metadata.class_ids if class_id is not None]
    for below in (folder, folder / "train"):
        listed = {c: files for c in known if (below / c).is_dir() and (files := list_images(below / c).files)}
        if listed:
            break
    else:
        raise UsageError(f"--check-on {folder}: expected a folder of images for each class, named such as {known[0]}")
    found = {}
    for row in _spread(len(listed), MOST_CLASSES):
        class_id = [*listed][row]
        images = []
        for file in listed[class_id][:MOST_IMAGES]:
            try:
                image = read_8bit(file, "RGB")
            except (ValueError, OSError) as error:
                raise UsageError(f"--check-on {folder}: {file}: {error}") from None
            pixels = fit_image(image, metadata.resolution, _resize(metadata))
            images.append(pixels[..., :1] if channels == 1 else pixels)
        found[class_id] = np.stack(images)
    return found


def _resize(metadata: PriorMetadata) -> Resize:
    return "bilinear" if metadata.of_pixels else "adm"


def _spread(count: int, most: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most))})
