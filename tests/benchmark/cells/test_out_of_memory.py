"""GPU memory that runs out halves the batch; a batch that belongs to a protocol is never made smaller."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddbench.benchmark.cells import evaluate
from ddbench.benchmark.cells.cell import DEFAULT_BATCH_SIZE, EXIT_FAILED, EXIT_OK, run_cell
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.cells.rounds import Rounds
from ddbench.benchmark.core.result import DistillResult, Result
from ddbench.benchmark.core.store import CellDir, CellPlan, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import read_set
from ddbench.methods.diffusion.prior import Prior

SAID = "CUDA out of memory. Tried to allocate 2.00 GiB."
OTHER_NAMES = [
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]
"""As errors of PyTorch's two classes; all names are in `core/test_gpu_errors.py`."""


@pytest.fixture(autouse=True)
def this_process() -> Iterator[None]:
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def cell(tmp_path: Path) -> CellDir:
    return add_cell(tmp_path / "runs")


def add_cell(out: Path) -> CellDir:
    given = {"methods": "dmgd[steps=5]", "datasets": "digits", "ipc": 2, "seeds": 0, "device": "cpu", "repeats": 1}
    plan, _, _ = plan_run(run_spec({}, given))
    store = Store(out)
    store.create()
    (planned,) = plan.sets
    assert planned.spec is not None
    store.add(planned.students[0], planned.launch)
    return store.add(planned.spec, planned.launch)


