"""What a results folder holds, as pandas DataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.planning.run_spec import integers, split_outside_brackets
from ddbench.reports.results import filters, rows

if TYPE_CHECKING:
    import pandas as pd

    from ddbench.reports.results.rows import Results
    from ddbench.reports.tables.cost_board import By as Cost

Names = str | Sequence[str] | None


class Filters(TypedDict, total=False):
    """Which results count; what is left out lets all pass."""

    dataset: Names
    """Names of datasets, as a list or separated by commas."""
    ipc: int | str | Sequence[int] | None
    """Images per class: 10, [1, 10] or "1-10"."""
    protocol: Names
    """`quick`, or `name@version`."""
    student: Names
    """Names of student networks."""


def results(runs: Path | str = "runs", **only: Unpack[Filters]) -> pd.DataFrame:
    """One row per student: accuracy, seeds, costs, hashes, and the folder of its cell.

    Args:
        runs: results folder.
        only: `dataset`, `ipc`, `protocol` and `student`: which results count.

    Raises:
        UsageError: not a results folder.
    """
    from ddbench.reports.results.frames import students_frame

    return students_frame(_read(runs, **only))


def sets(runs: Path | str = "runs", **only: Unpack[Filters]) -> pd.DataFrame:
    """One row per distilled set: what made it, its costs and hash, and the folder of its images.

    Args:
        runs: results folder.
        only: `dataset`, `ipc`, `protocol` and `student`: which results count.

    Raises:
        UsageError: not a results folder.
    """
    from ddbench.reports.results.frames import sets_frame

    return sets_frame(_read(runs, **only))


def leaderboard(runs: Path | str = "runs", **only: Unpack[Filters]) -> pd.DataFrame:
    """The leaderboards as people see them, one row per method and table: accuracy with interval, rank, costs.

    Args:
        runs: results folder.
        only: `dataset`, `ipc`, `protocol` and `student`: which results count.

    Raises:
        UsageError: not a results folder.
    """
    from ddbench.reports.tables.frames import leaderboard_frame
    from ddbench.reports.tables.leaderboard import build

    return leaderboard_frame(build(_read(runs, **only)))


def costs(runs: Path | str = "runs", by: Cost = "cost", **only: Unpack[Filters]) -> pd.DataFrame:
    """Accuracy against what it cost, one row per method and table, with where it stands to the Pareto front.

    Args:
        runs: results folder.
        by: `cost`, seconds of distilling and labelling, each kind of hardware for itself; or `bytes`, of images and
            labels.
        only: `dataset`, `ipc`, `protocol` and `student`: which results count.

    Raises:
        UsageError: not a results folder, or another `by`.
    """
    from ddbench.reports.tables.cost_board import By, cost_board
    from ddbench.reports.tables.frames import cost_frame
    from ddbench.reports.tables.leaderboard import build

    if by not in get_args(By):
        raise UsageError(f"by={by!r}: expected {' or '.join(get_args(By))}")
    return cost_frame(cost_board(build(_read(runs, **only)), by))


def compare(runs: Path | str, *methods: str, margin: float = 1.0, **only: Unpack[Filters]) -> pd.DataFrame:
    """The first method against each of the others, one row per pair and table: difference, interval, equivalence.

    Args:
        runs: results folder.
        methods: two or more, as leaderboards call them.
        margin: points within which two methods count as equal.
        only: `dataset`, `ipc`, `protocol` and `student`: which results count.

    Raises:
        UsageError: not a results folder, or methods that it has no comparable results of.
    """
    from ddbench.reports.tables.compare import compare_methods
    from ddbench.reports.tables.frames import compare_frame

    return compare_frame(compare_methods(_read(runs, **only), methods, margin))


def robustness(runs: Path | str = "runs", **only: Unpack[Filters]) -> pd.DataFrame:
    """How far accuracy falls on shifted test sets, one row per method, table and test set.

    Args:
        runs: results folder.
        only: `dataset`, `ipc`, `protocol` and `student`: which results count.

    Raises:
        UsageError: not a results folder.
    """
    from ddbench.reports.robustness.frames import robustness_frame
    from ddbench.reports.robustness.table import build

    return robustness_frame(build(_read(runs, **only)))


def _read(runs: Path | str, **only: Unpack[Filters]) -> Results:
    unknown = ", ".join(only.keys() - Filters.__annotations__.keys())
    if unknown:
        raise UsageError(f"{unknown}: expected dataset, ipc, protocol or student")
    ipc = only.get("ipc")
    try:
        ipcs = () if ipc is None else _integers(ipc)
    except ValueError as error:
        raise UsageError(f"ipc: {error}") from error
    chosen = filters.Filters(
        datasets=_names(only.get("dataset")),
        ipcs=ipcs,
        protocols=_names(only.get("protocol")),
        students=_names(only.get("student")),
    )
    return chosen.apply(rows.read(Path(runs)))


def _integers(given: Any) -> tuple[int, ...]:
    """Raises ValueError if it is neither whole numbers, numpy's and pandas' too, nor text that lists some."""
    given = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(given, str | int):
        return tuple(integers(given))
    parts = given if isinstance(given, Iterable) else [given]
    found = [one for part in parts for one in (integers(part) if isinstance(part, str | bool) else [part])]
    strange = [one for one in found if not isinstance(one, Real) or not float(one).is_integer()]
    if strange:
        raise ValueError(f"expected whole numbers like 10 or [1, 10], got {strange[0]!r}")
    return tuple(map(int, found))


def _names(names: Names) -> tuple[str, ...]:
    if names is None:
        return ()
    return tuple(split_outside_brackets(names) if isinstance(names, str) else names)
