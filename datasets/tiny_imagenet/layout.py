"""Which image of Tiny-ImageNet a file is, by its place and name, in the original layout and in rearranged ones.

    train/<wnid>/images/<wnid>_<n>.JPEG   or train/<wnid>/<wnid>_<n>.JPEG
    val/images/val_<n>.JPEG               with val/val_annotations.txt
    val/<wnid>/val_<n>.JPEG               or val/<wnid>/images/val_<n>.JPEG

Where a list of classes lies beside folders of classes, both must say the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.sources import Found, is_image
from ddbench.datasets.tiny_imagenet.annotations import NAME, PLACE, Annotations

PARTS = ("train", "val")
"""The folders with labelled images; those of test/ have no labels and are never read."""
IMAGES = "images"
WNID = re.compile(r"n\d{8}")
TRAINING_NAME = re.compile(r"(?P<stem>(?P<wnid>n\d{8})_\d+)\.\w+")


class Place(NamedTuple):
    """Where a labelled image lies."""

    part: str
    folder_wnid: str
    """Empty in `val/images/`."""
    name: str
    stem: str
    """The name without its ending."""


def place_of(location: str) -> Place | None:
    """The place of an image's path below the dataset's folder; None of what is no image of the dataset."""
    *above, name = location.split("/")
    if not above or above[0] not in PARTS or not is_image(name):
        return None
    part, *folders = above
    match = (TRAINING_NAME if part == "train" else NAME).fullmatch(name)
    if match is None:
        return None
    if folders and WNID.fullmatch(folders[0]) and folders[1:] in ([], [IMAGES]):
        return Place(part, folders[0], name, match["stem"])
    if part == "val" and folders in ([], [IMAGES]):
        return Place(part, "", name, match["stem"])
    return None


def labelled(
    locations: Iterable[str],
    annotations: Annotations | None,
    class_ids: Collection[str],
    source: str,
    unknown: list[str],
) -> Iterator[Found]:
    """The images among paths below the dataset's folder, each with its class.

    Args:
        annotations: the list of the validation images' classes; None: there is none.
        source: where the paths lie, for people.
        unknown: image files of other places and names are noted here, and left out.

    Raises (while it is read):
        UsageError: a class that is none of `class_ids`, two that contradict each other, an image whose class nothing
            says, one that is there twice, one of the list that is not there.
    """
    seen: dict[str, str] = {}
    for location in locations:
        place = place_of(location)
        if place is None:
            if is_image(location.rpartition("/")[2]):
                unknown.append(location)
            continue
        wnid = _training_class(place, location, source) if place.part == "train" else _class(place, annotations, source)
        if wnid not in class_ids:
            raise UsageError(
                f"{source}: {location} is of class {wnid}, which is none of tiny-imagenet's {len(class_ids)}; expected "
                "the folder or the archive tiny-imagenet-200, got another dataset or a folder that was added"
            )
        if place.part == "val":
            _check_once(seen.setdefault(place.stem, location), location, source)
        yield Found(wnid, f"{place.stem}.JPEG", location, place.part == "val")
    _check_all_there(annotations, seen, source)


def _check_once(first: str, location: str, source: str) -> None:
    """The index sees doubles within a class; a validation image may lie in two."""
    if first != location:
        raise UsageError(
            f"{source} holds a test image twice: {first} and {location} are one; expected every image once, remove the "
            "copies"
        )


def _training_class(place: Place, location: str, source: str) -> str:
    said = place.stem.partition("_")[0]
    if said != place.folder_wnid:
        raise UsageError(
            f"{source}: {location}: its name and its folder say different classes ({said}, {place.folder_wnid}); "
            "move it where it belongs, or unpack the archive again"
        )
    return said


def _class(place: Place, annotations: Annotations | None, source: str) -> str:
    """The class of a validation image."""
    if annotations is None:
        if not place.folder_wnid:
            raise UsageError(
                f"{source}: {place.name} lies in no class's folder, and there is no {PLACE} that says its class; put "
                "that file of tiny-imagenet-200.zip there"
            )
        return place.folder_wnid
    said = annotations.wnid_of.get(place.stem)
    if said is None:
        raise UsageError(
            f"{source}: {annotations.file} does not say the class of {place.name}, of {len(annotations.wnid_of):,} "
            "images that it names; get it of tiny-imagenet-200.zip again, or move that file away"
        )
    if place.folder_wnid and place.folder_wnid != said:
        raise UsageError(
            f"{source}: {place.name} lies in the folder of {place.folder_wnid}, and {annotations.file} says {said}; "
            "one of them is wrong: unpack the archive again"
        )
    return said


def _check_all_there(annotations: Annotations | None, seen: Collection[str], source: str) -> None:
    missing = [] if annotations is None else [stem for stem in annotations.wnid_of if stem not in seen]
    if missing and annotations is not None:
        raise UsageError(
            f"{source} lacks {len(missing):,} of the {len(annotations.wnid_of):,} images that {annotations.file} names "
            f"({', '.join(missing[:3])}{', …' * (len(missing) > 3)}); unpack the archive again"
        )
