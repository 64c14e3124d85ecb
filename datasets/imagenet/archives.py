"""ImageNet's classes in a tar archive, fast.ai's or any like it; unpacked once, into the cache."""

from __future__ import annotations

import contextlib
import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import check_free, whole_folder
from ddbench.datasets.imagenet.sources import Found, Listing, Source, identify, is_image, stamp

ARCHIVES = (".tar", ".tgz", ".tar.gz")
WNID = re.compile(r"n\d{8}")


class ArchiveSource(Source):
    """fast.ai's archive, or any like it: `<top>/train/<wnid>/<file>` and `<top>/val/<wnid>/<file>`."""

    kind = "archive"
    users_own = False

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
        with whole_folder(target, existing="keep", lease=self.decoding) as partial, _reading(self.path) as archive:
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
        if not is_image(name):
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
