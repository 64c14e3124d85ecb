"""Locks exclude, die with their process, and tell who holds them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.sharing.locks import is_locked, lock, lock_or_refuse

HOLD = """
import sys, time; from pathlib import Path
from ddbench.benchmark.core.sharing.locks import lock
with lock(Path(sys.argv[1])): print("there", flush=True); time.sleep(60)
"""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-P", "-c", HOLD, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "there\n"
        yield started
        started.kill()


def test_a_lock_that_is_held_is_refused_with_its_process_and_dies_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "lease"
    assert not is_locked(folder)
    with held(folder) as holder:
        assert is_locked(folder)
        said = rf"the cell is running \(process {holder.pid}\); wait for it"
        with pytest.raises(RunError, match=said), lock_or_refuse(folder, "the cell is running", "; wait for it"):
            pass
    assert not is_locked(folder)
    with lock_or_refuse(folder, "the cell is running", "; wait for it"):
        assert is_locked(folder)
    assert not is_locked(folder)


def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    """A killed process stays in the table until its parent asks for it."""
    with held(tmp_path / "lease") as holder:
        os.kill(holder.pid, signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert not is_locked(tmp_path / "lease")


def test_threads_of_one_process_exclude_one_another(tmp_path: Path) -> None:
    inside, most, entered, mine = 0, 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most, entered
        for _ in range(5):
            with lock(tmp_path / "lease"):
                with mine:
                    inside += 1
                    entered += 1
                    most = max(most, inside)
                with mine:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 20)
    # A number that was taken and given up at once, since a higher one was seen, is left out.
    (last,) = (tmp_path / "lease").iterdir()
    assert last.suffix == ".free"
    assert int(last.stem) >= 20


def test_whoever_waits_for_a_lock_says_so_for_as_long_as_it_takes(tmp_path: Path) -> None:
    folder, waited = tmp_path / "lease", list[str]()

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        waited.append("begins")
        assert is_locked(folder)
        threading.Timer(0.2, os.kill, (holder.pid, signal.SIGKILL)).start()
        yield
        waited.append("ends")

    with held(folder) as holder, lock(folder, waiting=waiting):
        assert waited == ["begins", "ends"]
    with lock(folder, waiting=waiting):
        assert waited == ["begins", "ends"], "nobody held it"