def room_for(monkeypatch: pytest.MonkeyPatch, images: int, after: int = 0, error: Exception | None = None) -> list[int]:
    """From the call number `after` on, the network has room for so many images (with guidance, an image is two).
    Returns the batch sizes that were asked for."""
    asked: list[int] = []
    predict = Prior.predict

    def limited(self: Prior, x: torch.Tensor, *rest: Any) -> Any:
        asked.append(len(x) // 2)
        if len(x) // 2 > images and len(asked) > after:
            raise error or torch.OutOfMemoryError(SAID)
        return predict(self, x, *rest)

    monkeypatch.setattr(Prior, "predict", limited)
    return asked


def result_of(cell: CellDir) -> DistillResult:
    result = cell.result()
    assert isinstance(result, DistillResult)
    return result


def pixels_of(cell: CellDir) -> np.ndarray:
    sha256 = result_of(cell).image_set_sha256
    assert sha256 is not None
    found = read_set(Store(cell.path.parents[1]).set_dir(sha256), Digits.class_ids, Digits.channels)
    return np.stack(list(found.pixels)).astype(int)


@pytest.fixture(scope="module")
def with_enough(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    cell = add_cell(tmp_path_factory.mktemp("enough") / "runs")
    assert run_cell(cell.path) == EXIT_OK
    assert result_of(cell).cost is not None
    assert result_of(cell).cost.oom_batch_sizes == []  # type: ignore[union-attr]
    return pixels_of(cell)


def test_the_batch_is_halved_until_it_fits_and_the_images_are_the_same(
    cell: CellDir, with_enough: np.ndarray, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked, told = room_for(monkeypatch, 4), list[Meter]()
    monkeypatch.setattr(Meter, "ran_out_of_memory", lambda meter: told.append(meter))
    assert run_cell(cell.path) == EXIT_OK
    assert len(told) == 3, "the meter forgets what did not fit"
    result = result_of(cell)
    assert result.cost is not None
    assert result.cost.batch_size == 4
    assert result.cost.oom_batch_sizes == [32, 16, 8]
    assert set(asked) == {10, 8, 4, 2}, "ten classes: in one batch, then in parts"
    assert np.abs(pixels_of(cell) - with_enough).max() <= 1
    assert f"out of GPU memory at batch size 8; going on with 4 ({SAID})" in capfd.readouterr().out, "the cell's log"


def test_committed_images_stay_and_a_resumed_cell_goes_on_with_the_smaller_batch(
    cell: CellDir, with_enough: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the second round (another program has taken it), then the cell is ended."""
    room_for(monkeypatch, 5, after=5)
    commit, committed = Rounds.commit, list[dict[str, int]]()

    def ends_after_two(self: Rounds, images: Any) -> None:
        commit(self, images)
        committed.append({path.name: path.stat().st_ino for path in cell.path.glob("rounds/0*/*.png")})
        if len(committed) == 2:
            raise SystemExit(143)

    monkeypatch.setattr(Rounds, "commit", ends_after_two)
    with pytest.raises(SystemExit):
        run_cell(cell.path)
    kept = CellPlan.model_validate_json((cell.path / "plan.json").read_bytes())
    assert kept == CellPlan(batch_size=4, threads=1, oom_batch_sizes=(32, 16, 8), compile="auto")
    assert [len(files) for files in committed] == [10, 14]
    assert committed[0].items() <= committed[1].items()

    monkeypatch.setattr(Rounds, "commit", commit)
    assert run_cell(cell.path) == EXIT_OK
    result = result_of(cell)
    assert result.cost is not None
    assert (result.cost.batch_size, result.cost.oom_batch_sizes, result.cost.attempts) == (4, [32, 16, 8], 2)
    assert np.abs(pixels_of(cell) - with_enough).max() <= 1


def test_not_even_one_image(cell: CellDir, monkeypatch: pytest.MonkeyPatch) -> None:
    room_for(monkeypatch, 0)
    assert run_cell(cell.path) == EXIT_FAILED
    result = result_of(cell)
    assert result.status == "oom"
    assert result.reason is not None
    for told in ("not even one image at a time fits", "32, 16, 8, 4, 2, 1", SAID.rstrip("."), "--precision bf16"):
        assert told in result.reason
    assert not cell.finished(), "the next run tries again"
    monkeypatch.undo()
    assert run_cell(cell.path) == EXIT_OK
    assert json.loads((cell.path / "plan.json").read_text())["batch_size"] == DEFAULT_BATCH_SIZE
    assert result_of(cell).cost.oom_batch_sizes == []  # type: ignore[union-attr]


def test_preparing_runs_out_too(cell: CellDir, with_enough: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    encode: Callable[..., Any] = Prior.encode
    asked: list[int] = []

    def limited(self: Prior, images: np.ndarray, *rest: Any) -> Any:
        asked.append(len(images))
        if len(images) > 20:
            raise torch.OutOfMemoryError(SAID)
        return encode(self, images, *rest)

    monkeypatch.setattr(Prior, "encode", limited)
    assert run_cell(cell.path) == EXIT_OK
    result = result_of(cell)
    assert result.cost is not None
    assert result.cost.oom_batch_sizes == [32]
    assert max(asked[1:]) == 16
    assert np.abs(pixels_of(cell) - with_enough).max() <= 1


def failed_student(cell: CellDir, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Result:
    """Of a student whose training ends so."""

    def fails(*_: Any, **__: Any) -> Any:
        raise error

    assert run_cell(cell.path) == EXIT_OK
    (student,) = (one for one in Store(cell.path.parents[1]).cell_dirs() if one.id.startswith("evaluate"))
    monkeypatch.setattr(evaluate, "train_student", fails)
    assert run_cell(student.path) == EXIT_FAILED
    result = student.result()
    assert result is not None
    assert not student.finished(), "the next run tries again"
    return result


@pytest.mark.parametrize("error", OTHER_NAMES, ids=lambda error: str(error).split()[2])
def test_memory_runs_out_under_other_names(cell: CellDir, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with monkeypatch.context() as patched:
        room_for(patched, 8, error=error)
        assert run_cell(cell.path) == EXIT_OK
    cost = result_of(cell).cost
    assert cost is not None
    assert (cost.batch_size, cost.oom_batch_sizes) == (8, [32, 16])
    assert failed_student(cell, monkeypatch, error).status == "oom"


def test_a_gpu_that_another_process_holds(cell: CellDir, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors")
    asked = room_for(monkeypatch, 0, error=busy)
    assert run_cell(cell.path) == EXIT_FAILED
    assert len(asked) == 1, "no reason to halve the batch"
    result = result_of(cell)
    assert (result.status, result.retriable, cell.finished()) == ("failed", True, False)
    assert "busy or unavailable): `nvidia-smi` shows who has it" in (result.reason or "")


def test_a_students_batch_is_the_protocols(cell: CellDir, monkeypatch: pytest.MonkeyPatch) -> None:
    result = failed_student(cell, monkeypatch, torch.OutOfMemoryError(SAID))
    assert result.status == "oom"
    assert f"out of memory: {SAID} The training batch is part of the protocol" in (result.reason or "")
    assert "choose a smaller --student" in (result.reason or "")
