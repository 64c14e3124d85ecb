"""What every registered method promises, variants and `full` included (`methods/base.py`): the checks of `bench check`,
and what those cannot know of a method that is not registered here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ddbench.benchmark.check.check import subject_of
from ddbench.benchmark.check.checks import CHECKS
from ddbench.benchmark.check.comparison import expect_same
from ddbench.benchmark.check.runs import small_tuner
from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.core.spec import brackets
from ddbench.benchmark.planning.contestants import contestants
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.base import SplitData
from ddbench.datasets.digits import Digits
from ddbench.methods.base import DistillTask, Method


def over(condition: Callable[[type[Method]], bool] = lambda method: True) -> pytest.MarkDecorator:
    """Parametrise over the registered names whose method meets a condition. A small budget differs from its method in
    what small runs make small, so it is left out."""
    names = [entry.name for entry in METHODS if "small" not in entry.tags]
    return pytest.mark.parametrize("name", [name for name in names if condition(METHODS.load(name))])


every_method = over()
every_name = pytest.mark.parametrize("name", [entry.name for entry in METHODS])
VARIANTS = [entry for entry in METHODS if entry.variant_of is not None and "small" not in entry.tags]


# The checks of `bench check` ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
@every_method
def test_it_keeps_the_contract(name: str, check: str, judged: Any) -> None:
    (finding,) = [finding for finding in judged(name).report.findings if finding.check == check]
    if finding.outcome == "skip":
        pytest.skip(finding.reason)
    assert finding.outcome == "pass", finding.reason


@pytest.mark.parametrize("check", ["contract", "parameters"])
@pytest.mark.parametrize("name", [entry.name for entry in METHODS if "small" in entry.tags])
def test_a_small_budget_declares_what_it_should(name: str, check: str, planted: Any) -> None:
    with subject_of(name, {}, planted) as subject:
        CHECKS[check].run(subject)


def documented() -> dict[str, tuple[int, str]]:
    """Name -> (checks passed, why "real images", or another check that it names, was skipped) in the documentation's
    table."""
    text = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| ([^|]*) \|", text, re.MULTILINE)
    return {name: (int(passed), why.strip()) for name, passed, why in rows}


def test_the_documentation_lists_every_method() -> None:
    assert set(documented()) == {entry.name for entry in METHODS}


@every_method
def test_no_more_is_skipped_than_the_documentation_says(name: str, judged: Any) -> None:
    passed, why = documented()[name]
    findings = judged(name).report.findings
    assert sum(finding.outcome == "pass" for finding in findings) == passed
    skipped = {finding.check: finding.reason for finding in findings if finding.outcome == "skip"}
    check = "labels" if why.startswith("labels: ") else "real images"
    assert set(skipped) == ({check} if why else set())
    assert all(reason.startswith(why.removeprefix("labels: ")) for reason in skipped.values())


# What the registry says -----------------------------------------------------------------------------------------------


def test_methods_are_registered_in_every_role() -> None:
    tags = {tag for entry in METHODS for tag in entry.tags}
    assert {"main", "reference", "ablation"} <= tags
    assert not METHODS.broken


def cost_class(name: str) -> str:
    """The method's own; on a tuned prior its images cost a fine-tuning, too."""
    return "fine-tunes" if METHODS.entry(name).prior_tuned_by else str(METHODS.load(name).cost_class)


@every_name
def test_tags(name: str) -> None:
    tags = METHODS.entry(name).tags
    assert cost_class(name) in tags, "listings filter by tags"
    assert not {"main", "reference", "ablation", "external"}.isdisjoint(tags), "`--method all` goes by tags"


@pytest.mark.parametrize("dataset", [entry.name for entry in DATASETS])
def test_no_two_names_are_the_same_method(dataset: str) -> None:
    resolved: dict[str, str] = {}
    for entry in METHODS:
        (contestant,) = contestants(entry.name, DATASETS.load(dataset), {}, set())
        assert contestant.label == entry.name
        key = contestant.spec.model_dump_json() + str(contestant.prior_tuned_by)
        twin = resolved.setdefault(key, entry.name)
        # A small budget may be what a small dataset's defaults are already.
        already_small = "small" in entry.tags and twin == entry.variant_of and dataset == "digits"
        assert twin == entry.name or already_small, f"{entry.name} and {twin} are the same on {dataset}"


@pytest.mark.parametrize("variant", VARIANTS, ids=[entry.name for entry in VARIANTS])
def test_a_variants_overrides_reach_the_images(variant: Any, judged: Any) -> None:
    one, other = judged(variant.name).images, judged(variant.variant_of).images
    assert any(not np.array_equal(image.pixels, other[key].pixels) for key, image in one.items())


