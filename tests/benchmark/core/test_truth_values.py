"""A truth value is no number: in a method's parameters, a run, or a cluster's description."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from ddbench.benchmark.cluster.site import Site
from ddbench.benchmark.core.spec import NoTruthValues
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.methods.base import Params


class Filled(NoTruthValues):
    count: int = 1
    share: float | None = None
    name: str = ""
    on: bool = False
    either: bool | int = 0
    way: Literal["a", True] = "a"


@pytest.mark.parametrize("field", ["count", "share", "name"])
def test_fields_without_a_place_for_one_refuse_it(field: str) -> None:
    for value in (True, False):
        with pytest.raises(ValidationError, match=f"expected no truth value, got {str(value).lower()}"):
            Filled.model_validate({field: value})


def test_fields_with_a_place_for_one_take_it() -> None:
    assert Filled.model_validate({"on": True, "either": True, "way": True}).model_dump(include={"on", "way"}) == {
        "on": True,
        "way": True,
    }


RUN: dict[str, Any] = {"methods": ["random"], "datasets": ["digits"]}


@pytest.mark.parametrize(
    ("model", "given"),
    [
        *((RunSpec, {**RUN, name: True}) for name in ("repeats", "resolution", "per_gpu", "timeout")),
        *((RunSpec, {**RUN, name: True}) for name in ("jobs", "shards", "batch_size", "student")),
        (Site, {"stages": {"distill": {"gpus": True}}}),
        (Site, {"idle_minutes": True}),
    ],
)
def test_what_people_fill_in_is_of_that_kind(model: type[NoTruthValues], given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="expected no truth value, got true"):
        model.model_validate(given)


def test_parameters_and_runs_have_one_rule() -> None:
    assert issubclass(Params, NoTruthValues)
    assert issubclass(RunSpec, NoTruthValues)
    assert RunSpec.model_validate({**RUN, "retry_failed": True}).retry_failed
