"""Results belong to the images that they were made of: a dataset whose images change makes them stale, loses none."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from ddbench.benchmark.cells.cell import EXIT_FAILED, run_cell
from ddbench.benchmark.cells.rounds import Rounds
from ddbench.benchmark.commands.execute import execute, reporter
from ddbench.benchmark.core.registry import ENGINES
from ddbench.benchmark.core.spec import cell_id
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot
from ddbench.benchmark.planning.planner import plan_request
from ddbench.datasets.base import ArraySource, SplitData
from ddbench.datasets.digits import Digits
from ddbench.datasets.hashing import content_hash
from ddbench.datasets.image_sets import read_set


class Ended(Handle):
    def __init__(self, status: int) -> None:
        self.status = status

    def exit_status(self) -> int:
        return self.status

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        pass


class Here(Engine):
    """Runs cells in this process, one after the other."""

    started: list[str]

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(0, "cpu")]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        self.started.append(cell.name.partition("-")[0])
        return Ended(run_cell(cell, launch=launch))

    def close(self) -> None:
        pass


class Bench:
    """`bench run` on digits, in this process."""

    def __init__(self, out: Path) -> None:
        self.out, self.store = out, Store(out)

    def __call__(self, *, dry_run: bool = False, **options: Any) -> list[str]:
        """The stages of the cells that were run."""
        Here.started = []
        given = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0", "repeats": 1, "device": "cpu"}
        given |= {"protocol": "quick[epochs=1]", "out": self.out, **options}
        execute(*plan_request(given), reporter(), dry_run=dry_run)
        return Here.started

    def content_hashes(self) -> set[str | None]:
        return {cell.content_hash() for cell in self.store.cell_dirs()}

    def cell(self, kind: str) -> CellDir:
        (found,) = (cell for cell in self.store.cell_dirs() if cell.id.startswith(kind))
        return found

    def results(self) -> dict[str, bytes]:
        return {cell.id: (cell.path / "result.json").read_bytes() for cell in self.store.cell_dirs()}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    import torch

    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    monkeypatch.setattr(ENGINES, "load", lambda name: Here)
    yield Bench(tmp_path / "runs")
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def change_images(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Changes one pixel of each training image, as another source of the same dataset might; False: changes it back."""
    load = Digits.load

    def changed(self: Digits, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        data = load(self, split, data_dir, resolution)
        train = data.train
        images = train.read(np.arange(len(train)))
        images[:, 0, 0] ^= 255
        other = ArraySource(images, train.labels, train.names)
        return dataclasses.replace(data, train=other, content_hash=content_hash(other, data.test))

    return lambda change: monkeypatch.setattr(Digits, "load", changed if change else load)


def test_other_images_are_run_anew_and_the_old_results_come_back_with_the_old_images(
    bench: Bench, change_images: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench() == ["distill", "evaluate"]
    first, before = bench.results(), bench.content_hashes()
    assert bench() == []

    change_images(True)
    capsys.readouterr()
    assert bench(dry_run=True) == []
    assert "2 waiting" in capsys.readouterr().out
    assert bench.results() == first, "a dry run writes nothing"

    assert bench() == ["distill", "evaluate"]
    assert "2 cells that were run on others are put aside" in capsys.readouterr().out
    second, after = bench.results(), bench.content_hashes()
    assert len(after) == 1
    assert before.isdisjoint(after)
    assert second.keys() == first.keys(), "ids do not know the images"
    assert bench() == []

    change_images(False)
    assert bench() == [], "nothing is run for images that were there before"
    assert "2 of its present images are back" in capsys.readouterr().out
    assert bench.results() == first
    assert sorted(path.name.rpartition(".")[0] for path in bench.store.superseded.iterdir()) == sorted(second)
    assert len(list(bench.store.sets.iterdir())) == 2


def test_an_interrupted_cell_does_not_mix_images(
    bench: Bench, change_images: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of ten rounds were made of the old images."""
    commit, made = Rounds.commit, list[int]()

    def ends_after_three(self: Rounds, images: Any) -> None:
        commit(self, images)
        made.append(len(self))
        if len(made) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "commit", ends_after_three)
    with pytest.raises(typer.Exit):
        bench()
    old = bench.cell("distill").content_hash()
    assert len(list(bench.cell("distill").path.glob("rounds/0*/*.png"))) == 3
    monkeypatch.setattr(Rounds, "commit", commit)
    change_images(True)
    assert bench() == ["distill", "evaluate"]
    now = Digits().load("default", None, 8)
    assert bench.content_hashes() == {now.content_hash}
    sha256 = bench.cell("distill").result().image_set_sha256  # type: ignore[union-attr]
    assert sha256 is not None
    # Random selection takes real images, and every new one has the corner turned over.
    new = {pixels.tobytes() for pixels in now.train.read(np.arange(len(now.train)))}
    made_of = read_set(bench.store.set_dir(sha256), Digits.class_ids, 1).pixels
    assert {pixels.tobytes() for pixels in made_of} <= new
    (kept,) = bench.store.superseded.iterdir()
    assert kept.name == f"{bench.cell('distill').id}.{(old or '')[:16]}"
    assert len(list(kept.glob("rounds/0*/*.png"))) == 3


def test_images_that_change_while_a_run_goes_on_fail_its_cells(
    bench: Bench, change_images: Callable[[bool], None]
) -> None:
    assert bench() == ["distill", "evaluate"]
    change_images(True)
    cell = bench.cell("distill")
    assert run_cell(cell.path) == EXIT_FAILED
    result = cell.result()
    assert result is not None
    assert "the images of digits have changed since this cell was begun: expected content hash" in (result.reason or "")
    assert bench() == ["distill", "evaluate"], "the next run starts anew"
    assert cell_id(cell.spec()) == cell.id


def test_only_cache_harvests_whatever_the_images_are_now(bench: Bench, change_images: Callable[[bool], None]) -> None:
    assert bench() == ["distill", "evaluate"]
    kept = bench.results()
    change_images(True)
    assert bench(reuse="only-cache") == []
    assert bench.results() == kept
    assert not bench.store.superseded.exists()
