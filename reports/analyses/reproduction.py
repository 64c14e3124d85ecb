"""Published cells that were measured here: the paper's number, ours, and the paper's own estimand from our results.

A paper reports the best look at the test set, as mean and population standard deviation over students of one distilled
set. That is computed here from our students too, beside `acc_last` over sets, so that a difference in numbers is told
from a difference in what is counted. Unmodified protocols, the papers' split and their resolutions only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from ddbench.benchmark.core.result import Record
from ddbench.reports.results import groups, rows
from ddbench.reports.results.groups import DistilledSet
from ddbench.reports.results.paper_numbers import (
    METHODS_PRINTED,
    PaperNumber,
    all_published,
    family,
    place_of,
    published,
    published_beside,
)
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Summary

FILE = Path(__file__).parents[1] / "reference" / "contradictions.yaml"
PAPER_STUDENTS = 3
"""Students behind a paper's mean where nothing says how many: the fewest that these papers train."""


class Contradiction(Record):
    """Something that published numbers or programs say against each other."""

    id: str
    title: str
    text: str
    sources: list[str]
    methods: tuple[str, ...] = ()
    printed: tuple[str, ...] = ()
    """Methods that are not here, or came later, as their sources print them."""
    datasets: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    ipc: tuple[int, ...] = ()
    """IPCs that it concerns; an empty list, as of those above, concerns all."""

    def concerns(self, method: str, dataset: str, protocol: str, ipc: int | None) -> bool:
        """Args:
        protocol: a registered name without version.
        """
        here = (*self.methods, *(METHODS_PRINTED[name] for name in self.printed if name in METHODS_PRINTED))
        if self.printed and not here:
            return False
        named = ((here, method), (self.datasets, dataset), (self.protocols, family(protocol)))
        return all(not names or value in names for names, value in named) and (not self.ipc or ipc in self.ipc)


class Estimand(Record):
    """What a paper would have printed of our results: one set, best looks, population spread over students."""

    mean: float
    std: float | None
    """Population standard deviation (divisor n); None for one student."""
    students: int
    seed: int | None
    """Seed of the set: the smallest there is."""
    image_set_sha256: str


class Reproduced(Record):
    """One published cell and what was measured here."""

    table: str
    dataset: str
    ipc: int | None
    student: str
    protocol: str
    method: str
    row_id: str
    """`RowKey.id`."""
    foreign: bool
    """Whether its images were made elsewhere; the method is the name that the user gave them."""
    prior: str | None
    done: int
    expected: int
    paper: PaperNumber
    """The most trustworthy published number."""
    others: list[PaperNumber]
    """Further published numbers of the cell."""
    acc_last: Summary
    acc_best: Summary
    """The best look, averaged over the students of each set: the paper's estimand over all our sets."""
    estimand: Estimand
    inflation: Summary
    """Best look minus last epoch, points; students averaged, interval over sets."""
    standard_error: float | None
    """Standard error of `acc_best` minus the paper's value (`combined_standard_error`)."""
    contradictions: list[str]
    """Ids of the contradictions that concern it."""

    @property
    def difference_last(self) -> float:
        """Ours after the last epoch, minus the paper's best look."""
        return self.acc_last.mean - self.paper.value

    @property
    def difference_best(self) -> float:
        """Our best look over all sets, minus the paper's."""
        return self.acc_best.mean - self.paper.value

    @property
    def difference_estimand(self) -> float:
        """The paper's own estimand, ours minus theirs."""
        return self.estimand.mean - self.paper.value

    @property
    def standard_errors(self) -> float | None:
        """`difference_best` in units of its standard error."""
        return None if not self.standard_error else self.difference_best / self.standard_error


class TableInflation(Record):
    """What looking for the best epoch on the test set would have added in one table: best look minus last epoch."""

    table: str
    protocol: str
    looks: int
    """Looks at the test set that each student took; the fewest."""
    methods: int
    mean: float
    """Mean over methods of their means over sets."""
    smallest: float
    largest: float
    largest_of: str


class Unmatched(Record):
    """A table without a published number, and why it has none."""

    table: str
    reason: str


class Reproduction(Record):
    cells: list[Reproduced]
    """Published cells, by dataset, protocol, student, IPC and method."""
    inflations: list[TableInflation]
    """What looking for the best epoch adds, in every table, also in those without published numbers."""
    unmatched: list[Unmatched]
    contradictions: list[Contradiction]
    """All that are known, those that concern a measured cell first."""

    @property
    def disagreements(self) -> list[Reproduced]:
        """The cells with a standard error, the farthest from the paper in its units first."""
        known = [cell for cell in self.cells if cell.standard_errors is not None]
        return sorted(known, key=lambda cell: -abs(cell.standard_errors or 0.0))

    def notes_of(self, cell: Reproduced) -> list[Contradiction]:
        return [note for note in self.contradictions if note.id in cell.contradictions]


