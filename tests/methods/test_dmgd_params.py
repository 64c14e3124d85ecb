"""DMGD's parameters and the registered variants."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ddbench.benchmark.core.registry import METHODS
from ddbench.methods.base import Method
from ddbench.methods.builtin import ENTRIES
from ddbench.methods.dmgd.method import DMGD


def test_defaults_are_the_released_programs() -> None:
    p = DMGD.Params()
    assert (p.steps, p.cfg_scale, p.label_noise_weight, p.label_mix_weight) == (50, 4.0, 0.06, 0.01)
    assert (p.label_t_lower, p.label_t_upper) == (500, 900)
    assert (p.ot_scale, p.ot_epsilon, p.ot_iterations, p.support_points) == (0.5, 0.1, 5, 10)
    assert (p.ot_window_first, p.ot_window_last) == (30, 45)
    assert p.semantic_matching
    assert p.distribution_matching
    assert p.greedy


@pytest.mark.parametrize(("steps", "window"), [(50, (30, 45)), (25, (15, 22)), (250, (152, 229)), ("10", (6, 8))])
def test_the_window_keeps_its_times_in_other_chains(steps: Any, window: tuple[int, int]) -> None:
    p = DMGD.Params(steps=steps)
    assert (p.ot_window_first, p.ot_window_last) == window
    # t of the window's ends, within half a step of the longer chain's spacing
    for end, original in zip(window, (30, 45), strict=True):
        assert end / (int(steps) - 1) == pytest.approx(original / 49, abs=0.5 / (int(steps) - 1) + 1e-9)


def test_a_given_window_is_taken_as_given() -> None:
    p = DMGD.Params(steps=100, ot_window_first=3)
    assert (p.ot_window_first, p.ot_window_last) == (3, 91)
    again = DMGD.Params.model_validate(p.model_dump())
    assert again == p


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"otscale": 1}, "otscale"),
        ({"steps": 1}, "greater than or equal to 2"),
        ({"steps": "many"}, "valid integer"),
        ({"ot_epsilon": 0}, "greater than 0"),
        ({"ot_iterations": 0}, "greater than or equal to 1"),
        ({"support_points": 0}, "greater than or equal to 1"),
        ({"label_noise_weight": -0.1}, "greater than or equal to 0"),
        ({"cfg_scale": float("nan")}, "cfg_scale"),
        ({"ot_scale": float("inf")}, "ot_scale"),
        ({"label_noise": "cauchy"}, "'uniform' or 'normal'"),
        ({"label_t_lower": 900}, "label_t_lower < label_t_upper, got 900 and 900"),
        ({"ot_window_last": 50}, "steps - 1 = 49"),
        ({"ot_window_first": 46}, "ot_window_first ≤ ot_window_last"),
    ],
)
def test_bad_values_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DMGD.Params(**given)


def test_every_parameter_is_described() -> None:
    assert all(field.description for field in DMGD.Params.model_fields.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_loads_and_its_overrides_are_valid(entry: Any) -> None:
    method = METHODS.load(entry.name)
    assert issubclass(method, Method)
    assert entry.summary
    assert ("fine-tunes" if entry.prior_tuned_by else str(method.cost_class)) in entry.tags
    assert entry.variant_of or method.name == entry.name
    params = method.Params(**entry.overrides)
    for name, value in entry.overrides.items():
        assert getattr(params, name) == value
        assert value != method.Params.model_fields[name].default, f"{name} is the default already"


def test_no_two_entries_are_the_same_method() -> None:
    resolved = [
        (METHODS.load(e.name).name, METHODS.load(e.name).Params(**e.overrides), e.prior_tuned_by) for e in ENTRIES
    ]
    assert all(first != second for i, first in enumerate(resolved) for second in resolved[:i])


def test_the_papers_table_of_variants_is_complete() -> None:
    names = {entry.name for entry in ENTRIES}
    papers = [
        "sm",
        "dm",
        "soft-only",
        "noise-only",
        "mean",
        "density",
        "no-exploration",
        "no-refinement",
        "dm-always",
        "joint",
        "paper",
    ]
    assert {"dmgd", "dit", "dit-cfg1", "random", "random-first", "full"} | {f"dmgd-{name}" for name in papers} <= names
