"""Parquet says what the CSV says, and a column has one type in every file."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from ddbench.reports.output.files import as_csv, as_parquet
from ddbench.reports.results import rows
from ddbench.reports.tables.frames import leaderboard_frame
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.views import Leaderboard


@pytest.fixture
def board(folder: Any) -> Leaderboard:
    folder.method("dmgd", [[80.0], [82.0]], ipc=1, prior="ab" * 32)
    folder.method("dmgd", [[90.0, 91.0], [92.0]], ipc=10)
    folder.method("full", [[99.0]], ipc=None)
    folder.plan("mgd3", folder.distill_spec("mgd3"), students=2)
    return build(rows.read(folder.out))


def test_it_holds_the_lines_of_the_csv(board: Leaderboard) -> None:
    read = parquet.read_table(io.BytesIO(as_parquet(leaderboard_frame(board)))).to_pandas()
    expected = pd.read_csv(io.StringIO(as_csv(leaderboard_frame(board))), dtype={"students_per_set": str})
    assert list(read.columns) == list(expected.columns)
    assert len(read) == len(expected) == 5
    for name in read.columns:
        for ours, theirs in zip(read[name], expected[name], strict=True):
            empty = pd.isna(ours) or ours == ""  # CSV has one emptiness
            assert (empty and pd.isna(theirs)) or str(ours) == str(theirs) or float(ours) == float(theirs), name


def test_types_do_not_depend_on_what_is_there(board: Leaderboard, make_folder: Any, tmp_path: Any) -> None:
    empty = build(rows.read(make_folder(tmp_path / "empty").out))
    schemas = [parquet.read_schema(io.BytesIO(as_parquet(leaderboard_frame(one)))) for one in (board, empty)]
    assert schemas[0].equals(schemas[1])
    assert {field.type for field in schemas[0]} <= {pa.large_string(), pa.int64(), pa.float64(), pa.bool_()}
    assert schemas[0].field("ipc").type == pa.int64()
    assert schemas[0].field("acc_last_mean").type == pa.float64()
    assert schemas[0].field("reference").type == pa.bool_()


def test_equal_boards_give_equal_bytes(board: Leaderboard) -> None:
    assert as_parquet(leaderboard_frame(board)) == as_parquet(leaderboard_frame(board))
