"""Cells as processes of this machine, forked from a server that has paid for the imports once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType

from ddbench.benchmark.cells.cell import child_main
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot

PRELOAD = ["ddbench.benchmark.engines.preload"]
STARTING = threading.Lock()
FORKED = False
"""Whether this process is a fork of one that could start cells. multiprocessing's server is then its parent's child,
for which it would wait in vain."""
BAD_FORK = 3
"""Exit status of a forked process in which CUDA cannot be used."""
LONGEST_TEMPORARY = 70
"""Characters of a temporary folder's name in which the server's socket can lie: the kernel takes 107 for the whole."""
SHORT_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")


class _Process(Handle):
    def __init__(self, process: ForkServerProcess | SpawnProcess) -> None:
        self.process = process

    def exit_status(self) -> int | None:
        return self.process.exitcode

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()


class LocalEngine(Engine):
    """Forks each cell from one warm `forkserver`. The server imports torch and hides CUDA from what it imports, so that
    a forked cell can use it; where CUDA was touched all the same, cells are spawned: fresh processes, seconds slower to
    start. The server runs no parallel code either, so that no thread pool is inherited half-alive."""

    def __init__(self) -> None:
        self._context: ForkServerContext | SpawnContext = multiprocessing.get_context("forkserver")

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        if multiprocessing.current_process().daemon:
            raise UsageError(
                "a worker of multiprocessing.Pool may start no processes, and each cell is one: call it from a thread, "
                "a concurrent.futures.ProcessPoolExecutor or the program itself"
            )
        # OpenMP's idle threads spin by default; beside any other work on a small machine that makes a cell of two
        # threads up to fifteen times slower. The server and the cells inherit this.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._context.set_forkserver_preload(PRELOAD)
        if FORKED:
            self._spawn("this process was forked from another, whose server cannot fork for it")
        if not device.startswith("cuda"):
            return [Slot(index, "cpu") for index in range(jobs)]
        slots = _gpus(jobs, device)
        if not FORKED and self._is_bad_fork():
            self._spawn(
                "a library that is imported before cells are forked has touched CUDA, which no forked process can use "
                "then"
            )
        return slots

    def _spawn(self, why: str) -> None:
        self._context = multiprocessing.get_context("spawn")
        self.notes = (f"each cell starts as a fresh process, which takes it some seconds: {why}",)

    def _is_bad_fork(self) -> bool:
        look = self._context.Process(target=_look)
        _start(look)
        look.join()
        return look.exitcode == BAD_FORK

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        forked = self._context.get_start_method() == "forkserver"
        arguments = str(cell.resolve()), launch.model_dump_json(), forked
        process = self._context.Process(target=child_main, args=arguments, name=cell.name)
        _start(process)
        return _Process(process)

    def close(self) -> None:
        """The server ends by itself with this process."""


def _start(process: ForkServerProcess | SpawnProcess) -> None:
    try:
        with _without_main(), _short_temporary_folder():
            process.start()
    except (EOFError, ConnectionError) as error:
        raise RunError(
            "the process that cells are forked from ended while it started one; its machine may have had no memory "
            "left. Run the same command again: it goes on"
        ) from error


def _in_a_fork() -> None:
    global STARTING, FORKED
    STARTING, FORKED = threading.Lock(), True  # a thread that is not here may have held the former


os.register_at_fork(after_in_child=_in_a_fork)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not run the program again which starts it, as multiprocessing's children do to have
    what it defines: cells need none of that, and a script or a notebook without `if __name__ == "__main__"` works."""
    with STARTING:  # two threads at once would take each other's stand-in for the program
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Where TMPDIR is too long a name for a socket, multiprocessing puts its own elsewhere; cells keep TMPDIR.

    Raises:
        UsageError: there is no other folder for it.
    """
    usual, before = tempfile.gettempdir(), tempfile.tempdir
    if len(os.fsencode(usual)) > LONGEST_TEMPORARY:
        short = next((folder for folder in SHORT_TEMPORARY if os.access(folder, os.W_OK | os.X_OK)), None)
        if short is None:
            raise UsageError(
                f"TMPDIR is {len(usual)} characters long, and a socket in it can have no name; expected at most "
                f"{LONGEST_TEMPORARY}: export TMPDIR=/short/folder"
            )
        tempfile.tempdir = short
    try:
        yield
    finally:
        tempfile.tempdir = before


def _gpus(jobs: int, device: str) -> list[Slot]:
    import torch

    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or not count:
        raise UsageError(f"--device {device}: torch {torch.__version__} sees no CUDA device; use --device cpu")
    if device == "cuda":
        if jobs > count:
            raise UsageError(f"--jobs {jobs}: there are {count} GPUs, and a cell needs one to itself")
        return [Slot(index, f"cuda:{index}") for index in range(jobs)]
    if jobs > 1:
        raise UsageError(f"--jobs {jobs} --device {device}: one GPU runs one cell at a time; use --device cuda")
    if int(device.partition(":")[2]) >= count:
        raise UsageError(f"--device {device}: there are {count} GPUs, numbered from 0")
    return [Slot(0, device)]


def _look() -> None:
    import torch

    # PyTorch knows of its own calls; what another library did with the driver shows when the driver is asked to begin.
    try:
        torch.cuda.init()
    except RuntimeError as error:
        print(f"a forked process cannot use CUDA: {error}", file=sys.stderr, flush=True)
        sys.exit(BAD_FORK)
