"""Classes of ImageNet's validation images where they lie in one flat folder: from the list that came with them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.classes import CLASS_NAMES

GroundTruth = Mapping[str, str]
"""Classes of validation images: `ILSVRC2012_val_00000123` -> wnid."""


def find_ground_truth(folders: Sequence[Path]) -> tuple[Path, GroundTruth]:
    """The first list that lies in one of the folders, and what it says.

    Raises:
        UsageError: there is none, or it is not what its name says.
    """
    for folder in folders:
        for name, read in READERS.items():
            if (folder / name).is_file():
                return folder / name, _read(folder / name, read)
    raise UsageError(
        f"{folders[-1]} holds validation images without class folders, and no list says their classes. Put one of "
        f"these beside it, in {folders[0]}:\n"
        "  ILSVRC2012_devkit_t12/data/ with ILSVRC2012_validation_ground_truth.txt and meta.mat   "
        "(tar xf ILSVRC2012_devkit_t12.tar.gz)\n"
        "  LOC_val_solution.csv   (Kaggle)\n"
        "  imagenet_2012_validation_synset_labels.txt   (one wnid a line, in the order of the images)"
    )


def _read(file: Path, read: Callable[[Path], GroundTruth]) -> GroundTruth:
    try:
        return read(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} is no text ({error}); get it again") from error


def _image(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def _devkit(file: Path) -> GroundTruth:
    """The devkit's numbers are ILSVRC2012_IDs, which are not the label order: only `meta.mat` gives their wnids."""
    from scipy.io import loadmat

    meta = file.with_name("meta.mat")
    if not meta.is_file():
        raise UsageError(f"{file} gives ILSVRC2012_IDs, whose wnids are in {meta}, which is missing")
    try:
        synsets: Any = loadmat(meta, squeeze_me=True)["synsets"]
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    except Exception as error:  # of a damaged file, scipy raises whatever comes up
        raise UsageError(
            f"{meta} is damaged or not the devkit's ({error or type(error).__name__}); get it again"
        ) from error
    try:
        return {_image(number): wnids[int(line)] for number, line in enumerate(_lines(file), start=1)}
    except (ValueError, KeyError) as error:
        raise UsageError(f"{file}: expected one ILSVRC2012_ID of {meta} a line, got {error}") from error


def _wnid_lines(file: Path) -> GroundTruth:
    found = {_image(number): line for number, line in enumerate(_lines(file), start=1)}
    return _checked(file, found)


def _kaggle(file: Path) -> GroundTruth:
    with file.open(encoding="utf-8-sig", newline="") as rows:
        try:
            found = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(rows)}
        except (KeyError, IndexError, AttributeError) as error:  # no such column, nothing in it, or a line without it
            raise UsageError(f"{file}: expected the columns ImageId and PredictionString of Kaggle's list") from error
    return _checked(file, found)


def _checked(file: Path, found: dict[str, str]) -> GroundTruth:
    strange = next((wnid for wnid in found.values() if wnid not in CLASS_NAMES), None)
    if strange is not None:
        raise UsageError(f"{file}: expected wnids of ImageNet-1K's classes, got {strange!r}")
    return found


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8-sig").split()


_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
READERS: Mapping[str, Callable[[Path], GroundTruth]] = {
    f"ILSVRC2012_devkit_t12/data/{_DEVKIT}": _devkit,
    f"devkit/data/{_DEVKIT}": _devkit,
    _DEVKIT: _devkit,
    "LOC_val_solution.csv": _kaggle,
    "imagenet_2012_validation_synset_labels.txt": _wnid_lines,
    "synset_labels.txt": _wnid_lines,
}
