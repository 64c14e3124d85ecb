"""Parts of a method on and off, as 2 x 2 designs: main effects and interaction, measured and as papers print them.

Published numbers stand beside, from the same dataset, IPC, student and unmodified protocol; no estimate has them in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.spec import brackets
from ddbench.reports.analyses.ablation_rows import AblationTable, Member, differs_from_defaults, params_key
from ddbench.reports.analyses.where import Where
from ddbench.reports.results import settings
from ddbench.reports.results.paper_numbers import PaperNumber
from ddbench.reports.results.settings import Factor, Factorial, Params
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Comparison, Summary, weighted_sum
from ddbench.reports.statistics.equivalence import holm_of, smallest_visible_difference

Corner = tuple[bool, bool]
"""Which of the two factors are on."""
CORNERS: tuple[Corner, ...] = ((False, False), (True, False), (False, True), (True, True))
Kind = Literal["main", "interaction"]


class Cell(Record):
    """One corner of a 2 x 2 design."""

    on: Corner
    label: str | None = None
    """The row; None where there is none."""
    acc_last: Summary | None = None
    acc_best: Summary | None = None
    done: int = 0
    expected: int = 0
    paper: PaperNumber | None


class Effect(Record):
    """A contrast of the four corners, percent points."""

    name: str
    kind: Kind
    weights: list[float]
    """Weights of the corners, in the order of `cells`."""
    comparison: Comparison
    p_holm: float | None
    """p-value after Holm's correction over the three effects of this design."""
    visible: float | None
    """The true effect that this test finds with probability 0.8."""
    paper: float | None
    """This contrast of the four published numbers, where one source has them all. Its spread is not known."""


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
    """Corners: neither factor on, the first, the second, both."""
    effects: list[Effect]
    """Main effects and interaction; empty unless all four corners have finished students."""
    missing: list[str]
    """Parameters of the corners that no row has, `dmgd[semantic_matching=false]`."""


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
    """Corners: neither factor on, the first, the second, both."""
    effects: list[float]
    """Effects of the first and the second factor, interaction: arithmetic on means whose spread is not known."""


EFFECTS: tuple[tuple[Kind, tuple[float, ...]], ...] = (
    ("main", (-0.5, 0.5, -0.5, 0.5)),
    ("main", (-0.5, -0.5, 0.5, 0.5)),
    ("interaction", (1.0, -1.0, -1.0, 1.0)),
)
"""Weights of the corners. The interaction is the difference of differences: what both give beyond the sum of what each
gives alone."""


def designs(place: AblationTable, family: Sequence[Member], published: Factorial) -> list[Design]:
    """One for each row that has both factors on, if at least two of the other corners have rows too."""
    by_params = {params_key(member.params): member for member in family}
    found = []
    for full in family:
        if any(factor.parameter not in full.params or factor.is_off(full.params) for factor in published.factors):
            continue
        wanted = [full.params | _switched_off(published, corner) for corner in CORNERS]
        corners = [by_params.get(params_key(params)) for params in wanted]
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
    place: AblationTable, published: Factorial, full: Member, wanted: Sequence[Params], corners: Sequence[Member | None]
) -> Design:
    parameters = [factor.parameter for factor in published.factors]
    papers = _published_corners(place.published(full), wanted)
    one_source = None not in papers and len({_source(number) for number in papers if number is not None}) == 1
    present = [member for member in corners if member is not None]
    effects = []
    if len(present) == len(corners):
        scores = [place.scores(member) for member in present]
        differences = [crossed.contrast_of(scores, weights, place.where.n_test) for _, weights in EFFECTS]
        comparisons = [crossed.comparison_of(found) for found in differences]
        names = [*(factor.name for factor in published.factors), "interaction"]
        for i, (kind, weights) in enumerate(EFFECTS):
            values = [number.value for number in papers if number is not None]
            effects.append(
                Effect(
                    name=names[i],
                    kind=kind,
                    weights=list(weights),
                    comparison=comparisons[i],
                    p_holm=holm_of(comparisons)[i],
                    visible=smallest_visible_difference(differences[i]),
                    paper=weighted_sum(weights, values) if one_source else None,
                )
            )
    return Design(
        title=published.title,
        source=published.source,
        where=place.where,
        method=published.method,
        factors=published.factors,
        differs=differs_from_defaults(full, place.where.dataset, parameters),
        setting=full.setting,
        cells=[
            Cell(on=on, paper=paper, **({} if member is None else place.measured(member)))
            for on, member, paper in zip(CORNERS, corners, papers, strict=True)
        ],
        effects=effects,
        missing=[
            published.method + brackets({key: params[key] for key in parameters})
            for params, member in zip(wanted, corners, strict=True)
            if member is None
        ],
    )


def _published_corners(
    papers: Sequence[tuple[Params, PaperNumber]], wanted: Sequence[Params]
) -> list[PaperNumber | None]:
    """One number a corner: from the source that has the most of them, where it has one."""
    of_corner = [[number for params, number in papers if params_key(params) == params_key(corner)] for corner in wanted]
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
                    effects=[weighted_sum(weights, values) for _, weights in EFFECTS],
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
