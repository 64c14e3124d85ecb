"""Truth values where a number or a text is expected: pydantic takes true for 1, and YAML takes yes for true."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationInfo, field_validator


class NoTruthValues(BaseModel):
    """Base of what people fill in: a truth value is an error in every field that has no place for one. Without it
    `ot_scale: yes` in a study would be a run of its own, and `gpus: yes` one GPU."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and bool not in _types_in(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"expected no truth value, got {str(value).lower()}")
        return value


def _types_in(annotation: Any) -> set[Any]:
    """The types of a union or of a literal's values, or the one."""
    if get_origin(annotation) is Literal:
        return set(map(type, get_args(annotation)))
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType, Annotated) else ()
    return set().union(*map(_types_in, parts)) if parts else {annotation}
