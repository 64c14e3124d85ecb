"""What LaTeX tables are made of: cells, footnotes and the float around them. Needs booktabs and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ddbench.reports.output.captions import setting
from ddbench.reports.output.latex_text import breakable, escaped
from ddbench.reports.output.number_text import NOTHING
from ddbench.reports.statistics.crossed import Summary
from ddbench.reports.tables.notes import no_predictions, single_set
from ddbench.reports.tables.views import RowView, TableView

HEAD = r"% Made by `bench leaderboard`. In the preamble: \usepackage{booktabs}"
NONE = "--"
PAPER = (
    "Paper: its best look at the test set, not to be compared with the last epoch and never ranked; i: it does not say "
    "(all of) its evaluator; s: read at second hand; o: printed by another paper than the method's own."
)
LONG_NAME = 26
"""Longest name in a plain column, characters; longer ones get a column of fixed width and are broken."""
MOST_LOOSE = 5
"""The most columns of numbers at the usual distance; more stand closer together."""
NAME_COLUMN = r"p{0.26\linewidth}"


def document(tables: Sequence[str]) -> str:
    """A file with these tables."""
    return "\n\n".join([HEAD, *tables] if tables else [HEAD, f"% {NOTHING}"]) + "\n"


def emphasised(rows: Sequence[RowView | None]) -> list[str]:
    """Accuracies of a column: of the rows that count the best in bold, the second underlined; equal prints alike."""
    means = ["" if row is None or row.acc_last is None else f"{row.acc_last.mean:.2f}" for row in rows]
    counted = [row is not None and counts(row) for row in rows]
    ranked = {mean for mean, counts in zip(means, counted, strict=True) if counts and mean}
    first, second, *_ = [*sorted(ranked, key=float, reverse=True), "", ""]
    styles = {first: "textbf", second: "underline"}
    return [
        number(None if row is None else row.acc_last, styles.get(mean) if counts else None)
        for row, mean, counts in zip(rows, means, counted, strict=True)
    ]


def number(value: Summary | None, style: str | None = None) -> str:
    """Mean ± sample std over sets (over students where there is one set), the mean in a style."""
    if value is None:
        return NONE
    mean = f"{value.mean:.2f}"
    plus_minus = "" if value.spread is None else rf" $\pm$ {value.spread:.2f}"
    return (f"\\{style}{{{mean}}}" if style else mean) + plus_minus


def counts(row: RowView) -> bool:
    """It may be the best: ranked and complete."""
    return row.rank is not None and row.done == row.expected


def bold_note(tied: int, *, per_column: bool = False) -> str:
    where = "of each column" if per_column else "of the ranked, complete rows"
    text = f"Bold: highest mean {where}; underlined: second highest."
    if tied > 1:
        said = "up to " if per_column else ""
        text += (
            rf" They are marked by their means alone: for {said}{tied} methods a two-sided 5\,\% test finds none "
            "better."
        )
    return text


def sentence(note: str) -> str:
    return escaped(note if note.endswith((".", "?", "!")) else f"{note}.")


def method_name(name: str, rows: Sequence[RowView]) -> str:
    """As it stands in the column of the names of these rows."""
    return r"\raggedright " + breakable(name) if name_column(rows) == NAME_COLUMN else escaped(name)


def marks(row: RowView) -> str:
    """As `tables.notes.marks`, raised."""
    return ("$^{\\dagger}$" if single_set(row) else "") + ("$^{\\ddagger}$" if no_predictions(row) else "")


def name_column(rows: Sequence[RowView]) -> str:
    return NAME_COLUMN if max(len(row.method) for row in rows) > LONG_NAME else "l"


class Footnotes:
    """Qualifiers of rows as letters, explained under the table: they are long and mostly the same."""

    def __init__(self, rows: Iterable[RowView]) -> None:
        texts = dict.fromkeys(" · ".join(row.qualifiers) for row in rows if row.qualifiers)
        self.letters = {text: _letter(index) for index, text in enumerate(texts)}

    def mark(self, row: RowView) -> str:
        return f"$^{{\\mathrm{{{self.letters[' · '.join(row.qualifiers)]}}}}}$" if row.qualifiers else ""

    def texts(self) -> list[str]:
        return [f"$^{{\\mathrm{{{letter}}}}}$~{escaped(text)}." for text, letter in self.letters.items()]


def _letter(index: int) -> str:
    """a … z, aa, ab …"""
    return (_letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def floating(
    tables: Sequence[TableView],
    label: str,
    specification: str,
    head: Sequence[str],
    lines: Sequence[str],
    notes: Sequence[str],
) -> str:
    """The `table*` of one or several leaderboards."""
    several = any(row.acc_last is not None and row.acc_last.n > 1 for table in tables for row in table.rows)
    spread = r" $\pm$ sample std over distilled sets" if several else ""
    caption = rf"{breakable(setting(tables))} Accuracy after the last epoch (\%), mean{spread}."
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


def paper(row: RowView) -> str:
    """The most trustworthy published number with its marks."""
    if not row.papers:
        return NONE
    first = row.papers[0]
    text = f"{first.value:.1f}" + ("" if first.std is None else rf" $\pm$ {first.std:.1f}")
    return text + (f"$^{{\\mathrm{{{first.marks}}}}}$" if first.marks else "")
