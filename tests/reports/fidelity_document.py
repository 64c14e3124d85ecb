"""docs/fidelity.md from reports/reference/fidelity.yaml and the methods' own defaults:
`python -P tests/reports/fidelity_document.py > docs/fidelity.md`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml

from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.result import Record

FILE = Path(__file__).parents[2] / "reports" / "reference" / "fidelity.yaml"
HEAD = """# Fidelity

How faithful each method is to its paper and to the program that its authors released: every difference that is known
between the two and what is done here, the parameter that holds it with its default, and how it was checked. Set the
parameter to run the other form: `bench run --method 'dmgd[ot_gradient=envelope]'`.

*checked*: **golden**, outputs of the released program on the same inputs are reproduced, by the test named or by
`tests/parity/test_program_goldens.py`; **equation**, held to a second implementation or a closed form by the test
named; **reading**, paper or program were read and no test runs against them. Programs without a licence were read for
facts; no code was copied. To run one beside ours on the same classes, `external` has recipes for five of them
([external-recipes.md](external-recipes.md)).

Numbers of ours against the papers' are in `bench report` (page "reproduction"). Variants (`dmgd-dm`, `igd-minimax`, …)
are their base method with the parameters that `bench list methods NAME` shows.

This page is written from data by `python -P tests/reports/fidelity_document.py`; a test holds that.
"""


class Difference(Record):
    what: str
    paper: str
    program: str
    parameter: str | None = None
    here: str | None = None
    """What is done here where no parameter holds it."""
    checked: Literal["golden", "equation", "reading"]


class Fidelity(Record):
    method: str
    source: str
    test: str
    """The file that holds the checks other than by reading."""
    golden: str | None = None
    """The file that reproduces the program's outputs, if it is another."""
    differences: list[Difference]


def entries() -> list[Fidelity]:
    return [Fidelity.model_validate(one) for one in yaml.safe_load(FILE.read_text(encoding="utf-8"))]


def document() -> str:
    return HEAD + "".join(map(_section, entries()))


def _section(one: Fidelity) -> str:
    golden = f"; golden cases: `{one.golden}`" if one.golden else ""
    lines = ["", f"## {one.method}", f"{one.source}. Checks: `{one.test}`{golden}.", ""]
    lines += ["| what | paper | program | here | checked |", "|:--|:--|:--|:--|:--|"]
    fields: dict[str, Any] = METHODS.load(one.method).Params.model_fields
    overrides = METHODS.entry(one.method).overrides
    for difference in one.differences:
        here = difference.here
        if difference.parameter is not None:
            value = overrides.get(difference.parameter, fields[difference.parameter].default)
            default = json.dumps(value, ensure_ascii=False)
            here = f"`{difference.parameter}={default.strip(chr(34))}`"
        cells = (difference.what, difference.paper, difference.program, here or "", difference.checked)
        lines.append(f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(document(), end="")
