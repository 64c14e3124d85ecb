"""The shifted test sets by name: what each holds, and which datasets' classes can be tested on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.near_names import did_you_mean
from ddbench.benchmark.core.spec import ShiftedSpec
from ddbench.datasets.base import Dataset
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_100, LISTS

CORRUPTIONS: Mapping[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""ImageNet-C's fifteen corruptions by the archive that holds them (Hendrycks and Dietterich, arXiv 1903.12261)."""
ALL_CORRUPTIONS = tuple(name for group in CORRUPTIONS.values() for name in group)
SEVERITIES = (1, 2, 3, 4, 5)
LEAST_CLASSES = 10
"""Classes that a test set must share with a dataset: with fewer, its accuracy says nothing of the dataset's."""

Kind = Literal["photographs", "corrupted files", "corrupted here"]


@dataclass(frozen=True)
class ShiftedSet:
    """One test set, as it was published."""

    name: str
    summary: str
    kind: Kind = "photographs"
    """`photographs`: images of its own, a folder a class; `corrupted files`: ILSVRC's validation images as somebody has
    corrupted them; `corrupted here`: the dataset's own test images, corrupted by ddbench."""
    folders: tuple[str, ...] = ()
    """Names of the folder that its archive unpacks to, besides its own."""
    class_list: str | None = None
    """File with its wnids; None: all of ImageNet's."""
    numbered: bool = False
    """Its folders are numbers in ImageNet's label order."""
    images_per_class: int | None = None
    """None: it varies."""

    @property
    def wnids(self) -> frozenset[str]:
        return _wnids(self.class_list)

    @property
    def corrupted(self) -> bool:
        return self.kind != "photographs"

    def shared(self, class_ids: Sequence[str]) -> list[str]:
        """Those of a dataset's classes that it has images of, in label order."""
        return [class_id for class_id in class_ids if class_id in self.wnids]

    def why_not(self, dataset: type[Dataset]) -> str | None:
        """Why a dataset's students cannot be tested on it; None: they can."""
        strange = [class_id for class_id in dataset.class_ids if class_id not in CLASS_NAMES]
        if strange:
            to = "; its strengths belong to 224 px, and these images have {} px" if self.corrupted else ""
            return (
                f"{self.name} is of ImageNet's classes, and those of {dataset.name} are others (such as "
                f"{strange[0]!r})" + to.format(dataset.resolution)
            )
        if self.kind == "corrupted here" and dataset.test_at is Dataset.test_at:
            return f"{self.name} corrupts test images at 224 px, and those of {dataset.name} lie in no files"
        shared = self.shared(dataset.class_ids)
        if len(shared) < min(LEAST_CLASSES, len(dataset.class_ids)):
            named = f" ({', '.join(shared)})" if shared else ""
            return (
                f"{len(shared)} of {dataset.name}'s {len(dataset.class_ids)} classes{named} are among the "
                f"{len(self.wnids)} of {self.name}, and an accuracy needs at least {LEAST_CLASSES}: imagenet-100 has "
                f"{len(self.shared(IMAGENET_100))} of them, imagenet-1k all"
            )
        return None


SHIFTED: Mapping[str, ShiftedSet] = {
    one.name: one
    for one in (
        ShiftedSet(
            "imagenet-c",
            "ILSVRC's validation images under 15 corruptions × 5 severities, from its files",
            "corrupted files",
            ("ImageNet-C",),
        ),
        ShiftedSet(
            "imagenet-c-made",
            "the dataset's own test images under the same corruptions, made here (extra `robust`)",
            "corrupted here",
        ),
        ShiftedSet(
            "imagenet-v2",
            "new photographs found as ImageNet's were, ten a class (arXiv 1902.10811)",
            folders=(
                "imagenetv2",
                *(
                    f"{stem}-{kind}-format-val"
                    for stem in ("imagenetv2", "imagenet")
                    for kind in ("matched-frequency", "threshold-0.7", "threshold0.7", "top-images")
                ),
            ),
            numbered=True,
            images_per_class=10,
        ),
        ShiftedSet(
            "imagenet-sketch",
            "black and white sketches, about fifty a class (arXiv 1905.13549)",
            folders=("sketch", "ImageNet-Sketch"),
        ),
        ShiftedSet(
            "imagenet-a",
            "photographs that a ResNet-50 got wrong, of 200 classes (arXiv 1907.07174)",
            class_list="imagenet_a_wnids.txt",
        ),
        ShiftedSet(
            "imagenet-r",
            "paintings, toys and other renditions, of 200 classes (arXiv 2006.16241)",
            class_list="imagenet_r_wnids.txt",
        ),
    )
}
ALIASES = {"sketch": "imagenet-sketch", "imagenetv2": "imagenet-v2"}


def shifted_set(name: str) -> ShiftedSet:
    """Raises UsageError for a name that is none."""
    found = SHIFTED.get(ALIASES.get(name, name))
    if found is None:
        raise UsageError(
            f"--test-on {name}: no such test set; {did_you_mean(name, SHIFTED, f'there are {_listed(SHIFTED)}')}"
        )
    return found


def conditions(corruptions: Sequence[str], severities: Sequence[int]) -> list[str]:
    """`fog/3` for each corruption and severity, corruption by corruption; one empty name where there are none."""
    return [f"{corruption}/{severity}" for corruption in corruptions for severity in severities] or [""]


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names)


@cache
def _wnids(file: str | None) -> frozenset[str]:
    return frozenset(CLASS_NAMES if file is None else (LISTS / file).read_text(encoding="utf-8").split())


def selector(spec: ShiftedSpec) -> str:
    """What `--test-on` is given for it: its name; of a part of a corrupted set, also which part."""
    parts = []
    if spec.corruptions and spec.corruptions != ALL_CORRUPTIONS:
        parts.append(f"corruption={','.join(spec.corruptions)}")
    if spec.severities and spec.severities != SEVERITIES:
        parts.append(f"severity={','.join(map(str, spec.severities))}")
    return spec.name + (f"[{','.join(parts)}]" if parts else "")
