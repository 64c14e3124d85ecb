"""What programs read: data frames and records as files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ddbench.benchmark.core.result import Record

if TYPE_CHECKING:
    import pandas as pd


def as_json(found: Record) -> str:
    """Key by key, unrounded."""
    return found.model_dump_json(indent=1) + "\n"


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a text begins with that a spreadsheet takes for a formula."""


def as_csv(frame: pd.DataFrame) -> str:
    """One line per row, missing values empty; a text that a spreadsheet would run as a formula has a `'` before it."""
    text: str = frame.map(_no_formula).rename(columns=_no_formula).to_csv(index=False, lineterminator="\n")
    return text


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_parquet(frame: pd.DataFrame) -> bytes:
    """The same with the columns' types; missing values are null."""
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False)
    return sink.getvalue()
