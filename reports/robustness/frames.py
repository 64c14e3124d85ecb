"""The robustness tables as a pandas DataFrame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddbench.reports.results.columns import Columns, frame
from ddbench.reports.robustness.table import RobustReport, RobustRow, RobustTable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Numbers:
    """The accuracies of a row."""

    clean: float
    """Mean accuracy over sets on the dataset's own test images that the shifted set is held against, percent."""
    clean_std: float | None
    """Sample standard deviation over sets, points; missing for one set."""
    shifted: float
    """Mean accuracy over sets and conditions on the shifted test set, percent."""
    shifted_std: float | None
    """Sample standard deviation over sets, points; missing for one set."""
    drop: float
    """Clean minus shifted accuracy, points."""
    drop_std: float | None
    """Its sample standard deviation over sets, points; missing for one set."""


TABLE = ("title", "test_on", "n_images", "n_conditions", "n_classes", "content_sha256")
ROW = ("method", "qualifiers", "reference", "done", "expected", "n_sets", "kept_percent", "drop_beside_random")
ROBUSTNESS = (
    Columns(RobustTable, lambda line: line[0], TABLE),
    Columns(RobustRow, lambda line: line[1], ROW),
    Columns(Numbers, lambda line: _numbers(line[1])),
)


def robustness_frame(report: RobustReport) -> pd.DataFrame:
    """One row per method, table and shifted test set, unrounded."""
    return frame(ROBUSTNESS, [(table, row) for table in report.tables for row in table.rows])


def _numbers(row: RobustRow) -> Numbers | None:
    if row.clean is None or row.shifted is None or row.drop is None:
        return None
    clean, shifted, drop = row.clean, row.shifted, row.drop
    return Numbers(clean.mean, clean.std, shifted.mean, shifted.std, drop.mean, drop.std)
