"""The compare pages: methods side by side over all IPC of one setting. The page's script shows the ones chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from markupsafe import Markup

from ddbench.reports.output.cost_text import heading
from ddbench.reports.results.predictions import labels_of_test
from ddbench.reports.results.words import told_apart
from ddbench.reports.site.cost_section import cost_caption, cost_chart
from ddbench.reports.site.model import NearestSheet, Site, TablePage
from ddbench.reports.site.pictures.charts import Series, at, line_chart
from ddbench.reports.site.pictures.sheets import Sheet
from ddbench.reports.site.render import Page
from ddbench.reports.site.run_page import class_ids, class_names, first_run, sheet_of
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Comparison, Difference, SetScore
from ddbench.reports.statistics.equivalence import equivalence_p_value, smallest_visible_difference, spread
from ddbench.reports.tables.cost_board import cost_table
from ddbench.reports.tables.scores import scores_of

SECTION = "Compare"
PATH = "compare/index.html"
CLASSES = 100
"""The most classes whose accuracies are shown; those of a larger dataset are in `bench compare --json`."""
EQUIVALENCE_ALPHA = 0.05


@dataclass(frozen=True)
class ClassTable:
    """Accuracy by class at one IPC, percent."""

    ipc: int | None
    classes: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[float]]]
    """(row id, name, one accuracy for each class)."""


@dataclass(frozen=True)
class CostChart:
    """Accuracy against cost at one IPC, on one kind of hardware."""

    view: TablePage
    heading: str
    chart: Markup
    caption: str


@dataclass(frozen=True)
class Grid:
    """The images of one method's first set at one IPC."""

    row: str
    name: str
    ipc: int | None
    sheet: Sheet
    nearest: NearestSheet | None


def pages(site: Site) -> list[Page]:
    """One page for each family of tables, and their list."""
    found = [_page(site, slug, views) for slug, views in site.families.items()]
    listed = [(page, site.families[slug]) for slug, page in zip(site.families, found, strict=True)]
    return [*found, Page(PATH, "compare_index.html", "Compare", SECTION, {"listed": listed})]


def _page(site: Site, slug: str, views: Sequence[TablePage]) -> Page:
    scores = {view.slug: _scores(site, view) for view in views}
    rows = {row.id: row for view in views for row in view.table.rows if row.acc_last is not None}
    plain = [site.shown(row.method) for row in rows.values()]
    longer = [site.shown(row.name) for row in rows.values()]
    last = [f"{name} ({id[:4]})" for id, name in zip(rows, longer, strict=True)]
    names = dict(zip(rows, told_apart(plain, longer, last), strict=True))
    table = views[0].table
    data = {
        "margin": site.margin,
        "names": names,
        "tables": [{"ipc": v.table.ipc, **_pairs(v, scores[v.slug], site.margin)} for v in views],
    }
    classes = [made for v in views if (made := _classes(site, v, scores[v.slug], names)) is not None]
    grids = _grids(site, views, names)
    return Page(
        views[0].compare_path,
        "compare.html",
        f"Compare · {table.dataset} ({table.split}) · {table.protocol} · {table.student}",
        SECTION,
        {
            "views": views,
            "names": names,
            "data": data,
            "over_ipc": _over_ipc(views, names),
            "costs": [chart for view in views for chart in _against_cost(view, names)],
            "spreads": [
                (v.table.ipc, [(id, names[id], spread(sets)) for id, sets in scores[v.slug].items()]) for v in views
            ],
            "classes": classes,
            "grids": grids,
            "grid_ipcs": sorted({grid.ipc for grid in grids if grid.ipc is not None}),
            "grid_classes": list(zip(class_ids(table.dataset), class_names(table.dataset), strict=True))[:20],
            "public": site.public,
        },
    )


def _scores(site: Site, view: TablePage) -> dict[str, list[SetScore]]:
    scores = {row.id: scores_of(site.results.store, view.group_row(row)) for row in view.table.rows}
    return {id: sets for id, sets in scores.items() if sets}


