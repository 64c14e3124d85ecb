"""The contract of a source, a place where ImageNet's images lie, and what a file is by its name.

A source lists the images of the classes that are asked for. What an image is comes from its file name, which every
source keeps: `n02096294_123.JPEG` is a training image of class n02096294, `ILSVRC2012_val_00000123.JPEG` a validation
image, in whatever folder it lies. A validation image's class is its folder's wnid, the wnid that Hugging Face appends
to names (`ILSVRC2012_val_00000123_n02096294.JPEG`), or what a ground-truth list says.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.cache import cache_dir
from ddbench.datasets.image_files import suffixes

IMAGE_NAME = re.compile(
    r"(?:(?P<validation>ILSVRC2012_val_(?P<number>\d{8}))|(?P<training>(?P<wnid>n\d{8})_\d+))(?:_(?P<appended>n\d{8}))?"
    r"\.\w+",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """One image of one of the classes asked for."""

    wnid: str
    name: str
    """ImageNet's name of the image, `n02096294_123.JPEG` or `ILSVRC2012_val_00000123.JPEG`, however the file itself
    ends."""
    location: str
    """Path below the source's root, with slashes."""
    in_validation_folder: bool


@dataclass
class Listing:
    """The images of some classes in a source."""

    images: Iterator[Found]
    stamps: dict[str, list[int]]
    """What must be unchanged for the listing to hold: folder or file below the root -> its size and time. Complete
    when `images` has been read to the end."""
    unknown: list[str]
    """Image files whose names are not ImageNet's; they are left out."""


class Source(ABC):
    """A place with images of ImageNet classes."""

    path: Path
    kind: str
    users_own: bool = True
    """Whether its images are the user's files, which may be written to at any time; what is unpacked lies in the cache,
    and a changed archive has another."""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"

    @property
    def cache(self) -> Path:
        """Where what is made from this source is kept; another place, or a changed archive, has another."""
        key = hashlib.sha256(self._identity().encode()).hexdigest()[:12]
        return cache_dir() / "datasets" / f"{self.path.name or 'root'}-{key}"

    @property
    def decoding(self) -> Path:
        """The lease of whoever unpacks or decodes it."""
        return self.cache / "decode.lease"

    @abstractmethod
    def list_images(self, class_ids: Sequence[str]) -> Listing:
        """The images of these classes, in no particular order.

        Raises (while `images` is read):
            UsageError: a file in the wrong class's folder, validation images of unknown class, a damaged archive.
        """

    def unchanged(self, stamps: Mapping[str, Sequence[int]]) -> bool:
        """Whether a listing with these stamps still holds: here, of places below `path`."""
        try:
            return all(stamp(self.path / place) == list(was) for place, was in stamps.items())
        except OSError:
            return False

    def file_stamp(self, location: str) -> list[int] | None:
        """Changes when that image's file does, here one below `path`; None: it is gone."""
        try:
            return stamp(self.path / location)
        except OSError:
            return None

    def packed(self, class_ids: Sequence[str]) -> bool:
        """Whether `root` has to unpack images of these classes first."""
        return False

    @abstractmethod
    def root(self, class_ids: Sequence[str]) -> Path:
        """The folder below which the files of these classes' images lie. What is packed is unpacked into the cache
        first, once; callers hold a lock.

        Raises:
            UsageError: a damaged or unsafe archive.
            RunError: too little free disk.
        """

    def unconfirmed(self) -> str | None:
        """What of the images' classes nothing but the folders that they lie in says; None, as here, where names and
        lists say it too."""
        return None

    def _identity(self) -> str:
        return str(self.path.resolve())


def is_image(name: str) -> bool:
    """Whether a file is an image by its name's ending."""
    return name.lower().endswith(suffixes()) and not name.startswith(".")


def stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size if path.is_file() else 0, status.st_mtime_ns]


def identify(name: str, location: str, folder_wnid: str | None, in_validation_folder: bool) -> Found | None:
    """What a file is by its name; None if the name is none of ImageNet's. The wnid is empty where nothing says it.

    Raises:
        UsageError: the name's wnid and the folder's differ.
    """
    match = IMAGE_NAME.fullmatch(name) if is_image(name) else None
    if match is None:
        return None
    said = {wnid.lower() for wnid in (match["wnid"], match["appended"], folder_wnid) if wnid}
    if len(said) > 1:
        raise UsageError(
            f"{location}: its name and its folder say different classes ({', '.join(sorted(said))}); "
            "move it where it belongs, or unpack the archive again"
        )
    # Whatever case a copy's names have got: what an image is, splits and ground-truth lists tell by ImageNet's own.
    image = f"ILSVRC2012_val_{match['number']}" if match["validation"] else match["training"].lower()
    return Found(said.pop() if said else "", f"{image}.JPEG", location, in_validation_folder)
