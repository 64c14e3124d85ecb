"""The columns of a leaderboard for people, and what stands in their cells; the same in every format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ddbench.reports.output.number_text import NONE, accuracy_interval, number, seconds
from ddbench.reports.results.words import extent
from ddbench.reports.statistics.crossed import Summary
from ddbench.reports.tables.notes import marks
from ddbench.reports.tables.views import RowView, TableView

Shown = TypeVar("Shown")
"""What a line of a table is made from."""


@dataclass(frozen=True)
class Column(Generic[Shown]):
    """One column of a table that people read."""

    key: str
    header: str
    cell: Callable[[Shown], str]
    keep: int = 0
    """Order in which columns go where the terminal is too narrow, the highest first; 0 stays."""
    left: bool = False
    folds: bool = False
    """The column takes the room that the others leave."""


def columns(table: TableView, *, best: bool) -> list[Column[RowView]]:
    """The columns that this table needs.

    Args:
        best: also the best look at the test set.
    """
    incomplete = any(row.done < row.expected for row in table.rows)
    gaps = any(row.gap_closed_percent is not None for row in table.rows)
    gpu = any(row.cost.distill_gpu_peak_allocated_mib is not None for row in table.rows)
    passes = any(row.teacher_passes is not None for row in table.rows)
    labels = any(row.label_bytes is not None or row.stored_label_bytes is not None for row in table.rows)
    return [
        Column("rank", "#", rank, left=True),
        Column("method", "method", method_name, left=True, folds=True),
        Column("accuracy", "acc %", lambda row: spread(row.acc_last)),
        Column("interval", "95 % interval", lambda row: accuracy_text(row.acc_last), keep=1),
        *([Column("best", "best acc %", lambda row: spread(row.acc_best))] if best else []),
        *([Column("paper", "paper", _paper, keep=2)] if any(row.papers for row in table.rows) else []),
        *([Column("images", "images", images)] if counts_differ(table) else []),
        Column("replication", "sets×st.", _replication, keep=2),
        Column("gap", "gap %", lambda row: number(row.gap_closed_percent, 1), keep=0 if gaps else 8),
        Column("distill_seconds", "distill s", _distill_seconds, keep=3),
        Column("evaluate_seconds", "eval s", lambda row: seconds(row.cost.evaluate_seconds_per_student), keep=4),
        Column("memory", "peak MiB" if gpu else "host MiB", lambda row: _memory(row, gpu=gpu), keep=5),
        *([Column("passes", "teacher passes", lambda row: number(row.teacher_passes, 0), keep=6)] if passes else []),
        *([Column("labels", "label bytes", label_bytes, keep=7)] if labels else []),
        *([Column("done", "done", lambda row: f"{row.done}/{row.expected}")] if incomplete else []),
    ]


def rank(row: RowView) -> str:
    if row.reference:
        return "ref" if row.whole_set else "test"
    if row.rank is None:
        return NONE
    return f"{row.rank}" if row.rank == row.last_rank else f"{row.rank}–{row.last_rank}"


def counts_differ(table: TableView) -> bool:
    """Whether the numbers of images are to be seen: rows of one IPC differ in them, or their classes do."""
    rows = [row for row in table.rows if not row.whole_set]
    uneven = any(len(set(row.images_per_class or ())) > 1 for row in rows)
    return uneven or len({count for row in rows for count in row.n_images}) > 1


def images(row: RowView) -> str:
    return extent(row.n_images) if row.n_images else NONE


def method_name(row: RowView) -> str:
    return " ".join(filter(None, [row.name, marks(row)]))


def label_bytes(row: RowView) -> str:
    """Of the labels that its students were trained with, as far as they are or can be stored; of those that came with
    its images and were not used, in brackets."""
    if row.own_labels_used is False:
        return NONE if row.label_bytes is None else f"({row.label_bytes:,})"
    return number(row.stored_label_bytes if row.label_bytes is None else row.label_bytes, 0)


def spread(summary: Summary | None) -> str:
    if summary is None:
        return NONE
    return f"{summary.mean:.2f}" + ("" if summary.spread is None else f" ± {summary.spread:.2f}")


def accuracy_text(summary: Summary | None) -> str:
    """Its interval, marked where it is of a method that is noisier than its table."""
    if summary is None:
        return NONE
    return accuracy_interval(summary) + (" ~" if summary.basis == "noisier" else "")


def gap(row: RowView) -> str:
    """The share with its interval, `61.3 (52–71)`."""
    low, high = row.gap_closed_low_percent, row.gap_closed_high_percent
    return number(row.gap_closed_percent, 1) + ("" if low is None or high is None else f" ({low:.0f}–{high:.0f})")


def _paper(row: RowView) -> str:
    """The most trustworthy published number, our best look minus it, and how many further ones there are."""
    if not row.papers:
        return NONE
    first, *others = row.papers
    text = f"{first.value:.1f}" + ("" if first.std is None else f" ± {first.std:.1f}")
    delta = "" if row.acc_best is None else f" ({row.acc_best.mean - first.value:+.1f})"
    return text + delta + (f" {first.marks}" if first.marks else "") + (f" +{len(others)}" if others else "")


def _replication(row: RowView) -> str:
    if row.acc_last is None:
        return NONE
    return f"{row.acc_last.n}×{extent(row.students_per_set)}"


def _distill_seconds(row: RowView) -> str:
    cold, spent = seconds(row.cost.distill_cold_seconds), seconds(row.cost.distill_spent_seconds)
    return cold if cold == spent else f"{cold} ({spent})"


def _memory(row: RowView, *, gpu: bool) -> str:
    if row.cost.distill_gpu_peak_allocated_mib is not None:
        return f"{row.cost.distill_gpu_peak_allocated_mib:,.0f}"
    host = row.cost.distill_host_peak_mib
    return NONE if host is None else f"{'host ' if gpu else ''}{host:,.0f}"


def legend(table: TableView) -> str:
    return " ".join(legend_items(table))


def legend_items(table: TableView) -> list[str]:
    """How to read the table, and what its brackets are."""
    cached = any("(" in _distill_seconds(row) for row in table.rows)
    unused = any(row.own_labels_used is False and row.label_bytes is not None for row in table.rows)
    return [
        *table.legend,
        *(["distill s in brackets: spent here, with what was cached."] if cached else []),
        *(["label bytes in brackets: came with its images and were not used."] if unused else []),
    ]
