"""The reproduction page: published numbers against ours, and what looking for the best epoch adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from markupsafe import Markup

from ddbench.reports.analyses import reproduction
from ddbench.reports.analyses.reproduction import Reproduced
from ddbench.reports.site.model import Site
from ddbench.reports.site.pictures.charts import Point, scatter_chart
from ddbench.reports.site.render import Page
from ddbench.reports.statistics.crossed import Summary

SECTION = "Reproduction"
PATH = "reproduction.html"
LARGEST = 10
"""The most disagreements listed and named in the chart."""
ROOM = 15.0
"""Points that an interval may reach beyond the numbers of its chart; over two sets it can span everything."""


def pages(site: Site) -> list[Page]:
    found = reproduction.build([view.group for view in site.tables])
    largest = found.disagreements[:LARGEST]
    numbers = {note.id: number for number, note in enumerate(found.contradictions, start=1)}
    concerned = {id for cell in found.cells for id in cell.contradictions}
    values = {
        "found": found,
        "largest": largest,
        "numbers": numbers,
        "paths": {view.table.title: view.path for view in site.tables},
        "concerned": concerned,
        "reasons": sorted(Counter(one.reason for one in found.unmatched).items()),
        "paper_students": reproduction.PAPER_STUDENTS,
        "charts": [
            (_chart(found.cells, largest, what, of), caption)
            for what, of, caption in (
                (
                    "best look %, ours",
                    lambda cell: cell.acc_best,
                    "The same quantity on both axes, the best look; ours is the mean over sets.",
                ),
                (
                    "acc_last %, ours",
                    lambda cell: cell.acc_last,
                    "What ranks here, after the last epoch, against the paper's best look.",
                ),
            )
        ],
    }
    return [Page(PATH, "reproduction.html", "Reproduction of published numbers", SECTION, values)]


def _chart(
    cells: Sequence[Reproduced], largest: Sequence[Reproduced], what: str, of: Callable[[Reproduced], Summary]
) -> Markup:
    values = [value for cell in cells for value in (cell.paper.value, of(cell).mean)]
    points = []
    for cell in cells:
        ours, paper = of(cell), cell.paper
        known = ours.low is not None and ours.high is not None
        ipc = "all" if cell.ipc is None else cell.ipc
        where = f"{cell.dataset}, IPC {ipc}, {cell.student}, {cell.protocol}"
        points.append(
            Point(
                paper.value,
                ours.mean,
                f"{cell.method}\n{where}: paper {paper.value:.1f}, ours {ours.mean:.2f}",
                y_low=max(ours.low or 0.0, min(values) - ROOM) if known else None,
                y_high=min(ours.high or 0.0, max(values) + ROOM) if known else None,
                strong=cell in largest,
            )
        )
    return scatter_chart(
        points,
        title=f"Published accuracy against ours: {what}",
        x_label="published: best look %",
        y_label=what,
        diagonal=True,
        height=420,
    )
