"""`bench tune`: the validation part stands for the test images, nothing leads to these, the budget is kept."""

from __future__ import annotations

import dataclasses
import gc
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.commands import cli
from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.spec import DistillSpec, cell_id
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import tune
from ddbench.benchmark.running.tune import Choice, Trial
from ddbench.datasets.base import ArraySource, SplitData
from ddbench.datasets.digits import Digits
from ddbench.datasets.validation import WARNING, is_tuning, validation_of
from ddbench.reports.results import groups, rows

NAME = "digits:validation"


class Canary(ArraySource):
    def read(self, indices: Any) -> np.ndarray:
        raise AssertionError("a test image was read while tuning")


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Canary:
    """Digits, whose test images cannot be read without a crash."""
    whole = Digits().load("default", None, 8)
    poison = Canary(np.full((len(whole.test), 8, 8, 1), 200, np.uint8), whole.test.labels, whole.test.names)
    monkeypatch.setattr(Digits, "load", lambda *_: dataclasses.replace(whole, test=poison))
    return poison


# The validation part as a dataset -------------------------------------------------------------------------------------


def test_the_validation_part_takes_the_place_of_the_test_images() -> None:
    whole, part = Digits().load("default", None, 8), DATASETS.load(NAME)().load("default", None, 8)
    names = [whole.train.names[i] for i in whole.validation]
    assert list(part.test.names) == names
    assert set(part.train.names) == set(whole.train.names) - set(names)
    assert np.array_equal(part.test.read(range(5)), whole.train.read(whole.validation[:5]))
    assert part.warning == WARNING
    assert not {part.split_hash, part.content_hash} & {whole.split_hash, whole.content_hash}
    view = DATASETS.load(NAME)
    assert view is validation_of(Digits)
    assert view.name == NAME
    assert issubclass(view, Digits)
    assert view().split_hash("default", None) == part.split_hash
    assert view().content_hash("default", None, 8) == part.content_hash
    assert list(view().train_at("default", None, 8, "bilinear").names) == list(part.train.names)
    assert view().test_at("default", None, 8) is None
    with pytest.raises(UsageError, match="unknown dataset 'digits:validation:validation'"):
        DATASETS.load("digits:validation:validation")
    with pytest.raises(UsageError, match="unknown dataset 'digit'; did you mean 'digits'"):
        DATASETS.load("digit:validation")


def test_a_dataset_without_a_validation_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Digits().load("default", None, 8)
    monkeypatch.setattr(Digits, "load", lambda *_: dataclasses.replace(whole, validation=np.empty(0, np.int64)))
    with pytest.raises(UsageError, match="has no validation part"):
        DATASETS.load(NAME)().load("default", None, 8)


def reachable(start: object) -> Iterator[object]:
    """All that references lead to from an object, modules, classes and functions' globals aside."""
    seen, waiting = {id(start)}, [start]
    while waiting:
        thing = waiting.pop()
        yield thing
        if isinstance(thing, type) or type(thing).__name__ in ("module", "function", "builtin_function_or_method"):
            continue
        for other in gc.get_referents(thing):
            if id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def test_no_reference_leads_from_the_validation_split_to_the_test_images(canary: Canary) -> None:
    opened: SplitData = DATASETS.load(NAME)().load("default", None, 8)
    assert canary not in [thing for thing in reachable(opened) if isinstance(thing, Canary)]
    whole = Digits().load("default", None, 8)
    assert canary in [thing for thing in reachable(whole) if isinstance(thing, Canary)], "the search would find it"


