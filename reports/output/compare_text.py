"""A comparison for the terminal: one table of lines, then what stands behind them."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from ddbench.benchmark.core.registry import DATASETS
from ddbench.reports.output.columns import Column
from ddbench.reports.output.formats import Fitted, folded, too_narrow
from ddbench.reports.output.number_text import p_value, signed_interval
from ddbench.reports.output.terminal import hanging, print_table
from ddbench.reports.statistics.crossed import ALPHA
from ddbench.reports.tables.compare import Line, Report

COLOURS = {"equivalent": "cyan", "not told apart": "dim", "not tested": "dim"}
VERDICT_WIDTH = len("not told apart")
"""Characters of a verdict; one that names a method is folded."""
CLASSES = 3
"""The most classes named in each direction."""


def print_terminal(report: Report, console: Console) -> None:
    """Print every table that has two of the methods."""
    for title in dict.fromkeys(line.table for line in report.lines):
        lines = [line for line in report.lines if line.table == title]
        console.print(Text(title, style="bold"))
        fitted = Fitted.to(console.width, _columns(), lines, [_pair(line) for line in lines])
        print_table(fitted.drawn(lines, _style), console)
        notes = [note for line in lines for note in _notes(line)]
        for note in dict.fromkeys([*notes, *too_narrow(fitted.dropped, "--json")]):
            console.print(hanging(note, style="dim"))
        console.print()
    _tally(report, console)


def _columns() -> list[Column[Line]]:
    return [
        Column("pair", "first − second", _pair, left=True, folds=True),
        Column("accuracy", "acc %", lambda line: f"{line.accuracy[0]:.2f} − {line.accuracy[1]:.2f}"),
        Column("difference", "difference", lambda line: f"{line.comparison.difference:+.2f}"),
        Column(
            "interval", "95 % interval", lambda line: signed_interval(line.comparison.low, line.comparison.high), keep=1
        ),
        Column("p", "p", lambda line: p_value(line.comparison.p_value), keep=4),
        Column("holm", "p (Holm)", lambda line: p_value(line.p_holm), keep=2),
        Column("equivalent", "p equivalent", lambda line: p_value(line.p_equivalent), keep=3),
        Column("verdict", "verdict", lambda line: folded(line.verdict, VERDICT_WIDTH), left=True),
    ]


def _pair(line: Line) -> str:
    return f"{line.a} − {line.b}"


def _style(line: Line) -> str:
    return COLOURS.get(line.verdict, "bold")


def _notes(line: Line) -> list[str]:
    name, found = _pair(line), line.comparison
    notes = [f"{name}: {found.basis}."]
    if any(line.sets_left_out):
        few = " and ".join(f"{count} of {who}" for who, count in zip((line.a, line.b), line.sets_left_out, strict=True))
        notes.append(f"{name}: left out, since the other has no set of their seeds: {few}.")
    if line.visible is not None:
        few = " and ".join(map(str, dict.fromkeys(line.sets)))
        notes.append(
            f"{name}: with {line.n_test:,} test images and {few} sets, a true difference below {line.visible:.1f} "
            "points would be missed more than one time in five."
        )
    if line.bootstrap is not None:
        notes.append(f"{name}, crossed bootstrap of sets and images: {signed_interval(*line.bootstrap)}.")
    for method, spread in zip((line.a, line.b), line.spread, strict=True):
        parts = [
            f"{value:.2f} {what}"
            for what, value in (
                ("over sets", spread.sets),
                ("over students of a set", spread.students),
                ("over draws of the test images", spread.test_images),
            )
            if value is not None
        ]
        if parts:
            notes.append(f"{method} varies by (std, points) {', '.join(parts)}.")
    if line.student_pairs:
        differ = [pair for pair in line.student_pairs if pair.p_value < ALPHA]
        first = sum(pair.only_a > pair.only_b for pair in differ)
        notes.append(
            f"{name}, students of equal seeds, exact McNemar at 5 %: of {len(line.student_pairs)}, {first} for "
            f"{line.a}, {len(differ) - first} for {line.b}, the others no more apart than chance."
        )
    if line.classes:
        ordered = sorted(line.classes, key=lambda one: one.difference)
        shown = [*ordered[-CLASSES:][::-1], *ordered[:CLASSES]] if len(ordered) > 2 * CLASSES else ordered[::-1]
        told = ", ".join(f"{_class_name(line.dataset, one.class_index)} {one.difference:+.1f}" for one in shown)
        notes.append(f"{name} by class, the largest: {told}.")
    return notes


def _class_name(dataset: str, index: int) -> str:
    names = DATASETS.load(dataset).class_names if dataset in DATASETS else ()
    return names[index] if index < len(names) else f"class {index}"


def _tally(report: Report, console: Console) -> None:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for line in report.lines:
        better = line.verdict.removesuffix(" better")
        outcome = "win" if better == line.a else "loss" if better == line.b else line.verdict
        counts.setdefault((line.a, line.b), Counter())[outcome] += 1
    for (a, b), outcomes in counts.items():
        told = ", ".join(
            f"{outcomes[one]} {one}"
            for one in ("win", "loss", "equivalent", "not told apart", "not tested")
            if outcomes[one]
        )
        console.print(f"{a} against {b}: {told}", markup=False)
    tested = sum(line.p_holm is not None for line in report.lines)
    console.print(
        Text(
            f"Verdicts at 5 % after Holm's correction over {tested} tests; equivalent: two one-sided tests "
            f"within ± {report.margin:g} points, not corrected. Differences are of acc_last; students of one set count "
            "as one.",
            style="dim",
        )
    )
    for missing in report.missing:
        console.print(hanging(f"not compared · {missing}", style="dim"))
