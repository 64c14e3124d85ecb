"""YAML as people mean it: texts that PyYAML reads as something else, or never ends reading."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.yaml_text import load_yaml
from ddbench.benchmark.planning.run_spec import assignments, parse_selector, scalar
from ddbench.benchmark.planning.study import read_study, run_specs

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
REFUSED = {
    "010": "010 would be read as another number",
    "-007": "-007 would be read as another number",
    "1:30": "1:30 would be read as another number",
    "0x_": "does not fit its type",
    "!!bool x": "does not fit its type",
    "!!int x": "does not fit its type",
    "!!timestamp 2001-13-45": "does not fit its type",
    "!!python/object/apply:os.mkdir [x]": "could not determine a constructor",
    "9" * 5000: "does not fit its type",
    "[" * 900: "nested too deeply|expected",
    "[" * 900 + "]" * 900: "nested too deeply",
    "{a: " * 900 + "1" + "}" * 900: "nested too deeply",
    "&a [*a]": "an anchor contains itself",
    BOMB: "stand for more than 100,000 values",
    "{a: 1, b: 2, a: 3}": "the key 'a' is there twice",
    "x: {steps: 3, steps: 4}": "the key 'steps' is there twice",
    "a: &a {b: 1}\nc: {<<: *a}": "merge keys",
    "a: 1\nb: [1, 2": "line 2: expected",
    "a:\n  'b": "line 2: found unexpected end",
    "!!float {}": "does not fit its type",
    "a: \x07": "special characters are not allowed",
    "? [a]\n: b": "unhashable",
    '"a\\e]0;owned\\a"': r"a text with control characters, 'a\\x1b\]0;owned",
    '{"a\\u202e": 1}': "a text with control characters",
    "a: 1\n--- \nb: 2": "but found another document",
    "x" * 2_000_000: "characters; expected at most",
}


def test_levels_are_bound_whatever_libraries_make_of_pythons_limit() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        assert load_yaml("[" * 100 + "]" * 100)
        for text in ("[" * 101 + "]" * 101, "{a: " * 101 + "1" + "}" * 101, "&a [*a]", "&a {b: [1, {c: *a}]}"):
            with pytest.raises(UsageError, match=r"nested too deeply \(more than 100 levels\), or an anchor contains"):
                load_yaml(text)
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_yaml_reads_as_something_else_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=REFUSED[text]) as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value)
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"^--config .*study\.yaml: ") as of_study:
        read_study(tmp_path / "study.yaml")
    with pytest.raises(UsageError) as of_value:
        scalar(text)
    for error in (of_study, of_value):
        assert len(str(error.value)) < 600
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10), ("0", 0), ("-3", -3), ("1_000", 1000), ("0.05", 0.05), ("1e-3", "1e-3"), ("0.5e+3", 500.0),
        ("true", True), ("no", False), ("null", None), ("", None), ("'010'", "010"), ("2001-01-01", "2001-01-01"),
        ("2001-13-45", "2001-13-45"), ("a: [1, 2]", {"a": [1, 2]}), ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("low@10+high", "low@10+high"), ("00a", "00a"),
    ],
)  # fmt: skip
def test_the_rest_is_what_it_was(text: str, value: Any) -> None:
    assert load_yaml(text) == value


def test_where_values_are_written() -> None:
    assert assignments(["steps=10", "x=1e-3"]) == {"steps": 10, "x": 1e-3}
    for read in (lambda: assignments(["steps=010"]), lambda: parse_selector("dmgd[steps=010]")):
        with pytest.raises(UsageError, match="'010' is not a value: 010 would be read as another number"):
            read()


def test_a_long_value_is_shown_in_short(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(f"methods: [dmgd]\nipc: {['x' * 50] * 1000}\nruns: [{{steps: 3}}]\n")
    with pytest.raises(UsageError) as caught:
        run_specs(read_study(tmp_path / "study.yaml"), {})
    assert max(map(len, str(caught.value).splitlines())) < 400


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="a01:-_ .[]{}&*!?|>'\"\n#%@,<xe+", max_size=30))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for read in (load_yaml, scalar):
        try:
            read(text)
        except UsageError as error:
            assert "\n" not in str(error)  # noqa: PT017 - what is refused is refused in a line
