"""Trackers get what the cells' files say: TensorBoard's events are read back; the others run offline where they are."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ddbench
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.running import tracking
from ddbench.benchmark.running.runner import Fate, Item, Observer
from ddbench.benchmark.running.tracking import Tracking, installed, open_log, track_board


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that TensorBoard followed."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    return ddbench.run(
        methods=["random"], datasets=["digits"], ipc=1, seeds=0, repeats=2, protocol="quick[epochs=2,looks=2]",
        out=tmp_path_factory.mktemp("tracked") / "runs", track="tensorboard",
    )  # fmt: skip


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_curves_and_the_board(run: Any) -> None:
    logs = run.out / "tracking" / "tensorboard"
    frame = ddbench.results(run.out)
    students = [item for item in run.cells if item.stage == "students"]
    assert {path.name for path in logs.iterdir()} == {"board", *(item.cell.id for item in run.cells)}
    for item in students:
        found = scalars(logs / item.cell.id)
        curve = {look.epoch: look for look in item.result.metrics.curve}
        assert found["test accuracy %"] == pytest.approx({e: look.accuracy for e, look in curve.items()})
        assert found["training loss"] == pytest.approx({e: look.train_loss for e, look in curve.items()})
        assert found["acc_last %"] == pytest.approx({0: item.result.metrics.acc_last})
    ((name, mean),) = scalars(logs / "board").items()
    assert name.endswith("/random")
    assert mean[0] == pytest.approx(frame["acc_last"].mean())


def test_what_is_there_already_is_told_too(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = FakeLog()
    monkeypatch.setitem(tracking.LOGS, "tensorboard", lambda folder: told)
    again = ddbench.run(
        methods=["random"], datasets=["digits"], ipc=1, seeds=0, repeats=2, protocol="quick[epochs=2,looks=2]",
        out=run.out, track="tensorboard",
    )  # fmt: skip
    assert again.fates == {"reused": 3}
    assert told.ended == [item.cell.id for item in run.cells] + ["board"]


class FakeLog:
    def __init__(self, fails: bool = False) -> None:
        self.said: list[tuple[str, int, Mapping[str, float]]] = []
        self.started: list[str] = []
        self.ended: list[str] = []
        self.fails = fails

    def start(self, run: str, title: str, facts: Mapping[str, Any]) -> None:
        if self.fails:
            raise ConnectionError("no network\nmore of it")
        json.dumps(facts)
        self.started.append(run)

    def numbers(self, run: str, step: int, values: Mapping[str, float]) -> None:
        self.said.append((run, step, values))

    def end(self, run: str) -> None:
        self.ended.append(run)


def living(run: Any, tmp_path: Path) -> Item:
    """The first student of a run, as it was while it trained."""
    item = next(item for item in run.cells if item.stage == "students")
    store = Store(tmp_path)
    store.create()
    cell: CellDir = store.add(item.spec, Launch(label="random"))
    return Item(item.planned, item.spec, cell, Fate.RUNNING)


def test_looks_are_told_while_a_student_trains_and_once(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "LOOK_SECONDS", 0.0)
    item, log = living(run, tmp_path), FakeLog()
    done = next(one for one in run.cells if one.cell.id == item.cell.id)
    followed = Tracking(log, Observer(), [item], pytest.fail)
    followed.tick()  # no note yet
    first = done.result.metrics.curve[0]
    noted = {"epoch": 1, "epochs": 2, "accuracy": first.accuracy, "looked_at_epoch": 1}
    (item.cell.path / "progress.json").write_text(json.dumps(noted))
    followed.tick()
    followed.tick()
    assert log.said == [(item.cell.id, 1, {"test accuracy %": first.accuracy})]
    item.result, item.fate = done.result, Fate.DONE
    followed.changed(item)
    told = [step for _, step, values in log.said if "test accuracy %" in values]
    assert (told, log.started, log.ended) == ([1, 2], [item.cell.id], [item.cell.id])


def test_a_tracker_that_fails_is_left_behind(run: Any, tmp_path: Path) -> None:
    item, warnings = living(run, tmp_path), list[str]()
    seen: list[Item] = []
    shown: Any = SimpleNamespace(changed=seen.append, tick=lambda: None)
    followed = Tracking(FakeLog(fails=True), shown, [item], warnings.append)
    item.fate = Fate.DONE
    followed.changed(item)
    followed.changed(item)
    assert seen == [item, item]
    assert warnings == ["tracking ended, the run goes on: ConnectionError: no network"]


def test_a_tracker_that_is_not_installed_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install wandb, or pip install 'ddbench\[tracking\]'"):
        installed("wandb")
    with pytest.raises(UsageError, match="not installed"):
        ddbench.run(methods=["random"], datasets=["digits"], out=tmp_path / "runs", track="mlflow")
    assert not (tmp_path / "runs" / "cells").exists()


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    log = open_log("wandb", tmp_path)
    for run in ("a", "b"):  # cells end in another order than they begin
        log.start(run, f"train {run}", {"ipc": 10, "label": "dmgd"})
    log.numbers("a", 5, {"test accuracy %": 12.5})
    log.numbers("b", 1, {"test accuracy %": 50.0})
    log.numbers("a", 1, {"training loss": 2.0})
    log.end("b")
    log.end("a")
    kept = list((tmp_path / "tracking" / "wandb").rglob("*.wandb"))
    assert {path.name for path in kept} == {"run-a.wandb", "run-b.wandb"}, kept
    deadline = time.monotonic() + 30  # a process of its own writes them
    while any(path.stat().st_size < 200 for path in kept) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(path.stat().st_size > 200 for path in kept)


def test_mlflow_in_its_own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track_board("mlflow", tmp_path, {"digits · IPC 10 · quick[epochs=2]@1": {"dmgd[ot_scale=0.1]": 81.5}})
    client = mlflow.MlflowClient((tmp_path / "tracking" / "mlflow").resolve().as_uri())
    (experiment,) = [one for one in client.search_experiments() if one.name == "ddbench"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert list(found.data.metrics.values()) == [81.5]
    assert (found.info.run_name, found.info.status) == ("board", "FINISHED")