def test_a_whole_tuning_run_reads_no_test_image_and_enters_no_leaderboard(canary: Canary, tmp_path: Path) -> None:
    tried = tune.settings([Choice.parse("support_points=5,10")], 2, 0, tune.usual_values("dmgd", NAME))
    options = {"ipc": "1", "seeds": "0", "repeats": 1, "protocol": "quick[epochs=1]", "device": "cpu"}
    chosen = [f"dmgd[steps=6,support_points={k}]" for k in (10, 5)]
    spec = run_spec({}, {**options, "methods": chosen, "datasets": [NAME], "out": tmp_path})
    plan, _, _ = plan_run(spec)
    store = Store(tmp_path)
    store.create()
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    try:
        for planned, cell in plan.cells():
            assert run_cell(store.add(cell, planned.launch).path) == EXIT_OK
    finally:
        signal.signal(signal.SIGTERM, handler)
        torch.set_num_threads(threads)
    found = tune.report(store, plan, "dmgd", NAME, tried, 2)
    assert [trial.by_ipc[1]["n"] for trial in found.trials] == [1, 1]
    assert found.settings_ever_tried == 2
    results = [result for cell in store.cell_dirs() if isinstance(result := cell.result(), EvaluateResult)]
    for result in results:
        assert result.dataset is not None
        assert result.dataset.n_test == 101
        assert result.dataset.warning == WARNING
        assert np.load(store.cell(result.cell).path / "predictions.npy").shape == (101,)
    assert len(results) == 2
    assert groups.group(rows.read(tmp_path)) == []
    assert len(rows.read(tmp_path).evaluates) == 2, "bench status shows them"


def test_an_ordinary_run_on_it_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["run", "-m", "random", "-d", NAME, "--out", str(tmp_path / "runs")])
    assert isinstance(done.exception, UsageError)
    assert "is for choosing parameters, by `bench tune`" in str(done.exception)
    assert is_tuning(NAME)
    assert not is_tuning("digits")


# Budget and values ----------------------------------------------------------------------------------------------------


def test_lists_are_tried_in_full_after_the_defaults() -> None:
    choices = [Choice.parse("a=1,2"), Choice.parse("b=x,null,true")]
    found = tune.settings(choices, 7, 0, {})
    assert found[0] == {}
    assert found[1:] == [{"a": a, "b": b} for a in (1, 2) for b in ("x", None, True)]
    assert len(tune.settings(choices, 6, 0, {"a": 1, "b": None, "c": 3})) == 6, "the defaults are not tried twice"
    with pytest.raises(UsageError, match="6 combinations and the defaults are 7 trials, more than --trials 6"):
        tune.settings(choices, 6, 0, {})


def test_ranges_fill_the_budget_and_stay_inside() -> None:
    choices = [Choice.parse("a=0.01..10:log"), Choice.parse("b=3..5"), Choice.parse("c=x,y")]
    found = tune.settings(choices, 40, 0, {})
    assert found[0] == {}
    assert len(found) == 40
    values = found[1:]
    assert all(0.01 <= float(v["a"]) <= 10 for v in values)  # type: ignore[arg-type]
    below = sum(float(v["a"]) < math.sqrt(0.1) for v in values)  # type: ignore[arg-type]
    assert 15 <= below <= 24, "as many below the geometric mean as above"
    assert {v["b"] for v in values} == {3, 4, 5}
    assert {v["c"] for v in values} == {"x", "y"}
    assert tune.settings(choices, 40, 0, {}) == found
    assert tune.settings(choices, 40, 1, {}) != found


def test_a_range_between_whole_numbers_has_fractions_where_the_parameter_does() -> None:
    """The example of the README: of CFG scales from 1 to 8 not the eight whole ones alone."""
    fractions = tune.fractions("dit")
    assert "cfg_scale" in fractions
    assert "steps" not in fractions
    found = tune.settings([Choice.parse("cfg_scale=1..8"), Choice.parse("steps=10..50")], 20, 0, {}, fractions)[1:]
    assert sum(float(values["cfg_scale"]) % 1 != 0 for values in found) >= 18  # type: ignore[arg-type]  # numbers, of all scalars
    assert all(isinstance(values["steps"], int) for values in found)


@pytest.mark.parametrize("seed", range(20))
def test_a_range_spends_the_whole_budget_and_tries_nothing_twice(seed: int) -> None:
    found = tune.settings([Choice.parse("a=0..5")], 6, seed, {"a": 1.0})
    assert sorted(values["a"] for values in found[1:]) == [0, 2, 3, 4, 5]  # type: ignore[type-var]  # numbers
    assert len(tune.settings([Choice.parse("a=0..5")], 9, seed, {"a": 1.0})) == 6, "there are no more"


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_values_lie_in_their_range(u: float, low: int, span: int, log: bool) -> None:
    value = Choice("x", (), float(low), float(low + span), whole=True, log=log).at(u)
    assert isinstance(value, int)
    assert low <= value <= low + span


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=3..1", "a=x..y", "a=0..1:log", "a=1..1"])
def test_malformed_parameters_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--param"):
        Choice.parse(text)