@over(lambda method: getattr(method, "nested", False) and method.selects)
def test_a_larger_ipc_keeps_the_images_of_a_smaller_one(name: str, judged: Any) -> None:
    method = judged(name)
    assert len(method.fewer) == len(method.images) / 2
    expect_same(method.fewer, {key: method.images[key] for key in method.fewer}, "IPC 1 of IPC 2")


# What a method may see ------------------------------------------------------------------------------------------------


@every_method
def test_the_engine_distills_without_showing_a_test_image(
    name: str, judged: Any, planted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from ddbench.benchmark.cells import distill as engine
    from ddbench.benchmark.cells.meter import Meter
    from ddbench.benchmark.cells.progress import Progress
    from ddbench.benchmark.core.store import CellPlan, Store
    from ddbench.datasets.image_sets import read_set

    params = judged(name).report.params  # before tasks are counted: judging makes some
    tasks: list[DistillTask] = []
    monkeypatch.setattr(engine, "DistillTask", lambda **given: tasks.append(DistillTask(**given)) or tasks[-1])
    entry, split = METHODS.entry(name), planted.split
    if entry.prior_tuned_by is not None:
        quick = dataclasses.replace(entry, prior_tuned_by=small_tuner(entry.prior_tuned_by))
        monkeypatch.setitem(METHODS.entries(), name, quick)
    options = {"methods": name + brackets(params), "datasets": "digits", "ipc": "1", "seeds": "0"}
    planted.canary.reads.clear()
    with planted.as_digits():
        plan, _, _ = plan_run(run_spec({}, {**options, "device": "cpu"}), students=False)
        (planned,) = plan.sets
        store = Store(tmp_path / "runs")
        store.create()
        cell = store.add(planned.spec, planned.launch)
        meter = Meter(torch.device("cpu"), cell.path / "spent.json")
        cell_plan, progress = CellPlan(batch_size=64, threads=1), Progress(cell.path / "progress.json")
        result = engine.distill(cell, planned.spec, planned.launch, cell_plan, store, meter, progress)
    assert not planted.canary.reads

    whole = METHODS.load(name).whole_set
    assert result.n_images == (len(split.train) if whole else len(Digits.class_ids))
    made = read_set(store.set_dir(result.image_set_sha256), Digits.class_ids, Digits.channels)
    assert made.sha256 == result.image_set_sha256
    assert np.array_equal(np.bincount(made.labels), np.bincount(split.train.labels) if whole else np.ones(10))
    assert result.cost_class == cost_class(name)
    assert all(len(by_image) == 1 for by_image in result.guidance.values())

    (task,) = tasks
    values = [getattr(task, field.name) for field in dataclasses.fields(task)]
    reachable = [*values, *(v for value in values if inspect.isfunction(value) for v in closure(value))]
    assert not any(isinstance(value, SplitData | type(planted.canary)) for value in reachable)


def closure(function: Any) -> list[Any]:
    return list(inspect.getclosurevars(function).nonlocals.values())


@every_method
def test_a_truth_value_is_no_number(name: str) -> None:
    params = METHODS.load(name).Params
    for key, default in params().model_dump().items():
        if isinstance(default, bool):
            assert getattr(params.model_validate({key: default}), key) is default
        elif isinstance(default, int | float):
            with pytest.raises(ValidationError, match="expected no truth value, got true"):
                params.model_validate({key: True})


@over(lambda method: method.needs_prior)
def test_a_method_that_needs_a_prior_is_refused_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digits, "prior", None)
    options = {"methods": name, "datasets": "digits", "device": "cpu"}
    with pytest.raises(Problems, match="has no prior of its own; name one with --prior"):
        plan_run(run_spec({}, options))
    with pytest.raises(Problems, match="there is no prior 'nowhere'"):
        plan_run(run_spec({}, {**options, "prior": "nowhere"}))


@over(lambda method: method.selects)
def test_a_selecting_method_is_refused_an_ipc_beyond_the_smallest_class(name: str) -> None:
    counts = Digits().train_counts("default", None)
    smallest = min(counts.values())
    options = {"methods": name, "datasets": "digits", "device": "cpu", "seeds": "0"}
    plan_run(run_spec({}, {**options, "ipc": smallest}))
    with pytest.raises(Problems, match=f"IPC {smallest + 1} is more than the {smallest} training images"):
        plan_run(run_spec({}, {**options, "ipc": smallest + 1}))
