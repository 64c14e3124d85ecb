"""A prior's network through `torch.compile`: when, that it says the same, and that what was decided stays.

Compilers are played by functions that take a traced network and give one, told apart by what they compute.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from played_compilers import broken, scaling

from ddbench.benchmark.cells import cell as cells
from ddbench.benchmark.cells import priors
from ddbench.benchmark.cells.priors import CompiledDenoiser, pays
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.spec import Compile, DistillSpec, Shard
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.protocols import compiled
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import read_set
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior

CLASSES = len(Digits.class_ids)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    return lambda backend: monkeypatch.setattr(compiled, "COMPILER", {"backend": backend})


@pytest.fixture
def digits_prior() -> Prior:
    return Prior.load(find_prior("digits"))


def planned(folder: Path, compile: Compile, method: str = "dmgd[steps=4]", **given: Any) -> CellDir:
    """The first distill cell of a run, not begun."""
    asked = {"methods": method, "datasets": "digits", "ipc": 2, "seeds": 0, "device": "cpu", "compile": compile}
    plan, _, _ = plan_run(run_spec({}, asked | given))
    store = Store(folder)
    store.create()
    spec, launch = next((one.spec, one.launch) for one in plan.sets if one.spec is not None)
    return store.add(spec, launch)


def run(cell: CellDir) -> DistillResult:
    threads = torch.get_num_threads()
    assert cells.run_cell(cell.path) == cells.EXIT_OK, cell.result()
    torch.set_num_threads(threads)
    result = cell.result()
    assert isinstance(result, DistillResult)
    return result


def pixels(cell: CellDir) -> np.ndarray:
    result = cell.result()
    assert isinstance(result, DistillResult)
    assert result.image_set_sha256 is not None
    folder = Store(cell.path.parent.parent).set_dir(result.image_set_sha256)
    return np.stack(list(read_set(folder, Digits.class_ids, 1).pixels)).astype(int)


def said(result: DistillResult) -> dict[str, Any]:
    assert result.environment is not None
    return {key: value for key, value in result.environment["determinism"].items() if "compiled" in key}


def test_a_cell_samples_through_what_the_compiler_made_and_says_so(
    tmp_path: Path, compiler: Callable[[Any], None]
) -> None:
    compiler(scaling(1.004))  # no larger a difference than the check lets pass, and seen in the images
    asked, never = planned(tmp_path / "asked", "always"), planned(tmp_path / "never", "never")
    assert asked.id == never.id
    assert said(run(asked)) == {"compiled": ["denoiser"]}
    assert said(run(never)) == {}
    assert not np.array_equal(pixels(asked), pixels(never))


@pytest.mark.parametrize(
    ("backend", "problem"),
    [(broken, "no C++ compiler here"), (scaling(1.1), "differs by 0.1"), (scaling(float("nan")), "differs by nan")],
)
def test_a_compiler_that_fails_or_errs_leaves_the_network_as_it_is(
    tmp_path: Path, compiler: Callable[[Any], None], backend: Any, problem: str
) -> None:
    compiler(backend)
    asked, never = planned(tmp_path / "asked", "always"), planned(tmp_path / "never", "never")
    told = said(run(asked))
    assert told["compiled"] == []
    assert problem in told["not_compiled"]
    run(never)
    assert np.array_equal(pixels(asked), pixels(never))


def test_a_cell_goes_on_as_it_was_begun_whatever_the_next_command_says(
    tmp_path: Path, compiler: Callable[[Any], None]
) -> None:
    compiler("eager")
    cell = planned(tmp_path, "always")
    cells._cell_plan(cell, cell.launch())
    planned(tmp_path, "never")
    assert cell.launch().compile == "never"
    assert said(run(cell)) == {"compiled": ["denoiser"]}


def test_a_cell_that_was_killed_after_its_last_image_says_how_they_were_made(
    tmp_path: Path, compiler: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler("eager")
    cell = planned(tmp_path, "always")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ddbench.benchmark.cells.distill.store_set", killed)
        assert cells.run_cell(cell.path) == cells.EXIT_TERMINATED
    assert said(run(cell)) == {"compiled": ["denoiser"]}


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (("always", "always"), {"compiled": ["denoiser"]}),
        (("always", "never"), {"compiled": ["denoiser"], "not_compiled": "1 of 2 shards were begun without"}),
        (("never", "never"), {}),
    ],
)
def test_a_set_of_shards_says_how_they_were_made(
    tmp_path: Path, compiler: Callable[[Any], None], choices: tuple[Compile, Compile], told: dict[str, Any]
) -> None:
    compiler("eager")
    asked = {"methods": "dmgd[steps=4]", "datasets": "digits", "ipc": 1, "seeds": 0, "device": "cpu", "shards": 2}
    plan, _, _ = plan_run(run_spec({}, asked))
    store = Store(tmp_path)
    store.create()
    launch = plan.sets[0].launch
    one, other, whole = (spec for _, spec in plan.cells() if isinstance(spec, DistillSpec))
    shards = [
        store.add(spec, launch.model_copy(update={"compile": choice}))
        for spec, choice in zip((one, other), choices, strict=True)
    ]
    for shard in shards:
        run(shard)
    merged = store.add(whole, launch.model_copy(update={"shards": tuple(shard.id for shard in shards)}))
    assert said(run(merged)) == told


def test_a_batch_that_is_chosen_anew_leaves_the_choice_of_a_compiler(tmp_path: Path) -> None:
    """Where not one image fitted: those that are there were sampled by the first choice."""
    cell = planned(tmp_path, "always")
    first = cells._cell_plan(cell, cell.launch())
    (cell.path / "plan.json").write_text(first.model_copy(update={"oom_batch_sizes": (2, 1)}).model_dump_json())
    again = cells._cell_plan(cell, cell.launch().model_copy(update={"compile": "never"}))
    assert (again.compile, again.oom_batch_sizes) == ("always", ())


def test_a_cell_that_was_begun_before_there_was_a_choice_goes_on_without_a_compiler(tmp_path: Path) -> None:
    cell = planned(tmp_path, "always")
    (cell.path / "plan.json").write_text('{"batch_size": 4, "threads": 1}')
    assert cells._cell_plan(cell, cell.launch()).compile == "never"


def flops_of_dit(*, tokens: int, width: int, blocks: int, channels: int, patch: int) -> int:
    """Of one evaluation of a DiT that predicts no variance, by its layers: two for each product of the sums."""
    pixels = channels * patch**2
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width  # queries, keys, values, output; scores and their use
    perceptron = 2 * tokens * width * 4 * width
    modulation = width * 6 * width  # of the one conditioning that all tokens share
    embedding, output = tokens * pixels * width, width * 2 * width + tokens * width * pixels
    return 2 * (embedding + blocks * (attention + perceptron + modulation) + output)


def test_what_pays_is_counted_for_the_whole_set(
    tmp_path: Path, digits_prior: Prior, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spec(method: str) -> DistillSpec:
        found = planned(tmp_path / method, "auto", method).spec()
        assert isinstance(found, DistillSpec)
        return found

    one = flops_of_dit(tokens=4 * 4, width=96, blocks=4, channels=1, patch=2)
    for method, evaluations in (("dmgd[steps=4]", 8), ("dit-cfg1[steps=5]", 5)):
        exactly = 2 * CLASSES * evaluations * one
        whole = spec(method)
        for each in (whole, whole.model_copy(update={"shard": Shard(index=1, count=3)})):
            monkeypatch.setattr(priors, "WORTH_FLOPS", exactly)
            assert pays("auto", each, CLASSES, digits_prior)
            monkeypatch.setattr(priors, "WORTH_FLOPS", exactly + 1)
            assert not pays("auto", each, CLASSES, digits_prior)
            assert pays("always", each, CLASSES, digits_prior)
            assert not pays("never", each, CLASSES, digits_prior)
    monkeypatch.setattr(priors, "WORTH_FLOPS", 0)
    digits_prior.device = torch.device("cuda")
    assert not pays("auto", spec("dmgd[steps=4]"), CLASSES, digits_prior), "not measured on a GPU yet"


def test_gradients_and_single_images_are_the_networks_own(digits_prior: Prior, compiler: Callable[[Any], None]) -> None:
    compiler(scaling(1.001))
    own = Prior.load(find_prior("digits"))
    digits_prior.compiler = CompiledDenoiser()
    tuned = digits_prior.with_network(own.network, "tuned")
    x = torch.randn(3, *own.latent_shape, generator=torch.Generator().manual_seed(0))
    labels = own.embed_labels(torch.tensor([0, 1, 2]))
    for prior in (digits_prior, tuned):
        with torch.no_grad():
            expected, _ = own.predict(x, 9, labels)
            torch.testing.assert_close(prior.predict(x, 9, labels)[0], 1.001 * expected)
            assert torch.equal(prior.predict(x[:1], 9, labels[:1])[0], own.predict(x[:1], 9, labels[:1])[0])
        asked, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        (mine,) = torch.autograd.grad(prior.predict(asked, 9, labels)[0].square().sum(), asked)
        (other,) = torch.autograd.grad(own.predict(theirs, 9, labels)[0].square().sum(), theirs)
        assert torch.equal(mine, other)


def test_code_does_not_depend_on_the_batch_that_comes_first(
    digits_prior: Prior, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list[tuple[int, int]]()

    def compile_network(network: Any, **given: Any) -> Any:
        def compiled(x: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
            shown.append((len(x), len(conditioning)))
            made: torch.Tensor = network(x, conditioning)
            return made

        return compiled

    monkeypatch.setattr(priors, "compile_network", compile_network)
    for rows in (2, 7, 20, 31):
        shown.clear()
        prior = digits_prior.with_network(digits_prior.network, "the same")
        prior.compiler = CompiledDenoiser()
        with torch.no_grad():
            labels = prior.embed_labels(torch.zeros(rows, dtype=torch.long))
            prior.predict(torch.zeros(rows, *prior.latent_shape), 9, labels)
        assert shown == [(priors.ROWS, priors.ROWS), (rows, rows)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
def test_pytorchs_compiler_gives_the_same_images_within_a_level_for_all_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Callable[[Any], None]
) -> None:
    made = list[int]()
    real = priors.compile_network
    monkeypatch.setattr(priors, "compile_network", lambda network, **given: made.append(1) or real(network, **given))
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    # Batches of eight and of two images, so of sixteen and of four rows.
    given: dict[str, Any] = {"method": "dit[steps=6,greedy=false]", "batch_size": 8, "ipc": 1}
    asked, never = planned(tmp_path / "asked", "always", **given), planned(tmp_path / "never", "never", **given)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert said(run(asked)) == {"compiled": ["denoiser"]}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1, "one code for both"
    run(never)
    assert made == [1]
    assert np.abs(pixels(asked) - pixels(never)).max() <= 1