def build(tables: Sequence[groups.Table]) -> Reproduction:
    """Every published cell that has finished students here."""
    cells: dict[tuple[object, ...], Reproduced] = {}
    for table in tables:
        for row in table.rows:
            # The whole training set stands in every IPC's table and is one cell.
            same = (table.key.dataset, table.key.student, table.key.protocol_hash, table.key.teacher_sha256)
            key = (*same, None if row.whole_set else table.key.ipc, row.key)
            if key not in cells and row.finished and (found := _reproduced(table, row)) is not None:
                cells[key] = found
    ordered = sorted(cells.values(), key=lambda c: (c.dataset, c.protocol, c.student, c.ipc or math.inf, c.method))
    concerned = {id for cell in ordered for id in cell.contradictions}
    return Reproduction(
        cells=ordered,
        inflations=[one for table in tables if (one := _table_inflation(table)) is not None],
        unmatched=[none for table in tables if (none := _unmatched(table, cells)) is not None],
        contradictions=sorted(contradictions(), key=lambda note: note.id not in concerned),
    )


def _unmatched(table: groups.Table, cells: dict[tuple[object, ...], Reproduced]) -> Unmatched | None:
    key, title, members = table.key, table.title, [row for row in table.rows if row.finished]
    if not members or any(cell.table == title for cell in cells.values()):
        return None
    if key.dataset not in {published_for[1] for published_for, _ in all_published()}:
        return Unmatched(table=title, reason=f"no paper that is known here has numbers for {key.dataset}")
    papers_split, papers_resolutions = place_of(key.dataset)
    if key.split != papers_split:
        return Unmatched(table=title, reason=f"papers use the split {papers_split}, this is {key.split}")
    if key.resolution not in papers_resolutions:
        sides = " or ".join(map(str, papers_resolutions))
        return Unmatched(table=title, reason=f"papers distill at {sides} px, this is {key.resolution} px")
    if table.modified_protocol:
        return Unmatched(table=title, reason="the protocol is modified")
    conditions = [key.conditions(row.cells[0].spec.protocol.name, whole_set=row.whole_set) for row in members]
    if any(published(row.label, **where) for row, where in zip(members, conditions, strict=True)):
        reason = "the published numbers of its methods are of another prior, or of another evaluator than printed"
        return Unmatched(table=title, reason=reason)
    return Unmatched(table=title, reason="no paper that is known here has one of its methods under these conditions")


@cache
def contradictions() -> list[Contradiction]:
    """What is known, in the order of the file."""
    return [Contradiction.model_validate(entry) for entry in yaml.safe_load(FILE.read_text(encoding="utf-8"))]


def _reproduced(table: groups.Table, row: groups.Row) -> Reproduced | None:
    spec, key = row.cells[0].spec, table.key
    if spec.protocol.overrides:
        return None
    ipc = None if row.whole_set else key.ipc
    papers = published_beside(row.label, row.prior, **key.conditions(spec.protocol.name, whole_set=row.whole_set))
    if not papers:
        return None
    best = crossed.summary(row.accuracies("acc_best"))
    return Reproduced(
        table=table.title,
        dataset=key.dataset,
        ipc=ipc,
        student=key.student,
        protocol=key.protocol,
        method=row.label,
        row_id=row.key.id,
        foreign=row.key.images_sha256 is not None,
        prior=None if row.prior is None else rows.printable(row.prior.name),
        done=len(row.finished),
        expected=len(row.cells),
        paper=papers[0],
        others=list(papers[1:]),
        acc_last=crossed.summary(row.accuracies("acc_last")),
        acc_best=best,
        estimand=estimand(row.sets[0]),
        inflation=inflation(row),
        standard_error=combined_standard_error(best, papers[0]),
        contradictions=[
            note.id for note in contradictions() if note.concerns(row.label, key.dataset, spec.protocol.name, ipc)
        ],
    )


def estimand(made: DistilledSet) -> Estimand:
    """What a paper would print of one set."""
    best = [student.metrics.acc_best for student in made.students]
    return Estimand(
        mean=float(np.mean(best)),
        std=float(np.std(best)) if len(best) > 1 else None,
        students=len(best),
        seed=made.seeds[0] if made.seeds else None,
        image_set_sha256=made.image_set_sha256,
    )


def inflation(row: groups.Row) -> Summary:
    """Best look minus last epoch, points: the mean over each set's students, and the Student-t interval over sets."""
    pairs = zip(row.accuracies("acc_best"), row.accuracies("acc_last"), strict=True)
    return crossed.summary([[b - a for b, a in zip(best, last, strict=True)] for best, last in pairs])


def combined_standard_error(ours: Summary, paper: PaperNumber) -> float | None:
    """Of our mean best look over S sets, minus a paper's number.

    The paper's number is one more set: with s our standard deviation over sets, s² (1 + 1/S), as for a new observation.
    To it comes the variance of the paper's mean over its students, std² / (n - 1) from its population standard
    deviation, with n = `PAPER_STUDENTS`. The students' noise is partly in s too, so this is rather too wide. None for
    one set here, which says nothing of how another would do.
    """
    if ours.std is None:
        return None
    of_students = 0.0 if paper.std is None else paper.std**2 / (PAPER_STUDENTS - 1)
    return math.sqrt(ours.std**2 * (1 + 1 / ours.n) + of_students)


def _table_inflation(table: groups.Table) -> TableInflation | None:
    members = [row for row in table.rows if row.finished and not row.reference]
    if not members:
        return None
    found = [(inflation(row).mean, row.label) for row in members]
    largest, largest_of = max(found)
    return TableInflation(
        table=table.title,
        protocol=table.key.protocol,
        looks=min(len(student.metrics.curve) for row in members for student in row.finished),
        methods=len(members),
        mean=math.fsum(mean for mean, _ in found) / len(found),
        smallest=min(found)[0],
        largest=largest,
        largest_of=largest_of,
    )
