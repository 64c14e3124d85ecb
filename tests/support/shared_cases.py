"""Small inputs in the form in which users have such things; they lie beside the checkout, or at $DDBENCH_TEST_CASES."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CASES = Path(os.environ.get("DDBENCH_TEST_CASES") or Path(__file__).parents[3] / "shared" / "cases")


def shared_case(name: str) -> Path:
    """The folder of a case; skips where it is absent."""
    if not (CASES / name).is_dir():
        pytest.skip(f"no case {name} at {CASES}; set DDBENCH_TEST_CASES")
    return CASES / name
