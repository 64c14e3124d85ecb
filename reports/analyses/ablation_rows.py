"""The rows that an ablation compares: families of one method in one table, and what papers have of them.

Rows are matched by their parameters, never by their names. Two rows are of one family if they are equal in all that
makes a method as run (`groups.RowKey`: version, prior, precision, devices) but the parameters.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ddbench.benchmark.core.spec import MethodSpec, Scalar, brackets, canonical_json
from ddbench.benchmark.core.store import Store
from ddbench.reports.analyses.where import where
from ddbench.reports.results import groups, rows, settings
from ddbench.reports.results.paper_numbers import PaperNumber, published_cell, stands_beside
from ddbench.reports.results.settings import Params
from ddbench.reports.statistics.crossed import Difference, SetScore, difference_of
from ddbench.reports.tables.leaderboard import pooled_over
from ddbench.reports.tables.scores import accuracies_of, scores_of, summary_of


class Member:
    """A row with a method and a finished student."""

    def __init__(self, row: groups.Row, spec: MethodSpec) -> None:
        self.row, self.name, self.spec, self.params = row, spec.name, spec, dict(spec.params)
        self.tuned = row.prior is not None and bool(row.prior.tuned_by)

    @property
    def setting(self) -> str:
        sha, precision = self.row.key.prior_sha256, self.row.key.precision
        name = "unknown" if self.row.prior is None else rows.printable(self.row.prior.name)
        prior = [] if sha is None else [f"prior {name} ({sha[:8]})", str(precision)]
        return ", ".join([*prior, f"version {self.spec.version}"])

    @property
    def kin(self) -> tuple[Any, ...]:
        """What members of one family share: all but the parameters."""
        made = self.row.key
        devices = (made.precision, made.distill_device, made.evaluate_device)
        return (self.name, self.spec.version, self.spec.source_sha256, made.prior_sha256, *devices, self.tuned)


class AblationTable:
    """One table: what is published for it, its rows' scores, read once, and the variance that they share."""

    def __init__(self, store: Store, table: groups.Table) -> None:
        key = table.key
        self.store = store
        self.where = where(table)
        self.papers: list[tuple[str, Params, PaperNumber]] = []
        self._protocol = table.rows[0].cells[0].spec.protocol.name
        if not self.where.modified_protocol:
            for name, number in published_cell(**key.conditions(self._protocol)):
                if (setting := settings.setting_of(name, number, key.dataset)) is not None:
                    self.papers.append((*setting, number))
        self._scores: dict[int, list[SetScore]] = {}
        self._places = {id(row): place for place, row in enumerate(table.rows)}
        self._variance = pooled_over(table.rows, [accuracies_of(row) for row in table.rows])

    def scores(self, member: Member) -> list[SetScore]:
        if id(member) not in self._scores:
            self._scores[id(member)] = scores_of(self.store, member.row)
        return self._scores[id(member)]

    def measured(self, member: Member) -> dict[str, Any]:
        """What points and corners say of a row: intervals as the leaderboard has them."""
        row = member.row
        return {
            "label": row.label,
            "acc_last": summary_of(row, "acc_last", self._variance.of_mean(self._places[id(row)])),
            "acc_best": summary_of(row, "acc_best"),
            "done": len(row.finished),
            "expected": len(row.cells),
        }

    def difference(self, a: Member, b: Member) -> Difference:
        """Of two rows' accuracies, as the leaderboard tests it."""
        between = partial(self._variance.of_difference, self._places[id(a.row)], self._places[id(b.row)])
        return difference_of(self.scores(a), self.scores(b), self.where.n_test, between)

    def published(self, member: Member) -> list[tuple[Params, PaperNumber]]:
        """Of this member's method on the prior of each number, untuned."""
        if member.tuned:
            return []
        beside = partial(stands_beside, method=member.name, prior=member.row.prior, protocol=self._protocol)
        return [(params, number) for name, params, number in self.papers if name == member.name and beside(number)]


def families(table: groups.Table) -> list[list[Member]]:
    """Members that differ in parameters only; two or more."""
    families: dict[tuple[Any, ...], list[Member]] = defaultdict(list)
    for row in table.rows:
        spec = row.method
        if spec is not None and row.finished and not row.reference and row.key.images_sha256 is None:
            member = Member(row, spec)
            families[member.kin].append(member)
    return [family for family in families.values() if len(family) > 1]


def differs_from_defaults(member: Member, dataset: str, without: Sequence[str]) -> str:
    defaults = settings.resolved(member.name, dataset, {})
    if defaults is None:
        return ""
    others = {key: value for key, value in member.params.items() if key not in without}
    return brackets({key: value for key, value in others.items() if key not in defaults or defaults[key] != value})


def value_key(value: Any) -> str:
    """A value as JSON; 1 and 1.0 are one value, true is another."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)


def params_key(params: Mapping[str, Scalar]) -> str:
    return canonical_json({key: value_key(value) for key, value in params.items()})
