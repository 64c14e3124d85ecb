"""What a cell costs: wall-clock by phase, peak memory of host and GPU, energy; and in which environments. Earlier
attempts are counted in."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddbench.benchmark.core.environment import ask_nvml, deciding, differences
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import Cost, OtherEnvironment, Phase, cold_seconds
from ddbench.benchmark.core.spec import digest

MIB = 1024 * 1024
SAVE_SECONDS = 2.0
"""Seconds between two saves of what a cell has spent, where it has spent it on many small things."""


Part = Literal["attempts", "shards", "artefacts"]


class Meter:
    """Measures one cell.

    Phases nest: while an inner phase runs, the outer one's clock stands still, so phases add up to the whole. On a
    GPU each boundary waits for the device, so that queued work is counted where it was asked for.

    Args:
        device: the cell's torch device; a GPU that this process has not used yet, or its neighbours cannot be told.
        record: file that keeps what earlier attempts spent; written by `save`.
        forked: the process comes from a warm parent; its peak memory leaves out what it was born with.
        cells_at_once: cells that may run side by side on this one's CPU or GPU, itself counted.
    """

    def __init__(self, device: Any, record: Path, *, forked: bool = False, cells_at_once: int = 1) -> None:
        self.record = record
        self._seconds: dict[str, float] = {}
        self._cached: dict[str, tuple[str, float]] = {}
        self._made: set[str] = set()
        self._begun: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        self._energy_before: float | None = 0.0
        self._cells_at_once = cells_at_once
        self._alone_before: bool | None = True
        self._peaks_mib: dict[str, float] = {}
        self.recorded: dict[str, Any] = {}
        """What the method recorded of its run."""
        self.arithmetic: dict[str, Any] = {}
        """What made the prior's network faster that sampled, in any attempt (`priors.CompiledDenoiser`)."""
        self.attempts = 1
        self.environments = Environments()
        """In which the attempts ran, and what else the cell used was made."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            earlier = json.loads(record.read_bytes())
            self._seconds = {name: float(s) for name, s in earlier["seconds"].items()}
            self._cached = {name: (str(a), float(s)) for name, (a, s) in earlier["cached"].items()}
            self._made = set(earlier["made"])
            self.recorded = dict(earlier.get("recorded", {}))
            self.arithmetic = dict(earlier.get("arithmetic", {}))
            self._begun = {name: float(s) for name, s in earlier.get("begun", {}).items()}
            self._energy_before = None if earlier["energy_joules"] is None else float(earlier["energy_joules"])
            # Whatever shared the device with one attempt slowed what this cell took in all.
            self._cells_at_once = max(cells_at_once, int(earlier.get("cells_at_once", 1)))
            self._alone_before = earlier.get("exclusive_gpu", True)
            self._peaks_mib = {name: float(mib) for name, mib in earlier.get("peaks_mib", {}).items()}
            self.environments = Environments(earlier.get("environments") or ())
            self.attempts = int(earlier["attempts"]) + 1
        self._open: list[tuple[str, float]] = []
        self._saved = -math.inf
        self._born_with_mib = _status_mib("VmRSS") if forked else 0.0
        self._gpu = _Gpu(device) if device.type == "cuda" else None

    def _now(self) -> float:
        if self._gpu is not None:
            self._gpu.synchronize()
        return time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's wall-clock to the phase `name`."""
        now = self._now()
        if self._open:
            outer, since = self._open[-1]
            self._seconds[outer] = self._seconds.get(outer, 0.0) + now - since
        self._open.append((name, now))
        try:
            yield
            if self._gpu is not None:
                self._peaks_mib = self._highest_mib()
        finally:
            now = self._now()
            _, since = self._open.pop()
            self._seconds[name] = self._seconds.get(name, 0.0) + now - since
            if self._open:
                self._open[-1] = (self._open[-1][0], now)

    def begin(self, phase: str, artefact: str) -> float:
        """Note that this cell begins to make an artefact in that phase; returns the seconds that earlier, killed
        attempts at it took."""
        spent = self._seconds.get(phase, 0.0)
        return spent - self._begun.setdefault(artefact, spent)

    def note(self, name: str, value: Any) -> None:
        """Keep a fact about the run, across attempts.

        Raises:
            RunError: it is no plain JSON data: at once, and not when the last image is made.
        """
        try:
            self.recorded[name] = json.loads(json.dumps(value, allow_nan=False, default=_python_number))
        except (TypeError, ValueError) as error:
            raise RunError(
                f"the method recorded {name!r}: expected finite numbers, text, truth values, None, and lists and "
                f"mappings of them: {error}"
            ) from error

    def made(self, artefact: str) -> None:
        """Note that this cell made an artefact; its cost is in the phase that made it."""
        self._begun.pop(artefact, None)
        self._made.add(artefact)
        self.save(at_most_every_seconds=SAVE_SECONDS)

    def cached(
        self, phase: str, artefact: str, cold_seconds: float, environments: Iterable[dict[str, Any]] = ()
    ) -> None:
        """Note that a part of `phase` was served from an artefact that once took `cold_seconds` to make, and where."""
        # What an earlier attempt of this very cell made is not a saving.
        if artefact not in self._made:
            self._cached[artefact] = (phase, cold_seconds)
            self.environments.add("artefacts", artefact, environments)

    def measure(self, numbers: Mapping[str, float]) -> None:
        """Note numbers that belong to the artefacts in use; of each the largest is shown."""
        for name, number in numbers.items():
            self._measured[name] = max(number, self._measured.get(name, number))

    def ran_out_of_memory(self) -> None:
        """Forget the GPU memory taken since the last phase that ended well: what an attempt at a batch took that did
        not fit is not what the cell needs."""
        if self._gpu is not None:
            self._gpu.reset_peaks()

    def _highest_mib(self) -> dict[str, float]:
        """Peak memory of this attempt and of earlier ones."""
        peaks = {"host": max(0.0, _status_mib("VmHWM") - self._born_with_mib)}
        if self._gpu is not None:
            peaks |= self._gpu.peaks_mib()
        return {name: max(mib, self._peaks_mib.get(name, 0.0)) for name, mib in peaks.items()}

    def _energy_joules(self) -> float | None:
        used = None if self._gpu is None else self._gpu.energy_joules()
        # Where an attempt's is not known, the others' would be too little.
        return None if used is None or self._energy_before is None else used + self._energy_before

    def _alone(self) -> bool | None:
        """Whether no other process was on the GPU in any attempt."""
        if self._gpu is None:
            return None
        if self._cells_at_once > 1 or self._alone_before is False:
            return False
        alone = self._gpu.exclusive()
        return alone if alone is False or self._alone_before else None

    def save(self, *, at_most_every_seconds: float = 0.0) -> None:
        """Keep what has been spent so far, so that a killed attempt is not forgotten."""
        now = time.perf_counter()
        if now - self._saved < at_most_every_seconds:
            return
        self._saved = now
        spent = dict(self._seconds)
        for name, since in self._open[-1:]:
            spent[name] = spent.get(name, 0.0) + now - since
        write_json(
            self.record,
            {
                "seconds": spent,
                "cached": self._cached,
                "made": sorted(self._made),
                "recorded": self.recorded,
                "arithmetic": self.arithmetic,
                "environments": self.environments.noted(),
                "begun": self._begun,
                "energy_joules": self._energy_joules(),
                "peaks_mib": self._highest_mib(),
                "attempts": self.attempts,
                "cells_at_once": self._cells_at_once,
                "exclusive_gpu": self._alone(),
            },
        )

    def cost(self, *, batch_size: int, threads: int, oom_batch_sizes: Sequence[int] = ()) -> Cost:
        phases = [Phase(name=name, seconds=round(seconds, 4)) for name, seconds in self._seconds.items()]
        phases += [
            Phase(name=name, seconds=0.0, cached_from=artefact, cold_seconds=round(cold, 4))
            for artefact, (name, cold) in self._cached.items()
        ]
        seconds = sum(p.seconds for p in phases)
        energy = self._energy_joules()
        peaks = {name: round(mib, 1) for name, mib in self._highest_mib().items()}
        return Cost(
            phases=phases,
            seconds=round(seconds, 4),
            cold_seconds=round(cold_seconds(phases), 4),
            gpu_peak_allocated_mib=peaks.get("allocated"),
            gpu_peak_reserved_mib=peaks.get("reserved"),
            host_peak_mib=peaks["host"],
            gpu_seconds=None if self._gpu is None else round(seconds, 4),
            energy_joules=None if energy is None else round(energy, 1),
            batch_size=batch_size,
            oom_batch_sizes=list(oom_batch_sizes),
            threads=threads,
            cells_at_once=self._cells_at_once,
            exclusive_gpu=self._alone(),
            attempts=self.attempts,
            measured=self._measured,
        )


