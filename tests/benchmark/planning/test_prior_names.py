"""Priors that runs name by what tunes them: planned by recipe, made once inside cells, told apart in results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.distill import distill
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.cells.progress import Progress
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS, Entry
from ddbench.benchmark.core.result import DistillResult, Phase
from ddbench.benchmark.core.store import CellPlan, Store
from ddbench.benchmark.planning.plan import Plan, PlannedSet
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.prior_names import name_prior
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.digits import Digits
from ddbench.methods.diffusion.priors.files import find_prior


def plan(method: str, **options: object) -> Plan:
    given = {"methods": method, "datasets": "digits", "ipc": "1", "seeds": "0", "device": "cpu", **options}
    return plan_run(run_spec({}, given), students=False)[0]


def only(plan: Plan) -> PlannedSet:
    (planned,) = plan.sets
    return planned


def test_a_plain_name_is_the_files_own() -> None:
    prior = name_prior("digits", Digits)
    assert (prior.name, prior.sha256, prior.tunings) == ("digits", find_prior("digits").sha256, ())
    assert prior.trained_on == find_prior("digits").trained_on


def test_a_tuned_priors_hash_is_that_of_its_recipe() -> None:
    small = name_prior("minimax-small(digits)", Digits)
    spelled = name_prior("minimax[tuning_steps=400,ema=0.997](digits)", Digits)
    assert small.sha256 == spelled.sha256
    # How it is sampled is no part of it; what it is tuned with is, and so is what it is tuned from.
    assert name_prior("minimax-small[steps=10,cfg_scale=1](digits)", Digits).sha256 == small.sha256
    others = [
        "digits",
        "minimax(digits)",
        "minimax-small[memory=32](digits)",
        "minimax-small[tuning_seed=0](digits)",
        "minimax-small(minimax-small(digits))",
    ]
    hashes = {name_prior(name, Digits).sha256 for name in others}
    assert len(hashes | {small.sha256}) == len(others) + 1

    (tuning,) = small.tunings
    assert tuning.name == "minimax"
    assert (tuning.params["tuning_steps"], tuning.params["flip"]) == (400, False), "digits' own defaults count"
    assert small.trained_on.endswith("then tuned by minimax on the run's training images")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody(digits)", "unknown method 'nobody'"),
        ("dmgd(digits)", r"dmgd tunes no prior; minimax, .*do"),
        ("minimax[memory=8,16](digits)", "one value for each parameter"),
        ("minimax[memoir=8](digits)", "did you mean 'memory'"),
        ("minimax(nowhere)", "there is no prior 'nowhere'"),
        ("minimax(digits", "there is no prior"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        name_prior(name, Digits)


def test_a_folder_may_be_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("minimax(digits)").symlink_to(find_prior("digits").folder)
    assert name_prior("minimax(digits)", Digits).sha256 == find_prior("digits").sha256


def test_a_registered_method_on_a_tuned_prior_is_that_method_with_that_prior() -> None:
    registered, given = only(plan("dmgd-minimax-small")), only(plan("dmgd", prior="minimax-small(digits)"))
    assert registered.spec == given.spec
    assert registered.launch.prior == given.launch.prior == "minimax-small(digits)"
    assert (registered.label, given.label) == ("dmgd-minimax-small", "dmgd")

    plain = only(plan("dmgd"))
    assert plain.spec is not None
    assert registered.spec is not None
    assert plain.spec.prior_sha256 == find_prior("digits").sha256
    assert registered.spec.method == plain.spec.method
    assert only(plan("dmgd-minimax[ot_scale=0.1]")).label == "dmgd-minimax[ot_scale=0.1]"
    assert only(plan("dmgd-minimax")).id not in (registered.id, plain.id)


def test_parameters_for_all_reach_the_tuner_too() -> None:
    with_steps = only(plan("dmgd-minimax", set={"tuning_steps": 7, "ot_scale": 0.1}))
    assert with_steps.launch.prior == "minimax[tuning_steps=7](digits)"
    assert with_steps.spec is not None
    assert with_steps.spec.prior_sha256 == name_prior("minimax[tuning_steps=7](digits)", Digits).sha256
    with pytest.raises(UsageError, match="--set tuning_steps: none of the chosen methods has this parameter"):
        plan("dmgd", set={"tuning_steps": 7})


def made(planned: PlannedSet, store: Store) -> DistillResult:
    """Run a distill cell in this process."""
    assert planned.spec is not None
    cell = store.add(planned.spec, planned.launch)
    meter = Meter(torch.device("cpu"), cell.path / "spent.json")
    progress = Progress(cell.path / "progress.json")
    return distill(cell, planned.spec, planned.launch, CellPlan(batch_size=64, threads=1), store, meter, progress)


def tunings(result: DistillResult) -> list[Phase]:
    assert result.cost is not None
    return [phase for phase in result.cost.phases if phase.name == "tune prior"]


def test_cells_share_one_tuning_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.create()
    tuner = "minimax[ema=0.5,tuning_steps=3]"
    entry = replace(METHODS.entry("dmgd-minimax"), name="dmgd-quickly", prior_tuned_by=tuner)
    monkeypatch.setitem(METHODS.entries(), entry.name, entry)
    first = made(only(plan("minimax[steps=4,tuning_steps=3,ema=0.5]")), store)
    second = made(only(plan("minimax[steps=4,tuning_steps=3,ema=0.5]", ipc="2")), store)
    third = made(only(plan(f"{entry.name}[steps=4]")), store)
    dit = made(only(plan("dit[steps=4]", prior=f"{tuner}(digits)")), store)
    assert dit.image_set_sha256 == first.image_set_sha256, "minimax is plain sampling of the prior that it tunes"

    (cold,) = tunings(first)
    assert cold.seconds > 0
    assert cold.cached_from is None
    for result in (second, third, dit):
        (cached,) = tunings(result)
        assert cached.seconds == 0
        assert cached.cached_from is not None
        assert cached.cached_from.startswith("tune-prior/")
        assert cached.cold_seconds is not None
        assert cached.cold_seconds > 0
        assert result.cost_class == "fine-tunes"
    kept = [path.name for path in (tmp_path / "artefacts" / "tune-prior").iterdir() if path.is_dir()]
    assert [name for name in kept if not name.endswith(".lease")] == [cached.cached_from.partition("/")[2]]
    assert first.prior is not None
    assert third.prior is not None
    assert (first.prior.name, first.prior.tuned_by) == ("digits", [])
    assert third.prior.name == f"{tuner}(digits)"
    assert third.prior.base_sha256 == first.prior.sha256 != third.prior.sha256
    (tuning,) = third.prior.tuned_by
    assert tuning.params["tuning_steps"] == 3


def test_the_time_of_killed_attempts_at_an_artefact_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    spent = tmp_path / "spent.json"

    def attempt(seconds: float, *, killed: bool) -> float | None:
        meter = Meter(torch.device("cpu"), spent)
        artefacts = DiskArtefacts(tmp_path / "artefacts", meter)

        def make(seconds: float) -> dict[str, torch.Tensor]:
            clock[0] += seconds
            if killed and seconds != 7:
                meter.save()
                raise KeyboardInterrupt
            return {}

        artefacts.arrays("tune prior", {"of": "before"}, lambda: make(7))  # type: ignore[arg-type,return-value]
        artefacts.arrays("tune prior", {"of": "it"}, lambda: make(seconds))  # type: ignore[arg-type,return-value]
        return next(p.seconds for p in meter.cost(batch_size=1, threads=1).phases if p.name == "tune prior")

    for seconds in (50, 20):
        with pytest.raises(KeyboardInterrupt):
            attempt(seconds, killed=True)
    assert attempt(5, killed=False) == 7 + 50 + 20 + 5

    other = Meter(torch.device("cpu"), tmp_path / "other.json")
    DiskArtefacts(tmp_path / "artefacts", other).arrays("tune prior", {"of": "it"}, lambda: {})
    (phase,) = other.cost(batch_size=1, threads=1).phases
    assert phase.cold_seconds == 75


def test_entries_say_what_tunes_their_prior() -> None:
    entry = METHODS.entry("mgd3-minimax")
    assert isinstance(entry, Entry)
    assert (entry.variant_of, entry.prior_tuned_by) == ("mgd3", "minimax")
