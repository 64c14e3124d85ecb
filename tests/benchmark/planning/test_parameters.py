"""Method < dataset < variant < user: whoever comes later wins, whatever is left unsaid stays."""

from __future__ import annotations

import itertools

import pytest

from ddbench.benchmark.core.errors import Collector, Problems, UsageError
from ddbench.benchmark.planning.parameters import in_order
from ddbench.datasets.base import Default
from ddbench.datasets.digits import Digits

LAYERS = ("dataset", "variant", "dataset's variant", "user")


@pytest.mark.parametrize("saying", [s for n in range(4) for s in itertools.combinations(LAYERS, n)])
def test_the_last_who_says_something_wins(saying: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"dataset": "m", "dataset's variant": "m-variant"}
    declared = {names[layer]: {"key": Default(layer, "measured")} for layer in saying if layer in names}
    declared["other"] = {"key": Default("nobody", "of another method")}
    monkeypatch.setattr(Digits, "method_defaults", declared)
    said = {layer: {"key": layer} if layer in saying else {} for layer in ("variant", "user")}
    expected = {"key": saying[-1]} if saying else {}
    assert in_order("m", Digits, said["variant"], said["user"], name="m-variant") == expected


def test_without_a_dataset_none_is_asked() -> None:
    assert in_order("dit", None, {"a": 1, "b": 1}, {"b": 2}) == {"a": 1, "b": 2}


def test_problems_of_several_blocks_are_told_once_each_and_together() -> None:
    problems = Collector()
    problems.raise_any()
    for message in ("first", "second", "first"):
        with problems.catching():
            raise UsageError(message)
    with problems.catching():
        raise Problems(["second", "third"])
    with pytest.raises(ZeroDivisionError), problems.catching():
        raise ZeroDivisionError
    with pytest.raises(Problems, match=r"^first\nsecond\nthird$"):
        problems.raise_any()
