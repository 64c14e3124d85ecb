"""How long a plan will take, from measured rates; where there is none, from one timed step; else it says so."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ddbench.benchmark import rates
from ddbench.benchmark.rates import Rate
from ddbench.benchmark.registry import PROTOCOLS
from ddbench.benchmark.runner import Fate, Item
from ddbench.benchmark.spec import DistillSpec, EvaluateSpec
from ddbench.benchmark.store import Store

LONG_SECONDS = 24 * 3600
"""What people want to be told of before it starts."""
LARGE_PIXELS = 1e9
"""Pixels that a student sees in training, or numbers that a prior's blocks pass on, below which nothing is timed."""


@dataclass
class Estimate:
    """Device hours of the cells that are still to run; a range where cells of one kind took different times."""

    device: str
    low_seconds: float = 0.0
    seconds: float = 0.0
    high_seconds: float = 0.0
    cells: int = 0
    """Cells that are counted in."""
    probed: int = 0
    """Of these, with a rate from one timed step."""
    unknown: Counter[str] = field(default_factory=Counter)
    """What has no rate -> cells."""

    def add(self, rate: Rate, amount: float) -> None:
        self.low_seconds += rate.low * amount
        self.seconds += rate.mean * amount
        self.high_seconds += rate.high * amount
        self.cells += 1

    def lines(self, jobs: int) -> list[str]:
        """For people."""
        kind = "GPU" if self.device.startswith("cuda") else "CPU"
        model = rates.device_model(self.device)
        found = []
        if self.cells:
            span = "" if self.low_seconds == self.high_seconds else (
                f" ({_hours(self.low_seconds)} to {_hours(self.high_seconds)})"
            )  # fmt: skip
            probed = f", {self.probed} of them from one timed step each" if self.probed else ""
            aside = f"; {jobs} cells at once" if jobs > 1 else ""
            total = f"{_hours(self.seconds)}{span} of {kind} time"
            found.append(f"estimate: {total} for {self.cells} cells on {model}{probed}{aside}")
        if self.unknown:
            listed = "; ".join(f"{what} ({count} cells)" for what, count in self.unknown.most_common(6))
            more = f"; and {len(self.unknown) - 6} more" if len(self.unknown) > 6 else ""
            found.append(f"no rate measured on {model} for {listed}{more}: these cells are in no estimate")
        return found

    def warning(self, jobs: int) -> str | None:
        """Of a run that takes more than a day on a CPU."""
        days = self.seconds / jobs / LONG_SECONDS
        if self.device.startswith("cuda") or days < 1:
            return None
        return (
            f"Warning: about {days:.0f} days on this CPU. Use a GPU; or make it small: fewer --ipc, --seeds, --repeats "
            "or a protocol with an override, such as --protocol 'NAME[epochs=60,side=32]', and a small --student."
        )


def estimate(items: Sequence[Item], store: Store, *, probe: bool) -> Estimate:
    """Of all cells that this run would still run.

    Args:
        probe: on a CPU, time one step of what has no measured rate and would take long; it costs some seconds.
    """
    known = rates.measured(store)
    waiting = [item for item in items if item.fate in (Fate.WAITING, Fate.RUNNING) and not item.merges]
    device = waiting[0].planned.launch.device if waiting else "cpu"
    found, model = Estimate(device), rates.device_model(device)
    probes: dict[rates.Key, Rate | None] = {}
    for item in waiting:
        amount = rates.work(item.spec)
        if not amount:  # the whole training set: its size is known once it is opened
            found.unknown[_what(item)] += 1
            continue
        key = rates.key(item.spec, model, item.planned.launch.threads)
        rate = known.get(key)
        if rate is None and probe and device == "cpu":
            if key not in probes:
                probes[key] = _probe(item, amount)
            rate = probes[key]
            found.probed += rate is not None
        if rate is None:
            found.unknown[_what(item)] += 1
        else:
            found.add(rate, amount)
    return found


def _what(item: Item) -> str:
    if isinstance(item.spec, DistillSpec):
        return f"distilling by {item.planned.label} at {item.spec.dataset.resolution} px"
    return f"{item.spec.student} under {item.spec.protocol.label}"


def _hours(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 3600:,.0f} h"


# Probes ---------------------------------------------------------------------------------------------------------------


def _probe(item: Item, amount: float) -> Rate | None:
    """A rate from one timed step, for what would be long; None for what would not, or what cannot be timed so."""
    if isinstance(item.spec, EvaluateSpec):
        return _probe_student(item.spec, amount, item.planned.launch.threads)
    return _probe_prior(item, amount)


def _probe_student(spec: EvaluateSpec, amount: float, threads: int) -> Rate | None:
    protocol = PROTOCOLS.load(spec.protocol.name)
    if spec.protocol.overrides:
        protocol = protocol.with_overrides(spec.protocol.overrides)
    side = protocol.side_for(spec.dataset.resolution)
    if amount * side**2 < LARGE_PIXELS:
        return None
    import torch

    from ddbench.benchmark import seeds
    from ddbench.benchmark.protocols import networks

    n_classes = 10  # the last layer's width is nothing beside the rest
    network = networks.build(spec.student, n_classes, side, 3, protocol.width, seeds.stream(0, "probe"))
    images = 8
    x, y = torch.zeros(images, 3, side, side), torch.zeros(images, dtype=torch.int64)

    def step() -> None:
        torch.nn.functional.cross_entropy(network(x), y).backward()

    return _timed(step, images, threads)


def _probe_prior(item: Item, amount: float) -> Rate | None:
    """One block of the prior's transformer; all blocks, with and without the class, at every step make an image."""
    name, steps = item.planned.launch.prior, item.planned.spec and item.planned.spec.method.params.get("steps")
    if name is None or not isinstance(steps, int):
        return None
    from ddbench.benchmark.prior_names import name_prior
    from ddbench.benchmark.registry import DATASETS

    files = name_prior(name, DATASETS.load(item.spec.dataset.name)).files
    if files.random is not None:
        config = dict(files.random.network)
    else:
        assert files.transformer is not None
        config = json.loads((files.transformer / "config.json").read_bytes())
    side, patch, layers = config["sample_size"], config.get("patch_size", 2), config.get("num_layers", 28)
    width, passes = config["num_attention_heads"] * config["attention_head_dim"], 2 * steps * layers
    if amount * passes * (side // patch) ** 2 * width < LARGE_PIXELS:
        return None
    import torch
    from diffusers.models.attention import BasicTransformerBlock

    with torch.random.fork_rng(devices=[]):
        block = BasicTransformerBlock(
            width, config["num_attention_heads"], config["attention_head_dim"], activation_fn="gelu-approximate",
            num_embeds_ada_norm=1, norm_type="ada_norm_zero", attention_bias=True,
        ).eval()  # fmt: skip
    x, zero = torch.zeros(1, (side // patch) ** 2, width), torch.zeros(1, dtype=torch.int64)

    @torch.no_grad()
    def step() -> None:
        block(x, timestep=zero, class_labels=zero)

    one = _timed(step, 1, item.planned.launch.threads)
    return Rate(one.low * passes, one.mean * passes, one.high * passes, 1)


def _timed(step: Callable[[], None], images: int, threads: int) -> Rate:
    """Seconds an image of one step, the second of two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        step()
        began = time.perf_counter()
        step()
        seconds = (time.perf_counter() - began) / images
    finally:
        torch.set_num_threads(before)
    return Rate(seconds, seconds, seconds, 1)
