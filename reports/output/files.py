"""Data frames as files for programs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def as_csv(frame: pd.DataFrame) -> str:
    """One line per row, missing values empty."""
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def as_parquet(frame: pd.DataFrame) -> bytes:
    """The same with the columns' types; missing values are null."""
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False)
    return sink.getvalue()
