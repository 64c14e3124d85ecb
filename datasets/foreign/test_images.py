"""Test images among the images of a distilled set: a student trained on them has seen what it is asked.

Three things give an image away. *Its file's name*, where the dataset's names say which image a file is wherever it
lies: ILSVRC's do (`ILSVRC2012_val_00000293`, `n02096294_123`), with any ending and in any class's folder; a name such
as `00000.png` says nothing, whatever test image bears it too. *Its pixels*, exactly, at the size at which the split is
decoded: both go through the same resize, so a copy of the test image's file is found, and so is a copy of what was
decoded from it. *Its looks*, where images are of 32 px or more: a copy, in its class, that was compressed anew,
resized, mirrored, squashed or slightly cropped (`near_copies.py`).

Equal pixels and looks are no proof where a training image has them too, at least as much (ImageNet holds doubles, and
the set may have drawn the training image), nor where an image is of one colour throughout. Nor is it a proof where one
image in a thousand looks somewhat like a test image: so many do by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.datasets.base import Dataset, ImageSource
from ddbench.datasets.decoded_cache import fit_image
from ddbench.datasets.foreign.near_copies import LEAST_SIDE, Match, NearCopies, picture
from ddbench.datasets.image_sets import pixels_sha256
from ddbench.datasets.set_layout import first_of

CERTAIN, CHANCE = 0.98, 0.001
"""Correlation from which one near copy in any number of images is none by chance, and the share of a set's images below
which less alike ones are (docs/foreign-sets.md: of training images 3 in 12,894 at most)."""
BLOCK = 256
"""Images read at once."""
Progress = Callable[[str, int, int], None]


class Print(NamedTuple):
    """What an image is known by."""

    sha256: str | None
    """Of its pixels at the evaluation size; None for an image of one colour."""
    picture: np.ndarray | None
    """Its grey picture (`near_copies.picture`); None where images are too small for it."""


def print_of(pixels: np.ndarray, image_size: int) -> Print:
    """What an image is known by at a side, made as a dataset's are.

    Args:
        pixels: (H, W, C) uint8, C = 1 or 3.
    """
    channels = pixels.shape[-1]
    fitted = fit_image(Image.fromarray(pixels if channels == 3 else pixels[..., 0]), image_size)[..., :channels]
    sha256 = None if (fitted == fitted[0, 0]).all() else pixels_sha256(fitted)
    return Print(sha256, picture(fitted) if image_size >= LEAST_SIDE else None)


def find_test_images(
    prints: Mapping[Path, Print],
    labels: Sequence[int] | np.ndarray,
    dataset: Dataset,
    spec: DatasetSpec,
    data: Path | None,
    progress: Progress | None,
) -> dict[Path, str]:
    """The test images of a split among a set's files.

    Args:
        prints: file, `<class folder>/<name>` below the set's folder -> `print_of` its image at the split's side.
        labels: their class indices.
        progress: of decoding what is not decoded yet, and of comparing; None: decode nothing, check names alone.

    Returns:
        file -> which test image it is, and by what.

    Raises:
        UsageError, RunError: as `Dataset.load`.
    """
    found = _by_name(prints, dataset.test_names(spec.split, data), dataset.class_ids)
    if progress is None:
        return found
    image_size = spec.resolution
    test = dataset.test_at(spec.split, data, image_size, progress) or dataset.load(spec.split, data, image_size).test
    exact = _by_pixels(prints, test)
    label_of = dict(zip(prints, map(int, labels), strict=True))
    near = _by_looks({path: one for path, one in prints.items() if path not in exact | found}, label_of, test, progress)
    if exact or near:
        train = dataset.train_at(spec.split, data, image_size, "bilinear", progress)
        cleared = _cleared(prints, label_of, exact, near, test, train)
        near = _beyond_chance({path: match for path, match in near.items() if path not in cleared}, len(prints))
    else:
        cleared = set()
    by_pixels = {
        path: f"the test image {test.names[index]}, by its pixels at {image_size} px" for path, index in exact.items()
    }
    by_looks = {
        path: f"a near copy of the test image {test.names[match.place]} (correlation {match.correlation:.2f})"
        for path, match in near.items()
    }
    return {path: why for path, why in (by_looks | by_pixels).items() if path not in cleared} | found


def refusal(found: Mapping[Path, str], count: int, dataset: Dataset, split: str) -> Problems:
    """What is said of a set of `count` images among which there are test images."""
    folder = next(iter(found)).parents[1]
    others = ", ".join(f"--split {name}" for name in dataset.splits if name != split)
    return Problems(
        [
            f"{len(found)} of the {count} images in {folder} are test images of {dataset.name}, split {split}: what "
            "students trained on them score says nothing",
            *first_of([f"class {path.parent.name}: {path.name} is {why}" for path, why in sorted(found.items())]),
            "make the set of training images alone: move these files out of it"
            + (f"; or name the split that trains on them, if one does ({others})" if others else "")
            + "; or, for a set that is never ranked: --allow-test-images",
        ]
    )


def _by_name(files: Iterable[Path], names: Sequence[str], class_ids: Sequence[str]) -> dict[Path, str]:
    known = {Path(name).stem.lower(): name for name in names}
    found = {}
    for path in files:
        stem, _, appended = path.stem.rpartition("_")
        # Hugging Face's copies append the class id.
        name = known.get(path.stem.lower()) or (known.get(stem.lower()) if appended in class_ids else None)
        if name is not None:
            found[path] = f"the test image {name}, by its name"
    return found


def _by_pixels(prints: Mapping[Path, Print], test: ImageSource) -> dict[Path, int]:
    """File -> index of the test image with its pixels."""
    wanted = {one.sha256 for one in prints.values()}
    known = {sha256: i for i, image in _images(test) if (sha256 := pixels_sha256(image)) in wanted}
    return {path: known[one.sha256] for path, one in prints.items() if one.sha256 in known}


def _by_looks(
    prints: Mapping[Path, Print], labels: Mapping[Path, int], test: ImageSource, progress: Progress
) -> dict[Path, Match]:
    """File -> the test image of its class that it is a near copy of."""
    found, done = dict[Path, Match](), 0
    of_class: dict[int, dict[Path, np.ndarray]] = {}
    for path, one in prints.items():
        if one.picture is not None:
            of_class.setdefault(labels[path], {})[path] = one.picture
    for class_index, looks in of_class.items():
        indices = test.of_class(class_index)
        near = NearCopies(np.array([picture(image) for _, image in _images(test, indices)]))
        for path, look in looks.items():
            match = near.find(look)
            if match is not None:
                found[path] = match._replace(place=int(indices[match.place]))
        if done // BLOCK < (done + len(looks)) // BLOCK:
            progress("comparing with test images", done, len(prints))
        done += len(looks)
    return found


def _beyond_chance(near: Mapping[Path, Match], count: int) -> dict[Path, Match]:
    """Without likenesses of a middling degree, where so few of a set's `count` images are alike by chance."""
    doubtful = {path for path, match in near.items() if match.correlation < CERTAIN}
    by_chance = len(doubtful) <= CHANCE * count
    return {path: match for path, match in near.items() if not (by_chance and path in doubtful)}


