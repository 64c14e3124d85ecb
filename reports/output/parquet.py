"""Leaderboards as Parquet: the lines of the CSV with types, so that a column means the same in every file."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import parquet

from ddbench.reports.output.formats import flat
from ddbench.reports.tables.views import Leaderboard

# fmt: off
TEXTS = (
    "dataset", "split", "split_hash", "content_hash", "protocol", "protocol_hash", "student", "method",
    "qualifiers", "cost_class", "prior", "prior_sha256", "prior_trained_on", "precision", "distill_device",
    "evaluate_device", "states", "students_per_set", "paper_source", "paper_marks", "distill_batch_sizes",
    "distill_hardware", "evaluate_hardware",
)
# fmt: on
INTEGERS = ["resolution", "ipc", "n_train", "n_test", "rank", "method_version", "done", "expected", "n_sets"]
BOOLEANS = ["modified_protocol", "tied", "reference", "shared_gpu", "has_predictions"]
NUMBERS = [
    *(
        f"{accuracy}_{field}"
        for accuracy in ("acc_last", "acc_best", "top5_last")
        for field in ("mean", "std", "low", "high", "student_std")
    ),
    "gap_closed_percent",
    *("paper_acc_best", "paper_std"),
    *("distill_cold_seconds", "distill_spent_seconds", "distill_gpu_seconds", "evaluate_seconds_per_student"),
    *("distill_gpu_peak_allocated_mib", "distill_gpu_peak_reserved_mib", "distill_host_peak_mib"),
    "distill_energy_joules",
]
TYPES = {
    **dict.fromkeys(TEXTS, pa.string()),
    **dict.fromkeys(INTEGERS, pa.int64()),
    **dict.fromkeys(BOOLEANS, pa.bool_()),
    **dict.fromkeys(NUMBERS, pa.float64()),
}


def as_parquet(board: Leaderboard) -> bytes:
    """One line per row, all numbers unrounded, missing ones null; `students_per_set` and other lists are texts."""
    lines = [flat(table, row) for table in board.tables for row in table.rows]
    names = list(lines[0]) if lines else list(TYPES)
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(lines, pa.schema([(name, TYPES[name]) for name in names])), sink)
    return bytes(sink.getvalue())
