"""Leaderboards and comparisons as pandas DataFrames: what CSV, Parquet and notebooks have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddbench.reports.results.columns import Columns, frame
from ddbench.reports.results.groups import RowKey, TableKey
from ddbench.reports.results.origins import Origin
from ddbench.reports.statistics.crossed import Comparison, Summary
from ddbench.reports.statistics.equivalence import Spread
from ddbench.reports.tables.compare import Line, Report
from ddbench.reports.tables.cost_board import KEY, CostAxis, CostBoard, CostRow, CostTable
from ddbench.reports.tables.views import CostRecord, Leaderboard, RowView, TableView

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RowFacts:
    """What a row's line says besides the row's own fields."""

    method_version: int | None
    """Version of the method: raised when it makes other images."""
    prior: str | None
    """Name of the prior, where the method has one."""
    prior_trained_on: str | None
    """What the prior's metadata says of its training data."""
    teacher_sha256: str | None
    """Hash of the network whose outputs were the labels; missing under a protocol with hard labels."""
    n_sets: int
    """Distilled sets with finished students."""
    paper_acc_best: float | None
    """The most trustworthy published number for this cell, a best look at the test set, percent; never ranked."""
    paper_std: float | None
    """The paper's population standard deviation over students of one set, points."""
    paper_source: str | None
    """Where the published number stands."""
    paper_marks: str | None
    """i: the evaluator is inferred; s: read at second hand; o: printed by another paper than the method's own."""


@dataclass(frozen=True)
class Pair:
    """A comparison's numbers of both methods."""

    sets_a: int
    """Distilled sets of the first method."""
    sets_b: int
    """Distilled sets of the second method."""
    acc_last_a: float
    """Mean accuracy of the first method after the last epoch, percent."""
    acc_last_b: float
    """Mean accuracy of the second method after the last epoch, percent."""
    bootstrap_low: float | None
    """Lower end of the difference's 95 % interval by the crossed bootstrap: a second opinion."""
    bootstrap_high: float | None
    """Upper end of that interval."""
    margin: float
    """Points within which two methods count as equivalent."""
    verdict: str
    """`<method> better`, `equivalent`, `not told apart` or `not tested`."""


@dataclass(frozen=True)
class Tested:
    """What a comparison's test says."""

    p_value: float | None
    """Two-sided p-value of no difference."""


BROUGHT = ("prior_sha256", "precision", "distill_device", "evaluate_device")
COUNTS = (
    "done", "expected", "states", "students_per_set", "image_bytes", "label_bytes", "own_labels_used", "teacher_passes",
    "stored_label_bytes",
)  # fmt: skip
GAP = ("gap_closed_percent", "gap_closed_low_percent", "gap_closed_high_percent")
LEADERBOARD = (
    # Views have the fields of their keys.
    Columns(TableKey, lambda line: line[0], KEY),
    Columns(TableView, lambda line: line[0], ("modified_protocol", "n_train", "n_test")),
    Columns(RowView, lambda line: line[1], ("rank", "last_rank", "reference", "method", "qualifiers", "cost_class")),
    Columns(RowKey, lambda line: line[1], BROUGHT),
    Columns(RowView, lambda line: line[1], ("with_test_images", "test_images", "n_images", "images_per_class")),
    Columns(RowView, lambda line: line[1], COUNTS),
    Columns(RowFacts, lambda line: _row_facts(*line)),
    Columns(Summary, lambda line: line[1].acc_last, leave=("n",), prefix="acc_last_"),
    Columns(Summary, lambda line: line[1].acc_best, leave=("n",), prefix="acc_best_"),
    Columns(Summary, lambda line: line[1].top5_last, leave=("n",), prefix="top5_last_"),
    Columns(
        RowView,
        lambda line: line[1],
        ("gap_closed_percent", "gap_closed_low_percent", "gap_closed_high_percent", "has_predictions"),
    ),
    Columns(Origin, lambda line: line[1].origin, prefix="origin_"),
    Columns(CostRecord, lambda line: line[1].cost),
)
COMPARISON = (
    Columns(Line, lambda line: line[1], ("table", "dataset", "ipc", "a", "b", "n_test")),
    Columns(Pair, lambda line: _pair(*line)),
    Columns(Comparison, lambda line: line[1].comparison, ("difference", "standard_error", "low", "high")),
    Columns(Tested, lambda line: Tested(line[1].comparison.p_value)),
    Columns(Comparison, lambda line: line[1].comparison, ("basis", "degrees_of_freedom")),
    Columns(Line, lambda line: line[1], ("p_holm", "p_equivalent", "visible")),
    Columns(Spread, lambda line: line[1].spread[0], prefix="std_a_over_"),
    Columns(Spread, lambda line: line[1].spread[1], prefix="std_b_over_"),
)
WHOSE = ("id", "method", "qualifiers", "reference", "done", "expected")
COSTS = (
    Columns(TableKey, lambda line: line[0], KEY),
    Columns(CostTable, lambda line: line[0], ("by",)),
    Columns(CostRow, lambda line: line[2], WHOSE),
    Columns(Summary, lambda line: line[2].acc_last, prefix="acc_last_"),
    Columns(
        CostRow, lambda line: line[2], leave=("id", "method", "qualifiers", "reference", "done", "expected", "acc_last")
    ),
    Columns(CostAxis, lambda line: line[1], ("unit", "device", "hardware"), prefix="amount_"),
)


def leaderboard_frame(board: Leaderboard) -> pd.DataFrame:
    """One row per row of every table, all numbers unrounded."""
    return frame(LEADERBOARD, [(table, row) for table in board.tables for row in table.rows])


def cost_frame(board: CostBoard) -> pd.DataFrame:
    """One row per row of every table, axis by axis, then those whose cost is not known; all numbers unrounded."""
    lines = [
        (table, axis, row)
        for table in board.tables
        for axis in (*table.axes, None)
        for row in (table.not_placed if axis is None else axis.rows)
    ]
    return frame(COSTS, lines)


def compare_frame(report: Report) -> pd.DataFrame:
    """One row per pair of methods and table, first minus second, all numbers unrounded."""
    return frame(COMPARISON, [(report, line) for line in report.lines])


def _row_facts(table: TableView, row: RowView) -> RowFacts:
    paper: Any = row.papers[0] if row.papers else None
    return RowFacts(
        method_version=None if row.spec is None else row.spec.version,
        prior=None if row.prior is None else row.prior.name,
        prior_trained_on=None if row.prior is None else row.prior.trained_on,
        teacher_sha256=None if table.teacher is None else table.teacher.sha256,
        n_sets=len(row.sets),
        paper_acc_best=paper and paper.value,
        paper_std=paper and paper.std,
        paper_source=paper and paper.source,
        paper_marks=paper and paper.marks,
    )


def _pair(report: Report, line: Line) -> Pair:
    low, high = line.bootstrap or (None, None)
    return Pair(*line.sets, *line.accuracy, low, high, report.margin, line.verdict)
