"""The methods that a selector stands for on a dataset, each with all of its parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ddbench.benchmark.core.errors import Collector
from ddbench.benchmark.core.near_names import did_you_mean
from ddbench.benchmark.core.registry import METHODS, Entry, plugin_sha256
from ddbench.benchmark.core.spec import MethodSpec, Scalar, brackets
from ddbench.benchmark.planning import parameters
from ddbench.benchmark.planning.run_spec import describe, parse_selector
from ddbench.datasets.base import Dataset
from ddbench.methods.base import Method


@dataclass(frozen=True)
class Contestant:
    """A method with resolved parameters on one dataset."""

    label: str
    """Display name: the registered name with exactly these parameters, else `name[what the user changed]`."""
    method: type[Method]
    spec: MethodSpec
    """Name, version and all parameters: what enters a cell's id."""
    prior_tuned_by: str | None = None
    """The method that tunes the run's prior before this one gets it (`registry.Entry`)."""

    def instance(self) -> Method:
        """The method with these parameters; a plugin's own code may raise anything."""
        return self.method(self.method.Params.model_validate(self.spec.params))


def expand_selectors(selectors: Sequence[str]) -> list[tuple[str, bool]]:
    """Replace `all` (main contestants and references) and `all+ablations` (every method) by names.

    Returns (selector, whether the user named it) pairs.
    """
    expanded: dict[str, bool] = {}
    for selector in selectors:
        if selector in ("all", "all+ablations"):
            for entry in METHODS:
                if selector == "all+ablations" or not {"main", "reference"}.isdisjoint(entry.tags):
                    expanded.setdefault(entry.name, False)
        else:
            expanded[selector] = True
    return list(expanded.items())


def load_method(selector: str) -> type[Method]:
    """The class behind a selector's name.

    Raises:
        UsageError: unknown or unavailable method, or no selector at all.
    """
    method: type[Method] = METHODS.load(parse_selector(selector)[0])
    return method


def contestants(
    selector: str, dataset: type[Dataset], user: Mapping[str, Scalar], used_keys: set[str]
) -> list[Contestant]:
    """The methods that a selector stands for on a dataset: one, or one for each value of a sweep.

    Args:
        user: the run's `--set`, of which a method takes the parameters that it has.
        used_keys: gets the names of those.

    Raises:
        Problems: unknown method, unknown or out-of-range parameters.
    """
    name, swept = parse_selector(selector)
    entry, method = METHODS.entry(name), load_method(selector)
    known = method.Params.model_fields
    shared = {key: value for key, value in user.items() if key in known}
    used_keys.update(shared)
    found, problems = [], Collector()
    for values in itertools.product(*swept.values()):
        own = shared | dict(zip(swept, values, strict=True))
        given = parameters.in_order(method.name, dataset, entry.overrides, own, name=name)
        try:
            params = method.Params.model_validate(given).model_dump(mode="json")
        except ValidationError as error:
            problems.add(*describe(error, prefix=f"{name}: parameter "))
            otherwise = f"it has: {', '.join(known) or 'none'}"
            problems.add(*(f"{name}: {key}: {did_you_mean(key, known, otherwise)}" for key in own if key not in known))
            continue
        except Exception as error:  # a plugin's own validators may raise anything
            problems.add(f"{name}: checking its parameters failed: {type(error).__name__}: {error}")
            continue
        spec = MethodSpec(name=method.name, version=method.version, params=params, source_sha256=plugin_sha256(method))
        label = _label(name, own, params, method, dataset)
        found.append(Contestant(label, method, spec, entry.prior_tuned_by))
    problems.raise_any()
    return found


def _label(
    name: str, own: Mapping[str, Scalar], params: Mapping[str, Scalar], method: type[Method], dataset: type[Dataset]
) -> str:
    def resolved(entry: Entry) -> dict[str, Any]:
        given = parameters.in_order(method.name, dataset, entry.overrides, name=entry.name)
        return method.Params.model_validate(given).model_dump(mode="json")

    here = METHODS.entry(name)
    family = [here, *(e for e in METHODS if method.name in (e.name, e.variant_of) and e is not here)]
    for entry in family:
        if entry.prior_tuned_by == here.prior_tuned_by and resolved(entry) == params:
            return entry.name
    base = resolved(here)
    return name + brackets({key: params.get(key) for key in own if params.get(key) != base.get(key)})
