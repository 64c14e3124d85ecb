"""Distilled sets on the Hugging Face hub: `hf:OWNER/NAME`, `hf:OWNER/NAME@revision`, `hf:OWNER/NAME@revision:path`.

A repository holds a folder of images, a file of tensors, an archive, or parquet files with a picture and a class number
in each row. What is fetched is a commit, whose hash every result keeps.
"""

from __future__ import annotations

import csv
import errno
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import check_free, whole_folder
from ddbench.benchmark.core.spec import digest
from ddbench.datasets.cache import cache_dir
from ddbench.datasets.foreign.tensors import SUFFIXES, tensor_file

PREFIX = "hf:"
EXPECTED = "expected hf:OWNER/NAME, with @revision and :path behind it where they are meant"
NUMBERS = ("class_id", "label")
"""Columns of parquet files that hold a class number."""
SPLITS = re.compile(r"(train|test|validation|valid|val|dev)(?=[-_.])")
"""How the name of a parquet file begins that says which split it is of (`train-00000-of-00002.parquet`)."""
ROWS = 256
OF_A_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
KINDS = ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"RIFF", ".webp"), (b"GIF8", ".gif"), (b"BM", ".bmp"))
"""How an image file begins, and its ending."""


@dataclass(frozen=True)
class Address:
    repo: str
    revision: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        revision, path = (f"@{self.revision}" if self.revision else "", f":{self.path}" if self.path else "")
        return f"{PREFIX}{self.repo}{revision}{path}"


@dataclass(frozen=True)
class Fetched:
    folder: Path
    """A folder of class folders or of tensors, or a file of tensors."""
    commit: str
    note: str


@dataclass(frozen=True)
class PublishedSet:
    """A published set, or a family of them that differ in IPC."""

    name: str
    address: str
    """With `{ipc}` in a family's."""
    ipc: tuple[int, ...]
    dataset: str
    class_order: str | None
    """Which class a number is, where its programs say so."""
    layout: str
    summary: str

    @property
    def addresses(self) -> list[str]:
        """One for each IPC of a family."""
        return [self.address.format(ipc=ipc) for ipc in self.ipc] if "{ipc}" in self.address else [self.address]


def parse(text: str) -> Address:
    """Raises UsageError if it is no address of this form."""
    said = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([^:]+))?", text)
    if said is None:
        raise UsageError(f"{text}: {EXPECTED}")
    path = said[3] and said[3].strip("/")
    if path and (".." in PurePosixPath(path).parts or PurePosixPath(path).is_absolute()):
        raise UsageError(f"{text}: the path must lie in the repository")
    return Address(said[1], said[2], path or None)


def pinned(text: str, commit: str) -> str:
    """An address with the commit that it was fetched at."""
    address = parse(text)
    return str(Address(address.repo, commit, address.path))


def published_sets() -> list[PublishedSet]:
    """What is known of sets on the hub, as data (`published_sets.csv`)."""
    with Path(__file__).with_name("published_sets.csv").open(encoding="utf-8", newline="") as file:
        return [
            PublishedSet(ipc=tuple(map(int, row.pop("ipc").split())), class_order=row.pop("class_order") or None, **row)
            for row in csv.DictReader(file)
        ]


def known_order(address: Address) -> str | None:
    """The class order of a published set; None where none is known."""
    for one in published_sets():
        if address.repo in {parse(known).repo for known in one.addresses}:
            return one.class_order
    return None


def fetch(address: Address) -> Fetched:
    """Bring a set onto this machine, or find it there.

    Raises:
        UsageError: no such repository, revision or path, or no way to the hub; in one message.
    """
    snapshot, online = _snapshot(address)
    found = snapshot / address.path if address.path else snapshot
    tables = _tables(snapshot, address)
    if not tables and not found.exists():
        raise UsageError(f"{address}: there is no {address.path} in it; it holds {_some(snapshot)}")
    commit = snapshot.name
    # Which of a commit's tables are there depends on what was asked for before, where the hub is not asked.
    names = [[table.relative_to(snapshot).as_posix() for table in tables]] if tables else []
    unpacked = cache_dir() / "hub-sets" / digest([address.repo, commit, address.path, *names])[:16]
    if tables:
        found = _unpacked(unpacked, _parquet_images(tables))
    elif found.suffix.lower() == ".zip":
        found = _unpacked(unpacked, _zip_members(found))
    elif found.is_dir() and not any(entry.is_dir() for entry in found.iterdir()):
        archives = sorted(entry for entry in found.iterdir() if entry.suffix.lower() == ".zip")
        if archives and tensor_file(found) is None:
            path = f"{address.path}/{archives[0].name}" if address.path else archives[0].name
            raise UsageError(f"{address} holds {_some(found)}; name the archive, such as {replace(address, path=path)}")
    note = f"{address.repo} at commit {commit}"
    if not online:
        note += "; the hub was not asked: these are the files that lie in its cache on this machine"
    return Fetched(found, commit, note)


