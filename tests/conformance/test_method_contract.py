"""What every registered method promises, variants and `full` included (`methods/base.py`).

The runs are small (IPC 2, three classes, few steps) and otherwise those of a real cell; see `SmallRuns` in conftest.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.core.spec import MethodSpec
from ddbench.benchmark.planning.planner import contestants, plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.base import ArraySource, SplitData
from ddbench.datasets.digits import Digits
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method

Images = Mapping[tuple[int, int], DistilledImage]


def over(
    condition: Callable[[type[Method]], bool] = lambda method: True, *, small_budgets: bool = False
) -> pytest.MarkDecorator:
    """Parametrise over the registered names whose method meets a condition. A small budget differs from its method in
    what small runs make small, so it is left out unless declarations are looked at."""
    names = [entry.name for entry in METHODS if small_budgets or "small" not in entry.tags]
    return pytest.mark.parametrize("name", [name for name in names if condition(METHODS.load(name))])


every_method = over()
every_name = over(small_budgets=True)
VARIANTS = [entry for entry in METHODS if entry.variant_of is not None and "small" not in entry.tags]


def assert_same(some: Images, all_of: Images) -> None:
    """Bit for bit, pixels, latents and guidance."""
    assert some.keys() <= all_of.keys()
    for key in some:
        one, other = some[key], all_of[key]
        assert np.array_equal(one.pixels, other.pixels), key
        assert (one.latent is None) == (other.latent is None), key
        if one.latent is not None and other.latent is not None:
            assert np.array_equal(one.latent, other.latent), key
        assert dict(one.guidance_nats) == dict(other.guidance_nats), key


def assert_close(some: Images, all_of: Images) -> None:
    """Equal up to float error: one level of a pixel, 1e-4 of a latent."""
    assert some.keys() <= all_of.keys()
    for key in some:
        one, other = some[key], all_of[key]
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1, key
        if one.latent is not None:
            np.testing.assert_allclose(one.latent, other.latent, rtol=0, atol=1e-4)


def differ(one: Images, other: Images) -> bool:
    return any(not np.array_equal(one[key].pixels, other[key].pixels) for key in one)


# Declarations ---------------------------------------------------------------------------------------------------------


def test_methods_are_registered_in_every_role() -> None:
    tags = {tag for entry in METHODS for tag in entry.tags}
    assert {"main", "reference", "ablation"} <= tags
    assert not METHODS.broken


def cost_class(name: str) -> str:
    """The method's own; on a tuned prior its images cost a fine-tuning, too."""
    return "fine-tunes" if METHODS.entry(name).prior_tuned_by else str(METHODS.load(name).cost_class)


@every_name
def test_declaration(name: str) -> None:
    entry, method = METHODS.entry(name), METHODS.load(name)
    assert method.name == (entry.variant_of or name)
    assert isinstance(method.version, int)
    assert method.version >= 1
    assert isinstance(method.cost_class, CostClass)
    assert cost_class(name) in entry.tags, "listings filter by tags"
    assert not {"main", "reference", "ablation", "external"}.isdisjoint(entry.tags), "`--method all` goes by tags"
    assert entry.summary
    if method.cost_class is CostClass.SELECTION:
        assert not method.needs_prior, "a selection method needs nothing but the images"
    if method.whole_set:
        assert not method.selects, "IPC does not apply to the whole set, so it cannot exceed the smallest class"


@every_name
def test_parameters_are_documented_and_their_defaults_valid(name: str) -> None:
    entry, params = METHODS.entry(name), METHODS.load(name).Params
    for key, field in params.model_fields.items():
        assert field.description, f"{key} has no description"
        assert field.description.strip().endswith("."), f"{key}: a description is a sentence"
        assert not field.is_required(), f"{key} has no default"
    resolved = params.model_validate(dict(entry.overrides))
    as_json = resolved.model_dump(mode="json")
    MethodSpec(name=name, version=1, params=as_json)  # plain numbers, words, true, false, null
    assert params.model_validate(as_json) == resolved, "a cell gets its parameters from JSON"
    # A default that its own constraints refuse would only fail when somebody states it.
    assert params.model_validate(params().model_dump(mode="json")) == params()


@every_method
def test_unknown_and_changed_parameters_are_refused(name: str) -> None:
    params = METHODS.load(name).Params
    with pytest.raises(ValidationError, match="no_such_parameter"):
        params.model_validate({"no_such_parameter": 1})
    for key in params.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(params(), key, None)


