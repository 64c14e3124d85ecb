"""What each part of a method is worth: parts on and off, as 2 x 2 designs, and one parameter at a time, as curves.

Rows are matched by their parameters, never by their names. Two rows belong together if they are equal in all that makes
a contestant (`groups.Contestant`: version, prior, precision, devices) and in all parameters but those in question.
Published numbers stand beside, from the same dataset, IPC, student and unmodified protocol; no estimate has them in it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ddbench.benchmark.result import Record
from ddbench.benchmark.spec import MethodSpec, Scalar, brackets, canonical_json
from ddbench.benchmark.store import Store
from ddbench.reports import groups, rows, settings, statistics
from ddbench.reports.equivalence import holm, smallest_visible_difference
from ddbench.reports.leaderboard import score_of, titles
from ddbench.reports.paper_numbers import PaperNumber, published_cell
from ddbench.reports.settings import Factor, Factorial, Params
from ddbench.reports.statistics import Comparison, SetScore, Summary

Corner = tuple[bool, bool]
"""Which of the two factors are on."""
CORNERS: tuple[Corner, ...] = ((False, False), (True, False), (False, True), (True, True))
Kind = Literal["main", "interaction"]


class Where(Record):
    """The table that rows are from."""

    table: str
    dataset: str
    split: str
    ipc: int | None
    student: str
    protocol: str
    modified_protocol: bool
    n_test: int


class Cell(Record):
    """One corner of a 2 x 2 design."""

    on: Corner
    label: str | None
    """The row; None where there is none."""
    acc_last: Summary | None
    acc_best: Summary | None
    done: int
    expected: int
    paper: PaperNumber | None


class Effect(Record):
    """A contrast of the four corners, percent points."""

    name: str
    kind: Kind
    weights: list[float]
    """Of the corners, in the order of `cells`."""
    comparison: Comparison
    p_holm: float | None
    """Adjusted over the three effects of this design."""
    visible: float | None
    """The true effect that this test finds with probability 0.8."""
    paper: float | None
    """The same contrast of the four published numbers, where one source has them all. Its spread is not known."""


class Design(Record):
    """Two factors of one method, each on and off, in one table."""

    title: str
    source: str
    """Where the design was published."""
    where: Where
    method: str
    """The base method."""
    factors: tuple[Factor, Factor]
    differs: str
    """What else differs from the defaults, `[parameter=value]`; empty for nothing, and for a method not installed."""
    setting: str
    """Prior, precision and version that its rows share."""
    cells: list[Cell]
    """Neither, the first, the second, both."""
    effects: list[Effect]
    """Empty unless all four corners have finished students."""
    missing: list[str]
    """Parameters of the corners that no row has, `dmgd[semantic_matching=false]`."""


class SweepPoint(Record):
    value: Scalar
    label: str
    acc_last: Summary
    acc_best: Summary
    done: int
    expected: int
    difference: Comparison | None
    """To the default's row: None for itself, and where the default is not among the values."""
    p_holm: float | None
    """Adjusted over the values of this sweep."""
    visible: float | None


class PaperPoint(Record):
    value: Scalar
    number: PaperNumber


class Sweep(Record):
    """Rows of one method that differ in one parameter."""

    where: Where
    method: str
    parameter: str
    description: str
    differs: str
    """What else differs from the defaults, as `Design.differs`."""
    setting: str
    """As `Design.setting`."""
    numeric: bool
    default: Scalar
    """None also where no default is known; then `default_from` is empty."""
    default_from: str
    points: list[SweepPoint]
    """By value: numbers in their order, others with the default first."""
    papers: list[PaperPoint]
    """The most trustworthy published number of each value, by value."""

    @property
    def log(self) -> bool:
        """Whether the values want a logarithmic axis."""
        values = [value for value in self.values if isinstance(value, int | float)]
        return self.numeric and min(values) > 0 and max(values) / min(values) >= 20

    @property
    def values(self) -> list[Scalar]:
        """Measured and published, each once."""
        found = {_text(value): value for value in [p.value for p in self.points] + [p.value for p in self.papers]}
        return sorted(found.values(), key=_place(self.default))


class PublishedDesign(Record):
    """A 2 x 2 design as one source prints it."""

    title: str
    source: str
    method: str
    factors: tuple[Factor, Factor]
    dataset: str
    ipc: int | None
    student: str
    protocol: str
    cells: list[PaperNumber]
    """Neither, the first, the second, both."""
    effects: list[float]
    """First, second, interaction: arithmetic on means whose spread is not known."""


class Ablation(Record):
    designs: list[Design]
    sweeps: list[Sweep]


