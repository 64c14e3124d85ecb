"""The robustness page: how far accuracy falls on shifted test sets, where students were looked at on some."""

from __future__ import annotations

from dataclasses import dataclass

from ddbench.reports.robustness import text
from ddbench.reports.robustness.table import RobustTable
from ddbench.reports.robustness.text import Column
from ddbench.reports.site.model import Site
from ddbench.reports.site.render import Page

SECTION = "Robustness"
PATH = "robustness.html"
BY: tuple[text.By, ...] = ("corruption", "severity")


@dataclass(frozen=True)
class ShiftedView:
    """One table of `bench robust`."""

    table: RobustTable
    setting: str
    path: str | None
    """Path of its leaderboard's page; None where there is none of that name."""
    columns: list[Column]
    """All but its rows' names."""
    parts: list[tuple[text.By, list[Column]]]
    """(corruption or severity, the columns of that table); none for photographs."""


def pages(site: Site) -> list[Page]:
    """The page; none where no student was looked at on a shifted test set."""
    if not site.robustness.looked:
        return []
    paths = {view.table.title: view.path for view in site.tables}
    values = {
        "views": [_view(table, paths.get(table.title)) for table in site.robustness.tables],
        "legend": text.LEGEND,
        "by_legend": text.BY_LEGEND,
    }
    return [Page(PATH, "robustness.html", "Robustness: accuracy on shifted test sets", SECTION, values)]


def _view(table: RobustTable, path: str | None) -> ShiftedView:
    parts = [(by, _columns(table, by)) for by in BY] if any(row.by_corruption for row in table.rows) else []
    return ShiftedView(table, text.setting(table), path, _columns(table, None), parts)


def _columns(table: RobustTable, by: text.By | None) -> list[Column]:
    return list(text.columns(table, by))[1:]
