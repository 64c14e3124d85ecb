"""The ablation page: parts on and off as papers print them, and one parameter at a time as curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ddbench.benchmark.core.spec import Scalar
from ddbench.reports.analyses import ablation
from ddbench.reports.analyses.factorials import Design, published_designs
from ddbench.reports.analyses.sweeps import PaperPoint, Sweep, SweepPoint
from ddbench.reports.results.paper_numbers import PaperNumber
from ddbench.reports.results.settings import Factor
from ddbench.reports.site.model import Site
from ddbench.reports.site.pictures.bars import scale_of
from ddbench.reports.site.pictures.charts import Mark, Series, at, line_chart
from ddbench.reports.site.render import Page
from ddbench.reports.statistics.crossed import Summary

SECTION = "Ablation"
PATH = "ablation.html"
LAST, BEST, PAPER = "after the last epoch", "best look", "paper (best look)"


@dataclass(frozen=True)
class DesignView:
    design: Design
    path: str
    """Path of its table's page."""
    names: list[str]
    """What the corners are called."""
    scale: tuple[float, float]
    """Of the bars."""
    chart: Markup


@dataclass(frozen=True)
class ValueView:
    """One value of a sweep: measured, published or both."""

    text: str
    default: bool
    point: SweepPoint | None
    paper: PaperNumber | None


@dataclass(frozen=True)
class SweepView:
    sweep: Sweep
    path: str
    values: list[ValueView]
    scale: tuple[float, float]
    chart: Markup


def pages(site: Site) -> list[Page]:
    found = ablation.build(site.results.store, [view.group for view in site.tables])
    paths = {view.table.title: view.path for view in site.tables}
    sweeps: dict[str, list[SweepView]] = {}
    for sweep in found.sweeps:
        sweeps.setdefault(sweep.where.table, []).append(_sweep(site, sweep, paths[sweep.where.table]))
    values = {
        "designs": [_design(design, paths[design.where.table]) for design in found.designs],
        "sweeps": {title: sweeps[title] for title in paths if title in sweeps},
        "paths": paths,
        "published": [(design, corner_names(design.factors)) for design in published_designs()],
    }
    return [Page(PATH, "ablation.html", "Ablation", SECTION, values)]


def corner_names(factors: tuple[Factor, Factor]) -> list[str]:
    return ["neither", factors[0].name, factors[1].name, "both"]


def value_text(value: Scalar) -> str:
    """A parameter's value as it is typed in a selector."""
    return value if isinstance(value, str) else json.dumps(value)


# 2 x 2 designs --------------------------------------------------------------------------------------------------------


def _design(design: Design, path: str) -> DesignView:
    cells, names = design.cells, corner_names(design.factors)
    summaries = [summary for cell in cells for summary in (cell.acc_last, cell.acc_best)]
    within = scale_of(summaries, [cell.paper.value for cell in cells if cell.paper is not None])
    series = [
        Series(LAST, _points((i, cell.acc_last) for i, cell in enumerate(cells))),
        Series(BEST, _points((i, cell.acc_best) for i, cell in enumerate(cells))),
        Series(PAPER, _published((i, cell.paper) for i, cell in enumerate(cells))),
    ]
    chart = line_chart(
        [one for one in series if one.points],
        title=f"{design.title}: accuracy with each part on and off",
        x_label="parts that are on",
        y_label="accuracy %",
        x_names=names,
        y_range=within,
        height=260,
    )
    return DesignView(design, path, names, within, chart)


def _points(found: Iterable[tuple[float, Summary | None]]) -> list[tuple[float, float, float | None, float | None]]:
    return [at(x, summary) for x, summary in found if summary is not None]


def _published(found: Iterable[tuple[float, PaperNumber | None]]) -> list[tuple[float, float, None, None]]:
    """Without the paper's ± std: it is over students of one set, and no interval."""
    return [(x, number.value, None, None) for x, number in found if number is not None]


# Sweeps ---------------------------------------------------------------------------------------------------------------


def _sweep(site: Site, sweep: Sweep, path: str) -> SweepView:
    points = {value_text(point.value): point for point in sweep.points}
    papers = {value_text(paper.value): paper.number for paper in sweep.papers}
    within = scale_of([p.acc_last for p in sweep.points], [number.value for number in papers.values()])
    values = [
        ValueView(
            text=(text := value_text(value)),
            default=bool(sweep.default_from) and text == value_text(sweep.default),
            point=points.get(text),
            paper=papers.get(text),
        )
        for value in sweep.values
    ]
    return SweepView(sweep, path, values, within, _curve(site, sweep, values, within))


def _curve(site: Site, sweep: Sweep, values: Sequence[ValueView], within: tuple[float, float]) -> Markup:
    names = [] if sweep.numeric else [one.text for one in values]

    def place(one: SweepPoint | PaperPoint) -> float:
        if names:
            return float(names.index(value_text(one.value)))
        assert isinstance(one.value, int | float)
        return float(one.value)

    drawable = [paper for paper in sweep.papers if names or isinstance(paper.value, int | float)]
    series = [
        Series(LAST, _points((place(point), point.acc_last) for point in sweep.points)),
        Series(PAPER, _published((place(paper), paper.number) for paper in drawable)),
    ]
    default = sweep.default if bool(sweep.default_from) and not names else None
    marks = (
        [Mark(float(default), "default")] if isinstance(default, int | float) and (default > 0 or not sweep.log) else []
    )
    return line_chart(
        [one for one in series if one.points],
        title=site.shown(f"Accuracy against {sweep.parameter} of {sweep.method}"),
        x_label=f"{sweep.parameter} (log)" if sweep.log else sweep.parameter,
        y_label="accuracy %",
        log_x=sweep.log,
        marks=marks,
        x_names=[site.shown(name) for name in names],
        y_range=within,
        height=260,
    )
