"""The files of a shifted test set: found, checked, and which class each image is of.

What a folder's name says, counts; its place among others never does. ImageNet-V2's folders are numbers, and sorted as
text (0, 1, 10, 100, …), as torchvision's `ImageFolder` sorts them, they name other classes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.image_files import list_images
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.datasets.shifted.catalogue import CORRUPTIONS, SHIFTED, ShiftedSet, conditions

WNID = re.compile(r"n\d{8}")
NUMBER = re.compile(r"\d{1,4}")
OF_IMAGENET = re.compile(r"(ILSVRC2012_val_\d{8}|n\d{8}_\d+)(_n\d{8})?\.\w+")
"""Names of ImageNet's own training and validation images, which lie in folders of the same names."""


@dataclass(frozen=True)
class ShiftedFiles:
    """The images of a test set that are of a dataset's classes."""

    folder: Path
    """Where its folders of classes or corruptions lie."""
    images: Mapping[str, Sequence[tuple[int, Path]]]
    """Condition (`fog/3`; empty where there is none) -> (class index, file) by class, then by file name."""
    sha256: str
    """Over condition, class id, file name and bytes of each: what names this set in a cell's id."""
    stamps: str
    """Hash of what tells each file from another in its place (size, time of its last change, inode); what was decoded
    under other stamps is decoded anew."""

    def labels(self, condition: str) -> np.ndarray:
        """(N,) int64."""
        return np.array([label for label, _ in self.images[condition]], np.int64)


def is_of_ilsvrc(name: str) -> bool:
    """Whether `<wnid>/<file name>` is one of ILSVRC's validation images, of which ImageNet-C has corrupted copies."""
    return name.rpartition("/")[2].startswith("ILSVRC2012_val_")


def find_folder(which: ShiftedSet, places: Sequence[Path], *, alone: bool) -> Path:
    """The folder of a test set: a folder called as the set is in a place that a user names, or that place itself.

    Args:
        alone: no other test set is asked for. Else a folder that is called neither as this one nor as another could be
            any of them: renditions and sketches lie in folders of the same names.

    Raises:
        UsageError: there is none, or several.
    """
    found: list[Path] = []
    called = (which.name, *which.folders)
    others = {name for one in SHIFTED.values() if one is not which for name in (one.name, *one.folders)}
    for place in places:
        if not place.is_dir():
            raise UsageError(f"--test-data {place}: no such folder; {which.name} is read as {layout(which)}")
        inside = [place / name for name in called if (place / name).is_dir()]
        itself = place.name in called or (alone and place.name not in others)
        found += inside or ([place] if itself else [])
    found = [root for place in dict.fromkeys(found) for root in _roots(which, place)]
    if not found:
        looked = f"not found in {', '.join(map(str, places))}" if places else "its files are not here"
        made = "; `--test-on imagenet-c-made` makes the like" if which.kind == "corrupted files" else ""
        raise UsageError(
            f"{which.name}: {looked}. Expected {layout(which)}; name its folder with --test-data DIR, or put it into "
            f"a folder {which.name} in $DDBENCH_DATA{made}"
        )
    if len(found) > 1:
        listed = "\n".join(f"  {root}" for root in found)
        raise UsageError(f"{which.name}: several folders hold it:\n{listed}\nName the one that is meant: --test-data")
    return found[0]


def layout(which: ShiftedSet) -> str:
    """The tree that is read, for people."""
    if which.corrupted:
        return "DIR/<corruption>/<severity>/<wnid>/*.JPEG (or so in DIR/noise, DIR/blur, DIR/weather, DIR/digital)"
    return f"DIR/<{'class number 0…999, or wnid' if which.numbered else 'wnid'}>/*.JPEG"


def _roots(which: ShiftedSet, place: Path) -> list[Path]:
    """The folder itself where it holds what is looked for, else those in it that do."""
    if which.corrupted:
        return [place] if _corruption_folders(place) else []
    if _class_folders(which, place):
        return [place]
    return [child for child in sorted(place.iterdir()) if child.is_dir() and _class_folders(which, child)]


def _class_folders(which: ShiftedSet, root: Path) -> dict[str, Path]:
    """wnid -> folder.

    Raises:
        UsageError: two folders of one class.
    """
    found: dict[str, Path] = {}
    for child in sorted(root.iterdir()):
        wnid = child.name if WNID.fullmatch(child.name) else None
        if which.numbered and NUMBER.fullmatch(child.name) and int(child.name) < len(IMAGENET_1K):
            wnid = IMAGENET_1K[int(child.name)]
        if wnid is None or not child.is_dir():
            continue
        if wnid in found:
            raise UsageError(f"{root}: both {found[wnid].name} and {child.name} are class {wnid}; remove one")
        found[wnid] = child
    return found


