"""ImageNet-C's corruptions of a dataset's own test images, by `imagecorruptions-imaug`.

As ImageNet-C was made (Hendrycks and Dietterich, arXiv 1903.12261): on 224 px, to which its strengths belong, kept as
a JPEG file of quality 85, and only then resized to what students see. Not as it was made: the image is not cut to its
middle seven eighths first, so that nothing but the corruption tells it from the clean one; the motion in motion blur
and snow is the package's own and not ImageMagick's; and its frost has six pictures, of which the authors' program
never draws the last.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from PIL import Image

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.decoded_cache import fit_image

PACKAGE = "imagecorruptions-imaug"
IMAGE_SIZE = 224
"""Side in pixels at which images are corrupted."""
JPEG_QUALITY = 85
SEED = 0
"""Of the streams: there is one corrupted test set, and everybody is tested on it."""
OWN_SEED = ("impulse_noise", "glass_blur")
"""Corruptions that draw from a generator of their own, whose seed they take, and not from NumPy's global one."""


def version() -> str:
    """Of the package, without importing it.

    Raises:
        UsageError: it is not installed, or another one lies in its place.
    """
    try:
        found = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"imagenet-c-made: corruptions are made by {PACKAGE}, which is not installed: pip install 'ddbench[robust]'"
        ) from None
    try:
        metadata.version("imagecorruptions")
    except metadata.PackageNotFoundError:
        return found
    raise UsageError(
        f"imagenet-c-made: imagecorruptions and {PACKAGE} install into one folder, so which of them is imported is not "
        f"known: pip uninstall imagecorruptions, then pip install --force-reinstall --no-deps {PACKAGE}=={found}"
    )


def versions() -> dict[str, str]:
    """Of every package that makes the pixels."""
    named = ("scikit-image", "scipy", "numpy", "pillow", "numba")
    opencv = [name for name in ("opencv-python", "opencv-python-headless") if _has(name)]
    return {PACKAGE: version(), **{name: metadata.version(name) for name in (*named, *opencv)}}


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def corrupt(image: np.ndarray, corruption: str, severity: int, name: str) -> np.ndarray:
    """One image, corrupted: always alike, whatever else is corrupted before it.

    Args:
        image: (224, 224, 3) uint8.
        name: of the image; its stream is named by it.

    Returns:
        (224, 224, 3) uint8, as a JPEG file keeps it.
    """
    package = _package()
    seed = seeds.sklearn_seed(SEED, "imagenet-c", corruption, severity, name)
    own = {"seed": seed} if corruption in OWN_SEED else {}
    with seeds.global_generators_kept():
        np.random.seed(seed)  # noqa: NPY002 - what the package draws from
        made = package.corrupt(image, severity=severity, corruption_name=corruption, **own)
    file = io.BytesIO()
    Image.fromarray(made).save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    with Image.open(file) as kept:
        return np.asarray(kept.convert("RGB"))


def corrupt_all(
    images: np.ndarray, names: Sequence[str], corruption: str, severity: int, image_size: int
) -> np.ndarray:
    """(n, 224, 224, 3) uint8 -> (n, S, S, 3) uint8: corrupted, then resized to the side S = `image_size`."""
    made = [
        fit_image(Image.fromarray(corrupt(image, corruption, severity, name)), image_size)
        for image, name in zip(images, names, strict=True)
    ]
    return np.stack(made)


def _package() -> Any:
    version()
    try:
        import imagecorruptions
    except ImportError as error:  # OpenCV's needs libraries of the system
        raise UsageError(f"imagenet-c-made: {PACKAGE} cannot be imported: {error}") from error
    return imagecorruptions
