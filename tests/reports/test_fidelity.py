"""docs/fidelity.md: every method has its entry, and what it says of parameters and tests is there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ddbench.benchmark.core.registry import METHODS

ROOT = Path(__file__).parents[2]
NOT_FROM_A_PAPER = {"full", "random-first", "external"}
"""Nothing can differ: the whole set, the first files, another program as it is."""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fidelity_document", Path(__file__).with_name("fidelity_document.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fidelity_document"] = module
    spec.loader.exec_module(module)
    return module


document = load()


def test_every_method_of_a_paper_has_its_entry() -> None:
    bases = {entry.name for entry in METHODS if entry.variant_of is None and entry.origin == "built-in"}
    named = [one.method for one in document.entries()]
    assert len(set(named)) == len(named)
    assert bases - NOT_FROM_A_PAPER <= set(named) <= {entry.name for entry in METHODS}, "a variant may have one too"


@pytest.mark.parametrize("one", document.entries(), ids=lambda one: one.method)
def test_what_an_entry_names_is_there(one: object) -> None:
    assert (ROOT / one.test).is_file()  # type: ignore[attr-defined]
    assert one.golden is None or (ROOT / one.golden).is_file()  # type: ignore[attr-defined]
    parameters = METHODS.load(one.method).Params.model_fields  # type: ignore[attr-defined]
    for difference in one.differences:  # type: ignore[attr-defined]
        assert (difference.parameter is None) == (difference.here is not None), difference.what
        assert difference.parameter is None or difference.parameter in parameters
        for file in re.findall(r"(?:tests|docs)/[\w/.-]+\.\w+", f"{difference.here} {difference.program}"):
            assert (ROOT / file).is_file(), file


def test_the_page_is_written_from_the_data() -> None:
    again = "write it again: python -P tests/reports/fidelity_document.py > docs/fidelity.md"
    assert (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8") == document.document(), again
