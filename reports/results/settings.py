"""Which parameters a name stands for: a method's defaults on a dataset, and the setting that a published number is of.

Results outlive methods: what is not installed here has no defaults, and breaks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.spec import Scalar, brackets
from ddbench.benchmark.planning.parameters import in_order
from ddbench.datasets.base import Dataset
from ddbench.reports.results.paper_numbers import PaperNumber, all_published

FILE = Path(__file__).parents[1] / "reference" / "ablations.yaml"
Params = dict[str, Scalar]


class Factor(Record):
    """One thing that a method can leave out."""

    parameter: str
    name: str
    without: bool | int | float
    """The parameter's value that switches it off; any other one is "on"."""

    def is_off(self, params: Mapping[str, Scalar]) -> bool:
        """Whether these parameters switch it off. None and text do not."""
        value = params.get(self.parameter)
        return isinstance(value, bool | int | float) and value == self.without


class Factorial(Record):
    """A 2 x 2 ablation as a paper has it."""

    title: str
    source: str
    method: str
    factors: tuple[Factor, Factor]


class _Setting(Record):
    """The parameters of a published row that has no name here."""

    arxiv: str
    printed_as: str
    method: str
    params: Params


class _Ablations(Record):
    factorials: list[Factorial]
    settings: list[_Setting]


@cache
def _ablations() -> _Ablations:
    return _Ablations.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def factorials() -> list[Factorial]:
    """The 2 x 2 ablations that papers have of methods that are here."""
    return _ablations().factorials


def resolved(method: str, dataset: str, overrides: Mapping[str, Any]) -> Params | None:
    """All parameters of a base method, the overrides taken for a variant's (`planning.parameters`).

    None where the method is not installed, or has no such parameters.
    """
    try:
        given = in_order(method, _dataset(dataset), overrides)
        found: Params = METHODS.load(method).Params.model_validate(given).model_dump(mode="json")
    except Exception:  # not installed, or other parameters now; a plugin's own validators may raise anything
        return None
    return found


def default_of(method: str, dataset: str, parameter: str) -> tuple[Scalar, str] | None:
    """A parameter's default on a dataset and where it comes from; None where the method is not installed."""
    params = resolved(method, dataset, {})
    if params is None or parameter not in params:
        return None
    there = _dataset(dataset)
    declared = None if there is None else there.method_defaults.get(method, {}).get(parameter)
    return params[parameter], "the method's default" if declared is None else f"{dataset}: {declared.reason}"


def description(method: str, parameter: str) -> str:
    """What a method says of its parameter; empty where it is not installed."""
    try:
        field = METHODS.load(method).Params.model_fields.get(parameter)
    except (UsageError, ImportError):
        return ""
    return (field.description if field is not None else None) or ""


def setting_of(name: str, number: PaperNumber, dataset: str) -> tuple[str, Params] | None:
    """(base method, parameters) of a published number; None for a setting that is not known here.

    A method on a tuned prior is none: its parameters are not all that it is.

    Args:
        name: its method's name here; empty where it has none.
    """
    if not name:
        listed = _by_row().get((number.arxiv, number.printed_as))
        if listed is None:
            return None
        params = resolved(listed.method, dataset, listed.params)
        return None if params is None else (listed.method, params)
    try:
        entry = METHODS.entry(name)
    except UsageError:
        return None
    if entry.prior_tuned_by is not None:
        return None
    base = entry.variant_of or entry.name
    params = resolved(base, dataset, entry.overrides)
    return None if params is None else (base, params)


def selector_of(number: PaperNumber) -> str | None:
    """What runs a published row that has no name here, `cao2[refine_steps=0]`; None where its setting is not known."""
    listed = _by_row().get((number.arxiv, number.printed_as))
    return None if listed is None else f"{listed.method}{brackets(listed.params)}"


Conditions = tuple[str, int | None, str, str]
"""(dataset, IPC, student, protocol without version)."""


@cache
def published_settings(method: str) -> dict[Conditions, list[tuple[Params, PaperNumber]]]:
    """Every published number of a base method whose parameters are known, by where it is from, the most trustworthy
    first."""
    found: dict[Conditions, list[tuple[Params, PaperNumber]]] = {}
    for (name, dataset, ipc, student, protocol), number in all_published():
        setting = setting_of(name, number, dataset)
        if setting is not None and setting[0] == method:
            conditions = (dataset, None if ipc == "full" else int(ipc), student, protocol)
            found.setdefault(conditions, []).append((setting[1], number))
    return found


@cache
def _by_row() -> dict[tuple[str, str], _Setting]:
    return {(setting.arxiv, setting.printed_as): setting for setting in _ablations().settings}


def _dataset(name: str) -> type[Dataset] | None:
    """None where it is not installed."""
    try:
        found: type[Dataset] = DATASETS.load(name)
    except (UsageError, ImportError):
        return None
    return found
