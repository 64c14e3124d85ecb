"""Leaderboards as LaTeX, for papers: one table as it stands (`tables`), and methods × IPC as papers print (`wide`).

Needs booktabs and nothing else. Everything from a results folder is escaped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from ddbench.reports.output import number_text
from ddbench.reports.output.formats import NOTHING, Column, columns, legend_items
from ddbench.reports.output.latex_text import breakable, escaped
from ddbench.reports.tables.contestants import contestants
from ddbench.reports.tables.notes import no_predictions, single_set
from ddbench.reports.tables.statistics import Summary
from ddbench.reports.tables.views import Leaderboard, LeaderboardRow, Table

HEAD = r"% Made by `bench leaderboard`. In the preamble: \usepackage{booktabs}"
NONE = "--"
PAPER = (
    "Paper: its best look at the test set, not to be compared with the last epoch and never ranked; i: it does not say "
    "(all of) its evaluator; s: read at second hand."
)
LONG_NAME = 26
"""Characters; longer names of methods get a column of fixed width and are broken."""
MOST_LOOSE = 5
"""Columns of numbers; more than that stand closer together."""
NAME_COLUMN = r"p{0.26\linewidth}"


def tables(board: Leaderboard, *, best: bool = False) -> str:
    """One `table*` per leaderboard, with the columns of the terminal's table that say something of the methods.

    Args:
        best: also the best look at the test set.
    """
    labels = _labels([_slug(table.dataset, table.ipc, table.protocol, table.student) for table in board.tables])
    made = (_table(table, label, best=best) for table, label in zip(board.tables, labels, strict=True))
    return "\n\n".join([HEAD, *made] if board.tables else [HEAD, f"% {NOTHING}"]) + "\n"


def wide(board: Leaderboard) -> str:
    """Methods × IPC: one `table*` for each dataset, split, resolution, protocol and student."""
    families: dict[tuple[object, ...], list[Table]] = {}
    for table in board.tables:
        families.setdefault(_family(table), []).append(table)
    labels = _labels([_slug(some[0].dataset, None, some[0].protocol, some[0].student) for some in families.values()])
    made = (_wide(some, label) for some, label in zip(families.values(), labels, strict=True))
    return "\n\n".join([HEAD, *made] if board.tables else [HEAD, f"% {NOTHING}"]) + "\n"


def _family(table: Table) -> tuple[object, ...]:
    """What tables have in common that may stand side by side, one column each."""
    teacher = None if table.teacher is None else table.teacher.sha256
    where = (table.dataset, table.split, table.split_hash, table.content_hash, table.resolution)
    return (*where, table.protocol, table.protocol_hash, table.student, teacher)


# One leaderboard ------------------------------------------------------------------------------------------------------


def _table(table: Table, label: str, *, best: bool) -> str:
    rows = table.rows
    uniform = _replication(rows).count("--") == 0
    left_out = {"#", "method", "acc %", "best acc %", "paper", "eval s", "peak MiB", "host MiB"}
    left_out |= {"sets×st."} if uniform else set()
    shown = [
        column
        for column in columns(table, best=best)
        if column.header not in left_out and any(column.cell(row) != number_text.NONE for row in rows)
    ]
    footnotes = _Footnotes(rows)
    paper = any(row.papers for row in rows)
    accuracy = _emphasised_of(rows)
    head = [
        r"\#",
        "Method",
        r"Acc.\ (\%)",
        *([r"Best (\%)"] if best else []),
        *([r"Paper (\%)"] if paper else []),
        *(_header(column) for column in shown),
    ]
    lines, referred = [], False
    for row, value in zip(rows, accuracy, strict=True):
        if row.reference and not referred and row is not rows[0]:
            lines.append(r"\midrule")
        referred = row.reference
        cells = [
            _rank(row),
            _name(row, rows) + footnotes.mark(row),
            value,
            *([number(row.acc_best)] if best else []),
            *([_paper(row)] if paper else []),
            *(_plain(column.cell(row)) for column in shown),
        ]
        lines.append(" & ".join(cells) + r" \\")
    tied = sum(row.rank == 1 and _counts(row) for row in rows)
    notes = [
        _bold_note(tied),
        *(escaped(item) for item in legend_items(table) if not item.startswith("paper: ")),
        *([PAPER] if paper else []),
        *footnotes.texts(),
        *map(_sentence, table.notes),
    ]
    caption = (
        f"{escaped(table.dataset)} ({escaped(table.split)} split), "
        + (
            "the whole training set"
            if table.ipc is None
            else f"{table.ipc} image{'' if table.ipc == 1 else 's'} per class"
        )
        + f". {_setting([table])}"
    )
    specification = f"l{_name_column(rows)}" + "r" * (len(head) - 2)
    return _float(caption, label, specification, [" & ".join(head) + r" \\"], lines, notes)


def _header(column: Column) -> str:
    return {
        "sets×st.": r"Sets$\times$st.",
        "95 % interval": r"95\,\% interval",
        "gap %": r"Gap (\%)",
        "distill s": "Distill (s)",
        "done": "Done",
    }.get(column.header, escaped(column.header))


def _plain(cell: str) -> str:
    """A cell of numbers as formats.py writes it."""
    cell = re.sub(r"^-(?=\d)", "−", cell)
    return escaped(cell) if cell != number_text.NONE else NONE


def _rank(row: LeaderboardRow) -> str:
    if row.reference:
        return "ref"
    return NONE if row.rank is None else f"{row.rank}{'=' if row.tied else ''}"


def _paper(row: LeaderboardRow) -> str:
    if not row.papers:
        return NONE
    first = row.papers[0]
    text = f"{first.value:.1f}" + ("" if first.std is None else rf" $\pm$ {first.std:.1f}")
    return text + (f"$^{{\\mathrm{{{first.marks}}}}}$" if first.marks else "")


# Methods × IPC --------------------------------------------------------------------------------------------------------


def _wide(some: Sequence[Table], label: str) -> str:
    some = [table for table in some if table.ipc is not None] or list(some)
    found = contestants(some)
    rows = [row for table in some for row in table.rows]
    by_table = [
        [table.rows[one.rows[place]] if place in one.rows else None for one in found]
        for place, table in enumerate(some)
    ]
    accuracy = [_emphasised_of(column) for column in by_table]
    papers = [any(row is not None and row.papers for row in column) for column in by_table]
    footnotes = _Footnotes(rows)
    order = sorted(range(len(found)), key=lambda i: _wide_place(found[i].reference, [column[i] for column in by_table]))
    lines = []
    for position, i in enumerate(order):
        if position and found[i].reference and not found[order[position - 1]].reference:
            lines.append(r"\midrule")
        mine = [column[i] for column in by_table]
        longest = max((row for row in mine if row is not None), key=lambda row: len(row.qualifiers))
        cells = [_label(longest.method if longest.qualifiers else found[i].name, rows) + footnotes.mark(longest)]
        for place, row in enumerate(mine):
            cells.append(accuracy[place][i] + ("" if row is None else _beside(_marks(row)) + _unfinished(row)))
            cells += [NONE if row is None else _paper(row)] if papers[place] else []
        lines.append(" & ".join(cells) + r" \\")
    tied = max(sum(row is not None and row.rank == 1 and _counts(row) for row in column) for column in by_table)
    notes = [
        _bold_note(tied, per_column=True),
        *_wide_legend(rows, paper=any(papers)),
        *footnotes.texts(),
        *map(_sentence, _common_notes(some)),
    ]
    first = some[0]
    caption = f"{escaped(first.dataset)} ({escaped(first.split)} split) by images per class (IPC). {_setting(some)}"
    numbers = "r" * (len(papers) + sum(papers))
    return _float(caption, label, _name_column(rows) + numbers, _wide_head(some, papers), lines, notes)


def _wide_head(some: Sequence[Table], papers: Sequence[bool]) -> list[str]:
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


def _wide_place(reference: bool, rows: Sequence[LeaderboardRow | None]) -> tuple[bool, int, float]:
    """The references last; those with more columns first, then the higher mean over columns."""
    means = [row.acc_last.mean for row in rows if row is not None and row.acc_last is not None]
    return (reference, -len(means), -sum(means) / len(means) if means else 0.0)


def _beside(mark: str) -> str:
    """A mark that takes no room, so that the numbers of a column stay under each other."""
    return rf"\rlap{{{mark}}}" if mark else ""


def _unfinished(row: LeaderboardRow) -> str:
    return rf" \,({row.done}/{row.expected})" if row.done < row.expected else ""


def _wide_legend(rows: Sequence[LeaderboardRow], *, paper: bool) -> list[str]:
    found = []
    if any(map(single_set, rows)):
        found.append(r"$^{\dagger}$~one set: $\pm$ over its students.")
    if any(map(no_predictions, rows)):
        found.append(r"$^{\ddagger}$~no per-image predictions.")
    if any(row.done < row.expected for row in rows):
        found.append("In brackets: students done of those asked for.")
    found += [PAPER] if paper else []
    return found


def _common_notes(some: Sequence[Table]) -> list[str]:
    """Those of the protocol and the dataset: every table has them. What concerns one table stands in its own."""
    counts = Counter(note for table in some for note in table.notes)
    return [note for note, count in counts.items() if count == len(some)] if len(some) > 1 else []


# Both -----------------------------------------------------------------------------------------------------------------


def emphasised(values: Sequence[Summary | None], counts: Sequence[bool]) -> list[str]:
    """Numbers of one column, the best of those that count in bold and the second underlined, equal prints alike."""
    printed = {f"{value.mean:.2f}" for value, counted in zip(values, counts, strict=True) if counted and value}
    first, second, *_ = [*sorted(printed, key=float, reverse=True), "", ""]
    made = []
    for value, counted in zip(values, counts, strict=True):
        mean = "" if value is None else f"{value.mean:.2f}"
        style = "textbf" if counted and mean == first else "underline" if counted and mean == second else None
        made.append(number(value, style))
    return made


def _emphasised_of(rows: Sequence[LeaderboardRow | None]) -> list[str]:
    values = [None if row is None else row.acc_last for row in rows]
    return emphasised(values, [row is not None and _counts(row) for row in rows])


def number(value: Summary | None, style: str | None = None) -> str:
    """Mean ± sample std over sets (over students where there is one set), the mean in a style."""
    if value is None:
        return NONE
    mean = f"{value.mean:.2f}"
    plus_minus = "" if value.spread is None else rf" $\pm$ {value.spread:.2f}"
    return (f"\\{style}{{{mean}}}" if style else mean) + plus_minus


def _counts(row: LeaderboardRow) -> bool:
    """It may be the best: ranked and complete."""
    return row.rank is not None and row.done == row.expected


def _bold_note(tied: int, *, per_column: bool = False) -> str:
    where = "of each column" if per_column else "of the ranked, complete rows"
    text = f"Bold: highest mean {where}; underlined: second highest."
    if tied > 1:
        said = "up to " if per_column else ""
        text += (
            rf" They are marked by their means alone: {said}{tied} methods share rank 1, where a two-sided 5\,\% test "
            "finds none better."
        )
    return text


def _sentence(note: str) -> str:
    return escaped(note if note.endswith((".", "?", "!")) else f"{note}.")


def _setting(some: Sequence[Table]) -> str:
    """Protocol, student, replication and hardware: what a caption must say."""
    first, rows = some[0], [row for table in some for row in table.rows]
    several = any(row.acc_last is not None and row.acc_last.n > 1 for row in rows)
    spread = r"$\pm$ sample std " if several else ""
    parts = [
        rf"Accuracy after the last epoch (\%), mean {spread}over {_replication(rows)}",
        f"protocol {breakable(first.protocol)}, student {breakable(first.student)}, {first.resolution} px"
        + ("" if first.n_test is None else f", {first.n_test:,} test images".replace(",", "{,}")),
    ]
    shared = [item for item in first.settings if all(item in table.settings for table in some)]
    parts += [escaped(", ".join(shared))] if shared else []
    distilled = sorted({model for row in rows for model in row.cost.distill_hardware})
    trained = sorted({model for row in rows for model in row.cost.evaluate_hardware})
    if distilled == trained and distilled:
        parts.append(f"hardware: {escaped('; '.join(distilled))}")
    else:
        parts += [f"distilled on {escaped('; '.join(distilled))}"] if distilled else []
        parts += [f"students on {escaped('; '.join(trained))}"] if trained else []
    return ". ".join(part[:1].upper() + part[1:] if part[:1].isascii() else part for part in parts) + "."


def _replication(rows: Iterable[LeaderboardRow]) -> str:
    finished = [row for row in rows if row.acc_last is not None and not row.reference]
    sets = sorted({row.acc_last.n for row in finished if row.acc_last is not None})
    students = sorted({count for row in finished for count in row.students_per_set})
    said = []
    for counts, what in ((sets, "distilled set"), (students, "student")):
        extent = "--".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
        said.append(f"{extent} {what}{'' if extent == '1' else 's'}")
    return r" $\times$ ".join(said)


def _name(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> str:
    return _label(row.method, rows) + _marks(row)


def _label(name: str, rows: Sequence[LeaderboardRow]) -> str:
    return r"\raggedright " + breakable(name) if _name_column(rows) == NAME_COLUMN else escaped(name)


def _marks(row: LeaderboardRow) -> str:
    return ("$^{\\dagger}$" if single_set(row) else "") + ("$^{\\ddagger}$" if no_predictions(row) else "")


def _name_column(rows: Sequence[LeaderboardRow]) -> str:
    return NAME_COLUMN if max(len(row.method) for row in rows) > LONG_NAME else "l"


class _Footnotes:
    """Qualifiers of rows as letters, explained under the table: they are long and mostly the same."""

    def __init__(self, rows: Iterable[LeaderboardRow]) -> None:
        texts = dict.fromkeys(" · ".join(row.qualifiers) for row in rows if row.qualifiers)
        self.letters = {text: _letter(index) for index, text in enumerate(texts)}

    def mark(self, row: LeaderboardRow) -> str:
        return f"$^{{\\mathrm{{{self.letters[' · '.join(row.qualifiers)]}}}}}$" if row.qualifiers else ""

    def texts(self) -> list[str]:
        return [f"$^{{\\mathrm{{{letter}}}}}$~{escaped(text)}." for text, letter in self.letters.items()]


def _letter(index: int) -> str:
    """a … z, aa, ab …"""
    return (_letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def _float(
    caption: str, label: str, specification: str, head: Sequence[str], lines: Sequence[str], notes: Sequence[str]
) -> str:
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering\small" + (r"\setlength{\tabcolsep}{4pt}" if specification.count("r") > MOST_LOOSE else ""),
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}",
            r"\par\smallskip",
            rf"\begin{{tabular}}{{@{{}}{specification}@{{}}}}",
            r"\toprule",
            *head,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *notes,
            r"\end{minipage}",
            r"\end{table*}",
        ]
    )


def _slug(dataset: str, ipc: int | None, protocol: str, student: str) -> str:
    words = [dataset, *([] if ipc is None else [f"ipc{ipc}"]), protocol, student]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def _labels(slugs: Sequence[str]) -> list[str]:
    """`tab:<slug>`, numbered where two are equal."""
    seen: Counter[str] = Counter()
    labels = []
    for slug in slugs:
        seen[slug] += 1
        labels.append(f"tab:{slug}" + (f"-{seen[slug]}" if seen[slug] > 1 else ""))
    return labels
