"""Which sources there are in a place that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.archives import ARCHIVES, ArchiveSource
from ddbench.datasets.imagenet.folders import FolderSource
from ddbench.datasets.imagenet.parquet import ParquetSource
from ddbench.datasets.imagenet.sources import Source


def sources_at(path: Path, archive_stems: Sequence[str]) -> list[Source]:
    """The sources in a place: an archive, a folder with `train/` in it, or those one level below a folder.

    Args:
        archive_stems: how the names of archives begin that are looked at in a folder of several things.

    Raises:
        UsageError: no such place, or a file that is no archive.
    """
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
