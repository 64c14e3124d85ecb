"""Which copies of Tiny-ImageNet there are in a place that a user names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.imagenet.sources import Source
from ddbench.datasets.tiny_imagenet.archive import ARCHIVE, TinyArchive
from ddbench.datasets.tiny_imagenet.folder import TinyFolder

ARCHIVE_STEM = "tiny-imagenet"
"""How the names of archives begin that are looked at in a folder of several things."""


def sources_at(path: Path, class_ids: Collection[str]) -> list[Source]:
    """The sources in a place: an archive, a folder with `train/` in it, or those one level below a folder.

    Raises:
        UsageError: no such place, or a file that is no archive.
    """
    if path.is_file():
        if not path.name.lower().endswith(ARCHIVE):
            raise UsageError(f"{path}: expected a folder or tiny-imagenet-200.zip, got another file")
        return [TinyArchive(path)]
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder")
    here = TinyFolder.at(path)
    if here is not None:
        return [here]
    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    folders = [child for child in children if child.is_dir()]
    found: list[Source] = [one for child in folders if (one := TinyFolder.recognised(child, class_ids)) is not None]
    unpacked = {source.path.name for source in found}
    for child in children:
        name = child.name.lower()
        if child.is_file() and name.startswith(ARCHIVE_STEM) and name.endswith(ARCHIVE) and child.stem not in unpacked:
            found.append(TinyArchive(child))
    return found
