"""What the site shows, put together once: tables, runs, and which page has which."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec, ForeignImages, digest
from ddbench.datasets.validation import is_tuning
from ddbench.reports.quality.records import Measured, Sheet, folder_of, read_quality
from ddbench.reports.results import groups
from ddbench.reports.results.groups import Table, TableKey
from ddbench.reports.results.parameters import may_be_published, method_of
from ddbench.reports.results.paths import LEADS_OUT, leads_out, without_paths
from ddbench.reports.results.rows import DistillCell, EvaluateCell, Problem, Results, one_each, printable
from ddbench.reports.robustness import table as robust
from ddbench.reports.robustness.table import RobustReport, Seen
from ddbench.reports.site.pictures.sheets import Sheet as ContactSheet
from ddbench.reports.statistics.crossed import Comparison, Difference
from ddbench.reports.tables import leaderboard
from ddbench.reports.tables.views import RowView, TableView


@dataclass(frozen=True)
class TablePage:
    """One leaderboard and its page."""

    table: TableView
    group: Table
    slug: str
    family: str
    """Slug of the tables that differ from it in IPC alone: what one compare page holds."""
    differences: leaderboard.Differences = field(default_factory=dict)
    """Of each two rows that are ranked."""

    @property
    def path(self) -> str:
        return f"tables/{self.slug}.html"

    @property
    def compare_path(self) -> str:
        return f"compare/{self.family}.html"

    def group_row(self, row: RowView) -> groups.Row:
        """The row's cells."""
        return self._by_id[row.id]

    def pair(self, a: str, b: str) -> tuple[Difference, Comparison] | None:
        """Row `a` minus row `b`, as the leaderboard has it; None where one of them takes no rank."""
        if (found := self._pairs.get((a, b))) is not None:
            return found
        if (turned := self._pairs.get((b, a))) is None:
            return None
        return turned[0].turned, turned[1].turned

    def comparison(self, a: str, b: str) -> Comparison | None:
        """What the leaderboard says of row `a` minus row `b`; None where one of them takes no rank."""
        found = self.pair(a, b)
        return None if found is None else found[1]

    @cached_property
    def _pairs(self) -> dict[tuple[str, str], tuple[Difference, Comparison]]:
        compared = {(self.table.rows[p.a].id, self.table.rows[p.b].id): p.comparison for p in self.table.pairs}
        return {ids: (found, compared[ids]) for ids, found in self.differences.items()}

    @cached_property
    def _by_id(self) -> dict[str, groups.Row]:
        return {row.key.id: row for row in self.group.rows}


@dataclass(frozen=True)
class Run:
    """One distilled set, made here or elsewhere, and its students: one page."""

    id: str
    label: str
    distill: DistillCell | None
    students: Sequence[EvaluateCell]

    @property
    def path(self) -> str:
        return f"runs/{self.id}.html"

    @property
    def spec(self) -> DistillSpec | EvaluateSpec:
        """Of the set; of its first student where it was made elsewhere."""
        return self.students[0].spec if self.distill is None else self.distill.spec

    @property
    def image_set_sha256(self) -> str | None:
        made = [self.distill.result] if self.distill is not None else []
        results = [*made, *(student.result for student in self.students)]
        return next((r.image_set_sha256 for r in results if r is not None and r.image_set_sha256 is not None), None)


@dataclass(frozen=True)
class NearestSheet:
    """A picture of the nearest real images."""

    path: str
    """Path of the picture, relative to the site's root."""
    source: Path
    sheet: Sheet


