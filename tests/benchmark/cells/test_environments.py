"""What is resumed, merged or served from a cache in another environment says so, and so does all that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from ddbench.benchmark.cells import cell as cell_module
from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.cell import EXIT_OK, EXIT_TERMINATED, run_cell
from ddbench.benchmark.cells.meter import Environments, Meter
from ddbench.benchmark.cells.rounds import Rounds
from ddbench.benchmark.core import environment
from ddbench.benchmark.core.result import DistillResult, OtherEnvironment
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running.rates import Rates
from ddbench.benchmark.transfer import retrain
from ddbench.reports.output import status
from ddbench.reports.results import rows

CAPTURE = environment.capture


@pytest.fixture(autouse=True)
def this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cell_module.signal, "signal", lambda *_: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def on(monkeypatch: pytest.MonkeyPatch, version: str, cpu: str = "A", *, memory_mib: int = 1) -> None:
    """Pretend that cells run with that PyTorch on that processor from now on."""

    def capture(device: str = "cpu") -> dict[str, Any]:
        seen = CAPTURE(device)
        hardware = seen["hardware"] | {"cpu": cpu, "memory_mib": memory_mib}
        return seen | {"versions": seen["versions"] | {"torch": version}, "hardware": hardware}

    monkeypatch.setattr(environment, "capture", capture)


def cells(out: Path, method: str = "random", **options: Any) -> tuple[Store, list[CellDir], dict[str, Launch]]:
    """The cells of a set of 10 images, sampled 4 at a time."""
    given = {
        "methods": method, "datasets": "digits", "ipc": 1, "seeds": 0, "repeats": 1, "device": "cpu", "batch_size": 4,
        "protocol": "quick[epochs=1]", **options,
    }  # fmt: skip
    plan, _, _ = plan_run(run_spec({}, given), students=False)
    store = Store(out)
    store.create()
    made = [store.add(spec, planned.launch) for planned, spec in plan.cells()]
    return store, made, {cell.id: cell.launch() for cell in made}


def stop_after(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Rounds.commit

    def stopping(self: Rounds, images: Any) -> None:
        commit(self, images)
        if len(list(self.folder.iterdir())) == rounds:
            raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "commit", stopping)


def result_of(cell: CellDir) -> DistillResult:
    result = cell.result()
    assert isinstance(result, DistillResult)
    assert result.status == "ok", result.reason
    return result


def test_a_resumed_cell_names_the_environments_of_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (cell,), _ = cells(tmp_path / "runs")
    for number, (version, cpu) in enumerate([("1.0", "A"), ("2.0", "A")], 1):
        on(monkeypatch, version, cpu)
        with monkeypatch.context() as patched:
            stop_after(number, patched)
            assert run_cell(cell.path) == EXIT_TERMINATED
    said = status.build(rows.read(store.out)).cells[0]
    assert said.mixed == ["attempt 1: torch 1.0, not 2.0"], "before it is finished, too"
    on(monkeypatch, "1.0", "B")
    assert run_cell(cell.path) == EXIT_OK

    result = result_of(cell)
    assert result.environment is not None
    assert result.environment["versions"]["torch"] == "1.0"
    told = [(one.attempts, one.environment["versions"]["torch"]) for one in result.other_environments]
    assert told == [([1], "1.0"), ([2], "2.0")], "each by its attempt; the first had another processor"
    assert [one["hardware"]["cpu"] for one in result.environments] == ["B", "A", "A"]

    (line,) = status.build(rows.read(store.out)).cells
    assert line.mixed == ["attempt 1: CPU A, not B", "attempt 2: torch 2.0, not 1.0, CPU A, not B"]
    console = Console(width=100, record=True, file=StringIO())
    status.print_terminal(status.build(rows.read(store.out)), console)
    assert "not made in one environment: random · digits" in console.export_text()
    assert not Rates(store)._rates, "seconds on two processors are no rate of either"


def test_a_merged_set_names_the_environments_of_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (*shards, whole), launches = cells(tmp_path / "runs", method="random", shards=3)
    for shard, version in zip(shards, ("1.0", "2.0", "2.0"), strict=True):
        on(monkeypatch, version)
        assert run_cell(shard.path) == EXIT_OK
    on(monkeypatch, "2.0", memory_mib=2)
    launch = launches[whole.id].model_copy(update={"shards": tuple(shard.id for shard in shards)})
    assert run_cell(whole.path, launch=launch) == EXIT_OK
    (other,) = result_of(whole).other_environments
    assert (other.shards, other.environment["versions"]["torch"]) == ([shards[0].id], "1.0")


def test_a_cell_names_the_environment_of_an_artefact_that_it_found(tmp_path: Path) -> None:
    def meter(name: str, version: str) -> Meter:
        one = Meter(torch.device("cpu"), tmp_path / f"{name}.json")
        one.environments.begin(one.attempts, {"versions": {"torch": version}})
        return one

    def make() -> dict[str, np.ndarray]:
        return {"a": np.ones(2)}

    maker, finder = meter("maker", "1.0"), meter("finder", "2.0")
    for one in (maker, finder, meter("alike", "1.0")):
        DiskArtefacts(tmp_path / "artefacts", one).arrays("latents", {"of": 1}, make)
        first = DiskArtefacts(tmp_path / "artefacts", one).arrays("latents", {"of": 2}, make)
        assert first["a"].tolist() == [1, 1]
    assert maker.environments.others() == []
    (other,) = finder.environments.others()
    assert other.environment == {"versions": {"torch": "1.0"}}
    assert (len(other.artefacts), other.attempts) == (2, [])
    DiskArtefacts(tmp_path / "artefacts", finder).arrays("tuned", {"from": "latents"}, make)
    later = meter("later", "2.0")
    DiskArtefacts(tmp_path / "artefacts", later).arrays("tuned", {"from": "latents"}, make)
    assert [one.environment for one in later.environments.others()] == [other.environment], "what it was made from"


def test_what_does_not_decide_sums_is_no_other_environment() -> None:
    gpus = [{"name": "H", "memory_mib": 1, "driver": "5"}, {"name": "H", "memory_mib": 1, "driver": "5"}]
    seen = {"device": "cuda:0", "hardware": {"cpu": "A", "gpus": gpus, "cores": 2}, "versions": {"torch": "1.0"}}
    found = Environments()
    assert found.begin(1, seen) == []
    assert found.begin(2, seen | {"device": "cuda:1", "hardware": {"cpu": "A", "gpus": gpus, "cores": 9}}) == []
    assert found.others() == []
    other = [gpus[0], gpus[1] | {"name": "B200"}]
    assert found.begin(3, seen | {"device": "cuda:1", "hardware": {"cpu": "A", "gpus": other}}) == ["GPU B200, not H"]
    assert [one.attempts for one in found.others()] == [[1, 2]]
    again = Environments(found.noted())
    assert again.begin(4, seen) == ["GPU H, not B200"]
    assert [one.attempts for one in again.others()] == [[3]]


@pytest.mark.parametrize("odd", [{}, {"versions": 3, "hardware": [], "determinism": "x", "device": "cuda:x"}])
def test_an_environment_of_any_form_is_compared(odd: dict[str, Any]) -> None:
    assert isinstance(environment.differences(odd, CAPTURE()), list)
    assert environment.deciding(odd) == environment.deciding(dict(odd))


def test_what_was_trained_in_two_environments_is_not_held_to_the_bits_of_one() -> None:
    seen, cost = CAPTURE(), SimpleNamespace(threads=1)
    again = SimpleNamespace(environment=seen, other_environments=[], cost=cost)
    resumed = SimpleNamespace(environment=seen, other_environments=[OtherEnvironment(environment={})], cost=cost)
    assert retrain._same_machine(again, again)
    assert not retrain._same_machine(resumed, again)
