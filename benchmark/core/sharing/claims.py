"""Numbers that are given out, each to one owner: by a file that only one process can make. Imports no torch.

    <folder>/<number>       whose it is, as text

Looking which numbers are free and using one later is no claim: two that look at once use the same one.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path

from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.sharing.lease import create_whole


def claimed(folder: Path) -> dict[int, str]:
    """Number -> its owner."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {int(file.name): read_regular(file).decode(errors="replace") for file in files if file.name.isdecimal()}


def free_number(folder: Path, owner: str, used: Collection[int] = ()) -> int:
    """The number that `claim` would give now."""
    known = claimed(folder)
    own = [number for number, whose in known.items() if whose == owner]
    return own[0] if own else next(number for number in itertools.count() if number not in {*used, *known})


def claim(folder: Path, owner: str, used: Collection[int] = ()) -> int:
    """The owner's number: the one that it has, else the first that is nobody's, which is its own from then on.

    Args:
        folder: made where it is missing; its parent must be there.
        used: numbers that were given out before there were claims.
    """
    folder.mkdir(exist_ok=True)
    while True:
        number = free_number(folder, owner, used)
        if create_whole(folder / str(number), owner.encode()) or claimed(folder).get(number) == owner:
            return number