class Environments:
    """Which environments had a hand in a cell: of its attempts, of its set's shards, of the artefacts that it found.
    Those that are alike count as one.

    Args:
        noted: of earlier attempts, as `noted` gave them.
    """

    def __init__(self, noted: Iterable[Mapping[str, Any]] = ()) -> None:
        found = map(OtherEnvironment.model_validate, noted)
        self._found = {_key(one.environment): one for one in found}
        self.present: dict[str, Any] | None = None
        """That of this attempt."""

    def begin(self, attempt: int, environment: dict[str, Any]) -> list[str]:
        """Note where this attempt runs; returns in what the last one's environment was another."""
        last = max((one for one in self._found.values() if one.attempts), key=lambda o: o.attempts[-1], default=None)
        self.present = environment
        self.add("attempts", attempt, [environment])
        return [] if last is None else differences(environment, last.environment)

    def add(self, part: Part, name: Any, environments: Iterable[dict[str, Any]]) -> None:
        """Note in which environments a part of the work was done."""
        for environment in environments:
            one = self._found.setdefault(_key(environment), OtherEnvironment(environment=environment))
            if name not in (names := getattr(one, part)):
                names.append(name)

    def of_artefact(self, *, resumed: bool) -> list[dict[str, Any]]:
        """In which an artefact is made now: in this attempt's, from artefacts of others perhaps.

        Args:
            resumed: an earlier attempt had begun it.
        """
        found = [one.environment for one in self._found.values() if one.artefacts or (resumed and one.attempts)]
        present = [] if self.present is None else [self.present]
        return present + [one for one in found if not present or _key(one) != _key(present[0])]

    def others(self) -> list[OtherEnvironment]:
        """All but this attempt's."""
        own = None if self.present is None else _key(self.present)
        return [one for key, one in self._found.items() if key != own]

    def noted(self) -> list[dict[str, Any]]:
        """For the next attempt."""
        return [one.model_dump(mode="json") for one in self._found.values()]


