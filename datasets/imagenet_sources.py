"""Where ImageNet's images lie: an ILSVRC folder, fast.ai's folders and archives, a Hugging Face dataset's files.

A source lists the images of the classes that are asked for. What an image is comes from its file name, which every
source keeps: `n02096294_123.JPEG` is a training image of class n02096294, `ILSVRC2012_val_00000123.JPEG` a validation
image, in whatever folder it lies. A validation image's class is its folder's wnid, the wnid that Hugging Face appends
to names (`ILSVRC2012_val_00000123_n02096294.JPEG`), or what a ground-truth list says.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import shutil
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import whole_folder
from ddbench.datasets.cache import cache_dir
from ddbench.datasets.imagenet_ground_truth import find_ground_truth

TRAIN_FOLDERS = ("train", "train_images*")
VALIDATION_FOLDERS = ("val", "validation", "val_images*")
BELOW = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "data")
"""Where those folders may lie, seen from the folder that a user names: itself, Kaggle's archive, Hugging Face's."""
ARCHIVES = (".tar", ".tgz", ".tar.gz")
WNID = re.compile(r"n\d{8}")
IMAGE_NAME = re.compile(
    r"(?:(?P<validation>ILSVRC2012_val_\d{8})|(?P<training>(?P<wnid>n\d{8})_\d+))(?:_(?P<appended>n\d{8}))?"
    r"\.(?:jpe?g|png|webp)",
    re.IGNORECASE,
)
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


class Found(NamedTuple):
    """One image of one of the classes asked for."""

    wnid: str
    name: str
    """`n02096294_123.JPEG` or `ILSVRC2012_val_00000123.JPEG`, however the file itself ends."""
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

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"

    @property
    def cache(self) -> Path:
        """Where what is made from this source is kept; another place, or a changed archive, has another."""
        key = hashlib.sha256(self._identity().encode()).hexdigest()[:12]
        return cache_dir() / "datasets" / f"{self.path.name or 'root'}-{key}"

    @abstractmethod
    def list_images(self, class_ids: Sequence[str]) -> Listing:
        """The images of these classes, in no particular order.

        Raises (while `images` is read):
            UsageError: a file in the wrong class's folder, validation images of unknown class, a damaged archive.
        """

    @abstractmethod
    def unchanged(self, stamps: Mapping[str, Sequence[int]]) -> bool:
        """Whether a listing with these stamps still holds."""

    @abstractmethod
    def file_stamp(self, location: str) -> list[int] | None:
        """Changes when that image's file does; None: it is gone."""

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

    def _identity(self) -> str:
        return str(self.path.resolve())


def stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size if path.is_file() else 0, status.st_mtime_ns]


class FolderSource(Source):
    """`train/` and `val/` folders, with one folder per wnid or the files themselves in them."""

    kind = "folder"

    def __init__(self, path: Path, below: str, train: Sequence[str], validation: Sequence[str]) -> None:
        self.path = path
        self.below, self.train, self.validation = below, tuple(train), tuple(validation)

    @classmethod
    def at(cls, path: Path) -> FolderSource | None:
        """The source in a folder, or None if it holds no training folder."""
        for below in BELOW:
            base = path / below
            train = _matching(base, TRAIN_FOLDERS)
            if train:
                return cls(path, below, train, _matching(base, VALIDATION_FOLDERS))
        return None

    def list_images(self, class_ids: Sequence[str]) -> Listing:
        stamps: dict[str, list[int]] = {}
        unknown: list[str] = []
        return Listing(self._walk(class_ids, stamps, unknown), stamps, unknown)

    def _walk(self, class_ids: Sequence[str], stamps: dict[str, list[int]], unknown: list[str]) -> Iterator[Found]:
        wanted = frozenset(class_ids)
        for part, folders in ((False, self.train), (True, self.validation)):
            for folder in folders:
                inside = PurePosixPath(self.below) / folder
                # Files that lie in the folder itself come first, then the classes' folders.
                for wnid in (None, *class_ids):
                    location = inside / wnid if wnid else inside
                    place = self.path / location
                    if not place.is_dir():
                        continue
                    stamps[str(location)] = stamp(place)
                    names = sorted(entry.name for entry in os.scandir(place) if entry.is_file())
                    yield from self._identify(names, location, wnid, wanted, part, stamps, unknown)

    def _identify(
        self,
        names: Sequence[str],
        location: PurePosixPath,
        folder_wnid: str | None,
        wanted: frozenset[str],
        part: bool,
        stamps: dict[str, list[int]],
        unknown: list[str],
    ) -> Iterator[Found]:
        ground_truth: Mapping[str, str] | None = None
        for name in names:
            found = identify(name, f"{location}/{name}", folder_wnid, part)
            if found is None:
                if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                    unknown.append(f"{location}/{name}")
                continue
            if not found.wnid:
                if ground_truth is None:
                    file, ground_truth = find_ground_truth(self._list_places())
                    stamps[os.path.relpath(file, self.path)] = stamp(file)
                stem = found.name.removesuffix(".JPEG")
                if stem not in ground_truth:
                    raise UsageError(f"{self.path / found.location}: {file} does not say its class")
                found = found._replace(wnid=ground_truth[stem])
            if found.wnid in wanted:
                yield found

    def _list_places(self) -> list[Path]:
        base = self.path / self.below
        return [base, *(parent for parent in base.parents if parent.is_relative_to(self.path)), *(
            base / folder for folder in self.validation
        )]  # fmt: skip

    def unchanged(self, stamps: Mapping[str, Sequence[int]]) -> bool:
        try:
            return all(stamp(self.path / place) == list(was) for place, was in stamps.items())
        except OSError:
            return False

    def file_stamp(self, location: str) -> list[int] | None:
        try:
            return stamp(self.path / location)
        except OSError:
            return None

    def root(self, class_ids: Sequence[str]) -> Path:
        return self.path


