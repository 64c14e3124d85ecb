"""Flags, YAML and selectors meet in one model; every problem is told at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.planning.run_spec import assignments, integers, parse_selector, run_spec, scalar
from ddbench.benchmark.planning.study import read_study


@pytest.mark.parametrize(
    ("text", "expected"), [("1,10", [1, 10]), ("0-2", [0, 1, 2]), ("0,3-4", [0, 3, 4]), (5, [5]), (" 1 , 2 ", [1, 2])]
)
def test_integers(text: str, expected: list[int]) -> None:
    assert integers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1;2", "3-1", "1.5", "-1"])
def test_integers_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="expected whole numbers|ends before"):
        integers(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dmgd", ("dmgd", {})),
        ("dmgd[ot_scale=0.05,0.5]", ("dmgd", {"ot_scale": [0.05, 0.5]})),
        ("dmgd[ot_scale=0.05,greedy=true]", ("dmgd", {"ot_scale": [0.05], "greedy": [True]})),
        ("dmgd[ot_scale=1e-3,support=mean]", ("dmgd", {"ot_scale": [0.001], "support": ["mean"]})),
    ],
)
def test_selectors(text: str, expected: tuple) -> None:
    assert parse_selector(text) == expected


@pytest.mark.parametrize("text", ["dmgd[", "dmgd[]", "dmgd[0.5]", "[a=1]", "a b"])
def test_malformed_selectors(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        parse_selector(text)


def test_scalars_and_assignments() -> None:
    assert [scalar(t) for t in ("1", "1.5", "1e-3", "true", "null", "mean")] == [1, 1.5, 0.001, True, None, "mean"]
    assert assignments(["a=1", "b=x=y"]) == {"a": 1, "b": "x=y"}
    with pytest.raises(UsageError, match="key=value"):
        assignments(["a"])
    with pytest.raises(UsageError, match="expected a number"):
        scalar("[1, 2]")


def test_methods_split_outside_brackets() -> None:
    spec = run_spec({}, {"methods": ["dmgd[ot_scale=0.05,0.5],dit", "random"], "datasets": "digits"})
    assert spec.methods == ["dmgd[ot_scale=0.05,0.5]", "dit", "random"]


def test_flags_win_over_the_study() -> None:
    study = {"methods": "dit", "datasets": "digits", "ipc": "1,10", "seeds": [0, 1]}
    spec = run_spec(study, {"ipc": "5"})
    assert (spec.ipc, spec.seeds) == ([5], [0, 1])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["0-2", 5], [0, 1, 2, 5]),
        (["0-2", "5,7"], [0, 1, 2, 5, 7]),
        (np.int64(3), [3]),
        (np.arange(2), [0, 1]),
        ([np.int64(3)], [3]),
        ((1,), [1]),
        (range(2), [0, 1]),
    ],
)
def test_each_part_of_a_list_is_read_as_it_would_be_alone(given: Any, expected: list[int]) -> None:
    assert run_spec({"methods": "dit", "datasets": "digits", "seeds": given}, {}).seeds == expected


@pytest.mark.parametrize(
    "field", ["ipc", "seeds", "repeats", "resolution", "jobs", "per_gpu", "shards", "batch_size", "timeout"]
)
def test_truth_values_are_no_numbers(field: str) -> None:
    for value in (True, [True, False]) if field in ("ipc", "seeds") else (True, False):
        with pytest.raises(UsageError, match=rf"^{field}: expected .*, got '?([Tt]rue|[Ff]alse)"):
            run_spec({"methods": "dit", "datasets": "digits", field: value}, {})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(Problems) as error:
        run_spec({"methodz": "dit"}, {"datasets": "digits", "ipc": "0", "repeats": 0, "device": "tpu"})
    text = str(error.value)
    for part in ("methodz: unknown", "methods: missing", "IPC counts", "repeats", "device"):
        assert part in text


def test_studies_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_study(tmp_path / "absent.yaml")
    for text, message in (("- a\n- b", "expected a mapping"), ("a: [", "not YAML")):
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(UsageError, match=message):
            read_study(tmp_path / "s.yaml")


def test_seeds_whose_students_have_seeds_that_tables_hold() -> None:
    largest = (2**63 - 1) // 1000 - 1
    assert run_spec({"methods": "dit", "datasets": "digits", "seeds": largest}, {}).seeds == [largest]
    pd.Series([largest * 1000 + 999], dtype="Int64")
    with pytest.raises(UsageError, match="seeds: expected numbers up to 9,223,372,036,854,774, got"):
        run_spec({"methods": "dit", "datasets": "digits", "seeds": largest + 1}, {})


@pytest.mark.parametrize("field", ["ipc", "seeds", "repeats", "resolution", "jobs", "per_gpu", "shards", "batch_size"])
@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 2**63, "9" * 5000, float("nan"), float("inf"), "1-" + "9" * 400]
)
def test_numbers_beyond_reason_are_a_short_line(field: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        run_spec({"methods": "random", "datasets": "digits"}, {field: value})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{field}: ")
    assert len(line) < 250


@pytest.mark.parametrize(
    "asked", [{"out": "~/runs"}, {"data": "~/runs"}, {"plugins": "~/runs"}, {"test_data": ["~/runs"]}]
)
def test_a_tilde_is_the_home_folder(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells do not see it in `--out=~/runs`, nor in Python and YAML: results went to a folder called `~`."""
    monkeypatch.setenv("HOME", "/home/somebody")
    ((name, _),) = asked.items()
    found = getattr(run_spec({}, {"methods": "random", "datasets": "digits", **asked}), name)
    assert found in (Path("/home/somebody/runs"), [Path("/home/somebody/runs")])
