"""What is planned on a login node is what the nodes run, and what cannot be run so is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark.cluster import slurm
from ddbench.benchmark.cluster.jobs import submissions
from ddbench.benchmark.cluster.site import Resources, Site, Stages
from ddbench.benchmark.cluster.submit import Wanted, device_of, resolve, said
from ddbench.benchmark.cluster.submit import submit as queue_pilots
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.spec import cell_id
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec

GIVEN = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0-2", "repeats": 4}
CPUS = Site(stages=Stages(distill=Resources(gpus=0), evaluate=Resources(gpus=0)))


def wanted(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Wanted:
    monkeypatch.setattr(slurm, "limits", lambda: slurm.Limits(array_size=3, submitted=None))
    return resolve({**GIVEN, "out": tmp_path / "runs", **more}, config=None, study=None, site=site, pilots=None)


@pytest.mark.parametrize(("site", "device"), [(Site(), "cuda"), (CPUS, "cpu")])
def test_cells_are_those_of_the_nodes_and_not_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, device: str
) -> None:
    found = wanted(tmp_path, site, monkeypatch)
    direct = plan_run(run_spec({}, {**GIVEN, "device": device})).plan
    assert [cell_id(spec) for _, spec in found.planned.plan.cells()] == [cell_id(spec) for _, spec in direct.cells()]
    assert found.request.given["device"] == device


def test_no_more_pilots_than_there_is_work_for_in_arrays_that_the_cluster_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = wanted(tmp_path, Site(stages=Stages(evaluate=Resources(pilots=8, gpus=2))), monkeypatch)
    assert (found.pilots("distill"), found.pilots("evaluate")) == (3, 6), "3 sets; 12 students, two at once"
    assert found.split("evaluate") == [3, 3]
    found.active["evaluate"] = 2
    assert found.split("evaluate") == [3, 1]
    found.active["evaluate"] = 9
    assert found.split("evaluate") == []
    assert found.students_wait


@pytest.mark.parametrize(
    ("asked", "site", "said"),
    [
        ("cpu", Site(), "--device cpu, but stages.distill.gpus of the site's settings is 1"),
        ("cuda", CPUS, "--device cuda, but stages.distill.gpus of the site's settings is 0"),
        ("cuda:1", Site(), "say --device cuda"),
        ("auto", Site(stages=Stages(evaluate=Resources(gpus=0))), "on one kind of device"),
    ],
)
def test_a_device_that_pilots_do_not_have_is_refused(asked: str, site: Site, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        device_of(asked, site)
    assert said in str(caught.value)


@pytest.mark.parametrize(("more", "said"), [({"reuse": "never"}, "--reuse never"), ({"jobs": 2}, "a pilot has 1 GPUs")])
def test_what_pilots_cannot_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        wanted(tmp_path, Site(), monkeypatch, **more)
    assert said in str(caught.value)


def test_a_study_says_where_its_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what the site has in its stead, in silence."""
    study = tmp_path / "mine.yaml"
    study.write_text("{methods: [random], datasets: [digits], ipc: 1, device: cpu, out: elsewhere}")
    monkeypatch.setattr(slurm, "limits", lambda: slurm.Limits(array_size=None, submitted=None))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--device cpu, but stages.distill.gpus"):
        resolve({}, config=study, study=None, site=Site(), pilots=None)
    found = resolve({}, config=study, study=None, site=CPUS, pilots=None)
    assert {planned.launch.device for planned in found.planned.plan.sets} == {"cpu"}
    assert found.request.given["out"] == str(tmp_path / "elsewhere")
    assert said("out", {}, study, None, "runs") == "elsewhere"
    assert said("out", {"out": "here"}, study, None, "runs") == "here"


def test_the_same_request_has_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [wanted(tmp_path, site, monkeypatch).request.key for site in (Site(), Site(idle_minutes=1))]
    other = wanted(tmp_path, Site(), monkeypatch, repeats=5).request.key
    assert keys[0] == keys[1] != other


def test_of_two_commands_at_once_one_queues_the_pilots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has looked before the other one submits."""
    first, same, other = (wanted(tmp_path, CPUS, monkeypatch, repeats=repeats) for repeats in (4, 4, 5))
    queued: dict[str, int] = {}

    def submit(script: Path, tasks: int, *, held: bool) -> str:
        queued[str(len(queued) + 1)] = tasks
        return str(len(queued))

    def queue(arrays: list[str]) -> list[slurm.Queued]:
        return [slurm.Queued(one, tuple(range(queued[one])), slurm.QUEUED, "") for one in arrays]

    monkeypatch.setattr(slurm, "submit", submit)
    monkeypatch.setattr(slurm, "queue", queue)
    arrays = [queue_pilots(one) for one in (first, same, other)]
    assert sum(array.tasks for array in arrays[0]) == first.pilots("distill") + first.pilots("evaluate")
    assert arrays[1] == []
    assert arrays[2]
    assert [one.folder.name for one in submissions(tmp_path / "runs")] == ["1", "2"], "a folder for each request"
