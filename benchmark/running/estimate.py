"""How long a plan will take, from measured rates; where there is none, at least how long, from one timed step; else it
says so."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.running import rates, timed_step
from ddbench.benchmark.running.rates import Rate, Rates
from ddbench.benchmark.running.runner import Fate, Item
from ddbench.benchmark.running.timed_step import BlockStep, StudentStep, TimedStep

LONG_SECONDS = 24 * 3600
"""What people want to be told of before it starts."""
LARGE = 1e14
"""Multiply-adds of a plan below which nothing is timed: two cores take about an hour for as many."""
OF_A_PIXEL = 1e5
"""Multiply-adds of a student, forward and backward, for one pixel; roughly, to tell what is worth timing."""


@dataclass
class Estimate:
    """Device hours of the cells that are still to run; a range where cells of one kind took different times."""

    device: str
    model: str
    """Model of the device, with the threads that a cell has on a CPU."""
    low_seconds: float = 0.0
    seconds: float = 0.0
    high_seconds: float = 0.0
    cells: int = 0
    """Cells that the seconds count."""
    probed: int = 0
    """Cells among them whose rate comes from one timed step: a lower bound."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Kind of work that no rate is known of -> number of its cells, which the seconds leave out."""

    def add(self, rate: Rate, amount: float) -> None:
        low, mean, high = rate.seconds(amount)
        self.low_seconds += low
        self.seconds += mean
        self.high_seconds += high
        self.cells += 1

    def lines(self, jobs: int) -> list[str]:
        """The estimate in sentences, for cells of which `jobs` run at once."""
        kind = "GPU" if self.device.startswith("cuda") else "CPU"
        found = []
        if self.cells:
            low, high = _duration(self.low_seconds), _duration(self.high_seconds)
            span = f" ({low} to {high})" if low != high else ""
            least = "at least " if self.probed else ""
            aside = f"; {jobs} cells at once" if jobs > 1 else ""
            total = f"{least}{_duration(self.seconds)}{span} of {kind} time"
            found.append(f"estimate: {total} for {_cells(self.cells)} on {self.model}{aside}")
        if self.probed:
            found.append(
                f"{self.probed} of them from one timed step: a student's forward and backward pass, or the steps of a "
                "prior's sampler; tests, preparation and all else come on top"
            )
        if self.unknown:
            listed = "; ".join(f"{what} ({_cells(count)})" for what, count in self.unknown.most_common(6))
            more = f"; and {len(self.unknown) - 6} more" if len(self.unknown) > 6 else ""
            found.append(f"no rate measured on {self.model} for {listed}{more}: these cells are in no estimate")
        if self.unknown and kind == "GPU":
            found.append(
                "nothing is timed on a GPU in advance: the same command with --ipc 1 --seeds 0 --repeats 1 measures it "
                "in the same folder, and with --dry-run this one then says how long it takes"
            )
        return found

    def warning(self, jobs: int) -> str | None:
        """A sentence for a run that takes more than a day on a CPU; None for others."""
        days = self.seconds / jobs / LONG_SECONDS
        if self.device.startswith("cuda") or days < 1:
            return None
        about = f"{days:.0f} days" if days >= 1.5 else "a day"
        return (
            f"{'at least' if self.probed else 'about'} {about} on this CPU. Use a GPU; or make it small: "
            "fewer --ipc, --seeds, --repeats or a protocol with an override, such as "
            "--protocol 'NAME[epochs=60,image_size=32]', and a small --student."
        )


