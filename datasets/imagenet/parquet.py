"""ImageNet in the parquet files of a Hugging Face dataset folder: `data/train-00000-of-00294.parquet`, `validation-…`.

The rows lie in no order, so reading one class's images would read every file; the images of the classes that a dataset
wants are written out into the cache in one pass, and are files from then on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import check_free, write_json
from ddbench.datasets.cache import read_json
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.datasets.imagenet.sources import Found, Listing, Source, identify, stamp

SIDES = {"train": "train", "validation": "val", "val": "val"}
"""How a file's name begins -> the folder that its images are written to; the test part has no labels."""
BELOW = (".", "data", "default")
ROWS = 256
"""Rows read at once: it bounds memory."""


class ParquetSource(Source):
    """Parquet files with the columns `image` (bytes and path) and `label` of Hugging Face's `imagenet-1k`."""

    kind = "parquet folder"
    users_own = False

    def __init__(self, path: Path, files: Mapping[str, Sequence[Path]]) -> None:
        self.path, self.files = path, files

    @classmethod
    def at(cls, path: Path) -> ParquetSource | None:
        """The source in a folder, or None if it holds no parquet files of a training part."""
        for below in BELOW:
            files: dict[str, list[Path]] = {}
            for file in sorted([*(path / below).glob("*.parquet"), *(path / below).glob("*/*.parquet")]):
                # `train-00000-of-00294.parquet`, or `train/0000.parquet` as converted copies have it.
                for said in (file.name.partition("-")[0], file.parent.name):
                    if said in SIDES:
                        files.setdefault(SIDES[said], []).append(file)
                        break
            if "train" in files:
                return cls(path, files)
        return None

    def list_images(self, class_ids: Sequence[str]) -> Listing:
        unknown: list[str] = []
        return Listing(self._listed(frozenset(class_ids), unknown), self._stamps(), unknown)

    def _listed(self, wanted: frozenset[str], unknown: list[str]) -> Iterator[Found]:
        for part, files in self.files.items():
            for file in files:
                for row, (path, label) in enumerate(self._rows(file, "image.path", "label")):
                    found = self._identify(file, row, path, label, part)
                    if found is None:
                        unknown.append(f"{file.relative_to(self.path)} row {row}: {path}")
                    elif found.wnid in wanted:
                        yield found

    def _identify(self, file: Path, row: int, path: Any, label: Any, part: str) -> Found | None:
        """What one row is, by the name that it has kept; None if that is none of ImageNet's.

        Raises:
            UsageError: a row without name, or whose name and label say different classes.
        """
        where = f"{file} row {row}"
        if not isinstance(path, str) or not path:
            raise UsageError(
                f"{where}: image.path is empty, and without ImageNet's file names its splits cannot be told apart; "
                "use a copy that kept them (Hugging Face's own imagenet-1k did)"
            )
        if not isinstance(label, int) or not 0 <= label < len(IMAGENET_1K):
            raise UsageError(f"{where}: expected a label from 0 to {len(IMAGENET_1K) - 1}, got {label!r}")
        wnid, name = IMAGENET_1K[label], Path(path).name
        found = identify(name, f"{part}/{wnid}/{name}", None, part == "val")
        if found is not None and found.wnid not in ("", wnid):
            raise UsageError(
                f"{where}: the name {name} says class {found.wnid}, label {label} says {wnid}: its labels are not "
                "positions in the list of ImageNet-1K's wnids"
            )
        return None if found is None else found._replace(wnid=wnid)

    def _rows(self, file: Path, *columns: str) -> Iterator[tuple[Any, ...]]:
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(batch_size=ROWS, columns=list(columns)):
                    for row in batch.to_pylist():
                        yield tuple(_field(row, column) for column in columns)
        except Exception as error:  # of damaged files, the reader raises whatever comes up
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
                raise
            raise UsageError(
                f"{file} does not hold ImageNet's images: expected the columns image (bytes, path) and label ({error})"
            ) from error

    def unchanged(self, stamps: Mapping[str, Sequence[int]]) -> bool:
        try:
            return {place: list(was) for place, was in stamps.items()} == self._stamps()
        except OSError:
            return False

    def _stamps(self) -> dict[str, list[int]]:
        return {str(file.relative_to(self.path)): stamp(file) for files in self.files.values() for file in files}

    def file_stamp(self, location: str) -> list[int] | None:
        return []  # changed files have another cache

    def packed(self, class_ids: Sequence[str]) -> bool:
        return not set(class_ids) <= set(read_json(self._marker).get("class_ids", []))

    @property
    def _unpacked(self) -> Path:
        return self.cache / "unpacked"

    @property
    def _marker(self) -> Path:
        return self._unpacked / "classes.json"

    def root(self, class_ids: Sequence[str]) -> Path:
        there = set(read_json(self._marker).get("class_ids", []))
        missing = frozenset(class_ids) - there
        if missing:
            self._unpack(missing)
            write_json(self._marker, {"class_ids": sorted(there | missing)})
        return self._unpacked

    def _unpack(self, wanted: frozenset[str]) -> None:
        """Write out the images of some classes; those that a killed attempt left are overwritten."""
        for part, files in self.files.items():
            for wnid in wanted:
                shutil.rmtree(self._unpacked / part / wnid, ignore_errors=True)
                (self._unpacked / part / wnid).mkdir(parents=True)
            for file in files:
                for row, (path, label, data) in enumerate(self._rows(file, "image.path", "label", "image.bytes")):
                    found = self._identify(file, row, path, label, part)
                    if found is None or found.wnid not in wanted:
                        continue
                    if not isinstance(data, bytes):
                        raise UsageError(f"{file} row {row}: image.bytes is empty; get the file again")
                    check_free(self._unpacked, len(data), f"writing out the images of {self.path}")
                    (self._unpacked / found.location).write_bytes(data)

    def _identity(self) -> str:
        return f"{super()._identity()} {os.fspath(self.path)} {sorted(self._stamps().items())}"


def _field(row: Mapping[str, Any], column: str) -> Any:
    value: Any = row
    for part in column.split("."):
        value = None if value is None else value[part]
    return value
