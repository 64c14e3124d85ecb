"""What is wrong with data, prior or disk is said before or while a cell runs, with the way out."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ddbench.benchmark.cells.cell import EXIT_FAILED, run_cell
from ddbench.benchmark.core.errors import Problems, RunError
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.engines.local import LocalEngine
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running.prepare import check_room
from ddbench.benchmark.running.runner import Runner
from ddbench.datasets.base import Subset
from ddbench.datasets.digits import Digits


@pytest.fixture(autouse=True)
def this_process() -> Iterator[None]:
    import torch

    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def request(**options: object) -> dict[str, object]:
    return {"methods": "random", "datasets": "digits", "ipc": 2, "seeds": 0, "device": "cpu", **options}


@pytest.mark.parametrize("method", ["random", "dmgd", "dit"])
def test_a_class_without_training_images(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Digits().load("default", None, 8)
    some = Subset(split.train, np.flatnonzero(~np.isin(split.train.labels, (3, 7))))
    monkeypatch.setattr(Digits, "load", lambda *_: dataclasses.replace(split, train=some))
    (planned,) = plan_run(run_spec({}, request(methods=method)), students=False)[0].sets
    assert planned.spec is not None
    store = Store(tmp_path / "runs")
    store.create()
    cell = store.add(planned.spec, planned.launch)
    assert run_cell(cell.path) == EXIT_FAILED
    result = cell.result()
    assert result is not None
    assert "has no training images of 2 of its 10 classes (the first is '3')" in (result.reason or "")
    assert "bench verify digits" in (result.reason or "")


def test_a_prior_of_another_size(make_prior: Callable[..., Path]) -> None:
    prior = make_prior(Digits.class_ids, image_size=16)
    with pytest.raises(Problems, match=r"makes images of 16 px, the run asks for 8 px; choose another prior"):
        plan_run(run_spec({}, request(methods="dit", prior=str(prior), resolution=8)))


def test_too_little_disk_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the bytes of 2 × 10 images of 8×8 is what they take at least: 426 bytes."""
    plan, settings, _ = plan_run(run_spec({}, request(shards=2)), students=False)
    store = Store(tmp_path / "runs")
    store.create()
    runner = Runner(store, plan, LocalEngine())
    runner.settle()

    def left(free_bytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
        check_room(store, runner.items, settings, None)

    left(430)
    with pytest.raises(RunError, match=r"need at least 0\.00 GiB in .*runs, where .* choose another folder with --out"):
        left(400)
    first = runner.items[0]
    cell = store.add(first.spec, first.planned.launch)
    (cell.path / "progress.json").write_text('{"images_done": 8}')
    left(400)  # what an interrupted cell has made needs no more room