EFFECTS: tuple[tuple[Kind, tuple[float, ...]], ...] = (
    ("main", (-0.5, 0.5, -0.5, 0.5)),
    ("main", (-0.5, -0.5, 0.5, 0.5)),
    ("interaction", (1.0, -1.0, -1.0, 1.0)),
)
"""Weights of the corners. The interaction is the difference of differences: what both give beyond the sum of what each
gives alone."""


def build(results: rows.Results, grouped: Sequence[groups.Group] | None = None) -> Ablation:
    """All designs and sweeps of a results folder. A row counts from its first finished student on.

    Args:
        grouped: `groups.group(results)`, where it is at hand.
    """
    tables = groups.group(results) if grouped is None else grouped
    found = Ablation(designs=[], sweeps=[])
    for title, table in zip(titles([table.key for table in tables]), tables, strict=True):
        families = _families(table)
        if not families:
            continue
        place = _Table(results.store, table, title)
        for family in families:
            designs = [
                design
                for published in settings.factorials()
                if published.method == family[0].name
                for design in _designs(place, family, published)
            ]
            in_full = {
                (factor.parameter, cell.label)
                for design in designs
                if not design.missing
                for factor in design.factors
                for cell in design.cells
            }
            found.designs += designs
            # A design says more of its own two parameters than the pairs of rows along its edges.
            found.sweeps += [
                sweep
                for sweep in _sweeps(place, family)
                if any((sweep.parameter, point.label) not in in_full for point in sweep.points)
            ]
    found.designs.sort(key=lambda design: (bool(design.missing), not any(cell.paper for cell in design.cells)))
    found.sweeps.sort(key=lambda sweep: (not sweep.numeric, -len(sweep.points)))
    return found


# Rows -----------------------------------------------------------------------------------------------------------------


class _Member:
    """A row with a method and a finished student."""

    def __init__(self, row: groups.Row, spec: MethodSpec) -> None:
        self.row, self.name, self.spec, self.params = row, spec.name, spec, dict(spec.params)
        made = [cell.distil.result for cell in row.cells if cell.distil is not None]
        results = [*made, *(cell.result for cell in row.cells)]
        priors = [result.prior for result in results if result is not None and result.prior is not None]
        self.tuned = any(prior.tuned_by for prior in priors)
        self.prior = priors[0].name if priors else None

    @property
    def setting(self) -> str:
        sha, precision = self.row.contestant.prior_sha256, self.row.contestant.precision
        prior = [] if sha is None else [f"prior {rows.printable(self.prior or 'unknown')} ({sha[:8]})", str(precision)]
        return ", ".join([*prior, f"version {self.spec.version}"])

    @property
    def kin(self) -> tuple[Any, ...]:
        """What members of one family share: all but the parameters."""
        made = self.row.contestant
        devices = (made.precision, made.distil_device, made.evaluate_device)
        return (self.name, self.spec.version, self.spec.source_sha256, made.prior_sha256, *devices, self.tuned)


class _Table:
    """One table: what is published for it, and its rows' scores, read once."""

    def __init__(self, store: Store, table: groups.Group, title: str) -> None:
        key, cells = table.key, [cell for row in table.rows for cell in row.cells]
        self.store = store
        self.where = Where(
            table=title,
            dataset=key.dataset,
            split=key.split,
            ipc=key.ipc,
            student=key.student,
            protocol=key.protocol,
            modified_protocol=any(cell.spec.protocol.overrides for cell in cells),
            n_test=next(student.data.n_test for row in table.rows for student in row.finished),
        )
        self.papers: list[tuple[str, Params, PaperNumber]] = []
        if not self.where.modified_protocol:
            protocol = cells[0].spec.protocol.name
            place = {"dataset": key.dataset, "split": key.split, "student": key.student, "protocol": protocol}
            for name, number in published_cell(ipc=key.ipc, **place):
                if (setting := settings.setting_of(name, number, key.dataset)) is not None:
                    self.papers.append((*setting, number))
        self._scores: dict[int, list[SetScore]] = {}

    def scores(self, member: _Member) -> list[SetScore]:
        if id(member) not in self._scores:
            self._scores[id(member)] = [score_of(self.store, made) for made in member.row.sets]
        return self._scores[id(member)]

    def published(self, member: _Member) -> list[tuple[Params, PaperNumber]]:
        """Of this member's method on an untuned prior."""
        return [(params, number) for name, params, number in self.papers if name == member.name and not member.tuned]


def _families(table: groups.Group) -> list[list[_Member]]:
    """Members that differ in parameters only; two or more."""
    families: dict[tuple[Any, ...], list[_Member]] = defaultdict(list)
    for row in table.rows:
        spec = row.method
        if spec is not None and row.finished and not row.reference and not row.contestant.foreign:
            member = _Member(row, spec)
            families[member.kin].append(member)
    return [family for family in families.values() if len(family) > 1]


