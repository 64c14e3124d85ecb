"""Methods × IPC as LaTeX, as papers print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ddbench.reports.output import latex_parts as parts
from ddbench.reports.output.captions import families, slug
from ddbench.reports.results.words import numbered
from ddbench.reports.tables.methods_as_run import methods_as_run
from ddbench.reports.tables.notes import no_predictions, single_set
from ddbench.reports.tables.views import Leaderboard, RowView, TableView


def wide(board: Leaderboard) -> str:
    """Methods × IPC: one `table*` for each dataset, split, resolution, protocol and student."""
    found = families(board.tables)
    labels = numbered([f"tab:{slug(some[0], ipc=False)}" for some in found])
    return parts.document([_table(some, label) for some, label in zip(found, labels, strict=True)])


def _table(some: Sequence[TableView], label: str) -> str:
    some = [table for table in some if table.ipc is not None] or list(some)
    found = methods_as_run(some)
    rows = [row for table in some for row in table.rows]
    by_table = [
        [table.rows[one.rows[place]] if place in one.rows else None for one in found]
        for place, table in enumerate(some)
    ]
    accuracy = [parts.emphasised(column) for column in by_table]
    papers = [any(row is not None and row.papers for row in column) for column in by_table]
    footnotes = parts.Footnotes(rows)
    order = sorted(range(len(found)), key=lambda i: _place(found[i].reference, [column[i] for column in by_table]))
    lines = []
    for position, i in enumerate(order):
        if position and found[i].reference and not found[order[position - 1]].reference:
            lines.append(r"\midrule")
        mine = [column[i] for column in by_table]
        longest = max((row for row in mine if row is not None), key=lambda row: len(row.qualifiers))
        name = longest.method if longest.qualifiers else found[i].name
        cells = [parts.method_name(name, rows) + footnotes.mark(longest)]
        for place, row in enumerate(mine):
            cells.append(accuracy[place][i] + ("" if row is None else _beside(parts.marks(row)) + _unfinished(row)))
            cells += [parts.NONE if row is None else parts.paper(row)] if papers[place] else []
        lines.append(" & ".join(cells) + r" \\")
    tied = max(sum(row is not None and row.rank == 1 and parts.counts(row) for row in column) for column in by_table)
    notes = [
        parts.bold_note(tied, per_column=True),
        *_legend(rows, paper=any(papers)),
        *footnotes.texts(),
        *map(parts.sentence, _common_notes(some)),
    ]
    numbers = "r" * (len(papers) + sum(papers))
    return parts.floating(some, label, parts.name_column(rows) + numbers, _head(some, papers), lines, notes)


def _head(some: Sequence[TableView], papers: Sequence[bool]) -> list[str]:
    """A column for each IPC; two, ours and a paper's, where any paper has a number."""
    spans = [2 if paper else 1 for paper in papers]
    over = []
    for span, table in zip(spans, some, strict=True):
        over.append(rf"\multicolumn{{{span}}}{{c}}{{{'all' if table.ipc is None else f'IPC {table.ipc}'}}}")
    head = [" & ".join(["Method", *over]) + r" \\"]
    if any(papers):
        starts = [2 + sum(spans[:place]) for place in range(len(spans))]
        rules = [rf"\cmidrule(lr){{{start}-{start + span - 1}}}" for start, span in zip(starts, spans, strict=True)]
        under = [name for span in spans for name in ("ours", "paper")[:span]]
        head += ["".join(rules), " & ".join(["", *under]) + r" \\"]
    return head


def _place(reference: bool, rows: Sequence[RowView | None]) -> tuple[bool, int, float]:
    """The references last; those with more columns first, then the higher mean over columns."""
    means = [row.acc_last.mean for row in rows if row is not None and row.acc_last is not None]
    return (reference, -len(means), -sum(means) / len(means) if means else 0.0)


def _beside(mark: str) -> str:
    """A mark that takes no room, so that the numbers of a column stay under each other."""
    return rf"\rlap{{{mark}}}" if mark else ""


def _unfinished(row: RowView) -> str:
    return rf" \,({row.done}/{row.expected})" if row.done < row.expected else ""


def _legend(rows: Sequence[RowView], *, paper: bool) -> list[str]:
    found = []
    if any(map(single_set, rows)):
        found.append(r"$^{\dagger}$~one set: $\pm$ over its students.")
    if any(map(no_predictions, rows)):
        found.append(r"$^{\ddagger}$~no per-image predictions.")
    if any(row.done < row.expected for row in rows):
        found.append("In brackets: students done of those asked for.")
    found += [parts.PAPER] if paper else []
    return found


def _common_notes(some: Sequence[TableView]) -> list[str]:
    """Those of the protocol and the dataset: every table has them. What concerns one table stands in its own."""
    counts = Counter(note for table in some for note in table.notes)
    return [note for note, count in counts.items() if count == len(some)] if len(some) > 1 else []
