"""Tiny-ImageNet in its zip archive; unpacked once, into the cache, without its test images."""

from __future__ import annotations

import contextlib
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import check_free, whole_folder
from ddbench.datasets.imagenet.archives import ArchiveSource
from ddbench.datasets.imagenet.sources import Found
from ddbench.datasets.tiny_imagenet.annotations import NO_LIST, PLACE, Annotations, read_annotations
from ddbench.datasets.tiny_imagenet.layout import PARTS, labelled, place_of

ARCHIVE = ".zip"
ENCRYPTED = 0x1
Members = Mapping[str, zipfile.ZipInfo]
"""Path below the dataset's folder -> file in the archive."""


class TinyArchive(ArchiveSource):
    """`tiny-imagenet-200.zip`, or any like it: `<top>/train/…` and `<top>/val/…`."""

    def _listed(self, wanted: frozenset[str], unknown: list[str]) -> Iterator[Found]:
        with _reading(self.path) as archive:
            members = self._members(archive)
            annotations = self._annotations(archive, members, wanted)
        yield from labelled(sorted(members), annotations, wanted, str(self), unknown)

    def _annotations(self, archive: zipfile.ZipFile, members: Members, wanted: frozenset[str]) -> Annotations | None:
        if PLACE not in members:
            return None
        return read_annotations(archive.read(members[PLACE]), f"{self.path}: {PLACE}", wanted)

    def unconfirmed(self) -> str | None:
        with _reading(self.path) as archive:
            return None if PLACE in self._members(archive) else NO_LIST

    def _unpack(self, target: Path) -> None:
        with whole_folder(target, existing="keep", lease=self.decoding) as partial, _reading(self.path) as archive:
            images = {place: member for place, member in self._members(archive).items() if place_of(place) is not None}
            check_free(partial, sum(member.file_size for member in images.values()), f"unpacking {self.path}")
            for place, member in images.items():
                (partial / place).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, (partial / place).open("xb") as out:
                    shutil.copyfileobj(packed, out)

    def _members(self, archive: zipfile.ZipFile) -> Members:
        """The files of `train/` and `val/`.

        Raises:
            UsageError: a path that leads out of the folder that the archive is unpacked into, files that are there
                twice or encrypted, or two such datasets.
        """
        found: dict[str, zipfile.ZipInfo] = {}
        tops = set()
        for member in archive.infolist():
            *folders, name = member.filename.split("/")
            if ".." in folders or name == ".." or member.filename.startswith("/"):
                raise UsageError(f"{self.path} is not safe to unpack: it holds the path {member.filename}")
            first = next((i for i, folder in enumerate(folders) if folder in PARTS), None)
            if first is None or not name or stat.S_ISLNK(member.external_attr >> 16) or "__MACOSX" in folders:
                continue
            place = "/".join((*folders[first:], name))
            if member.flag_bits & ENCRYPTED:
                raise UsageError(f"{self.path}: {member.filename} is encrypted: expected files that can be read")
            tops.add("/".join(folders[:first]))
            if len(tops) > 1:
                said = ", ".join(f"{top or '.'}/" for top in sorted(tops))
                raise UsageError(f"{self.path} holds train/ and val/ in several folders ({said}): expected one")
            if place in found:
                raise UsageError(f"{self.path} holds {member.filename} twice: expected every file once; get it again")
            found[place] = member
        return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    """An open archive; what a damaged one raises becomes one message (NotImplementedError: a compression that `zipfile`
    does not read, which a changed byte can ask for)."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UsageError(f"{path} is damaged or not an archive ({error}); get it again") from error