def test_values_that_the_method_refuses_are_told_before_anything_runs() -> None:
    with pytest.raises(Problems) as error:
        tune.selectors("dmgd", NAME, [{}, {"ot_scale": -1.0}, {"ot_scael": 1.0}])
    assert "dmgd[ot_scale=-1.0]: ot_scale" in str(error.value)
    assert "dmgd[ot_scael=1.0]: ot_scael: unknown" in str(error.value)


# What comes of it -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets() -> Callable[[str, list[int]], list[DistillSpec]]:
    def make(selector: str, seeds: list[int]) -> list[DistillSpec]:
        options = {"methods": [selector], "datasets": [NAME], "ipc": [1, 10], "seeds": seeds, "device": "cpu"}
        plan, _, _ = plan_run(run_spec({}, options), students=False)
        return [planned.spec for planned in plan.sets if planned.spec is not None]

    return make


def trial(sets: Any, better: dict[int, list[float]]) -> Trial:
    """One that is better than the defaults by so many points, IPC by IPC and seed by seed."""
    seeds = list(range(len(better[1])))
    usual, mine = sets("dit", seeds), sets("dit[cfg_scale=2]", seeds)
    base = {1: 50.0, 10: 80.0}
    scores = {cell_id(s): base[s.ipc or 0] + s.seed for s in usual}
    scores |= {cell_id(s): base[s.ipc or 0] + s.seed + better[s.ipc or 0][s.seed] for s in mine}
    return tune._trial("other", mine, usual, scores, {"cfg_scale": 2.0})


def test_differences_are_paired_over_seeds(sets: Any) -> None:
    found = trial(sets, {1: [1.0, 2.0, 3.0], 10: [4.0, 4.0, 4.0]})
    assert found.difference == pytest.approx((2 + 4) / 2)
    assert found.standard_error == pytest.approx(math.sqrt(1 / 3) / 2)  # variances 1 and 0 over three sets, two IPCs
    assert found.score == pytest.approx((53 + 85) / 2)
    assert found.by_ipc[1]["std"] == pytest.approx(2.0)
    one = trial(sets, {1: [1.0], 10: [1.0]})
    assert (one.difference, one.standard_error) == (1.0, None)


def test_the_defaults_stay_unless_clearly_beaten(sets: Any) -> None:
    usual = Trial("dit", {}, {}, 65.0, None, None, True)
    clear = trial(sets, {1: [1.0, 2.0, 3.0], 10: [4.0, 4.0, 4.0]})
    assert tune._choose([usual, clear])[0] == {"cfg_scale": 2.0}
    close = trial(sets, {1: [-2.0, 0.0, 3.0], 10: [1.0, 0.0, 0.0]})
    values, reason = tune._choose([usual, close])
    assert values == {}
    assert "the defaults stay" in reason
    worse = trial(sets, {1: [-1.0, -1.0, -1.0], 10: [-1.0, -1.0, -1.0]})
    assert tune._choose([usual, worse])[0] == {}
    assert "more --seeds" in tune._choose([usual, trial(sets, {1: [9.0], 10: [9.0]})])[1]


def test_an_unfinished_trial_has_no_score(sets: Any) -> None:
    usual, mine = sets("dit", [0]), sets("dit[cfg_scale=2]", [0])
    scores = {cell_id(spec): 50.0 for spec in [*usual, mine[0]]}
    found = tune._trial("other", mine, usual, scores, {})
    assert (found.score, found.difference) == (None, None)
    assert found.by_ipc[1]["n"] == 1


def test_the_plan_may_be_empty_of_results(tmp_path: Path) -> None:
    options = {"methods": tune.selectors("dit", NAME, [{}, {"cfg_scale": 2}]), "datasets": [NAME], "device": "cpu"}
    plan, _, _ = plan_run(run_spec({}, options))
    found = tune.report(Store(tmp_path), plan, "dit", NAME, [{}, {"cfg_scale": 2}], 2)
    assert isinstance(plan, Plan)
    assert [t.score for t in found.trials] == [None, None]
    assert found.chosen == {}
