"""One parameter of a method at a time: rows that agree in all others, as a curve with the papers' values beside it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.spec import Scalar
from ddbench.reports.analyses.ablation_rows import (
    AblationTable,
    Member,
    differs_from_defaults,
    params_key,
    value_key,
)
from ddbench.reports.analyses.where import Where
from ddbench.reports.results import settings
from ddbench.reports.results.paper_numbers import PaperNumber
from ddbench.reports.results.settings import Params
from ddbench.reports.statistics import crossed
from ddbench.reports.statistics.crossed import Comparison, Summary
from ddbench.reports.statistics.equivalence import holm_of, smallest_visible_difference


class SweepPoint(Record):
    value: Scalar
    label: str
    acc_last: Summary
    acc_best: Summary
    done: int
    expected: int
    difference: Comparison | None
    """Difference to the default's row: None for itself, and where the default is not among the values."""
    p_holm: float | None
    """p-value after Holm's correction over the values of this sweep."""
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
    """Prior, precision and version that its rows share."""
    numeric: bool
    default: Scalar
    """The parameter's default; None also where none is known, and then `default_from` is empty."""
    default_from: str
    points: list[SweepPoint]
    """What was measured, by value: numbers in their order, others with the default first."""
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
        found = {value_key(value): value for value in [p.value for p in self.points] + [p.value for p in self.papers]}
        return sorted(found.values(), key=_place(self.default))


def sweeps(place: AblationTable, family: Sequence[Member]) -> list[Sweep]:
    """For each parameter, the members that agree in all others."""
    found = []
    for parameter in dict.fromkeys(key for member in family for key in member.params):
        alike: dict[str, list[Member]] = defaultdict(list)
        for member in family:
            if parameter in member.params:
                alike[params_key(_without(member.params, parameter))].append(member)
        found += [_sweep(place, parameter, members) for members in alike.values() if len(members) > 1]
    return found


def _without(params: Mapping[str, Scalar], parameter: str) -> Params:
    return {key: value for key, value in params.items() if key != parameter}


def _sweep(place: AblationTable, parameter: str, members: Sequence[Member]) -> Sweep:
    one, where = members[0], place.where
    known = settings.default_of(one.name, where.dataset, parameter)
    default, default_from = (None, "") if known is None else known
    at_default = [m for m in members if known is not None and value_key(m.params[parameter]) == value_key(default)]
    members = sorted(members, key=lambda member: _place(default)(member.params[parameter]))
    differences = [
        place.difference(member, at_default[0]) if at_default and member is not at_default[0] else None
        for member in members
    ]
    comparisons = [None if found is None else crossed.comparison_of(found) for found in differences]
    points = []
    for member, found, comparison, p_holm in zip(members, differences, comparisons, holm_of(comparisons), strict=True):
        points.append(
            SweepPoint(
                value=member.params[parameter],
                **place.measured(member),
                difference=comparison,
                p_holm=p_holm,
                visible=None if found is None else smallest_visible_difference(found),
            )
        )
    papers: dict[str, PaperPoint] = {}
    others = params_key(_without(one.params, parameter))
    for params, number in place.published(one):
        if parameter in params and params_key(_without(params, parameter)) == others:
            value = params[parameter]
            papers.setdefault(value_key(value), PaperPoint(value=value, number=number))
    return Sweep(
        where=where,
        method=one.name,
        parameter=parameter,
        description=settings.description(one.name, parameter),
        differs=differs_from_defaults(one, where.dataset, [parameter]),
        setting=one.setting,
        numeric=all(_is_number(member.params[parameter]) for member in members),
        default=default,
        default_from=default_from,
        points=points,
        papers=sorted(papers.values(), key=lambda paper: _place(default)(paper.value)),
    )


def _is_number(value: Scalar) -> bool:
    """Whether an axis can have it: no truth value, nor a whole number beyond all floats."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _place(default: Scalar) -> Callable[[Scalar], tuple[Any, ...]]:
    """Numbers in their order; others by name with the default first."""

    def place(value: Scalar) -> tuple[Any, ...]:
        if _is_number(value):
            return (0, value, "")
        return (1, 0.0 if value_key(value) == value_key(default) else 1.0, value_key(value))

    return place
