"""The measured tables as a pandas DataFrame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddbench.reports.quality.measures import MEASURES
from ddbench.reports.quality.tables import Mean, QualityReport, QualityRow, QualityTable
from ddbench.reports.results.columns import Columns, frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Facts:
    """What a line says besides its table's and its row's own fields."""

    features: str
    """Feature space that the measures are taken in."""
    features_sha256: str
    """Hash of the feature space: all that its features depend on."""
    real_images: int
    """Training images that the sets were measured against."""
    n_sets: int
    """Finished distilled sets of the method."""
    n_measured: int
    """Those of them that were measured."""


QUALITY = (
    Columns(QualityTable, lambda line: line[0], ("dataset", "split", "resolution", "ipc", "content_hash")),
    Columns(QualityRow, lambda line: line[1], ("method", "qualifiers")),
    Columns(Facts, lambda line: _facts(*line)),
)


def quality_frame(report: QualityReport) -> pd.DataFrame:
    """One row per row of the measured tables, unrounded; two columns per measure, its mean and std."""
    measures = (_measure(measure.key) for measure in MEASURES)
    return frame([*QUALITY, *measures], [(table, row) for table in report.tables for row in table.rows])


def _measure(key: str) -> Columns:
    return Columns(Mean, lambda line: line[1].values.get(key), ("mean", "std"), prefix=f"{key}_")


def _facts(table: QualityTable, row: QualityRow) -> Facts:
    space = table.features.space
    return Facts(space.title, space.sha256, table.real, row.sets, row.measured)