def _cleared(
    prints: Mapping[Path, Print],
    labels: Mapping[Path, int],
    exact: Mapping[Path, int],
    near: Mapping[Path, Match],
    test: ImageSource,
    train: ImageSource,
) -> set[Path]:
    """Those that are training images of their class or the test image's, or look as much like one."""
    accused: dict[int, list[Path]] = {}
    for path, index in [*exact.items(), *((path, match.place) for path, match in near.items())]:
        for class_index in {int(test.labels[index]), labels[path]}:
            accused.setdefault(class_index, []).append(path)
    cleared = set()
    for class_index, paths in accused.items():
        images = list(_images(train, train.of_class(class_index)))
        known = {pixels_sha256(image) for _, image in images}
        cleared |= {path for path in paths if prints[path].sha256 in known}
        looks = {path: prints[path].picture for path in paths if path in near and path not in cleared}
        if looks and images:
            of_training = NearCopies(np.stack([picture(image) for _, image in images]))
            for path, look in looks.items():
                match = None if look is None else of_training.find(look)
                if match is not None and match.correlation >= near[path].correlation:
                    cleared.add(path)
    return cleared


def _images(source: ImageSource, indices: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
    chosen = np.arange(len(source)) if indices is None else indices
    for start in range(0, len(chosen), BLOCK):
        block = chosen[start : start + BLOCK]
        yield from zip(block.tolist(), source.read(block), strict=True)