@dataclass(frozen=True)
class Site:
    """All that pages read.

    Args:
        public: for everybody to see: no real image, and no path of this machine.
        margin: points within which two methods count as equivalent.
        sheets: hash of a set -> its contact sheet, or why its pictures are left out.
    """

    results: Results
    public: bool
    margin: float
    sheets: Mapping[str, ContactSheet | Problem] = field(default_factory=dict)

    @cached_property
    def tables(self) -> list[TablePage]:
        grouped = groups.group(self.results)
        board = [leaderboard.build_table(self.results.store, group) for group in grouped]
        return [
            TablePage(table, group, _slug(group.key), _slug(replace(group.key, ipc=None), with_ipc=False), differences)
            for (table, differences), group in zip(board, grouped, strict=True)
        ]

    @cached_property
    def families(self) -> dict[str, list[TablePage]]:
        """Tables that differ in IPC alone, by IPC."""
        found: dict[str, list[TablePage]] = defaultdict(list)
        for view in self.tables:
            found[view.family].append(view)
        return dict(found)

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Run id -> run: by distill cell, or by image hash and name for images made elsewhere. No tuning runs."""
        students: dict[str, list[EvaluateCell]] = defaultdict(list)
        for cell in one_each(self.results.evaluates.values()):
            if not is_tuning(cell.spec.dataset.name):
                students[run_id(cell)].append(cell)
        distills = {id: c for id, c in self.results.distills.items() if not is_tuning(c.spec.dataset.name)}
        ids = dict.fromkeys([*distills, *students])
        return {
            id: Run(id, distills[id].label if id in distills else students[id][0].label, distills.get(id), students[id])
            for id in ids
        }

    @cached_property
    def table_of(self) -> dict[str, TablePage]:
        """Evaluate cell -> a table that has it."""
        return {cell.id: view for view in self.tables for row in view.group.rows for cell in row.cells}

    @cached_property
    def quality(self) -> Measured:
        """What `bench quality` has measured."""
        return read_quality(self.results.store, follow_links=False)

    @cached_property
    def robustness(self) -> RobustReport:
        """What `bench robust` shows."""
        return robust.build(self.results)

    @cached_property
    def seen(self) -> dict[str, list[Seen]]:
        """Student (`EvaluateCell.student_id`) -> what it was looked at on of shifted test sets."""
        return robust.seen_by(self.results.evaluates.values())

    @cached_property
    def problems(self) -> list[Problem]:
        """What of the results folder could not be used, or not be published."""
        pictures = [sheet for sheet in self.sheets.values() if isinstance(sheet, Problem)]
        measured = () if self.public else self.runs.values()
        nearest = [found for run in measured if isinstance(found := self._nearest(run), Problem)]
        return list(dict.fromkeys([*self.results.problems, *self.quality.problems, *pictures, *nearest]))

    def shown(self, text: str) -> str:
        """A name for charts and scripts; what templates show is treated likewise (`render.py`)."""
        return without_paths(text) if self.public else text

    def nearest(self, run: Run) -> NearestSheet | None:
        """The sheet of the real images nearest to a run's: None where it was not measured, or everybody sees it."""
        found = None if self.public else self._nearest(run)
        return None if isinstance(found, Problem) else found

    def _nearest(self, run: Run) -> NearestSheet | Problem | None:
        records = self.quality.records.get(run.image_set_sha256 or "", [])
        if not records:
            return None
        sheet = records[0].sheet
        source = folder_of(self.results.store) / sheet.file
        if leads_out(source, self.results.store.out):
            return Problem(printable(str(source)), LEADS_OUT)
        return NearestSheet(f"images/{sheet.file}", source, sheet) if source.is_file() else None

    def shows_images(self, run: Run) -> bool:
        """Whether the run's pictures may be in this site: never where `bench quality` has found copies in them."""
        if not self.public:
            return True
        measured = self.quality.records.get(run.image_set_sha256 or "", [])
        copies = any(record.values.get("copies_percent", 0.0) > 0 for record in measured)
        return run.distill is not None and not copies and may_be_published(method_of(run.distill.spec.method))


def run_id(cell: EvaluateCell) -> str:
    """The run that a student belongs to."""
    images = cell.spec.images
    if isinstance(images, ForeignImages):
        return f"images-{digest([images.image_set_sha256, cell.label])[:16]}"
    return images.cell


def _slug(key: TableKey, *, with_ipc: bool = True) -> str:
    """A file name that people can read and no other key has."""
    ipc = ["full" if key.ipc is None else f"ipc{key.ipc}"] if with_ipc else []
    words = [key.dataset, *ipc, key.protocol.partition("@")[0], key.student, f"{key.resolution}px"]
    readable = "-".join(re.sub(r"[^a-z0-9_.]+", "-", word.lower()).strip("-.") for word in words)
    return f"{readable[:80]}-{digest(astuple(key))[:6]}"
