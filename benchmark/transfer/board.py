"""A folder of bundles as one results folder: what a public board is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.transfer.contents import SUFFIX
from ddbench.benchmark.transfer.data_at_hand import DataAtHand
from ddbench.benchmark.transfer.merge import merge


@dataclass(frozen=True)
class LeftOut:
    """A bundle, or a cell of one, that is not on the board."""

    bundle: Path
    why: str


def gather(
    bundles: Path,
    store: Store,
    *,
    data: DataAtHand | None = None,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> list[LeftOut]:
    """Merge every bundle of a folder, by name; of two that have other results of one cell, the first counts.

    Returns:
        Bundles that were refused, and results that an earlier bundle contradicts.

    Raises:
        UsageError: there is no bundle in the folder.
    """
    files = sorted(bundles.glob(f"*{SUFFIX}")) if bundles.is_dir() else []
    if not files:
        raise UsageError(f"{bundles}: no bundle (*{SUFFIX}) in it; `bench bundle` makes them")
    data, left = data or DataAtHand(), list[LeftOut]()
    store.create()
    for number, file in enumerate(files):
        try:
            merged = merge(file, store, data=data)
        except (UsageError, RunError) as error:
            first, *more = str(error).removeprefix(f"{file}: ").splitlines()
            left.append(LeftOut(file, f"refused: {first} {'; '.join(more)}".strip()))
        else:
            left += [LeftOut(file, f"contradicts an earlier bundle: {conflict}") for conflict in merged.conflicts]
        done(number + 1, len(files))
    return left