def identify(name: str, location: str, folder_wnid: str | None, in_validation_folder: bool) -> Found | None:
    """What a file is by its name; None if the name is none of ImageNet's. The wnid is empty where nothing says it.

    Raises:
        UsageError: the name's wnid and the folder's differ.
    """
    match = IMAGE_NAME.fullmatch(name)
    if match is None:
        return None
    said = {wnid for wnid in (match["wnid"], match["appended"], folder_wnid) if wnid}
    if len(said) > 1:
        raise UsageError(
            f"{location}: its name and its folder say different classes ({', '.join(sorted(said))}); "
            "move it where it belongs, or unpack the archive again"
        )
    image = match["validation"] or match["training"]
    return Found(said.pop() if said else "", f"{image}.JPEG", location, in_validation_folder)


class ArchiveSource(Source):
    """fast.ai's archive, or any like it: `<top>/train/<wnid>/<file>` and `<top>/val/<wnid>/<file>`."""

    kind = "archive"

    def __init__(self, path: Path) -> None:
        self.path = path

    def list_images(self, class_ids: Sequence[str]) -> Listing:
        unknown: list[str] = []
        return Listing(self._listed(frozenset(class_ids), unknown), {".": stamp(self.path)}, unknown)

    def _listed(self, wanted: frozenset[str], unknown: list[str]) -> Iterator[Found]:
        with _reading(self.path) as archive:
            for member, part, wnid, name in _image_members(archive):
                if wnid not in wanted:
                    continue
                found = identify(name, member.name, wnid, part == "val")
                if found is not None:
                    yield found
                else:
                    unknown.append(member.name)

    def unchanged(self, stamps: Mapping[str, Sequence[int]]) -> bool:
        try:
            return list(stamps["."]) == stamp(self.path)
        except (OSError, KeyError):
            return False

    def file_stamp(self, location: str) -> list[int] | None:
        return []  # a changed archive has another cache

    def packed(self, class_ids: Sequence[str]) -> bool:
        return not self._unpacked.is_dir()

    @property
    def _unpacked(self) -> Path:
        return self.cache / "unpacked"

    def root(self, class_ids: Sequence[str]) -> Path:
        if self.packed(class_ids):
            self._unpack(self._unpacked)
        return self._unpacked

    def _unpack(self, target: Path) -> None:
        with whole_folder(target, existing="keep", locked=True) as partial, _reading(self.path) as archive:
            for member, *_ in _image_members(archive):
                check_free(partial, member.size, f"unpacking {self.path}")
                archive.extract(member, partial, filter="data")

    def _identity(self) -> str:
        return f"{super()._identity()} {stamp(self.path)}"


def _image_members(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str, str, str]]:
    """(member, train or val, wnid, file name) of every image file in a class's folder.

    Raises:
        UsageError: one whose path leads out of the folder that the archive is unpacked into.
    """
    for member in archive:
        *top, part, wnid, name = ("", "", "", *member.name.split("/"))
        if part not in ("train", "val") or not WNID.fullmatch(wnid) or not member.isreg():
            continue
        if not name.lower().endswith(IMAGE_SUFFIXES) or name.startswith("."):
            continue
        if ".." in top or member.name.startswith("/"):
            raise UsageError(f"{archive.name!s} is not safe to unpack: it holds the path {member.name}")
        yield member, part, wnid, name


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tarfile.TarFile]:
    """An open archive; what a damaged or hostile one raises becomes one message."""
    try:
        with tarfile.open(path) as archive:
            yield archive
    except tarfile.FilterError as error:
        raise UsageError(f"{path} is not safe to unpack: {error}") from error
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is damaged or not an archive ({error}); get it again") from error


def check_free(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises RunError if a disk has less room than `what` needs (and a little to spare)."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise RunError(
            f"{what} needs {needed_bytes / 2**30:.2f} GiB in {folder}, where {free / 2**30:.2f} GiB are free; "
            "make room, or put the cache on another disk: export DDBENCH_CACHE=/path/with/room"
        )


SPARE_BYTES = 64 * 2**20


def sources_at(path: Path, archive_stems: Sequence[str]) -> list[Source]:
    """The sources in a place: an archive, a folder with `train/` in it, or those one level below a folder.

    Args:
        archive_stems: how the names of archives begin that are looked at in a folder of several things.

    Raises:
        UsageError: no such place, or a file that is no archive.
    """
    from ddbench.datasets.imagenet_parquet import ParquetSource

    if path.is_file():
        if not path.name.endswith(ARCHIVES):
            raise UsageError(f"{path}: expected a folder or an archive ({', '.join(ARCHIVES)}), got another file")
        return [ArchiveSource(path)]
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder")
    here = ParquetSource.at(path) or FolderSource.at(path)
    if here is not None:
        return [here]
    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    found: list[Source] = [source for child in children if child.is_dir() and (source := FolderSource.at(child))]
    unpacked = {source.path.name for source in found}
    for child in children:
        stem = child.name
        for ending in ARCHIVES:
            stem = stem.removesuffix(ending)
        fits = stem != child.name and stem.startswith(tuple(archive_stems))
        if fits and child.is_file() and stem not in unpacked:
            found.append(ArchiveSource(child))
    return found


def _matching(base: Path, patterns: Sequence[str]) -> list[str]:
    if not base.is_dir():
        return []
    return sorted({child.name for pattern in patterns for child in base.glob(pattern) if child.is_dir()})
