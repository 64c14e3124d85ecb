"""How far accuracy falls from a dataset's own test images to shifted ones: a table for each test set and setting.

The same trained students are held against both. As elsewhere the distilled set is the unit: its students are averaged
first, and ± is over sets.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ddbench.benchmark.core.result import Record, ShiftedRecord
from ddbench.benchmark.core.spec import ShiftedSpec
from ddbench.datasets.shifted.catalogue import selector
from ddbench.reports.results.groups import Row, Table, group
from ddbench.reports.results.rows import EvaluateCell, Problem, Results, Student, printable
from ddbench.reports.results.words import counted
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Summary
from ddbench.reports.tables.qualifiers import settings_of

RANDOM = "random"
"""The method beside which drops are shown."""


class Drop(Record):
    """Clean accuracy minus shifted accuracy, in points."""

    mean: float
    """Over distilled sets."""
    std: float | None
    """Sample standard deviation over distilled sets; None for one."""


class RobustRow(Record):
    method: str
    """As leaderboards call it."""
    qualifiers: list[str]
    """What tells it from others of that name."""
    reference: bool
    """It takes no rank anywhere."""
    done: int
    """Students that were looked at."""
    expected: int
    """Students that were asked for."""
    n_sets: int
    """Distilled sets with such students."""
    clean: Summary | None
    """Accuracy on the dataset's own test images that the set is held against, percent; None where nothing is done."""
    shifted: Summary | None
    """Accuracy on the shifted test set, percent: mean over its conditions."""
    drop: Drop | None
    kept_percent: float | None
    """Shifted accuracy in percent of the clean one."""
    drop_beside_random: float | None
    """The drop minus that of `random` in this table, points: below 0, it falls less far."""
    by_corruption: dict[str, float]
    """Corruption -> accuracy, percent, mean over severities and sets; empty for photographs."""
    by_severity: dict[str, float]
    """Severity -> accuracy, percent, mean over corruptions and sets; empty for photographs."""


class RobustTable(Record):
    title: str
    """Of the leaderboard whose students these are."""
    test_on: str
    """The shifted test set."""
    settings: list[str]
    """What all rows share."""
    n_images: int | None
    """Images of each condition; None where nothing is done."""
    n_conditions: int
    """Corruptions × severities; 1 for photographs."""
    n_classes: int | None
    """Classes that it has images of."""
    content_sha256: str | None
    """Hash of its pixels and labels."""
    rows: list[RobustRow]
    """By their accuracy on the shifted test set."""
    notes: list[str]


class RobustReport(Record):
    tables: list[RobustTable]
    problems: list[Problem]

    @property
    def looked(self) -> bool:
        """Whether any student has been looked at."""
        return any(row.done for table in self.tables for row in table.rows)


class Seen(NamedTuple):
    """One student on one shifted test set."""

    test_on: str
    """The shifted test set, as tables call it."""
    record: ShiftedRecord


def build(results: Results) -> RobustReport:
    """A table for each shifted test set, its pixels, and setting."""
    specs = dict.fromkeys(spec for cell in results.evaluates.values() for spec in cell.spec.test_on)
    tables = [table for spec in sorted(specs, key=selector) for table in _tables(results, spec)]
    return RobustReport(tables=tables, problems=results.problems)


def seen_by(cells: Iterable[EvaluateCell]) -> dict[str, list[Seen]]:
    """Student (`EvaluateCell.student_id`) -> what it was looked at on, by name; one look where several cells had it."""
    found: dict[str, dict[tuple[str, str], Seen]] = defaultdict(dict)
    for cell in cells:
        for spec in cell.spec.test_on:
            if (record := _record(cell, spec)) is not None:
                name = printable(selector(spec))
                found[cell.student_id].setdefault((name, record.content_sha256), Seen(name, record))
    return {student: [looks[key] for key in sorted(looks)] for student, looks in found.items()}


def _tables(results: Results, spec: ShiftedSpec) -> Iterator[RobustTable]:
    asked = {id: cell for id, cell in results.evaluates.items() if spec in cell.spec.test_on}
    contents = {
        id: None if (seen := _record(cell, spec)) is None else seen.content_sha256 for id, cell in asked.items()
    }
    often = Counter(content for content in contents.values() if content is not None)
    usual = max(often, key=lambda content: (often[content], content), default=None)
    for content in often or {None: 0}:
        # What is still to come will be of the pixels that most have seen.
        mine = {id: cell for id, cell in asked.items() if (contents[id] or usual) == content}
        for table in group(replace(results, evaluates=mine)):
            yield _table(table, spec, f" ({content[:8]})" if content is not None and len(often) > 1 else "")