def _pairs(view: TablePage, scores: Mapping[str, Sequence[SetScore]], margin: float) -> dict[str, Any]:
    """Rows, and for each pair of them what the test says: short lists, since a page may hold thousands.

    A pair: [a, b, difference, low, high, p, p of equivalence, smallest visible difference, equal within]; the last is
    the smallest margin at which the two would count as equivalent (TOST at 5 %).
    """
    n_test = view.table.n_test or 0
    ids = [row.id for row in view.table.rows if row.id in scores]
    rows = [
        {"id": row.id, "mean": _short(row.acc_last.mean), "n": row.acc_last.n, "reference": row.reference}
        for row in view.table.rows
        if row.id in scores and row.acc_last is not None
    ]
    pairs = []
    for a, b in combinations(range(len(ids)), 2) if n_test > 1 else ():
        found, compared = view.pair(ids[a], ids[b]) or _made(scores[ids[a]], scores[ids[b]], n_test)
        if not found.components:
            pairs.append([a, b, _short(found.difference)])
            continue
        within = abs(found.difference) + math.sqrt(found.half_width_squared(2 * EQUIVALENCE_ALPHA))
        pairs.append(
            [
                a,
                b,
                _short(found.difference),
                _short(compared.low),
                _short(compared.high),
                _digits(compared.p_value),
                _digits(equivalence_p_value(found, margin)),
                _short(smallest_visible_difference(found)),
                _short(within),
            ]
        )
    return {"rows": rows, "pairs": pairs}


def _made(a: Sequence[SetScore], b: Sequence[SetScore], n_test: int) -> tuple[Difference, Comparison]:
    """Of a pair that no table ranks, with a reference in it: its own sets tell what they vary by."""
    found = crossed.difference_of(a, b, n_test)
    return found, crossed.comparison_of(found)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _over_ipc(views: Sequence[TablePage], names: Mapping[str, str]) -> Markup:
    points: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
    for view in views:
        for row in view.table.rows if view.table.ipc is not None else ():
            if row.acc_last is not None and not row.reference:
                points.setdefault(row.id, []).append(at(view.table.ipc or 0, row.acc_last))
    series = [Series(names[id], line, row=id) for id, line in points.items()]
    if max((len(one.points) for one in series), default=0) < 2:
        return Markup("")
    return line_chart(
        series, title="Accuracy against IPC", x_label="images per class", y_label="acc_last %", log_x=True, height=380
    )


def _against_cost(view: TablePage, names: Mapping[str, str]) -> list[CostChart]:
    """One for each kind of hardware that has several rows."""
    charts = [(axis, cost_chart(axis, names, by_row=True)) for axis in cost_table(view.table, "cost").axes]
    return [CostChart(view, heading(axis), chart, cost_caption(axis)) for axis, chart in charts if chart]


def _classes(
    site: Site, view: TablePage, scores: Mapping[str, Sequence[SetScore]], names: Mapping[str, str]
) -> ClassTable | None:
    labels = labels_of_test(site.results.store, view.table.content_hash)
    shares = {
        id: 100 * np.mean([s.correct for s in sets if s.correct is not None], axis=0)
        for id, sets in scores.items()
        if all(s.correct is not None and labels is not None and len(s.correct) == len(labels) for s in sets)
    }
    if labels is None or not shares or len(np.unique(labels)) > CLASSES:
        return None
    present, known = np.unique(labels), class_names(view.table.dataset)
    called = [known[c] if c < len(known) else f"class {c}" for c in present]
    rows = [(id, names[id], [float(of[labels == c].mean()) for c in present]) for id, of in shares.items()]
    return ClassTable(view.table.ipc, called, rows)


def _grids(site: Site, views: Sequence[TablePage], names: Mapping[str, str]) -> list[Grid]:
    grids = []
    for view in views:
        for row in view.table.rows:
            run = first_run(site, view.group_row(row)) if row.id in names and not row.reference else None
            sheet = sheet_of(site, run) if run is not None else None
            if run is None or not isinstance(sheet, Sheet):
                continue
            grids.append(Grid(row.id, names[row.id], view.table.ipc, sheet, site.nearest(run)))
    return grids