def _corruption_folders(root: Path) -> dict[str, Path]:
    """Corruption -> folder; each lies in the folder itself, or in that of its group.

    Raises:
        UsageError: it lies in both.
    """
    found: dict[str, Path] = {}
    for group, names in CORRUPTIONS.items():
        for name in names:
            there = [path for path in (root / name, root / group / name) if path.is_dir()]
            if len(there) > 1:
                raise UsageError(f"{root}: {name} lies in two places, {there[0]} and {there[1]}; remove one")
            if there:
                found[name] = there[0]
    return found


def read_files(
    which: ShiftedSet,
    folder: Path,
    class_ids: Sequence[str],
    *,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (),
    test_names: Sequence[str] = (),
) -> ShiftedFiles:
    """List and check the images of a dataset's classes; none is opened.

    Args:
        folder: `find_folder`'s.
        class_ids: the dataset's, in label order.
        corruptions, severities: which conditions are wanted, of a corrupted set.
        test_names: `<wnid>/<file name>` of the dataset's test images. Of a corrupted set those alone are taken: others
            of its images may train (fast.ai's split), and there is no corrupted copy of a training image of ILSVRC.

    Raises:
        UsageError: a condition, a class or an image that is not there; another number of images than was published.
    """
    if which.corrupted:
        images = _corrupted(which, folder, class_ids, corruptions, severities, test_names)
    else:
        images = {"": _photographs(which, folder, class_ids)}
    digest, stamps = hashlib.sha256(), hashlib.sha256()
    for condition, files in images.items():
        for label, path in files:
            seen = path.stat()
            named = [condition, class_ids[label], path.name, seen.st_size]
            digest.update(json.dumps(named).encode() + b"\n")
            stamps.update(json.dumps([*named, seen.st_mtime_ns, seen.st_ino]).encode() + b"\n")
    return ShiftedFiles(folder, images, digest.hexdigest(), stamps.hexdigest())


def _photographs(which: ShiftedSet, folder: Path, class_ids: Sequence[str]) -> list[tuple[int, Path]]:
    folders, found = _class_folders(which, folder), list[tuple[int, Path]]()
    shared = which.shared(class_ids)
    for class_id in shared:
        files = _images(folders[class_id]) if class_id in folders else []
        wanted = which.images_per_class
        if not files or (wanted is not None and len(files) != wanted):
            number = f", folder {IMAGENET_1K.index(class_id)} by its number" if which.numbered else ""
            raise UsageError(
                f"{which.name} in {folder} has {len(files)} images of class {class_id}{number}: expected "
                f"{'some' if wanted is None else wanted}. It is read as {layout(which)}"
            )
        if own := next((path for path in files if OF_IMAGENET.fullmatch(path.name)), None):
            raise UsageError(
                f"{which.name}: {own} is named as ImageNet's own images are, and is none of {which.name}'s"
            )
        found += [(class_ids.index(class_id), path) for path in files]
    return found


def _corrupted(
    which: ShiftedSet,
    folder: Path,
    class_ids: Sequence[str],
    corruptions: Sequence[str],
    severities: Sequence[int],
    test_names: Sequence[str],
) -> dict[str, list[tuple[int, Path]]]:
    wanted = sorted(filter(is_of_ilsvrc, test_names))
    if not wanted:
        raise UsageError(
            f"{which.name}: none of this dataset's test images is known as one of ILSVRC's validation images, which "
            "its files are; --test-on imagenet-c-made corrupts the test images that there are"
        )
    labels = {class_id: label for label, class_id in enumerate(class_ids)}
    folders, images = _corruption_folders(folder), dict[str, list[tuple[int, Path]]]()
    for condition in conditions(corruptions, severities):
        corruption, severity = condition.split("/")
        place = folders.get(corruption, folder / corruption) / severity
        there = {f"{wnid}/{path.name}" for wnid in class_ids for path in _images(place / wnid)}
        missing = [name for name in wanted if name not in there]
        if missing:
            raise UsageError(
                f"{which.name}: {len(missing)} of the {len(wanted)} test images are not in {place}, such as "
                f"{missing[0]}; it is read as {layout(which)}. [corruption=…,severity=…] takes a part of it"
            )
        found = [(labels[name.partition("/")[0]], place / name) for name in wanted]
        images[condition] = sorted(found, key=lambda one: (one[0], one[1].name))
    return images


def _images(folder: Path) -> list[Path]:
    """Raises UsageError for a file that is named as an image and cannot be read as one."""
    if not folder.is_dir():
        return []
    listing = list_images(folder)
    if listing.problems:
        raise UsageError(listing.problems[0])
    return listing.files
