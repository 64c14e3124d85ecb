"""Cells as processes of this machine: forks that can use CUDA, or fresh processes where a library has spoilt that."""

import multiprocessing
import multiprocessing.popen_forkserver
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.engines.local import LocalEngine, _start, _without_main

needs_cuda_build = pytest.mark.skipif(torch.version.cuda is None, reason="this torch has no CUDA to touch")


@needs_cuda_build
def test_a_forked_cell_can_use_cuda() -> None:
    """No GPU is needed: asking for one is what spoils a fork."""
    engine = LocalEngine()
    engine.open(jobs=1, device="cpu")
    # The server cannot import a test module's function.
    look = "import torch; raise SystemExit(7 + torch.cuda._is_in_bad_fork())"
    process = engine._context.Process(target=exec, args=(look,))
    process.start()
    process.join()
    assert process.exitcode == 7


ONE_GPU = """
import torch
from ddbench.benchmark.commands import cli
from ddbench.benchmark.engines import local

open_engine = local.LocalEngine.open


def open_with_a_gpu(self, *, jobs, device, needs=None):
    open_engine(self, jobs=jobs, device="cuda")
    print("cells by", self._context.get_start_method())
    return open_engine(self, jobs=jobs, device="cpu")


if __name__ == "__main__":
    local.PRELOAD[:] = ["touching"]
    torch.cuda.device_count, torch.cuda.is_available = lambda: 1, lambda: True
    local.LocalEngine.open = open_with_a_gpu
    cli.main()
"""


TOUCHES = {
    "nothing": "torch.cuda.init = lambda: None",  # there is a GPU
    "asks PyTorch": "torch.accelerator.is_available()",
    # PyTorch hears of it when it asks the driver in the fork.
    "asks the driver": "def init(): raise RuntimeError('initialization error')\ntorch.cuda.init = init",
}


@needs_cuda_build
@pytest.mark.parametrize("does", TOUCHES)
def test_where_a_library_touches_cuda_cells_are_fresh_processes(does: str, tmp_path: Path) -> None:
    (tmp_path / "touching.py").write_text(f"import torch\n{TOUCHES[does]}\n")
    script, out = tmp_path / "one_gpu.py", tmp_path / "runs"
    script.write_text(ONE_GPU)
    command = ["distill", "--method", "random", "--dataset", "digits", "--ipc", "1", "--seeds", "0", "--device", "cpu"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-P", script, *command, "--out", out], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("cells by spawn" in done.stdout) is (does != "nothing")
    assert ("has touched CUDA, which no forked process can use" in done.stdout) is (does != "nothing")
    (cell,) = Store(out).cell_dirs()
    assert cell.state() == "ok"


def test_threads_that_start_cells_at_once_leave_the_program_in_its_place() -> None:
    main = sys.modules["__main__"]

    def start(_: int) -> None:
        with _without_main():
            assert sys.modules["__main__"] is not main
            time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(64)))
    assert sys.modules["__main__"] is main


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_server_that_is_killed_while_it_starts_a_cell_is_told_of(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever started it had `Aborted.` from the option parser, which reads the end of a file as Ctrl-D."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=exec, args=("",))
    launch = multiprocessing.popen_forkserver.Popen._launch

    def killed(self: Any, process_object: Any) -> None:
        raise EOFError("unexpected EOF") if when == "between" else ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(multiprocessing.popen_forkserver.Popen, "_launch", killed)
    with pytest.raises(RunError, match="ended while it started one.*Run the same command again: it goes on"):
        _start(process)
    monkeypatch.setattr(multiprocessing.popen_forkserver.Popen, "_launch", launch)
    again = context.Process(target=exec, args=("raise SystemExit(5)",))
    _start(again)
    again.join()
    assert again.exitcode == 5


@pytest.mark.parametrize("writable", [True, False])
def test_a_temporary_folder_of_a_long_name(writable: bool, tmp_path: Path) -> None:
    """The server's socket lies there, and the kernel takes no more than 107 characters for it."""
    long = tmp_path / ("d" * 110)
    long.mkdir()
    program = (
        "import os, tempfile\nfrom ddbench.benchmark.engines import local\nimport multiprocessing\n"
        f"local.SHORT_TEMPORARY = local.SHORT_TEMPORARY if {writable} else ('/nowhere',)\n"
        "process = multiprocessing.get_context('forkserver').Process(target=exec, args=('raise SystemExit(5)',))\n"
        "local._start(process)\nprocess.join()\nprint(process.exitcode, tempfile.gettempdir())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program], env={**os.environ, "TMPDIR": str(long)}, capture_output=True, text=True
    )
    if writable:
        assert ran.stdout == f"5 {long}\n", ran.stderr
    else:
        assert "TMPDIR is" in ran.stderr
        assert "expected at most 70: export TMPDIR=/short/folder" in ran.stderr


FORKED = """
import multiprocessing, os
from ddbench.benchmark.engines import local

engine = local.LocalEngine()

def started():
    process = engine._context.Process(target=os.getpid)
    local._start(process)
    process.join()
    return process.exitcode

before = started()
child = os.fork()
if not child:
    engine = local.LocalEngine()
    engine.open(jobs=1, device="cpu")
    print(*engine.notes, flush=True)
    os._exit(10 + started())
print(before, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), started())
multiprocessing.current_process()._config["daemon"] = True  # as in a worker of multiprocessing.Pool
try:
    engine.open(jobs=1, device="cpu")
except local.UsageError as error:
    print(error)
"""


def test_a_fork_of_a_program_that_has_run_cells_starts_cells_too() -> None:
    """As the workers of a ProcessPoolExecutor are: multiprocessing waits there for a child that is the parent's."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120)
    note, numbers, refused = done.stdout.splitlines()
    assert note.endswith("this process was forked from another, whose server cannot fork for it")
    assert numbers == "0 10 0", done.stderr
    assert "multiprocessing.Pool may start no processes" in refused
