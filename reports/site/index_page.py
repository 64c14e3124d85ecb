"""The first page: what there is, what leads, what is not done, and how to read it all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ddbench.benchmark.core.store import State
from ddbench.reports.results.rows import DistillCell, EvaluateCell
from ddbench.reports.site import table_page
from ddbench.reports.site.model import Run, Site, TablePage
from ddbench.reports.site.pictures.sheets import Sheet
from ddbench.reports.site.render import Page
from ddbench.reports.tables.views import RowView

SECTION = table_page.SECTION
PATH = "index.html"
LEADERS = 6
"""Names of leaders shown; of more, the rest is counted."""


def pages(site: Site) -> list[Page]:
    cells: list[EvaluateCell | DistillCell] = [*site.results.evaluates.values(), *site.results.distills.values()]
    states = Counter(cell.standing for cell in cells)
    values = {
        "site": site,
        "families": [
            (views, [(view, leaders(view), pictured(site, view)) for view in views]) for views in site.families.values()
        ],
        "thumbnails": (table_page.THUMBNAILS, table_page.THUMBNAIL_SIDE),
        "states": sorted(states.items()),
        "failures": [cell for cell in cells if cell.why],
        "problems": site.problems,
        "n_sets": sum(_is_made(run) for run in site.runs.values()),
        "n_students": sum(cell.ok for run in site.runs.values() for cell in run.students),
        "public": site.public,
    }
    return [Page(PATH, "index.html", "Results", SECTION, values)]


def _is_made(run: Run) -> bool:
    """Whether the run is a distilled set that is there: no shard, no failure, and not the whole training set."""
    if run.distill is None:
        return True
    return run.distill.state == State.OK and run.distill.spec.shard is None and run.distill.spec.ipc is not None


@dataclass(frozen=True)
class Leaders:
    """The rows that no other is better than, so far as the test can tell."""

    named: list[RowView]
    more: int
    lowest: float
    highest: float


def leaders(view: TablePage) -> Leaders | None:
    """None where nothing is finished."""
    first = [row for row in view.table.rows if row.rank == 1]
    means = [row.acc_last.mean for row in first if row.acc_last is not None]
    return Leaders(first[:LEADERS], max(0, len(first) - LEADERS), min(means), max(means)) if means else None


def pictured(site: Site, view: TablePage) -> tuple[RowView, Sheet] | None:
    """The highest row with images that may be shown, and them."""
    rows = (row for row in view.table.rows if not row.reference)
    return next(((row, sheet) for row in rows if (sheet := table_page.row_sheet(site, view, row)) is not None), None)
