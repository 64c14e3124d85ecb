"""Which value a method's parameter takes: the order in which those who have a say replace one another."""

from __future__ import annotations

from collections.abc import Mapping

from ddbench.benchmark.core.spec import Scalar
from ddbench.datasets.base import Dataset


def in_order(
    method: str,
    dataset: type[Dataset] | None,
    variant: Mapping[str, Scalar] | None = None,
    user: Mapping[str, Scalar] | None = None,
    *,
    name: str | None = None,
) -> dict[str, Scalar]:
    """What a method's `Params` are to be made from: method < dataset < variant < the dataset's for it < user, each
    replacing those before.

    1. *Method*: the defaults of its `Params`, which are the paper's. They are not in the answer; `Params` adds them.
    2. *Dataset*: what it declares for the method by its base name, with a reason (`Dataset.method_defaults`).
    3. *Variant*: the overrides of the registered name (`registry.Entry.overrides`).
    4. *Dataset, for the variant*: what it declares for the registered name, where a paper sets a variant by dataset.
    5. *User*: `--set key=value` for every method that has the parameter, then the selector's own `name[key=value]`.

    A prior has no say: it is part of a cell's identity by its hash, beside the parameters.

    Args:
        method: base name (`Method.name`), by which datasets declare their defaults.
        dataset: None where nothing but the method is asked for, as in listings.
        name: the variant's registered name; None for a base method.
    """
    own = {} if name == method else _declared(dataset, name)
    return _declared(dataset, method) | dict(variant or {}) | own | dict(user or {})


def _declared(dataset: type[Dataset] | None, name: str | None) -> dict[str, Scalar]:
    declared = {} if dataset is None or name is None else dataset.method_defaults.get(name, {})
    return {key: default.value for key, default in declared.items()}