def float_parameters(method: type[Method]) -> list[str]:
    return [key for key, field in method.Params.model_fields.items() if field.annotation is float]


@over(lambda method: bool(float_parameters(method)))
def test_numbers_are_finite(name: str) -> None:
    params = METHODS.load(name).Params
    for key in float_parameters(METHODS.load(name)):
        for value in (float("nan"), float("inf")):
            with pytest.raises(ValidationError, match=key):
                params.model_validate({key: value})


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


# Images ---------------------------------------------------------------------------------------------------------------


@every_method
def test_counts_shapes_and_values(name: str, small_runs: Any) -> None:
    method, train = METHODS.load(name), small_runs.split.train
    images = small_runs.reference(name)
    per_class = {c: len(train.of_class(c)) if method.whole_set else 2 for c in (0, 3, 7)}
    assert set(images) == {(c, i) for c, count in per_class.items() for i in range(count)}
    finished = images.values()
    assert {(image.pixels.shape, image.pixels.dtype) for image in finished} == {((8, 8, 1), np.dtype(np.uint8))}
    assert all(np.ptp(image.pixels) > 0 for image in finished), "an image of one value is a failure of the sampler"
    latents = [image.latent for image in finished if image.latent is not None]
    assert len(latents) in (0, len(images)), "either all images have latents or none"
    for latent in latents:
        assert latent.dtype == np.float32
        assert latent.shape == small_runs.prior.latent_shape
        assert np.isfinite(latent).all()
    terms = {tuple(image.guidance_nats) for image in finished}
    assert len(terms) == 1, "every image reports the same guidance terms"
    assert all(np.isfinite(nats) and nats >= 0 for image in finished for nats in image.guidance_nats.values())


@over(lambda method: method.cost_class is CostClass.SELECTION)
def test_selected_images_are_real_ones_of_their_class(name: str, small_runs: Any) -> None:
    train = small_runs.split.train
    images = small_runs.reference(name)
    for class_index in (0, 3, 7):
        real = [pixels.tobytes() for pixels in train.read(train.of_class(class_index))]
        chosen = [image.pixels.tobytes() for (c, _), image in sorted(images.items()) if c == class_index]
        assert set(chosen) <= set(real)
        assert all(chosen.count(one) <= real.count(one) for one in chosen), "drawn without replacement"


@over(lambda method: method.selects)
def test_a_larger_ipc_keeps_the_images_of_a_smaller_one(name: str, small_runs: Any) -> None:
    assert_same(small_runs.run(name, ipc=1), small_runs.reference(name))


@pytest.mark.parametrize("variant", VARIANTS, ids=[entry.name for entry in VARIANTS])
def test_a_variants_overrides_reach_the_images(variant: Any, small_runs: Any) -> None:
    assert differ(small_runs.reference(variant.name), small_runs.reference(variant.variant_of))


# Randomness -----------------------------------------------------------------------------------------------------------