def _differs(member: _Member, dataset: str, without: Sequence[str]) -> str:
    defaults = settings.resolved(member.name, dataset, {})
    if defaults is None:
        return ""
    others = {key: value for key, value in member.params.items() if key not in without}
    return brackets({key: value for key, value in others.items() if key not in defaults or defaults[key] != value})


def _text(value: Any) -> str:
    """A value as JSON; 1 and 1.0 are one value, true is another."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)


def _same(params: Mapping[str, Scalar]) -> str:
    return canonical_json({key: _text(value) for key, value in params.items()})


def _summaries(member: _Member) -> tuple[Summary, Summary]:
    metrics = [[student.metrics for student in made.students] for made in member.row.sets]
    return (
        statistics.summary([[m.acc_last for m in students] for students in metrics]),
        statistics.summary([[m.acc_best for m in students] for students in metrics]),
    )


def _holm(comparisons: Sequence[Comparison | None]) -> list[float | None]:
    tested = [found.p_value for found in comparisons if found is not None and found.p_value is not None]
    adjusted = iter(holm(tested))
    return [None if found is None or found.p_value is None else next(adjusted) for found in comparisons]


# 2 x 2 designs --------------------------------------------------------------------------------------------------------


def _designs(place: _Table, family: Sequence[_Member], published: Factorial) -> list[Design]:
    """One for each row that has both factors on, if at least two of the other corners have rows too."""
    by_params = {_same(member.params): member for member in family}
    found = []
    for full in family:
        if any(factor.parameter not in full.params or factor.is_off(full.params) for factor in published.factors):
            continue
        wanted = [full.params | _switched_off(published, corner) for corner in CORNERS]
        corners = [by_params.get(_same(params)) for params in wanted]
        if sum(member is not None for member in corners) < 3:
            continue
        found.append(_design(place, published, full, wanted, corners))
    return sorted(found, key=lambda design: (len(design.missing), len(design.differs)))


def _switched_off(published: Factorial, corner: Corner) -> Params:
    return {
        factor.parameter: factor.without
        for factor, on in zip(published.factors, corner, strict=True)
        if not on
    }  # fmt: skip


def _design(
    place: _Table, published: Factorial, full: _Member, wanted: Sequence[Params], corners: Sequence[_Member | None]
) -> Design:
    parameters = [factor.parameter for factor in published.factors]
    papers = _published_corners(place.published(full), wanted)
    one_source = None not in papers and len({_source(number) for number in papers if number is not None}) == 1
    present = [member for member in corners if member is not None]
    effects = []
    if len(present) == len(corners):
        scores = [place.scores(member) for member in present]
        differences = [statistics.contrast_of(scores, weights, place.where.n_test) for _, weights in EFFECTS]
        comparisons = [statistics.comparison_of(found) for found in differences]
        names = [*(factor.name for factor in published.factors), "interaction"]
        for i, (kind, weights) in enumerate(EFFECTS):
            values = [number.value for number in papers if number is not None]
            effects.append(
                Effect(
                    name=names[i],
                    kind=kind,
                    weights=list(weights),
                    comparison=comparisons[i],
                    p_holm=_holm(comparisons)[i],
                    visible=smallest_visible_difference(differences[i]),
                    paper=_sum(weights, values) if one_source else None,
                )
            )
    return Design(
        title=published.title,
        source=published.source,
        where=place.where,
        method=published.method,
        factors=published.factors,
        differs=_differs(full, place.where.dataset, parameters),
        setting=full.setting,
        cells=[_cell(*corner) for corner in zip(CORNERS, corners, papers, strict=True)],
        effects=effects,
        missing=[
            published.method + brackets({key: params[key] for key in parameters})
            for params, member in zip(wanted, corners, strict=True)
            if member is None
        ],
    )


def _cell(on: Corner, member: _Member | None, paper: PaperNumber | None) -> Cell:
    last, best = (None, None) if member is None else _summaries(member)
    return Cell(
        on=on,
        label=None if member is None else member.row.label,
        acc_last=last,
        acc_best=best,
        done=0 if member is None else len(member.row.finished),
        expected=0 if member is None else len(member.row.cells),
        paper=paper,
    )


def _published_corners(
    papers: Sequence[tuple[Params, PaperNumber]], wanted: Sequence[Params]
) -> list[PaperNumber | None]:
    """One number a corner: from the source that has the most of them, where it has one."""
    of_corner = [[number for params, number in papers if _same(params) == _same(corner)] for corner in wanted]
    sources = [_source(number) for numbers in of_corner for number in numbers]
    if not sources:
        return [None] * len(wanted)
    corners_of = {
        source: sum(any(_source(n) == source for n in numbers) for numbers in of_corner) for source in sources
    }
    fullest = max(corners_of, key=lambda source: corners_of[source])
    return [min(numbers, key=lambda number: _source(number) != fullest, default=None) for numbers in of_corner]


def _source(number: PaperNumber) -> tuple[str, str, str]:
    """A paper's ablation and its main table are two: they may disagree about one setting."""
    return number.arxiv, number.source, number.kind


