"""Leaderboards as LaTeX, for papers: each table as it stands. Everything from a results folder is escaped."""

from __future__ import annotations

import re

from ddbench.reports.output import latex_parts as parts
from ddbench.reports.output import number_text
from ddbench.reports.output.captions import replication, slug
from ddbench.reports.output.columns import columns, legend_items, rank
from ddbench.reports.output.latex_text import escaped
from ddbench.reports.results.words import numbered
from ddbench.reports.tables.views import Leaderboard, TableView

HEADERS = {
    "interval": r"95\,\% interval",
    "replication": r"Sets$\times$st.",
    "gap": r"Gap (\%)",
    "distill_seconds": "Distill (s)",
    "done": "Done",
}
"""The terminal's columns that stand after the accuracy, where they tell methods apart, by their keys."""


def tables(board: Leaderboard, *, best: bool = False) -> str:
    """One `table*` per leaderboard, with the columns of the terminal's table that say something of the methods.

    Args:
        best: also the best look at the test set.
    """
    labels = numbered([f"tab:{slug(table, ipc=True)}" for table in board.tables])
    return parts.document([_table(table, label, best=best) for table, label in zip(board.tables, labels, strict=True)])


def _table(table: TableView, label: str, *, best: bool) -> str:
    rows = table.rows
    uniform = "–" not in replication([table])
    shown = [
        column
        for column in columns(table, best=best)
        if column.key in HEADERS
        and not (column.key == "replication" and uniform)
        and any(column.cell(row) != number_text.NONE for row in rows)
    ]
    footnotes = parts.Footnotes(rows)
    papers = any(row.papers for row in rows)
    head = [r"\#", "Method", r"Acc.\ (\%)", *([r"Best (\%)"] if best else []), *([r"Paper (\%)"] if papers else [])]
    head += [HEADERS[column.key] for column in shown]
    lines, referred = [], False
    for row, accuracy in zip(rows, parts.emphasised(rows), strict=True):
        if row.reference and not referred and row is not rows[0]:
            lines.append(r"\midrule")
        referred = row.reference
        cells = [
            _plain(rank(row)),
            parts.method_name(row.method, rows) + parts.marks(row) + footnotes.mark(row),
            accuracy,
            *([parts.number(row.acc_best)] if best else []),
            *([parts.paper(row)] if papers else []),
            *(_plain(column.cell(row)) for column in shown),
        ]
        lines.append(" & ".join(cells) + r" \\")
    notes = [
        parts.bold_note(sum(row.rank == 1 and parts.counts(row) for row in rows)),
        *(escaped(item) for item in legend_items(table) if not item.startswith("paper: ")),
        *([parts.PAPER] if papers else []),
        *footnotes.texts(),
        *map(parts.sentence, table.notes),
    ]
    specification = f"l{parts.name_column(rows)}" + "r" * (len(head) - 2)
    return parts.floating([table], label, specification, [" & ".join(head) + r" \\"], lines, notes)


def _plain(cell: str) -> str:
    """A cell of numbers as the terminal has it."""
    return parts.NONE if cell == number_text.NONE else escaped(re.sub(r"^-(?=\d)", "−", cell))