@every_method
def test_the_same_seed_gives_the_same_bits_whatever_the_global_generators_say(name: str, small_runs: Any) -> None:
    import torch

    expected = small_runs.reference(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        np.random.seed(12345)  # noqa: NPY002
        random.seed(12345)
        again = small_runs.run(name)  # and with artefacts that other methods may have made
    assert_same(again, expected)
    assert again.keys() == expected.keys()


@every_method
def test_another_seed_gives_other_images_if_the_method_says_so(name: str, small_runs: Any) -> None:
    other = small_runs.run(name, seed=1)
    assert differ(other, small_runs.reference(name)) == METHODS.load(name).uses_seed


@every_method
def test_global_generators_and_settings_are_left_alone(name: str, small_runs: Any, global_state: Any) -> None:
    before = global_state.now()
    small_runs.run(name, cache=small_runs.cache(f"untouched-{name}"))
    assert global_state.now() == before


@every_method
def test_images_depend_neither_on_batches_nor_on_the_classes_beside_them(name: str, small_runs: Any) -> None:
    expected = small_runs.reference(name)
    reordered = small_runs.run(name, class_indices=(7, 0, 3), batch_size=2, cache=small_runs.cache(f"other-{name}"))
    assert reordered.keys() == expected.keys()
    assert_close(reordered, expected)
    alone = small_runs.run(name, class_indices=(3,), batch_size=1)
    assert alone.keys() == {key for key in expected if key[0] == 3}
    assert_close(alone, expected)


# Resuming -------------------------------------------------------------------------------------------------------------


@every_method
def test_a_resumed_run_makes_only_what_is_missing_and_the_same_bits(name: str, small_runs: Any, tmp_path: Path) -> None:
    undisturbed = small_runs.run(name, batch_size=2)
    total = len(list(undisturbed.folder.iterdir()))
    assert total > 1, "one round would leave nothing to resume"
    for committed in {1, total - 1}:
        folder = tmp_path / str(committed)
        killed = small_runs.run(name, batch_size=2, stop_after=committed, folder=folder)
        assert 0 < len(killed) < len(undisturbed)
        # `Rounds.commit` refuses an image that `task.done` holds.
        resumed = small_runs.run(name, batch_size=2, folder=folder)
        assert resumed.keys() == undisturbed.keys()
        assert_same(resumed, undisturbed)
        assert len(list(folder.iterdir())) == total, "rounds are the same, too"


@every_method
def test_a_finished_set_is_left_as_it_is(name: str, small_runs: Any, tmp_path: Path) -> None:
    finished = small_runs.reference(name)
    folder = shutil.copytree(finished.folder, tmp_path / "rounds")
    again = small_runs.run(name, folder=folder)
    assert len(list(folder.iterdir())) == len(list(finished.folder.iterdir()))
    assert_same(again, finished)


# What a method may see ------------------------------------------------------------------------------------------------


class Poison(ArraySource):
    """Test images that must not be looked at."""

    def read(self, indices: Any) -> np.ndarray:
        raise AssertionError("a test image was read while distilling")


@every_method
def test_the_engine_distills_without_showing_a_test_image(
    name: str, small_runs: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddbench.benchmark.cells import distill as engine
    from ddbench.benchmark.cells.meter import Meter
    from ddbench.benchmark.cells.progress import Progress
    from ddbench.benchmark.core.store import CellPlan, Store
    from ddbench.datasets.image_sets import read_set

    split: SplitData = small_runs.split
    poison = Poison(np.zeros((len(split.test), 8, 8, 1), np.uint8), split.test.labels, split.test.names)
    monkeypatch.setattr(Digits, "load", lambda *_: dataclasses.replace(split, test=poison))
    tasks: list[DistillTask] = []
    monkeypatch.setattr(engine, "DistillTask", lambda **given: tasks.append(DistillTask(**given)) or tasks[-1])

    selector = small_runs.selector(name)
    quick = dataclasses.replace(METHODS.entry(name), prior_tuned_by=small_runs.tuner(name))
    monkeypatch.setitem(METHODS.entries(), name, quick)
    plan, _, _ = plan_run(
        run_spec({}, {"methods": selector, "datasets": "digits", "ipc": "1", "seeds": "0", "device": "cpu"}),
        students=False,
    )
    (planned,) = plan.sets
    store = Store(tmp_path_factory.getbasetemp() / "conformance-store")
    store.create()
    cell = store.add(planned.spec, planned.launch)
    meter = Meter(small_runs.device, cell.path / "spent.json")
    plan_of_cell = CellPlan(batch_size=64, threads=1)
    result = engine.distill(
        cell, planned.spec, planned.launch, plan_of_cell, store, meter, Progress(cell.path / "progress.json")
    )

    whole = METHODS.load(name).whole_set
    assert result.n_images == (len(split.train) if whole else len(Digits.class_ids))
    made = read_set(store.set_dir(result.image_set_sha256), Digits.class_ids, Digits.channels)
    assert made.sha256 == result.image_set_sha256
    assert np.array_equal(np.bincount(made.labels), np.bincount(split.train.labels) if whole else np.ones(10))
    assert result.cost_class == cost_class(name)
    assert all(len(by_image) == 1 for by_image in result.guidance.values())

    (task,) = tasks
    assert set(task.train.names).isdisjoint(split.test.names)
    values = [getattr(task, field.name) for field in dataclasses.fields(task)]
    reachable = [*values, *(v for value in values if inspect.isfunction(value) for v in closure(value))]
    assert not any(isinstance(value, SplitData | Poison) for value in reachable)


def closure(function: Any) -> list[Any]:
    return list(inspect.getclosurevars(function).nonlocals.values())


def test_the_poison_works(small_runs: Any) -> None:
    with pytest.raises(AssertionError, match="test image"):
        Poison(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1), ["0/0.png"]).read([0])


@over(lambda method: method.needs_prior)
def test_a_method_that_needs_a_prior_uses_it_and_is_refused_without(
    name: str, small_runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small_runs.prior_loads
    small_runs.run(name, ipc=1, class_indices=(0,))
    assert small_runs.prior_loads > before, "it declares needs_prior = True"

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
