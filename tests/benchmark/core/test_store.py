"""The results folder: whole files or none, locks that die with their process, states that tell the truth."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ddbench.benchmark.cells.failures import write_failure, write_failure_held
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.sharing.lease import LeaseLost
from ddbench.benchmark.core.sharing.locks import Busy
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


def test_planning_is_for_one_at_a_time_and_whoever_waits_says_so(store: Store) -> None:
    said: list[str] = []

    def waiting() -> contextlib.AbstractContextManager[None]:
        said.append("waiting")
        threading.Timer(0.05, first.close).start()
        return contextlib.nullcontext()

    first = contextlib.ExitStack()
    first.enter_context(store.planning())
    with store.planning(waiting):
        assert said == ["waiting"]


def test_runs_at_work_are_seen_while_they_are(store: Store) -> None:
    with store.at_work("one"), store.at_work("other"):
        assert [run.folder.name for run in store.runs_at_work()] == ["one", "other"]
        assert {run.holder.pid for run in store.runs_at_work()} == {os.getpid()}
    assert store.runs_at_work() == []


def test_who_only_looks_leaves_a_run_its_folder_that_takes_its_lease_just_now(store: Store) -> None:
    """`bench status` and `bench doctor` look at any moment: between a run's making its folder and its lease, too."""
    folder = store.out / "at-work" / "one"
    folder.mkdir(parents=True)
    assert store.runs_at_work() == []
    assert folder.is_dir()
    assert store.runs_at_work(sweep=True) == []
    assert not folder.exists()


def test_a_cell_that_is_being_made_is_not_put_aside(store: Store, cell: CellDir) -> None:
    with cell.lock(), pytest.raises(Busy, match="is running"):
        store.put_aside(cell, "ab" * 32)
    store.put_aside(cell, "ab" * 32)
    aside = store.set_aside(cell.id, "ab" * 32)
    assert aside.state() is State.INTERRUPTED, "and nobody is at it there"
    assert not cell.path.exists()


def test_a_failure_is_not_written_while_another_process_is_at_the_cell(cell: CellDir) -> None:
    code = (
        "import sys; from pathlib import Path; from ddbench.benchmark.core.store import CellDir\n"
        "from ddbench.benchmark.cells.failures import write_failure\n"
        "write_failure(CellDir(Path(sys.argv[1])), 'timeout', 'too late')"
    )
    with cell.lock():
        subprocess.run([sys.executable, "-P", "-c", code, cell.path], check=True)
        assert cell.result() is None
    subprocess.run([sys.executable, "-P", "-c", code, cell.path], check=True)
    assert cell.result() is not None


def test_a_holder_that_lost_its_lease_commits_nothing(cell: CellDir) -> None:
    with cell.lock() as lease:
        (lease.folder / "000002").write_bytes((lease.folder / "000001").read_bytes())
        with pytest.raises(LeaseLost):
            cell.commit(OK)
        with pytest.raises(LeaseLost):
            write_failure_held(cell, "failed", "because")
    assert cell.result() is None


LATE_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
static int late(const char *path) {
    struct stat found;
    const char *name = strrchr(path, '/');
    return name && !strcmp(name, "/result.json") && !stat(path, &found) && time(0) - found.st_mtime < 2;
}
#define OPEN(name)                                                              \\
    int name(const char *path, int flags, ...) {                                \\
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \\
        if (late(path)) { errno = ENOENT; return -1; }                          \\
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \\
    }
OPEN(open)
OPEN(open64)
"""


def test_a_result_that_a_machine_does_not_see_yet_is_not_written_over(cell: CellDir, tmp_path: Path) -> None:
    """A preloaded `open` that denies a result for its first two seconds, as network file systems do."""
    (tmp_path / "shim.c").write_text(LATE_SHIM)
    command = ["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c", "-ldl"]
    subprocess.run(command, check=True)
    code = (
        "import sys; from pathlib import Path; from ddbench.benchmark.core.store import CellDir\n"
        "from ddbench.benchmark.cells.failures import write_failure\n"
        "cell = CellDir(Path(sys.argv[1])); (cell.path / 'result.json').touch(); print(cell.result(), cell.problem())\n"
        "write_failure(cell, 'timeout', 'too late'); print(cell.result().status)"
    )
    write_json(cell.path / "result.json", OK.model_dump(mode="json"))
    late = {**os.environ, "LD_PRELOAD": str(tmp_path / "shim.so")}
    said = subprocess.run(
        [sys.executable, "-P", "-c", code, cell.path], env=late, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["None None", "ok"]


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