def _key(environment: Mapping[str, Any]) -> str:
    return digest(deciding(environment))


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


class _Gpu:
    """Memory by torch's allocator, energy and neighbours by NVML (absent driver library: not known, so None)."""

    def __init__(self, device: Any) -> None:
        import torch

        self._torch, self._device = torch, device
        before = self._processes()
        self.synchronize()  # which puts this process on the GPU; before, there is no allocator to ask for its peaks
        self.reset_peaks()
        after = self._processes()
        # In a container NVML gives the host's process ids: this process is the one that has come since.
        self._own = after & {os.getpid()} or after - before
        self._neighboured = bool((before | after) - self._own) or len(self._own) > 1
        self._energy_start_mj = ask_nvml("nvmlDeviceGetTotalEnergyConsumption", device)

    def _processes(self) -> set[int]:
        """Ids of the processes on this GPU as NVML sees them; none where it does not tell."""
        return {process.pid for process in ask_nvml("nvmlDeviceGetComputeRunningProcesses", self._device) or ()}

    def exclusive(self) -> bool | None:
        """Whether no other process was there at the start and is there now; None: NVML does not see even this one."""
        if not self._own:
            return None
        return not self._neighboured and self._processes() <= self._own

    def energy_joules(self) -> float | None:
        now = ask_nvml("nvmlDeviceGetTotalEnergyConsumption", self._device)
        return None if now is None or self._energy_start_mj is None else (now - self._energy_start_mj) / 1000

    def synchronize(self) -> None:
        self._torch.cuda.synchronize(self._device)

    def reset_peaks(self) -> None:
        self._torch.cuda.reset_peak_memory_stats(self._device)

    def peaks_mib(self) -> dict[str, float]:
        cuda = self._torch.cuda
        return {
            "allocated": cuda.max_memory_allocated(self._device) / MIB,
            "reserved": cuda.max_memory_reserved(self._device) / MIB,
        }


def _python_number(value: Any) -> Any:
    """NumPy's numbers as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"got a {type(value).__name__}")