def _tables(snapshot: Path, address: Address) -> list[Path]:
    """The parquet files that an address means; none where it means something else.

    Raises:
        UsageError: of several splits, or none where a path asks for some.
    """
    path = address.path
    if path is not None and path.endswith(".parquet"):
        tables = sorted(snapshot.glob(path))
        if not tables:
            raise UsageError(f"{address}: there is no {path} in it; it holds {_some(snapshot)}")
        return tables
    folder = snapshot / path if path else snapshot
    tables = [*sorted(folder.glob("*.parquet")), *sorted(folder.glob("data/*.parquet"))]
    splits = {said[1] if (said := SPLITS.match(table.name)) else "": table for table in tables}
    if len(splits) > 1:
        names = ", ".join(table.relative_to(snapshot).as_posix() for table in splits.values())
        split, table = max(splits.items(), key=lambda one: one[0] == "train")
        path = (table.relative_to(snapshot).parent / f"{split}*.parquet").as_posix()
        raise UsageError(
            f"{address} holds parquet files of several splits ({names}), of which one is the distilled set; say which, "
            f"such as {replace(address, path=path)}"
        )
    return tables


def _snapshot(address: Address) -> tuple[Path, bool]:
    """(a commit's folder, whether the hub said what belongs in it)."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = [address.path, f"{address.path}/**"] if address.path else None
    problems: list[Exception] = []
    for kind in ("dataset", "model"):
        try:
            given: Any = {"repo_type": kind, "revision": address.revision, "allow_patterns": patterns}
            return Path(snapshot_download(address.repo, **given)), not constants.HF_HUB_OFFLINE
        except (RepositoryNotFoundError, LocalEntryNotFoundError) as error:
            problems.append(error)
        except Exception as error:  # the client raises errors of several libraries: HTTP, the system, its own
            problems.append(error)
            break
    telling = [error for error in problems if not isinstance(error, RepositoryNotFoundError)]
    if not telling:
        raise UsageError(f"{address}: no such repository, neither of a dataset nor of a model, or no access to it")
    why = str(telling[0]).strip().partition("\n")[0].rstrip(".")
    raise UsageError(
        f"{address} cannot be had from the hub, nor is it whole in the hub's cache on this machine "
        f"({constants.HF_HUB_CACHE}): {why}. Where the hub can be reached, run `hf download {address.repo} --repo-type "
        "dataset --local-dir DIR`, copy DIR here and give --images DIR"
    )


def _unpacked(target: Path, files: Iterator[tuple[str, bytes]]) -> Path:
    if not target.is_dir():
        with whole_folder(target, existing="keep") as folder:
            for name, data in files:
                check_free(folder, len(data), "unpacking a set of the hub")
                try:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(data)
                except OSError as error:
                    if error.errno not in OF_A_NAME:
                        raise
                    raise UsageError(
                        f"the archive's file {name[:100]!r} cannot be unpacked beside the others: {error.strerror}"
                    ) from error
    return _innermost(target)


def _innermost(folder: Path) -> Path:
    """An archive's one folder is the set, if it holds folders itself and none but notes lie beside it."""
    inside = list(folder.iterdir())
    folders = [entry for entry in inside if entry.is_dir()]
    if len(folders) != 1 or any(entry.suffix.lower() in SUFFIXES for entry in inside):
        return folder
    return _innermost(folders[0]) if any(entry.is_dir() for entry in folders[0].iterdir()) else folder


def _zip_members(file: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if ".." in path.parts or path.is_absolute() or "\\" in member.filename:
                    raise UsageError(f"{file} is not safe to unpack: it holds the path {member.filename!r}")
                if member.is_dir() or any(part.startswith((".", "__MACOSX")) for part in path.parts):
                    continue
                yield str(path), archive.read(member)
    except Exception as error:  # of damaged files, the reader raises whatever comes up
        if isinstance(error, UsageError | MemoryError) or not _of_the_file(error):
            raise
        raise UsageError(f"{file} is damaged or not a zip archive ({error}); get it again") from error


def _of_the_file(error: Exception) -> bool:
    """Whether what is in a file made the trouble, such as a place before its beginning, and not the system."""
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


def _parquet_images(tables: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Images as files in folders of their class numbers: `00003/00000.jpg`."""
    import pyarrow.parquet

    counts: dict[int, int] = {}
    try:
        for table in tables:
            with pyarrow.parquet.ParquetFile(table) as opened:
                column = next((name for name in NUMBERS if name in opened.schema_arrow.names), None)
                if column is None or "image" not in opened.schema_arrow.names:
                    raise UsageError(
                        f"{table}: expected the columns image and {' or '.join(NUMBERS)}, got "
                        f"{', '.join(opened.schema_arrow.names)}"
                    )
                for batch in opened.iter_batches(batch_size=ROWS, columns=["image", column]):
                    for row in batch.to_pylist():
                        image = row["image"]
                        data, number = image.get("bytes") if isinstance(image, dict) else image, row[column]
                        if not isinstance(data, bytes) or not isinstance(number, int) or number < 0:
                            raise UsageError(f"{table}: a row without the bytes of an image or a class number")
                        suffix = next((suffix for begin, suffix in KINDS if data.startswith(begin)), ".png")
                        yield f"{number:05d}/{counts.setdefault(number, 0):05d}{suffix}", data
                        counts[number] += 1
    except Exception as error:  # of damaged files, the reader raises whatever comes up
        if isinstance(error, UsageError | MemoryError) or not _of_the_file(error):
            raise
        raise UsageError(f"{tables[0].parent}: damaged parquet files ({' '.join(str(error).split())})") from error


def _some(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:8]) + (f" … ({len(names)} in all)" if len(names) > 8 else "")
