"""A bundle's files, out of a file that may have been made to do harm. Imports no torch.

Everything is refused that a bundle does not need: every kind of member but plain files, every name but those of
`contents.KINDS`, what the index does not list or lists otherwise, and more than the limits below. A member is written
only under a name that was allowed, and counts only once its SHA-256 is the index's.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard
from pydantic import ValidationError

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import check_free
from ddbench.benchmark.transfer import texts
from ddbench.benchmark.transfer.contents import INDEX, MIB, Index, Member, kind_of

CHUNK = MIB
WINDOW = 2**27
"""The most memory, in bytes, that a stream may ask its reader to keep of what came before."""


@dataclass(frozen=True)
class Limits:
    """What a bundle may take at most."""

    members: int = 400_000
    total_mib: int = 65_536
    """Of all members, unpacked."""
    ratio: int = 200
    """Unpacked over packed, beyond the first `free_mib`: text shrinks to a twentieth, pictures hardly."""
    free_mib: int = 64
    index_mib: int = 64


LIMITS = Limits()


class _PlainFile(tarfile.TarInfo):
    """A header that is looked at before tarfile acts on it: long names, for one, are read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _PlainFile:
        found = super().frombuf(buf, encoding, errors)
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.name.endswith("/"):
            raise UsageError(f"{texts.shown(found.name)}: a {_TYPES.get(found.type, 'special member')}, not a file")
        return found


_TYPES = {
    tarfile.LNKTYPE: "hard link", tarfile.SYMTYPE: "symbolic link", tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device", tarfile.DIRTYPE: "directory", tarfile.FIFOTYPE: "named pipe",
    tarfile.GNUTYPE_SPARSE: "sparse file", tarfile.REGTYPE: "directory", tarfile.AREGTYPE: "directory",
}  # fmt: skip


class _Bounded(io.RawIOBase):
    """A stream that says so when it gives more than it may."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self.source, self.left = source, most

    def read(self, size: int = -1, /) -> bytes:
        found = self.source.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise UsageError("it unpacks to more than its index says: a decompression bomb")
        return found


def unpack(bundle: Path, to: Path, limits: Limits = LIMITS) -> Index:
    """Write a bundle's members into an empty folder, and return its index.

    Raises:
        UsageError: it is no bundle, or one that asks for what none needs; one line, and `to` is to be thrown away.
        RunError: the disk has no room for it.
    """
    try:
        with _members(bundle, limits) as (source, members):
            index = _index(source, members, limits, bundle.stat().st_size)
            sizes = sum(member.size for member in index.members.values())
            check_free(to, sizes, f"unpacking {bundle.name}")
            source.left = sizes + 1024 * (len(index.members) + 2) + 2 * tarfile.RECORDSIZE
            left = dict(index.members)
            for header, content in members:
                _write(to, header, content, left)
    except UsageError as error:
        raise UsageError(f"{bundle}: {error}") from error
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise UsageError(f"{bundle}: not a bundle, or a damaged one: {texts.shown(str(error))}") from error
    if left:
        raise UsageError(f"{bundle}: {len(left)} of {len(index.members)} files are missing, the first {min(left)}")
    return index


@contextmanager
def _members(bundle: Path, limits: Limits) -> Iterator[tuple[_Bounded, Iterator[tuple[tarfile.TarInfo, IO[bytes]]]]]:
    """The stream, and (header, content) of each member as it comes."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    with bundle.open("rb") as packed, decompressor.stream_reader(packed) as plain:
        source = _Bounded(plain, limits.index_mib * MIB + 2 * tarfile.RECORDSIZE)
        with tarfile.open(fileobj=source, mode="r|", tarinfo=_PlainFile) as tar:
            yield source, _each(tar)


def _each(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    while (header := tar.next()) is not None:
        content = tar.extractfile(header)
        assert content is not None  # of a plain file
        yield header, content


def _index(
    source: _Bounded, members: Iterator[tuple[tarfile.TarInfo, IO[bytes]]], limits: Limits, packed_bytes: int
) -> Index:
    first = next(members, None)
    if first is None or first[0].name != INDEX:
        raise UsageError(f"not a bundle: expected {INDEX} as its first member")
    header, content = first
    if header.size > limits.index_mib * MIB:
        raise UsageError(f"{INDEX} is larger than {limits.index_mib} MiB")
    value = texts.parse(content.read(), INDEX)
    if isinstance(value, dict) and value.get("format") != Index.model_fields["format"].default:
        other = texts.shown(repr(value.get("format")))
        raise UsageError(f"a bundle of format {other}; this version of ddbench reads format 1")
    try:
        index = Index.model_validate(value)
    except ValidationError as error:
        found = error.errors()[0]
        where = texts.shown(".".join(map(str, found["loc"])))
        raise UsageError(f"{INDEX}: {where}: {found['msg']}") from error
    if len(index.members) > limits.members:
        raise UsageError(f"{len(index.members):,} files, more than {limits.members:,}")
    for name, member in index.members.items():
        kind = kind_of(name)
        if kind is None:
            raise UsageError(f"no bundle has a file {texts.shown(name)}")
        if member.size > kind.most_bytes:
            raise UsageError(f"{name}: {member.size:,} bytes, more than {kind.most_bytes:,}")
    total = sum(member.size for member in index.members.values())
    if total > limits.total_mib * MIB:
        raise UsageError(f"{total / MIB:,.0f} MiB unpacked, more than {limits.total_mib:,}")
    if total > limits.free_mib * MIB + limits.ratio * packed_bytes:
        raise UsageError(f"{total / MIB:,.0f} MiB out of {packed_bytes / MIB:,.1f}: a decompression bomb")
    return index


def _write(to: Path, header: tarfile.TarInfo, content: IO[bytes], left: dict[str, Member]) -> None:
    member = left.pop(header.name, None)
    if member is None:
        raise UsageError(f"{texts.shown(header.name)}: not in the index, or there twice")
    if header.size != member.size:
        raise UsageError(f"{header.name}: {header.size:,} bytes, and the index says {member.size:,}")
    path = to / header.name
    path.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with path.open("xb") as file:
        while chunk := content.read(CHUNK):
            found.update(chunk)
            file.write(chunk)
    if found.hexdigest() != member.sha256:
        raise UsageError(f"{header.name}: its SHA-256 is not the index's")
