"""The report on distilled sets for people: terminal, Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ddbench.reports.output.formats import escaped, left_out_markdown, pipes
from ddbench.reports.output.number_text import NONE, interval
from ddbench.reports.output.terminal import hanging, left_out, ruled, width
from ddbench.reports.quality.measures import MEASURES, Measure
from ddbench.reports.quality.ranking_scores import Interval, Score, ScoreTable
from ddbench.reports.quality.tables import QualityReport, QualityRow, QualityTable

Column = tuple[str, list[str]]
"""Header and cells."""

NO_BOARD = "of this protocol's acc_last, not DD-Ranking's board"
NOTHING = "No set has been measured: `bench quality` measures those that are finished."
HOW = "± sample std over distilled sets; n counts sets."


class Part(NamedTuple):
    """A table with what stands around it."""

    title: str
    setting: str
    methods: list[str]
    columns: list[Column]
    legend: str
    notes: list[str]


def _parts(report: QualityReport) -> Iterator[Part]:
    for table in report.tables:
        yield Part(table.title, _setting(table), _methods(table.rows), _columns(table), HOW, table.notes)
    for scores in report.scores:
        title, setting = f"{scores.name} · {scores.title}", score_setting(scores)
        yield Part(title, setting, _methods(scores.rows), _score_columns(scores), "", scores.notes)


def print_terminal(report: QualityReport, console: Console) -> None:
    """Print every table in as many parts as the console is narrow for."""
    for part in _parts(report):
        console.print(Text(part.title, style="bold"))
        console.print(Text(part.setting, style="dim"))
        _print_columns(part.methods, part.columns, console)
        if part.legend:
            console.print(Text(part.legend, style="dim"))
        for note in part.notes:
            console.print(hanging(note, style="dim"))
        console.print()
    if not report.tables:
        console.print(NOTHING)
    if report.problems:
        console.print(left_out(report.problems))


def markdown(report: QualityReport) -> str:
    blocks = []
    for part in _parts(report):
        lines = [f"### {escaped(part.title)}", "", escaped(part.setting), "", *_pipes(part.methods, part.columns), ""]
        lines += [*([part.legend, ""] if part.legend else []), *(f"- {escaped(note)}" for note in part.notes)]
        blocks.append("\n".join(lines).rstrip())
    if not report.tables:
        blocks.append(NOTHING)
    if report.problems:
        blocks.append(left_out_markdown(report.problems))
    return "\n\n".join(blocks) + "\n"


# Columns --------------------------------------------------------------------------------------------------------------


def _methods(rows: Sequence[QualityRow] | Sequence[Score]) -> list[str]:
    return [" · ".join([row.method, *row.qualifiers]) for row in rows]


def _columns(table: QualityTable) -> list[Column]:
    counts = [str(row.measured) if row.measured == row.sets else f"{row.measured}/{row.sets}" for row in table.rows]
    shown = [measure for measure in MEASURES if any(measure.key in row.values for row in table.rows)]
    return [("n", counts), *((m.header, [cell(m, row) for row in table.rows]) for m in shown)]


def cell(measure: Measure, row: QualityRow) -> str:
    """Mean and spread of one measure, with the digits that it deserves."""
    found = row.values.get(measure.key)
    if found is None:
        return NONE
    decimals = _decimals(measure, found.mean)
    mean = f"{found.mean:,.{decimals}f}"
    return mean if found.std is None else f"{mean} ± {found.std:,.{decimals}f}"


def _decimals(measure: Measure, value: float) -> int:
    """As many as it deserves; of a distance, which has no scale of its own, as make four digits."""
    match measure.unit:
        case "percent":
            return 1
        case "ratio":
            return 2
        case "bytes" | "images":
            return 0
        case _:
            return min(8, max(0, 3 - math.floor(math.log10(abs(value))))) if value else 0


def _setting(table: QualityTable) -> str:
    space = table.features
    accuracy, weights = space.validation_accuracy_percent, space.weights_sha256[:8]
    named = "" if weights in space.space.title else f", weights {weights}"
    parts = [
        f"features of {space.space.title}, {space.dimensions} dimensions{named}",
        *([f"{accuracy:.1f} % right on its validation images"] if accuracy is not None else []),
        f"against {table.real:,} of {table.train:,} training images",
        *table.devices,
    ]
    return " · ".join(parts)


def _score_columns(table: ScoreTable) -> list[Column]:
    rows = table.rows
    columns = [
        ("n", [str(score.sets) for score in rows]),
        ("HLR ↓", [NONE if score.hlr is None else f"{score.hlr:+.4f}" for score in rows]),
        ("IOR ↑", [f"{score.ior:+.4f}" for score in rows]),
    ]
    for header, found in (("LRS ↑", [s.lrs for s in rows]), ("ARS ↑", [s.ars for s in rows])):
        if any(found):
            columns.append((header, [NONE if score is None else f"{score.value:.2f}" for score in found]))
            columns.append(("95 % interval", [_ends(score) for score in found]))
    return columns


def _ends(score: Interval | None) -> str:
    return NONE if score is None else interval(score.low, score.high)


def score_setting(table: ScoreTable) -> str:
    """What the scores are, and what they are taken from."""
    parts = [NO_BOARD]
    parts += [] if table.hard is None else [f"HLR from {table.hard}"]
    parts += [] if table.unaugmented is None else [f"without augmentation: {table.unaugmented}"]
    return " · ".join(parts)


# Drawing --------------------------------------------------------------------------------------------------------------


def _print_columns(methods: Sequence[str], columns: Sequence[Column], console: Console) -> None:
    """Columns that do not fit beside the methods go into a further part."""
    left = list(columns)
    while left:
        taken = len(left)
        while taken > 1 and width(_draw(methods, left[:taken]), console) > console.width:
            taken -= 1
        console.print(_draw(methods, left[:taken]))
        left = left[taken:]


def _draw(methods: Sequence[str], columns: Sequence[Column]) -> RichTable:
    drawn = ruled()
    drawn.add_column("method", overflow="fold", min_width=min(20, max(map(len, methods), default=6)))
    for header, _ in columns:
        drawn.add_column(header, justify="right", no_wrap=True)
    for index, method in enumerate(methods):
        drawn.add_row(Text(method), *(Text(cells[index]) for _, cells in columns))
    return drawn


def _pipes(methods: Sequence[str], columns: Sequence[Column]) -> list[str]:
    head = ["method", *(header for header, _ in columns)]
    marks = [":--", *("--:" for _ in columns)]
    rows = [[method, *(cells[index] for _, cells in columns)] for index, method in enumerate(methods)]
    return [pipes(head), pipes(marks), *(pipes([escaped(cell) for cell in row]) for row in rows)]