def _sum(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def published_designs() -> list[PublishedDesign]:
    """Every 2 x 2 design that one source prints in full, whether it was measured here or not."""
    found = []
    for published in settings.factorials():
        for key, numbers in settings.published_settings(published.method).items():
            papers = _complete(published, numbers)
            if papers is None:
                continue
            dataset, ipc, student, protocol = key
            values = [number.value for number in papers]
            found.append(
                PublishedDesign(
                    title=published.title,
                    source=published.source,
                    method=published.method,
                    factors=published.factors,
                    dataset=dataset,
                    ipc=ipc,
                    student=student,
                    protocol=protocol,
                    cells=papers,
                    effects=[_sum(weights, values) for _, weights in EFFECTS],
                )
            )
    return found


def _complete(published: Factorial, numbers: Sequence[tuple[Params, PaperNumber]]) -> list[PaperNumber] | None:
    """The four corners from one source; None if no source has all of them."""
    for full, last in numbers:
        if any(factor.is_off(full) for factor in published.factors):
            continue
        same = [pair for pair in numbers if _source(pair[1]) == _source(last)]
        corners = _published_corners(same, [full | _switched_off(published, corner) for corner in CORNERS])
        papers = [number for number in corners if number is not None]
        if len(papers) == len(CORNERS):
            return papers
    return None


# Sweeps ---------------------------------------------------------------------------------------------------------------


def _sweeps(place: _Table, family: Sequence[_Member]) -> list[Sweep]:
    """For each parameter, the members that agree in all others."""
    found = []
    for parameter in dict.fromkeys(key for member in family for key in member.params):
        alike: dict[str, list[_Member]] = defaultdict(list)
        for member in family:
            if parameter in member.params:
                alike[_same(_without(member.params, parameter))].append(member)
        found += [_sweep(place, parameter, members) for members in alike.values() if len(members) > 1]
    return found


def _without(params: Mapping[str, Scalar], parameter: str) -> Params:
    return {key: value for key, value in params.items() if key != parameter}


def _sweep(place: _Table, parameter: str, members: Sequence[_Member]) -> Sweep:
    one, where = members[0], place.where
    known = settings.default_of(one.name, where.dataset, parameter)
    default, default_from = (None, "") if known is None else known
    at_default = [m for m in members if known is not None and _text(m.params[parameter]) == _text(default)]
    members = sorted(members, key=lambda member: _place(default)(member.params[parameter]))
    differences = [
        statistics.difference_of(place.scores(member), place.scores(at_default[0]), where.n_test)
        if at_default and member is not at_default[0]
        else None
        for member in members
    ]
    comparisons = [None if found is None else statistics.comparison_of(found) for found in differences]
    points = []
    for member, found, comparison, p_holm in zip(members, differences, comparisons, _holm(comparisons), strict=True):
        last, best = _summaries(member)
        points.append(
            SweepPoint(
                value=member.params[parameter],
                label=member.row.label,
                acc_last=last,
                acc_best=best,
                done=len(member.row.finished),
                expected=len(member.row.cells),
                difference=comparison,
                p_holm=p_holm,
                visible=None if found is None else smallest_visible_difference(found),
            )
        )
    papers: dict[str, PaperPoint] = {}
    for params, number in place.published(one):
        if parameter in params and _same(_without(params, parameter)) == _same(_without(one.params, parameter)):
            value = params[parameter]
            papers.setdefault(_text(value), PaperPoint(value=value, number=number))
    return Sweep(
        where=where,
        method=one.name,
        parameter=parameter,
        description=settings.description(one.name, parameter),
        differs=_differs(one, where.dataset, [parameter]),
        setting=one.setting,
        numeric=all(_is_number(member.params[parameter]) for member in members),
        default=default,
        default_from=default_from,
        points=points,
        papers=sorted(papers.values(), key=lambda paper: _place(default)(paper.value)),
    )


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _place(default: Scalar) -> Callable[[Scalar], tuple[Any, ...]]:
    """Numbers in their order; others by name with the default first."""

    def place(value: Scalar) -> tuple[Any, ...]:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (0, float(value), "")
        return (1, 0.0 if _text(value) == _text(default) else 1.0, _text(value))

    return place
