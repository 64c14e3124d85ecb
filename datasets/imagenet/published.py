"""Ten-class subsets of ImageNet-1K that papers distill, and subsets of a user's own: class lists, nothing else.

The published lists are data (`class_lists/imagenet_subsets.csv`, with the program that each was read in), in the label
order of their source. A subset of one's own is named by its classes, `subset:193+182+258` (positions in ImageNet-1K's
label order, in the order of its labels), so that its results can be read wherever they lie.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import Headline
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K, LISTS
from ddbench.datasets.imagenet.splits import FIRST_100, IMAGENET, VALIDATION_PER_CLASS, Expected
from ddbench.datasets.imagenet.subsets import ImageNetSubset

OWN = "subset:"
POSITIONS = re.compile(r"[0-9]{1,4}(\+[0-9]{1,4})*")
CLASSES = (2, 200)
"""Fewest and most classes of a subset of one's own: its name lists them."""
HEADLINE = Headline(protocol="hard-minimax-sgd", student="resnet_ap10", ipc=(10,), sets=3, students=3)


@functools.cache
def published() -> dict[str, tuple[str, ...]]:
    """Name -> wnids in label order, as the sources have them."""
    lists: dict[str, list[str]] = {}
    with (LISTS / "imagenet_subsets.csv").open(encoding="utf-8", newline="") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: int(row["index"])):
            lists.setdefault(row["dataset"], []).append(row["wnid"])
    return {name: tuple(lists[name]) for name in sorted(lists)}


def __getattr__(name: str) -> type[ImageNetSubset]:
    """The dataset of a published list: the target of its registry entry is `this module:name`."""
    try:
        return _declared(name, published()[name])
    except KeyError:
        raise AttributeError(f"no published subset {name!r}") from None


def subset(name: str) -> type[ImageNetSubset]:
    """The dataset `subset:193+182+258`. It reads no file: the name may come from anyone's results.

    Raises:
        UsageError: no list of positions, or no subset of ImageNet-1K.
    """
    text = name.removeprefix(OWN)
    if POSITIONS.fullmatch(text) is None:
        raise UsageError(f"{name}: expected classes by their positions, like {OWN}193+182+258")
    positions = [int(one) for one in text.split("+")]
    wnids = [IMAGENET_1K[one] if one < len(IMAGENET_1K) else str(one) for one in positions]
    _check(name, wnids)
    return _declared(OWN + "+".join(map(str, positions)), tuple(wnids))


def subset_name(name: str) -> str:
    """What results call `subset:FILE`, a file with one wnid a line in label order; `subset:193+182` is such a name.

    Raises:
        UsageError: no such file, or a list that is no subset of ImageNet-1K.
    """
    text = name.removeprefix(OWN)
    if POSITIONS.fullmatch(text):
        return subset(name).name
    wnids = _read(Path(text).expanduser())
    _check(name, wnids)
    return OWN + "+".join(str(IMAGENET_1K.index(wnid)) for wnid in wnids)


def _read(file: Path) -> list[str]:
    """The first word of each line that is no comment.

    Raises:
        UsageError: a file that is not there or no text; a line whose first word is no wnid of ImageNet-1K, or that has
            another one behind it.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{OWN}{file}: cannot be read as text: {error}") from None
    if lines is None:
        raise UsageError(f"{OWN}{file}: no such file; expected one with a wnid a line, like {IMAGENET_1K[0]}")
    return [
        _wnid(line, f"{OWN}{file} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _wnid(line: str, where: str) -> str:
    """The class that a line names; words may follow a wnid, but no second one: it would be left out unseen."""
    first = line.split()[0]
    if first not in CLASS_NAMES:
        called = line.partition("#")[0].strip()
        named = [wnid for wnid, name in CLASS_NAMES.items() if name.casefold() == called.casefold()]
        hint = f"; {called!r} is the name of {' and '.join(named)}" if named else ""
        raise UsageError(
            f"{where}: {first!r} is no class of ImageNet-1K: expected a wnid like {IMAGENET_1K[0]} at the beginning of "
            f"the line, and whatever else behind a space{hint}"
        )
    further = next((word for word in re.findall(r"n[0-9]{8}", line.partition("#")[0]) if word != first), None)
    if further is not None:
        raise UsageError(f"{where}: {first} and {further} in one line: expected one wnid a line")
    return first


def _check(name: str, wnids: Sequence[str]) -> None:
    unknown = [wnid for wnid in wnids if wnid not in CLASS_NAMES]
    if unknown:
        raise UsageError(
            f"{name}: {unknown[0]!r} is no class of ImageNet-1K; expected wnids like {IMAGENET_1K[0]}, one a line, or "
            f"positions from 0 to {len(IMAGENET_1K) - 1}"
        )
    twice = [wnid for index, wnid in enumerate(wnids) if wnid in wnids[:index]]
    if twice:
        raise UsageError(f"{name}: {twice[0]} ({CLASS_NAMES[twice[0]]}) stands twice; a class has one label")
    fewest, most = CLASSES
    if not fewest <= len(wnids) <= most:
        raise UsageError(
            f"{name}: {len(wnids)} classes; expected {fewest} to {most}. For more, declare a dataset in a plugin: a "
            "subclass of ddbench.datasets.imagenet.subsets.ImageNetSubset"
        )


@functools.cache
def _declared(called: str, wnids: tuple[str, ...]) -> type[ImageNetSubset]:
    class Declared(ImageNetSubset):
        name = called
        class_ids, class_names = wnids, tuple(CLASS_NAMES[wnid] for wnid in wnids)
        splits = (IMAGENET, FIRST_100)
        headline = HEADLINE
        expected: ClassVar[Mapping[str, Expected]] = {
            IMAGENET: Expected(dict.fromkeys(wnids, VALIDATION_PER_CLASS)),
            FIRST_100: Expected(dict.fromkeys(wnids, VALIDATION_PER_CLASS), dict.fromkeys(wnids, 100)),
        }

    Declared.__name__ = Declared.__qualname__ = called
    Declared.__doc__ = f"{len(wnids)} classes of ImageNet-1K: {', '.join(Declared.class_names)}."
    return Declared
