"""Trackers that follow a run: TensorBoard, Weights & Biases, MLflow get students' curves as they come, and the board.

They watch: what they are told comes from the files of cells, and a tracker that fails is left behind, not the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.spec import EvaluateSpec, Scalar
from ddbench.benchmark.planning.run_spec import Track
from ddbench.benchmark.running.runner import Fate, Item, Observer

PACKAGES: dict[str, str] = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}
LOOK_SECONDS = 2.0
"""Time between two looks at the notes of running cells."""
BOARD = "board"
"""Name of the run that has the leaderboards' means."""

Facts = Mapping[str, Scalar]


class Log(Protocol):
    """Where numbers go. A run is a cell, or the board."""

    def start(self, run: str, title: str, facts: Facts) -> None:
        """Open a run that is not open, by its id."""

    def numbers(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step: an epoch, the index of an image, or 0."""

    def end(self, run: str) -> None:
        """Close a run."""


class TensorBoardLog:
    """Event files, one folder for each cell: `tensorboard --logdir <out>/tracking/tensorboard`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._make, self.folder = SummaryWriter, folder
        self._writers: dict[str, Any] = {}

    def start(self, run: str, title: str, facts: Facts) -> None:
        self._writers[run] = self._make(str(self.folder / run))
        said = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
        self._writers[run].add_text(title, f"| | |\n|---|---|\n{said}" if said else title)

    def numbers(self, run: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writers[run].add_scalar(name, value, step)
        self._writers[run].flush()

    def end(self, run: str) -> None:
        self._writers.pop(run).close()


class WandbLog:
    """Runs of Weights & Biases: sent where a key is set, else kept in the folder for `wandb sync`."""

    def __init__(self, folder: Path) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        sent = "WANDB_API_KEY" in os.environ or "WANDB_MODE" in os.environ
        self._settings: dict[str, Any] = {"dir": str(folder), "settings": wandb.Settings(silent=True)}
        self._settings |= {} if sent else {"mode": "offline"}
        self._wandb, self._runs = wandb, dict[str, Any]()

    def start(self, run: str, title: str, facts: Facts) -> None:
        project = os.environ.get("WANDB_PROJECT", "ddbench")
        self._runs[run] = self._wandb.init(
            project=project, id=run, name=title, config=dict(facts), reinit="create_new", **self._settings
        )
        # Looks come while a student trains, its losses afterwards: by their own step, not by the order of the calls.
        self._runs[run].define_metric("step")
        self._runs[run].define_metric("*", step_metric="step")

    def numbers(self, run: str, step: int, values: Mapping[str, float]) -> None:
        self._runs[run].log({"step": step, **values})

    def end(self, run: str) -> None:
        self._runs.pop(run).finish()


class MlflowLog:
    """Runs of MLflow: at MLFLOW_TRACKING_URI where it is set, else in the folder's own store."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        # Files need no database beside MLflow; later versions want to be told that they are meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or folder.resolve().as_uri())
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ddbench")
        known = self._client.get_experiment_by_name(name)
        self._experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        self._runs: dict[str, str] = {}

    def start(self, run: str, title: str, facts: Facts) -> None:
        made = self._client.create_run(self._experiment, run_name=title, tags={"cell": run})
        self._runs[run] = made.info.run_id
        for key, value in facts.items():
            self._client.log_param(self._runs[run], key, value)

    def numbers(self, run: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._runs[run], _plain(name), value, step=step)

    def end(self, run: str) -> None:
        self._client.set_terminated(self._runs.pop(run))


LOGS: dict[str, Callable[[Path], Log]] = {
    "tensorboard": TensorBoardLog, "wandb": WandbLog, "mlflow": MlflowLog,
}  # fmt: skip


def _plain(name: str) -> str:
    """A name as MLflow takes it: no brackets, equals signs, points in the middle …"""
    return "".join(c if c.isalnum() or c in "/ ._-" else "_" for c in name)


def installed(track: Track) -> None:
    """Raises UsageError if the tracker's package is not there: known before anything runs."""
    if find_spec(track) is None:
        raise UsageError(
            f"--track {track} needs a package that is not installed: pip install {PACKAGES[track]}, or pip install "
            "'ddbench[tracking]' for every tracker"
        )


def open_log(track: Track, out: Path) -> Log:
    """The tracker's log of a results folder, in `<out>/tracking/<its name>`."""
    return LOGS[track](out / "tracking" / track)


class Tracking(Observer):
    """Tells a log of every cell: a student's looks while it trains, the rest of its curve and its costs at the end."""

    def __init__(self, log: Log, shown: Observer, items: Sequence[Item], warn: Callable[[str], None]) -> None:
        self.log, self.shown, self.items, self.warn = log, shown, items, warn
        self._started: set[str] = set()
        self._looks: dict[str, set[int]] = {}
        self._looked = 0.0
        self._broken = False

    def changed(self, item: Item) -> None:
        self.shown.changed(item)
        if item.fate in (Fate.DONE, Fate.REUSED):
            self._tell(partial(self._finished, item))
        elif item.fate is Fate.FAILED and item.cell.id in self._started:
            self._tell(partial(self.log.end, item.cell.id))

    def tick(self) -> None:
        self.shown.tick()
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        for item in self.items:
            if item.fate is Fate.RUNNING and item.stage == "students":
                self._tell(partial(self._look, item))
        self._looked = time.monotonic()

    def tell_reused(self) -> None:
        """Cells whose results an earlier run has left."""
        for item in self.items:
            if item.fate is Fate.REUSED:
                self._tell(partial(self._finished, item))

    def _tell(self, call: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            call()
        except Exception as error:  # of a program that is not ours, and no reason to lose a run
            self._broken = True
            self.warn(f"tracking ended, the run goes on: {type(error).__name__}: {str(error).partition(chr(10))[0]}")

    def _start(self, item: Item) -> None:
        if item.cell.id not in self._started:
            self._started.add(item.cell.id)
            self.log.start(item.cell.id, item.title, facts(item))

    def _look(self, item: Item) -> None:
        noted = item.cell.progress()
        epoch, accuracy = noted.get("looked_at_epoch"), noted.get("accuracy")
        seen = self._looks.setdefault(item.cell.id, set())
        if isinstance(epoch, int) and isinstance(accuracy, float) and epoch not in seen:
            self._start(item)
            seen.add(epoch)
            self.log.numbers(item.cell.id, epoch, {"test accuracy %": accuracy})

    def _finished(self, item: Item) -> None:
        self._start(item)
        run, result = item.cell.id, item.result
        if isinstance(result, EvaluateResult) and result.metrics is not None:
            seen = self._looks.get(run, set())
            for look in result.metrics.curve:
                new = {} if look.epoch in seen else {"test accuracy %": look.accuracy}
                self.log.numbers(run, look.epoch, {**new, "training loss": look.train_loss})
            self.log.numbers(run, 0, {"acc_last %": result.metrics.acc_last, "acc_best %": result.metrics.acc_best})
        if isinstance(result, DistillResult):
            for term, nats in result.guidance.items():
                for index, value in enumerate(nats):
                    self.log.numbers(run, index, {f"path KL {term} (nats)": value})
        if result is not None and result.cost is not None:
            self.log.numbers(run, 0, {"seconds": result.cost.seconds, "cold seconds": result.cost.cold_seconds})
        self.log.end(run)


def facts(item: Item) -> dict[str, Scalar]:
    """What a cell is, for a tracker's table."""
    spec = item.spec
    found: dict[str, Scalar] = {
        "cell": item.cell.id, "label": item.planned.label, "dataset": spec.dataset.name, "split": spec.dataset.split,
        "resolution": spec.dataset.resolution, "ipc": spec.ipc, "seed": spec.seed,
    }  # fmt: skip
    if isinstance(spec, EvaluateSpec):
        set_seed = None if item.planned.spec is None else item.planned.spec.seed
        return found | {"protocol": spec.protocol.label, "student": spec.student, "distill_seed": set_seed}
    return found | {f"parameter {key}": value for key, value in spec.method.params.items()}


@contextmanager
def tracked(
    track: Track | None, out: Path, shown: Observer, items: Sequence[Item], warn: Callable[[str], None]
) -> Iterator[Observer]:
    """Whoever shows the cells, and a tracker behind it; cells whose results are there already are told first."""
    if track is None:
        yield shown
        return
    tracking = Tracking(open_log(track, out), shown, items, warn)
    tracking.tell_reused()
    yield tracking


def track_board(track: Track, out: Path, means: Mapping[str, Mapping[str, float]]) -> None:
    """The leaderboards' means, under the name of the table and the row.

    Args:
        means: title of a table -> name of a row -> mean accuracy over its sets, percent.
    """
    log = open_log(track, out)
    log.start(BOARD, BOARD, {})
    for title, rows in means.items():
        for name, mean in rows.items():
            log.numbers(BOARD, 0, {f"{title}/{name}": mean})
    log.end(BOARD)
