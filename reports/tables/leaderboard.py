"""Leaderboards as data: one table per ranking, every number unrounded. Imports no torch.

How numbers become a row: students of one set are averaged, n counts sets; rows stand in the order of their means, each
with the ranks that a test over sets and test images leaves it; an incomplete row stands below complete ones and never
vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path

from ddbench.benchmark.core.result import OneTeacherRecord, TeacherRecord
from ddbench.benchmark.core.store import Store
from ddbench.reports.results import groups, rows
from ddbench.reports.results.paper_numbers import published_beside
from ddbench.reports.results.rows import Problem
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Comparison, Difference, SetScore
from ddbench.reports.statistics.pooling import SetVariance
from ddbench.reports.tables.gap import close_gaps
from ddbench.reports.tables.notes import legend, notes
from ddbench.reports.tables.qualifiers import settings_of
from ddbench.reports.tables.row_views import row_view
from ddbench.reports.tables.scores import scores_of, summary_of
from ddbench.reports.tables.views import Leaderboard, Pair, RowView, TableView


def build(results: rows.Results) -> Leaderboard:
    """All tables of a results folder."""
    stale = [
        Problem(str(results.store.cell(cell.id).path), f"stale: {cell.reason}")
        for cell in results.evaluates.values()
        if cell.state == rows.STALE
    ]
    return Leaderboard(tables=build_tables(results.store, groups.group(results)), problems=[*results.problems, *stale])


def build_tables(store: Store, grouped: Sequence[groups.Table]) -> list[TableView]:
    """A view of each table, in their order."""
    return [build_table(store, table)[0] for table in grouped]


Differences = dict[tuple[str, str], Difference]
"""(id of a row, id of another one) -> the difference of their `acc_last`, of each two that are ranked, in one order."""


def build_table(store: Store, table: groups.Table) -> tuple[TableView, Differences]:
    """The view, and the differences that its ranks and pairs rest on."""
    key, members = table.key, table.rows
    students = [student for row in members for student in row.finished]
    n_test = table.n_test
    scores = [scores_of(store, row) for row in members]
    variance, mean_correct = pooled_over(members, scores), crossed.MeanCorrect(n_test)
    differences = {
        (i, j): crossed.difference_of(scores[i], scores[j], n_test, partial(variance.of_difference, i, j), mean_correct)
        for i, j in combinations(range(len(members)), 2)
        if n_test > 1 and scores[i] and scores[j] and not members[i].reference and not members[j].reference
    }
    comparisons = {pair: crossed.comparison_of(found) for pair, found in differences.items()}
    ranks = _ranks(members, comparisons)
    summaries = [summary_of(row, "acc_last", variance.of_mean(i)) for i, row in enumerate(members)]
    settings, qualifiers = settings_of(members)
    _say_where(store, members, qualifiers)
    teacher = next((student.result.teacher for student in students if student.result.teacher is not None), None)
    if teacher is not None:
        settings.append(_teacher(teacher))
    built = [
        row_view(row, scores[i], qualifiers[i], summaries[i], *(ranks[i] or (None, None)))
        for i, row in enumerate(members)
    ]
    gap_notes = close_gaps(built, variance, n_test)
    protocol, modified = members[0].cells[0].spec.protocol, table.modified_protocol
    for one in built if not modified else ():
        where = key.conditions(protocol.name, whole_set=one.whole_set)
        one.papers = tuple(published_beside(one.method, one.prior, **where))
    order = sorted(range(len(built)), key=lambda i: _place(built[i]))
    pairs = [Pair(a=order.index(i), b=order.index(j), comparison=pair) for (i, j), pair in comparisons.items()]
    view = TableView(
        title=table.title,
        **{name: value for name, value in asdict(key).items() if name != "teacher_sha256"},
        student_image_size=key.student_image_size,
        modified_protocol=modified,
        teacher=teacher,
        n_train=students[0].data.n_train if students else None,
        n_test=n_test or None,
        settings=settings,
        rows=[built[i] for i in order],
        pairs=pairs,
        pooled_methods=variance.pools,
        legend=[],
        notes=[],
    )
    warnings = {rows.printable(student.data.warning) for student in students if student.data.warning}
    view.legend = legend(view)
    view.notes = [*notes(view, protocol.name, sorted(warnings)), *gap_notes]
    return view, {(members[i].key.id, members[j].key.id): found for (i, j), found in differences.items()}


def _say_where(store: Store, members: Sequence[groups.Row], qualifiers: Sequence[list[str]]) -> None:
    """Add the folders of images made elsewhere, as far as they differ, where a hash has to tell namesakes apart."""
    places = {}
    for row, marks in zip(members, qualifiers, strict=True):
        if row.key.images is not None and row.key.images in marks:
            with suppress(OSError, ValueError):  # the hash will do
                if images := store.cell(row.cells[0].id).launch().images:
                    places[row.key] = Path(rows.printable(images)).parts
    for row, marks in zip(members, qualifiers, strict=True):
        if (parts := places.get(row.key)) is not None and row.key.images is not None:
            others = [other for key, other in places.items() if key != row.key]
            ends = range(1, len(parts) + 1)
            end = next((n for n in ends if all(other[-n:] != parts[-n:] for other in others)), 1)
            marks[marks.index(row.key.images)] = f"{row.key.images[:-1]}, {'/'.join(parts[-end:])})"


def _teacher(teacher: TeacherRecord) -> str:
    if teacher.members:
        each = ", ".join(f"{member.share:.2f} of {_one_teacher(member)}" for member in teacher.members)
        return f"teachers ({teacher.sha256[:8]}): {each}"
    return f"teacher {_one_teacher(teacher)}"


def _one_teacher(teacher: OneTeacherRecord) -> str:
    accuracy = "of unknown accuracy" if teacher.accuracy is None else f"{teacher.accuracy:.2f} %"
    return f"{teacher.network} {accuracy} ({teacher.sha256[:8]})"


def pooled_over(members: Sequence[groups.Row], scores: Sequence[Sequence[SetScore]]) -> SetVariance:
    """The variance between sets of the rows that are ranked against one another."""
    return SetVariance(scores, frozenset(place for place, row in enumerate(members) if row.reference))


def _ranks(
    members: Sequence[groups.Row], comparisons: dict[tuple[int, int], Comparison]
) -> list[tuple[int, int] | None]:
    """The first and the last rank that each can have, complete rows before incomplete ones; None for references and
    rows with nothing finished."""
    ranks: list[tuple[int, int] | None] = [None] * len(members)
    above = 0
    for complete in (True, False):
        these = [i for i, row in enumerate(members) if row.complete is complete and row.finished and not row.reference]
        better = [[_better(comparisons, i, j) for j in these] for i in these]
        for i, (first, last) in zip(these, crossed.rank_ranges(better), strict=True):
            ranks[i] = above + first, above + last
        above = len(these)
    return ranks


def _better(comparisons: dict[tuple[int, int], Comparison], i: int, j: int) -> bool:
    """Whether row i is better than row j beyond what chance explains."""
    sign, pair = (1, comparisons.get((i, j))) if i < j else (-1, comparisons.get((j, i)))
    return pair is not None and pair.separates and sign * pair.difference > 0


def _place(row: RowView) -> tuple[bool, bool, bool, float, str]:
    mean = row.acc_last.mean if row.acc_last else -math.inf
    return (row.reference, row.rank is None, row.done < row.expected, -mean, row.method)
