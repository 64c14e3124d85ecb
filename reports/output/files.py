"""What programs read: data frames and records as files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ddbench.benchmark.core.result import Record

if TYPE_CHECKING:
    import pandas as pd


def as_json(found: Record) -> str:
    """Key by key, unrounded."""
    return found.model_dump_json(indent=1) + "\n"


def as_csv(frame: pd.DataFrame) -> str:
    """One line per row, missing values empty."""
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def as_parquet(frame: pd.DataFrame) -> bytes:
    """The same with the columns' types; missing values are null."""
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False)
    return sink.getvalue()
