"""Which folder of a set made elsewhere holds which class: said by its name, or by the user (`--class-order`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.datasets.foreign.class_names import class_by_id, class_by_name
from ddbench.datasets.foreign.class_order import ORDERS, class_order, fitting_orders, read_list
from ddbench.datasets.imagenet.classes import CLASS_NAMES

NUMBERED = re.compile(r"(\D*)(\d+)")
LABELS = re.compile(r".*fkd.*|epoch[_-]?\d+|(soft[_-]?)?labels?", re.IGNORECASE)
"""Names of folders of labels, which SRe2L's program writes for each epoch and batch of crops; they hold no class."""
SHOWN = 10
"""Folders whose proposed class is shown."""


def class_folders(folder: Path, class_ids: Sequence[str], order: str | None) -> dict[str, str]:
    """The folders of classes that are not named by their ids.

    Args:
        folder: where they lie.
        class_ids: the dataset's, in label order.
        order: what `--class-order` says of numbers and names (`class_order.ORDERS`, or a file); None: nothing, and only
            class ids count, in any case.

    Returns:
        class id -> folder name; empty where all are named by ids.

    Raises:
        UsageError: folders of no known class where a list would tell; the message proposes what they may be.
    """
    names = folder_names(folder)
    known = {name: c for name in names if (c := class_by_id(name, class_ids)) is not None}
    if order is not None and names:
        known |= _by_order(names, known, class_ids, order)
    elif not known and names:
        _propose(folder, names, class_ids)
    twice = next((c for c in known.values() if list(known.values()).count(c) > 1), None)
    if twice is not None:
        both = ", ".join(name for name, class_id in known.items() if class_id == twice)
        raise UsageError(f"{folder}: class {twice} has more than one folder: {both}; put their images together")
    return {class_id: name for name, class_id in known.items() if name != class_id}


def folder_names(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and those of labels; empty where it is none.

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        return sorted(
            e.name
            for e in folder.iterdir()
            if not e.name.startswith(".") and not LABELS.fullmatch(e.name) and e.is_dir()
        )
    except NotADirectoryError:
        return []
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}; expected one sub-folder per class") from error


def _by_order(names: Sequence[str], known: Mapping[str, str], class_ids: Sequence[str], order: str) -> dict[str, str]:
    """Folder name -> class id, of what the order says; what it says of a folder goes before the folder's own name."""
    if order not in ORDERS:
        listed, number_of = read_list(order, class_ids), _numbers(names) or {}
        found = {name: listed.get(name) or listed.get(str(number_of.get(name))) for name in names}
        return {name: class_id for name, class_id in found.items() if class_id is not None}
    rest = [name for name in names if name not in known]
    if not rest:  # the order is of the columns of soft labels alone
        return {}
    numbers = _numbers(rest)
    if numbers is not None:
        by_number = class_order(order, class_ids, numbers.values())
        return {name: by_number[number] for name, number in numbers.items()}
    named = {name: c for name in rest if (c := class_by_name(name, class_ids)) is not None}
    unknown = [name for name in rest if name not in named]
    if order != "imagenet" or unknown:
        raise UsageError(
            f"--class-order {order}: the folder {(unknown or rest)[0]!r} is neither numbered nor, among these classes, "
            "one of ImageNet's names; write a file of lines `folder class-id`"
            + ("" if order == "imagenet" or unknown else ", or say --class-order imagenet for names")
        )
    return named


def _numbers(names: Iterable[str]) -> dict[str, int] | None:
    """Folder name -> its number (`new003`: 3), where all are numbered and begin alike; else None."""
    matches = {name: NUMBERED.fullmatch(name) for name in names}
    if not matches or None in matches.values() or len({match[1] for match in matches.values() if match}) > 1:
        return None
    return {name: int(match[2]) for name, match in matches.items() if match}


def _propose(folder: Path, names: Sequence[str], class_ids: Sequence[str]) -> None:
    """Raises UsageError with what the folders may be, where there are proposals."""
    numbers = _numbers(names)
    proposals: dict[str, dict[str, str]] = {}
    if numbers is not None:
        for order, by_number in fitting_orders(class_ids, numbers.values()).items():
            proposals[order] = {name: by_number[number] for name, number in numbers.items()}
    else:
        named = {name: c for name in names if (c := class_by_name(name, class_ids)) is not None}
        if len(named) * 2 > len(names):
            proposals["imagenet"] = named
    if not proposals:
        return
    lines = [f"{folder}: its folders are named by no class ids, and what they are has to be said. They may be:"]
    distinct = {tuple(mapping.items()): order for order, mapping in reversed(proposals.items())}
    for mapping, order in reversed(distinct.items()):
        rows = [f"    {name} = {class_id} {CLASS_NAMES.get(class_id, '')}".rstrip() for name, class_id in mapping]
        more = [f"    … ({len(rows)} in all)"] if len(rows) > SHOWN else []
        said = "ImageNet's names" if numbers is None else ORDERS[order]
        lines += [f"  --class-order {order} ({said}):", *rows[:SHOWN], *more]
    left = [name for name in names if name not in next(iter(proposals.values()))]
    lines += [f"  and {left[0]!r}: none of these classes ({len(left)} such folders)"] if left else []
    lines.append(
        "If that is right, add it to the command; else give a file: --class-order FILE, with lines `folder class-id`"
        + ("" if numbers is None else ", or a class id a line for folders numbered from 0")
    )
    raise Problems(lines)
