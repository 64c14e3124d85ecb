"""The results folder: whole files or none, locks that die with their process, states that tell the truth."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddbench.benchmark.cells.failures import write_failure
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec, MethodSpec, cell_id
from ddbench.benchmark.core.store import CellDir, CellPlan, Launch, State, Store

SPEC = DistillSpec(
    method=MethodSpec(name="random", version=1, params={}),
    dataset=DatasetSpec(name="digits", split="default", resolution=8),
    prior_sha256=None,
    ipc=1,
    seed=0,
    precision="fp32",
    device_type="cpu",
)
OK = DistillResult(
    cell=cell_id(SPEC), status="ok", label="random", method=SPEC.method, dataset=None, ipc=1, distill_seed=0
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs")
    made.create()
    return made


@pytest.fixture
def cell(store: Store) -> CellDir:
    return store.add(SPEC, Launch(label="random"))


def test_states(store: Store, cell: CellDir) -> None:
    assert store.cell("distill-0").state() is State.ABSENT
    assert cell.state() is State.INTERRUPTED
    with cell.lock():
        assert cell.state() is State.RUNNING
    write_json(cell.path / "result.json", OK.model_dump(mode="json"))
    assert cell.state() is State.OK
    assert cell.finished()


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1}', '{"schema_version": 99, "kind": "distill"}', "[]"])
def test_a_half_written_or_foreign_result_is_reported_and_not_taken_for_one(cell: CellDir, text: str) -> None:
    (cell.path / "result.json").write_text(text)
    assert cell.result() is None
    assert cell.state() is State.UNREADABLE
    assert "result.json" in (cell.problem() or "")
    assert not cell.finished()


@pytest.mark.parametrize(
    ("status", "retriable", "missing", "retried"),
    [
        ("failed", False, True, False),
        ("failed", True, False, False),
        ("oom", False, False, False),
        ("timeout", False, False, False),
        ("killed", False, False, False),
    ],
)
def test_what_is_run_again(cell: CellDir, status: str, retriable: bool, missing: bool, retried: bool) -> None:
    write_failure(cell, status, "because", retriable=retriable)  # type: ignore[arg-type]
    result = cell.result()
    assert result is not None
    assert (result.status, result.reason) == (status, "because")
    assert cell.finished() is missing
    assert cell.finished(retry_failed=True) is retried


def test_a_failure_does_not_replace_a_good_result(cell: CellDir) -> None:
    write_json(cell.path / "result.json", OK.model_dump(mode="json"))
    write_failure(cell, "timeout", "too late")
    assert cell.result() == OK


def test_clearing_leaves_what_the_cell_is(store: Store, cell: CellDir, tmp_path: Path) -> None:
    store.cell("distill-0").clear()  # there is none
    assert not store.cell("distill-0").path.exists()
    write_json(cell.path / "result.json", OK.model_dump(mode="json"))
    (cell.path / "rounds" / "00000").mkdir(parents=True)
    (cell.path / "scratch").symlink_to(tmp_path)
    cell.clear()
    assert sorted(path.name for path in cell.path.iterdir()) == ["launch.json", "lease", "spec.json"]
    assert cell.state() is State.INTERRUPTED
    assert store.cells.is_dir(), "a link's target is not cleared"


def test_a_batch_is_halved_down_to_one_image() -> None:
    plan, tried = CellPlan(batch_size=5, threads=1), []
    for _ in range(4):
        plan = plan.halved()
        tried.append(plan.batch_size)
    assert tried == [2, 1, 1, 1]
    assert plan.oom_batch_sizes == (5, 2, 1, 1)


def test_a_lock_is_exclusive_and_released_when_its_process_is_killed(cell: CellDir) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ddbench.benchmark.core.store import CellDir\n"
        "with CellDir(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", code, str(cell.path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert cell.running()
        refused = rf"cell {cell.id} is running \(process {holder.pid}\); wait for it or stop it"
        with pytest.raises(RunError, match=refused), cell.lock():
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert not cell.running()
    with cell.lock():
        pass


def test_two_runs_on_one_folder(store: Store) -> None:
    with store.run_lock():
        code = (
            "import sys; from pathlib import Path; from ddbench.benchmark.core.store import Store\n"
            "with Store(Path(sys.argv[1])).run_lock(): pass"
        )
        done = subprocess.run([sys.executable, "-P", "-c", code, str(store.out)], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"another run (process {os.getpid()}) is writing to" in done.stderr
    with store.run_lock():
        pass


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write results to .*Choose another folder with --out"):
        Store(tmp_path / "file" / "runs").create()


def test_no_results_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        Store(tmp_path).require()


def old_folder(out: Path, *, version: int = 1, foreign: bool = False) -> Store:
    """A folder as ddbench wrote it under another schema: a student, and unless its images are foreign their set."""
    kinds = {"evaluate": "evaluate-0011223344556677"} | ({} if foreign else {"distil": "distil-8899aabbccddeeff"})
    for kind, cell in kinds.items():
        (out / "cells" / cell).mkdir(parents=True)
        old = {"schema_version": version, "kind": kind, "status": "ok"}
        (out / "cells" / cell / "result.json").write_text(json.dumps(old))
    return Store(out)


@pytest.mark.parametrize(("version", "foreign"), [(1, False), (1, True), (3, True)])
def test_a_folder_of_another_schema_is_refused_in_one_sentence(tmp_path: Path, version: int, foreign: bool) -> None:
    store = old_folder(tmp_path / "runs", version=version, foreign=foreign)
    said = rf"runs holds results of schema {version}, and this version of ddbench reads and writes schema 2: [^\n]*\.$"
    with pytest.raises(UsageError, match=said):
        store.require()
    with pytest.raises(UsageError, match=said):
        store.create()
    assert not store.plans.exists(), "nothing is written into it"


def test_a_folder_that_has_results_of_this_schema_too_is_read(store: Store, cell: CellDir) -> None:
    write_json(cell.path / "result.json", OK.model_dump(mode="json"))
    old_folder(store.out)
    store.require()
    store.create()


def test_an_old_cell_without_a_result_is_recognised_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "cells" / "distil-8899aabbccddeeff").mkdir(parents=True)
    with pytest.raises(UsageError, match="schema 1"):
        Store(tmp_path).require()


def test_adding_a_cell_again_keeps_its_specification_and_renews_its_launch(store: Store, cell: CellDir) -> None:
    before = (cell.path / "spec.json").stat().st_mtime_ns
    time.sleep(0.01)
    again = store.add(SPEC, Launch(label="random", threads=4))
    assert again.path == cell.path
    assert (cell.path / "spec.json").stat().st_mtime_ns == before
    assert cell.launch().threads == 4
    assert cell.spec() == SPEC
    assert json.loads((cell.path / "spec.json").read_text())["kind"] == "distill"
