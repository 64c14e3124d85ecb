"""Parameters with which a registered method takes few steps, for tests that run them all."""

from __future__ import annotations

from typing import Any

from ddbench.benchmark.core.registry import METHODS
from ddbench.methods.inversion.params import InversionParams

STEPS = 8
"""Of samplers: few, but some in every window of every guidance."""
OF_INVERSIONS = 4
"""Each passes through every network of a committee; the stages of some must divide them."""
NAMES_STEPS = {"dmgd-dm-always": {"ot_window_last": STEPS - 1}, "delt": {"admissions": OF_INVERSIONS}}
"""What those need besides that name steps of the usual chain, or whose parts must divide the steps."""


def few_steps(name: str) -> dict[str, Any]:
    """Empty for a method that has no steps."""
    params = METHODS.load(name).Params
    if "steps" not in params.model_fields:
        return {}
    return {"steps": OF_INVERSIONS if issubclass(params, InversionParams) else STEPS} | NAMES_STEPS.get(name, {})
