"""Small runs to be disturbed: as users start them, and forked from a process that has everything imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE_SECONDS = 300.0
COMMAND = (
    "run", "--method", "random,dit[steps=2]", "--dataset", "digits", "--ipc", "1", "--seeds", "0", "--repeats", "1",
    "--protocol", "quick[epochs=4]", "--batch-size", "4", "--device", "cpu", "--jobs", "2",
)  # fmt: skip
AS_USERS_DO = "from ddbench.benchmark.commands.cli import main; main()"


class Hung(AssertionError):
    """A run did not end."""


def start_as_users_do(out: Path, watched: Mapping[str, str], log: Path) -> int:
    """`bench run` in a fresh process, with cells forked from a fork server; returns its pid."""
    environment = os.environ | watched | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    with log.open("ab") as said:
        command = [sys.executable, "-P", "-c", AS_USERS_DO, *COMMAND, "--out", str(out)]
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True).pid


def start_forked(out: Path, watched: Mapping[str, str], log: Path) -> int:
    """The same forked from this process, with cells forked from the run: no imports, and no fork server to kill."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ.update(watched)
        status = _run_forked(out)
    finally:
        os._exit(status)


def _run_forked(out: Path) -> int:
    import multiprocessing

    import kill_at

    from ddbench.benchmark.commands.cli import main

    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("fork")  # type: ignore[assignment]
    kill_at.install()
    sys.argv = ["bench", *COMMAND, "--out", str(out)]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def wait(pid: int) -> int:
    """The exit status of a run, negative for a signal.

    Raises:
        Hung: it went on for too long, and was killed.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Hung(f"a run went on for {PATIENCE_SECONDS:g} s")
