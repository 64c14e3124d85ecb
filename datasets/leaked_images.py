"""Test images among the images of a distilled set: a student trained on them has seen what it is asked.

Two things give an image away. *Its file's name*, where the dataset's names say which image a file is wherever it lies:
ILSVRC's do (`ILSVRC2012_val_00000293`, `n02096294_123`), with any ending and in any class's folder; a name such as
`00000.png` says nothing, whatever test image bears it too. *Its pixels*, exactly, at the size at which the split is
decoded: both go through the same resize, so a copy of the test image's file is found, and so is a copy of what was
decoded from it.

Equal pixels are no proof where a training image of the test image's class has them too (ImageNet holds doubles, and
the set may have drawn the training image), nor where an image is of one colour throughout. Near copies (compressed
anew, cropped, at a third size) are found by their names alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.datasets.base import Dataset, ImageSource
from ddbench.datasets.decoded_cache import fit_image
from ddbench.datasets.image_sets import pixels_sha256
from ddbench.datasets.set_layout import first_of

BLOCK = 256
"""Images hashed at once."""


def refuse_test_images(
    prints: Mapping[Path, str | None],
    dataset: Dataset,
    spec: DatasetSpec,
    data: Path | None,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Check a set's files against the test images of a split.

    Args:
        prints: file, `<class id>/<name>` below the set's folder -> `pixel_print` of its image at the split's side.
        progress: of decoding test images that are not decoded yet; None: decode nothing, check names alone.

    Raises:
        Problems: test images are among them; each is named, the first of many.
        UsageError, RunError: as `Dataset.load`.
    """
    found = _by_name(prints, dataset.test_names(spec.split, data), dataset.class_ids)
    if progress is not None:
        found = _by_pixels(prints, dataset, spec, data, progress) | found
    if not found:
        return
    folder = next(iter(found)).parents[1]
    others = ", ".join(f"--split {split}" for split in dataset.splits if split != spec.split)
    raise Problems(
        [
            f"{len(found)} of the {len(prints)} images in {folder} are test images of {dataset.name}, split "
            f"{spec.split}: what students trained on them score says nothing",
            *first_of([f"class {path.parent.name}: {path.name} is {why}" for path, why in sorted(found.items())]),
            "make the set of training images alone: move these files out of it"
            + (f"; or name the split that trains on them, if one does ({others})" if others else ""),
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


def _by_pixels(
    prints: Mapping[Path, str | None],
    dataset: Dataset,
    spec: DatasetSpec,
    data: Path | None,
    progress: Callable[[str, int, int], None],
) -> dict[Path, str]:
    image_size, wanted = spec.resolution, set(prints.values())
    test = dataset.test_at(spec.split, data, image_size, progress) or dataset.load(spec.split, data, image_size).test
    known: dict[str | None, int] = {pixels: i for i, pixels in _prints(test, np.arange(len(test))) if pixels in wanted}
    if not known:
        return {}
    train = dataset.train_at(spec.split, data, image_size, "bilinear", progress)
    for c in np.unique(test.labels[list(known.values())]):
        for _, pixels in _prints(train, train.of_class(int(c))):
            known.pop(pixels, None)
    return {
        path: f"the test image {test.names[known[pixels]]}, by its pixels at {image_size} px"
        for path, pixels in prints.items()
        if pixels in known
    }


def pixel_print(pixels: np.ndarray, image_size: int) -> str | None:
    """The hash of an image's pixels at a side, made as a dataset's are; None for an image of one colour.

    Args:
        pixels: (H, W, C) uint8, C = 1 or 3.
    """
    channels = pixels.shape[-1]
    fitted = fit_image(Image.fromarray(pixels if channels == 3 else pixels[..., 0]), image_size)[..., :channels]
    return None if (fitted == fitted[0, 0]).all() else pixels_sha256(fitted)


def _prints(source: ImageSource, indices: np.ndarray) -> Iterator[tuple[int, str]]:
    for start in range(0, len(indices), BLOCK):
        block = indices[start : start + BLOCK]
        for index, pixels in zip(block.tolist(), source.read(block), strict=True):
            yield index, pixels_sha256(pixels)
