"""The leaderboard pages: every number of a table with what a reader needs to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from ddbench.reports.output.columns import counts_differ, legend
from ddbench.reports.results.parameters import Origin, method_of, origin, real_images_read
from ddbench.reports.results.rows import DistillCell
from ddbench.reports.site.cost_section import cost_sections
from ddbench.reports.site.model import Site, TablePage, run_id
from ddbench.reports.site.pictures.bars import scale_of
from ddbench.reports.site.pictures.sheets import Sheet
from ddbench.reports.site.render import Page
from ddbench.reports.site.run_page import first_run, sheet_of
from ddbench.reports.tables.notes import marks
from ddbench.reports.tables.views import RowView, TableView

SECTION = "Leaderboards"
THUMBNAILS, THUMBNAIL_SIDE = 10, 32
"""The most images of a row, one of each class, and their side in pixels."""


@dataclass(frozen=True)
class ShownRow:
    """One row as the page shows it."""

    row: RowView
    name: str
    marks: str
    origin: Origin
    real_images: str
    runs: list[tuple[str, str]]
    """(path, what it is) of each set's page."""
    guidance_nats: float | None
    """Path KL, summed over the terms."""
    sheet: Sheet | None
    """Of its first set; None where that is not shown."""


def pages(site: Site) -> list[Page]:
    return [_page(site, view) for view in site.tables]


def _page(site: Site, view: TablePage) -> Page:
    table = view.table
    shown = [_row(site, view, row) for row in table.rows]
    return Page(
        view.path,
        "table.html",
        table.title,
        SECTION,
        {
            "view": view,
            "table": table,
            "rows": shown,
            # References, which may lie far off, are cut.
            "scale": scale_of(row.acc_last for row in table.rows if not row.reference),
            "legend": legend(table),
            "costs": cost_sections(site, table),
            "thumbnails": (THUMBNAILS, THUMBNAIL_SIDE),
            "has": _columns(table, shown),
            "cost_classes": sorted({row.cost_class for row in table.rows if row.cost_class}),
            "siblings": [other for other in site.families[view.family] if other is not view],
        },
    )


def _row(site: Site, view: TablePage, row: RowView) -> ShownRow:
    cells = view.group_row(row).cells
    runs = {run_id(cell): cell for cell in cells if run_id(cell) in site.runs}
    return ShownRow(
        row=row,
        name=row.name,
        marks=marks(row),
        origin=origin(row.method, row.spec, view.table.dataset),
        real_images=real_images_read(method_of(row.spec), row.prior),
        runs=[(site.runs[id].path, _set_name(cell.distill)) for id, cell in runs.items()],
        guidance_nats=sum(g.mean_nats for g in row.guidance.values()) if row.guidance else None,
        sheet=row_sheet(site, view, row),
    )


def row_sheet(site: Site, view: TablePage, row: RowView) -> Sheet | None:
    """The sheet of the row's first set; None where there is none that may be shown."""
    first = first_run(site, view.group_row(row))
    sheet = sheet_of(site, first) if first is not None else None
    return sheet if isinstance(sheet, Sheet) else None


def _set_name(distill: DistillCell | None) -> str:
    return "images" if distill is None else f"set {distill.spec.seed}"


def _columns(table: TableView, shown: list[ShownRow]) -> dict[str, bool]:
    """Which columns have anything to show."""
    rows = table.rows
    return {
        "images": counts_differ(table),
        "thumbnails": any(view.sheet is not None for view in shown),
        "papers": any(row.papers for row in rows),
        "gap": any(row.gap_closed_percent is not None for row in rows),
        "gpu": any(row.cost.distill_gpu_peak_allocated_mib is not None for row in rows),
        "energy": any(row.cost.distill_energy_joules is not None for row in rows),
        "guidance": any(view.guidance_nats is not None for view in shown),
        "incomplete": any(row.done < row.expected for row in rows),
        "origin": any(row.origin.bundles for row in rows),
        "passes": any(row.teacher_passes is not None for row in rows),
        "labels": any(row.label_bytes is not None or row.stored_label_bytes is not None for row in rows),
        "prior": any(row.prior is not None for row in rows),
    }