def _record(cell: EvaluateCell, spec: ShiftedSpec) -> ShiftedRecord | None:
    return None if cell.student is None else _seen(cell.student, spec)


def _seen(student: Student, spec: ShiftedSpec) -> ShiftedRecord | None:
    return next((one for one in student.result.shifted if (one.name, one.sha256) == (spec.name, spec.sha256)), None)


def _table(table: Table, spec: ShiftedSpec, pixels: str) -> RobustTable:
    shared, marks = settings_of(table.rows)
    rows = [_row(row, mark, spec) for row, mark in zip(table.rows, marks, strict=True)]
    randoms = [row for row in rows if row.method == RANDOM and row.drop is not None]
    if len(randoms) == 1 and (of_random := randoms[0].drop) is not None:
        for row in rows:
            row.drop_beside_random = None if row.drop is None else row.drop.mean - of_random.mean
    rows.sort(key=lambda row: (row.reference, math.inf if row.shifted is None else -row.shifted.mean, row.method))
    seen = [one for row in table.rows for student in row.finished if (one := _seen(student, spec)) is not None]
    first = seen[0] if seen else None
    return RobustTable(
        title=table.title,
        test_on=printable(selector(spec)) + pixels,
        settings=shared,
        n_images=None if first is None else first.n_images,
        n_conditions=max(1, len(spec.corruptions) * len(spec.severities)),
        n_classes=None if first is None else first.n_classes,
        content_sha256=None if first is None else first.content_sha256,
        rows=rows,
        notes=_notes(rows, randoms, first),
    )


def _row(row: Row, qualifiers: list[str], spec: ShiftedSpec) -> RobustRow:
    sets = [[one for student in made.students if (one := _seen(student, spec)) is not None] for made in row.sets]
    sets = [records for records in sets if records]
    done = sum(map(len, sets))
    clean = shifted = drop = None
    if sets:
        clean = crossed.summary([[one.clean_accuracy for one in records] for records in sets])
        shifted = crossed.summary([[one.accuracy for one in records] for records in sets])
        drops = [statistics.fmean(one.clean_accuracy - one.accuracy for one in records) for records in sets]
        drop = Drop(mean=statistics.fmean(drops), std=statistics.stdev(drops) if len(drops) > 1 else None)
    return RobustRow(
        method=row.label,
        qualifiers=qualifiers,
        reference=row.reference,
        done=done,
        expected=len(row.cells),
        n_sets=len(sets),
        clean=clean,
        shifted=shifted,
        drop=drop,
        kept_percent=100 * shifted.mean / clean.mean
        if shifted is not None and clean is not None and clean.mean
        else None,
        drop_beside_random=None,
        by_corruption=_by(0, sets),
        by_severity=_by(1, sets),
    )


def _by(part: int, sets: Sequence[Sequence[ShiftedRecord]]) -> dict[str, float]:
    """Mean accuracy over the conditions that share that part of their name, over students, then over sets."""
    means: dict[str, list[float]] = {}
    for records in sets:
        of_set: dict[str, list[float]] = {}
        for record in records:
            for look in record.looks:
                corruption, _, severity = look.condition.partition("/")
                if name := (corruption, severity)[part]:  # photographs have neither
                    of_set.setdefault(printable(name), []).append(look.accuracy)
        for name, accuracies in of_set.items():
            means.setdefault(name, []).append(statistics.fmean(accuracies))
    return {name: statistics.fmean(accuracies) for name, accuracies in means.items()}


def _notes(rows: Sequence[RobustRow], randoms: Sequence[RobustRow], first: ShiftedRecord | None) -> list[str]:
    notes = []
    if first is None:
        return ["No student is finished yet."]
    if first.made_by:
        package, version = next(iter(first.made_by.items()))
        notes.append(
            f"Corrupted here by {printable(package)} {printable(version)} from the dataset's own test images: beside "
            "published numbers on ImageNet-C's files it stands for itself (docs/robustness.md)."
        )
    chance = 100 / first.n_classes
    low = [row.method for row in rows if row.clean is not None and row.clean.mean < 2 * chance]
    if low:
        notes.append(
            f"Little to lose: {', '.join(low)} {'is' if len(low) == 1 else 'are'} below twice what guessing gives on "
            f"the clean images ({chance:.3g} %), and a small drop says nothing there."
        )
    if not randoms:
        notes.append(
            "No drop beside random's: it needs random in this table (`bench run --method random --test-on …`)."
        )
    elif len(randoms) > 1:
        notes.append("No drop beside random's: this table has several rows of random.")
    single = [row.method for row in rows if row.n_sets == 1]
    if single:
        notes.append(f"{counted(len(single), 'row')} of one set: nothing tells how another set would fall.")
    return notes
