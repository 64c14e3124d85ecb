"""Columns of data frames from the fields of models: a column's type is the field's annotation, its meaning the text
that stands under the field (docs/columns.md lists them). pandas is imported only where a frame is made."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}
"""All of them know missing values, so that a column has one type whatever is there."""


@dataclass(frozen=True)
class Column:
    """One column, of one field of a model."""

    name: str
    field: str
    dtype: str


@dataclass(frozen=True)
class Columns:
    """Neighbouring columns: the fields of one model."""

    model: type
    of: Callable[[Any], Any] = lambda line: line
    """A line's instance of the model; None for a line without values here."""
    names: Sequence[str] = ()
    """Which fields, in this order; empty: all of them."""
    leave: Sequence[str] = ()
    """Fields that have no place in a cell."""
    prefix: str = ""

    def __iter__(self) -> Iterator[Column]:
        """Raises TypeError for a field whose values do not fit into a cell."""
        annotations = get_type_hints(self.model)
        fields = getattr(self.model, "model_fields", None) or getattr(self.model, "__dataclass_fields__", {})
        for field in self.names or [name for name in fields if name not in self.leave]:
            name = self.prefix + field
            yield Column(name, field, _dtype(annotations[field], name))


def frame(parts: Sequence[Columns], lines: Iterable[Any]) -> pd.DataFrame:
    """One row per line; lists and mappings are joined to a text, what is missing is NA."""
    import pandas as pd

    lines, made = list(lines), {}
    for part in parts:
        instances = [part.of(line) for line in lines]
        for column in part:
            values = [None if one is None else _cell(getattr(one, column.field)) for one in instances]
            made[column.name] = pd.Series(values, dtype=pd.api.types.pandas_dtype(column.dtype))
    return pd.DataFrame(made)


def _dtype(annotation: Any, name: str) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = {_dtype(one, name) for one in get_args(annotation) if one is not types.NoneType}
        if len(kinds) == 1:
            return kinds.pop()
    if get_origin(annotation) is Literal:
        return DTYPES[type(get_args(annotation)[0])]
    scalars = all(one in DTYPES or one is ... for one in get_args(annotation))
    if get_origin(annotation) in (list, tuple, dict) and scalars:
        return "string"
    if annotation in DTYPES:
        return DTYPES[annotation]
    raise TypeError(f"column {name}: expected a truth value, number, text or list of them, got {annotation}")


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping):
        return "; ".join(f"{count} {what}" for what, count in value.items())
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