def estimate(items: Sequence[Item], store: Store, *, probe: bool, model: str | None = None) -> Estimate:
    """The time of all cells that this run would still run.

    Args:
        probe: on a CPU, time one step of what has no measured rate and would take long in all; it costs some seconds,
            in a process of its own.
        model: of the device that they will run on, as `rates.device_model` has it; None: this machine's.
    """
    known = Rates(store)
    waiting = [item for item in items if item.fate in (Fate.WAITING, Fate.RUNNING) and not item.merges]
    device, threads = (waiting[0].planned.launch.device, waiting[0].planned.launch.threads) if waiting else ("cpu", 1)
    model = model or rates.device_model(device)
    on_threads = "" if device.startswith("cuda") else f" ({threads} thread{'s' if threads > 1 else ''})"
    found = Estimate(device, model + on_threads)
    n_train, prior_steps = functools.cache(_train_images), functools.cache(_prior_step)
    without: list[tuple[Item, float]] = []
    for item in waiting:
        spec, launch = item.spec, item.planned.launch
        amount = rates.work(spec, n_train(spec.dataset, launch.data_dir) if spec.ipc is None else None)
        rate = known.of(spec, model, launch.threads)
        if rate is not None and amount:
            found.add(rate, amount)
        else:
            without.append((item, amount))
    steps = [_step(item, prior_steps) if amount and probe and device == "cpu" else None for item, amount in without]
    size: dict[TimedStep, float] = defaultdict(float)
    for (_, amount), step in zip(without, steps, strict=True):
        if step is not None:
            size[step.what] += amount * step.multiply_adds
    seconds = timed_step.seconds_each([what for what, adds in size.items() if adds >= LARGE], threads)
    for (item, amount), step in zip(without, steps, strict=True):
        if step is None or step.what not in seconds:
            found.unknown[_what(item)] += 1
            continue
        each = seconds[step.what] * step.times
        found.add(Rate(each, each, each, 1), amount)
        found.probed += 1
    return found


def _train_images(where: DatasetSpec, data_dir: Path | None) -> int:
    """Training images of a dataset; 0 where the files are not there: what the cell lacks is told elsewhere."""
    try:
        return sum(DATASETS.load(where.name)().train_counts(where.split, data_dir).values())
    except (UsageError, RunError):
        return 0


def _what(item: Item) -> str:
    if isinstance(item.spec, DistillSpec):
        return f"distilling by {item.planned.label} at {item.spec.dataset.resolution} px"
    return f"{item.spec.student} under {item.spec.protocol.label}"


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 3600:,.0f} h"


# Probes ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """What can be timed in place of a cell's work."""

    what: TimedStep
    """Cells with the same share one timing."""
    multiply_adds: float
    """Multiply-adds of one unit of a cell's work, roughly."""
    times: int = 1
    """Timed units in one unit of a cell's work."""


def _step(item: Item, prior_step: Callable[[str, str, int, bool], _Step | None]) -> _Step | None:
    """None for what cannot be timed so."""
    if isinstance(item.spec, EvaluateSpec):
        return _student_step(item.spec)
    name, params = item.planned.launch.prior, item.spec.method.params
    steps = params.get("steps")
    if name is None or not isinstance(steps, int):
        return None
    return prior_step(name, item.spec.dataset.name, steps, params.get("cfg_scale") != 1)


def _student_step(spec: EvaluateSpec) -> _Step:
    """Forward and backward through the student, with the forward pass of each teacher where labels are soft."""
    protocol = rates.protocol_of(spec)
    image_size = protocol.image_size_for(spec.dataset.resolution)
    teachers = tuple(member.network for member in protocol.teachers_for(spec.dataset.name, spec.ipc))
    what = StudentStep(spec.student, image_size, protocol.width, teachers)
    return _Step(what, multiply_adds=image_size**2 * OF_A_PIXEL)


def _prior_step(name: str, dataset: str, steps: int, guided: bool) -> _Step | None:
    """One block of the prior's transformer; all blocks, with and without the class, at every step make an image. None
    for a text-to-image network, whose blocks are of many kinds.

    Args:
        guided: by the class; else there is one pass a step.
    """
    from ddbench.benchmark.planning.prior_names import name_prior

    files = name_prior(name, DATASETS.load(dataset)).files
    if files.prompts is not None:
        return None
    if files.random is not None:
        config = dict(files.random.network)
    else:
        assert files.network is not None
        config = json.loads((files.network / "config.json").read_bytes())
    block = BlockStep(
        tokens=(config["sample_size"] // config.get("patch_size", 2)) ** 2,
        heads=config["num_attention_heads"],
        of_head=config["attention_head_dim"],
    )
    passes = (2 if guided else 1) * steps * config.get("num_layers", 28)
    return _Step(block, multiply_adds=passes * 12 * block.tokens * block.width**2, times=passes)
