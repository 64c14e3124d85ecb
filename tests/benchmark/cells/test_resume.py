"""Kill -9 at any moment, run the same command: it goes on, makes nothing twice, and ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.store import CellDir, State, Store

BENCH = Path(sys.executable).with_name("bench")
COMMAND = ["run", "--method", "dmgd", "--dataset", "digits", "--ipc", "8", "--seeds", "0", "--repeats", "1",
           "--protocol", "quick[epochs=60]", "--device", "cpu"]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "DDBENCH_CHECKPOINT_SECONDS": "0"}


def start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BENCH, *COMMAND, "--out", out], env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(out: Path) -> str:
    done = subprocess.run([BENCH, *COMMAND, "--out", out], env=ENVIRONMENT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def cells(out: Path, kind: str) -> list[CellDir]:
    return [cell for cell in Store(out).cell_dirs() if cell.id.startswith(kind)]


def committed(out: Path) -> dict[str, int]:
    """Committed image file -> inode."""
    return {
        path.name: path.stat().st_ino for cell in cells(out, "distill") for path in cell.path.glob("rounds/0*/*.png")
    }


def pid_of(cell: CellDir) -> int | None:
    return cell.progress().get("pid")


def results(out: Path) -> tuple[DistillResult, EvaluateResult]:
    (distill,), (student,) = cells(out, "distill"), cells(out, "evaluate")
    one, other = distill.result(), student.result()
    assert isinstance(one, DistillResult)
    assert isinstance(other, EvaluateResult)
    return one, other


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "runs"
    finish(out)
    return out


def assert_equal_results(out: Path, undisturbed: Path) -> None:
    (distill, student), (distill0, student0) = results(out), results(undisturbed)
    assert distill.image_set_sha256 == distill0.image_set_sha256
    assert distill.guidance == distill0.guidance
    assert student.metrics == student0.metrics
    one, other = (np.load(cells(o, "evaluate")[0].path / "predictions.npy") for o in (out, undisturbed))
    assert np.array_equal(one, other)


def test_killing_the_cell_and_then_everything_during_distillation(tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "runs"
    run = start(out)
    wait_for(lambda: len(committed(out)) >= 20)
    (cell,) = cells(out, "distill")
    pid = pid_of(cell)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    first = committed(out)

    wait_for(lambda: len(committed(out)) >= len(first) + 10)  # the same run goes on by itself
    again = pid_of(cell)
    assert again not in (None, pid)
    run.kill()
    os.kill(again or 0, signal.SIGKILL)
    output, _ = run.communicate(timeout=60)
    assert "lost" in output
    assert "its process was ended by SIGKILL; attempt 2 of 3 follows" in output
    assert "Traceback" not in output
    assert cell.state() is State.LOST
    second = committed(out)
    assert first.items() <= second.items(), "what was committed was not made again"

    finish(out)
    (distill, _) = results(out)
    assert distill.image_set_sha256 is not None
    final = Store(out).set_dir(distill.image_set_sha256)
    inodes = {f"{int(path.parent.name)}-{int(path.stem)}.png": path.stat().st_ino for path in final.glob("*/*.png")}
    assert second.items() <= inodes.items(), "the set's files are the committed ones"
    assert distill.cost is not None
    assert distill.cost.attempts == 3
    assert_equal_results(out, undisturbed)


def test_killing_during_evaluation(tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "runs"
    run = start(out)
    wait_for(lambda: any((cell.path / "checkpoint.pt").exists() for cell in cells(out, "evaluate")))
    (cell,) = cells(out, "evaluate")
    pid = pid_of(cell)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    run.kill()
    run.communicate(timeout=60)
    assert cell.result() is None, "killed too late: raise the epochs"
    assert (cell.path / "checkpoint.pt").exists()
    distill_before = results_file(out, "distill")
    finish(out)
    assert results_file(out, "distill") == distill_before, "the finished distill cell was left alone"
    _, student = results(out)
    assert student.cost is not None
    assert student.cost.attempts == 2
    assert not (cell.path / "checkpoint.pt").exists()
    assert_equal_results(out, undisturbed)


def results_file(out: Path, kind: str) -> bytes:
    (cell,) = cells(out, kind)
    return (cell.path / "result.json").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_run_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "runs"
    run = start(out)
    wait_for(lambda: len(committed(out)) >= 10)
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert "The same command goes on where this run stopped" in output
    assert "Traceback" not in output
    (cell,) = cells(out, "distill")
    assert cell.result() is None
    assert not cell.running()
    kept = committed(out)
    assert len(kept) >= 10
    status = subprocess.run(
        [BENCH, "status", "--runs", out, "--json"], env=ENVIRONMENT, text=True, capture_output=True, check=True
    )
    assert "interrupted" in json.dumps(json.loads(status.stdout))


def test_a_run_again_makes_nothing_and_says_so(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("result.json")}
    output = finish(undisturbed)
    assert "2 reused" in output
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("result.json")} == before


def test_a_set_that_was_removed_is_made_again_with_the_same_images(undisturbed: Path) -> None:
    import shutil

    distill, student = results(undisturbed)
    assert distill.image_set_sha256 is not None
    shutil.rmtree(Store(undisturbed).set_dir(distill.image_set_sha256))
    output = finish(undisturbed)
    assert "1 done" in output
    assert results(undisturbed)[0].image_set_sha256 == distill.image_set_sha256
    assert results(undisturbed)[1] == student
