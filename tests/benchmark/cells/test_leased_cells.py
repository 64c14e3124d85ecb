"""A cell's process under its lease: it looks before it works, counts its own time, and commits what is its own."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_results
import pilot
import pytest

from ddbench.benchmark.cells import cell as module
from ddbench.benchmark.cells.cell import EXIT_CHANGED, EXIT_ELSEWHERE, EXIT_FAILED, EXIT_OK, EXIT_TERMINATED, run_cell
from ddbench.benchmark.cells.failures import write_failure
from ddbench.benchmark.core import files
from ddbench.benchmark.core.sharing.attempts import Cause
from ddbench.benchmark.core.store import CellDir, Launch, State, Store

LAUNCH = Launch(label="random")


@pytest.fixture(autouse=True)
def this_process() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def cell(tmp_path: Path) -> CellDir:
    store = Store(tmp_path / "runs")
    store.create()
    (planned,) = pilot.plan(1, 1).sets
    assert planned.spec is not None
    return store.add(planned.spec, LAUNCH)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[CellDir], Any]], None]:
    """Has cells do something before they end well."""

    def set_work(do: Callable[[CellDir], Any]) -> None:
        def run(cell: CellDir, *_: Any, **__: Any) -> Any:
            do(cell)
            return fake_results.of(cell)

        monkeypatch.setattr(module, "_run", run)

    set_work(lambda cell: None)
    return set_work


def test_a_cell_that_has_a_new_result_is_left_alone(cell: CellDir, work: Any) -> None:
    assert run_cell(cell.path, launch=LAUNCH) == EXIT_OK
    # To the nanosecond: a folder may give a new file the number of the old one, and both may be of one second.
    seen, before = cell.result_sha256(), (cell.path / "result.json").stat().st_mtime_ns
    assert run_cell(cell.path, launch=LAUNCH) == EXIT_CHANGED, "whoever starts it had seen none"
    assert (cell.path / "result.json").stat().st_mtime_ns == before
    assert len(cell.attempts.all()) == 1
    assert run_cell(cell.path, launch=LAUNCH.model_copy(update={"replaces": seen})) == EXIT_OK
    assert (cell.path / "result.json").stat().st_mtime_ns != before


def test_a_cell_that_another_process_is_at_is_left_alone(cell: CellDir, work: Any) -> None:
    with cell.lock():
        assert run_cell(cell.path, launch=LAUNCH) == EXIT_ELSEWHERE
    assert cell.result() is None
    assert cell.attempts.all() == []


@pytest.mark.parametrize("fails", [False, True])
def test_who_loses_the_lease_while_it_works_writes_nothing(cell: CellDir, work: Any, fails: bool) -> None:
    def lose(cell: CellDir) -> None:
        (cell.path / "lease" / "000002").write_bytes((cell.path / "lease" / "000001").read_bytes())
        if fails:
            raise RuntimeError("its files are not what it left")

    work(lose)
    assert run_cell(cell.path, launch=LAUNCH) == EXIT_ELSEWHERE
    assert cell.result() is None


def test_its_time_counts_from_its_own_start(cell: CellDir, work: Any) -> None:
    work(lambda cell: time.sleep(60))
    begun = time.monotonic()
    assert run_cell(cell.path, launch=LAUNCH.model_copy(update={"timeout_seconds": 0.1})) == EXIT_FAILED
    assert time.monotonic() - begun < 30
    result = cell.result()
    assert result is not None
    assert (result.status, result.reason) == ("timeout", "took longer than the --timeout of 0.1 s")
    work(lambda cell: time.sleep(0.2))  # the timer is off again
    assert run_cell(cell.path) == EXIT_OK


def test_a_method_that_catches_every_exception_does_not_catch_its_time(cell: CellDir, work: Any) -> None:
    def stubborn(cell: CellDir) -> None:
        try:
            time.sleep(60)
        except Exception:
            time.sleep(60)

    work(stubborn)
    assert run_cell(cell.path, launch=LAUNCH.model_copy(update={"timeout_seconds": 0.1})) == EXIT_FAILED
    assert cell.state() is State.TIMEOUT


def test_three_lost_attempts_are_a_result_and_the_next_command_tries_again(cell: CellDir, work: Any) -> None:
    for _ in range(3):
        with cell.lock() as lease:
            cell.attempts.begin(lease.holder.model_copy(update={"host": "n7"}))
    assert cell.state() is State.LOST
    assert run_cell(cell.path, launch=LAUNCH) == EXIT_FAILED
    result = cell.result()
    assert result is not None
    assert result.status == "killed"
    assert result.reason == "its process ended 3 times without a word (on n7); the same command tries again"
    assert not cell.finished()
    assert run_cell(cell.path, launch=LAUNCH.model_copy(update={"replaces": cell.result_sha256()})) == EXIT_OK


@pytest.mark.parametrize(("job", "state"), [(None, State.INTERRUPTED), ("77", State.PREEMPTED)])
def test_an_attempt_that_was_asked_to_stop_counts_for_nothing(
    cell: CellDir, work: Any, monkeypatch: pytest.MonkeyPatch, job: str | None, state: State
) -> None:
    for name in ("SLURM_ARRAY_JOB_ID", "PBS_JOBID", "LSB_JOBID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)

    def stop(cell: CellDir) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    work(stop)
    for _ in range(4):
        with pytest.raises(SystemExit) as ended:
            run_cell(cell.path, launch=LAUNCH)
        assert ended.value.code == EXIT_TERMINATED
    assert cell.state() is state
    assert cell.attempts.lost() == 0
    assert not cell.running()


def test_a_disk_that_is_full_for_the_last_file(
    cell: CellDir, work: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert run_cell(cell.path, launch=LAUNCH) == EXIT_FAILED
    assert "No space left on device; mend that, and the same command goes on" in capsys.readouterr().err
    assert cell.result() is None
    assert not list(cell.path.glob(".*"))
    assert run_cell(cell.path, launch=LAUNCH) == EXIT_OK


def test_what_killed_holders_left_half_written_is_removed(cell: CellDir, work: Any) -> None:
    left = [".result.json.n1-abc.tmp", ".progress.json.n2-abc.tmp", ".0123.n1-abc.tmp"]
    for name in left[:2]:
        (cell.path / name).write_text("{")
    (cell.path / left[2]).mkdir()
    (cell.path / ".launch.json.n3-abc.tmp").write_text("another run's, at this moment")
    assert run_cell(cell.path, launch=LAUNCH) == EXIT_OK
    assert [path.name for path in cell.path.glob(".*")] == [".launch.json.n3-abc.tmp"]


def test_a_failure_on_a_full_disk_leaves_none(
    cell: CellDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    write_failure(cell, "timeout", "too late")
    assert cell.result() is None
    assert "the same command goes on" in capsys.readouterr().err


def test_ends_are_noted_once(cell: CellDir, work: Any) -> None:
    assert run_cell(cell.path, launch=LAUNCH) == EXIT_OK
    (attempt,) = cell.attempts.all()
    assert attempt.cause is Cause.DONE
    assert attempt.host == os.uname().nodename
