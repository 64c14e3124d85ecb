"""How many cells run at once: on a CPU as many as fill its cores, on a GPU one, or students as its memory holds them.

A cell has as many threads beside others as alone, so results do not depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddbench.benchmark.core.environment import ask_nvml
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.registry import DATASETS, ENGINES
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec, digest
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.prior_names import name_prior
from ddbench.benchmark.planning.run_spec import RunSpec, available_cores
from ddbench.benchmark.running.rates import protocol_of
from ddbench.benchmark.running.runner import Item

MIB = 1024 * 1024
BESIDE_MIB = 512
"""MiB that a cell is taken to need beside what is counted or was measured: libraries, images, a GPU's context."""
STEP_MIB, STEP_BYTES_OF_A_PIXEL = 512, 4000
"""A student's step until such a one was measured: at most, for its weights and their optimiser, and for each pixel of
its batch (docs/performance.md)."""


class AtOnce(NamedTuple):
    jobs: int
    """Slots: places on a CPU, or GPUs."""
    per_gpu: int = 1
    """Students at once in each slot."""
    note: str | None = None
    """Why they are fewer than was asked for, or than the cores hold."""


def cells_at_once(run: RunSpec, waiting: Sequence[Item], store: Store) -> AtOnce:
    """Slots for the cells that are still to run."""
    device = waiting[0].planned.launch.device if waiting else "cpu"
    # Other machines say what they hold, and how much of their GPUs is free is not asked.
    if not ENGINES.load(run.engine).here:
        widest = max(1, _width(waiting))
        return AtOnce(min(run.jobs or widest, widest), run.per_gpu if device != "cpu" else 1)
    if device.startswith("cuda"):
        return _on_gpus(run, device, waiting, store)
    unused = f"--per-gpu {run.per_gpu} has no effect on a CPU" if run.per_gpu > 1 else None
    if run.jobs is not None:  # more places than cells would be nothing but places
        return AtOnce(max(1, min(run.jobs, len(waiting))), note=unused)
    threads = max((item.planned.launch.threads for item in waiting), default=1)
    fill = min(available_cores() // threads, _width(waiting))
    if fill < 2:
        return AtOnce(1, note=unused)
    need, free = _most_mib(waiting, store, "host_peak_mib"), _free_host_mib()
    fits = max(1, min(fill, int(free / need)))
    if fits < fill:
        unused = (
            f"{fits} of {fill} cells at once that the cores hold: one may need {need:,.0f} MiB of the {free:,.0f} MiB "
            "of free memory; --jobs N starts N all the same"
        )
    return AtOnce(fits, note=unused)


def _on_gpus(run: RunSpec, device: str, waiting: Sequence[Item], store: Store) -> AtOnce:
    jobs = run.jobs or 1
    students = [item for item in waiting if isinstance(item.spec, EvaluateSpec)]
    if run.per_gpu == 1 or not students:
        return AtOnce(jobs)
    need = _most_mib(students, store, "gpu_peak_reserved_mib")
    memory = [ask_nvml("nvmlDeviceGetMemoryInfo", _gpu(device, index)) for index in range(jobs)]
    if None in memory:
        return AtOnce(jobs, note="one student at once on a GPU: NVML does not tell how much of its memory is free")
    free = min(one.free for one in memory) / MIB
    fits = max(1, min(run.per_gpu, int(free / need)))
    if fits == run.per_gpu:
        return AtOnce(jobs, fits)
    why = f"a student may need {need:,.0f} MiB of the {free:,.0f} MiB of free GPU memory"
    return AtOnce(jobs, fits, f"{fits} of {run.per_gpu} students at once on a GPU: {why}")


def _width(waiting: Sequence[Item]) -> int:
    """The most of the cells that can run side by side: a set's students come after its shards, and these before it."""
    stages = Counter((item.planned.id or item.planned.label, item.stage) for item in waiting)
    widest: dict[str, int] = {}
    for (name, _), count in stages.items():
        widest[name] = max(count, widest.get(name, 0))
    return sum(widest.values())


def _gpu(device: str, index: int) -> str:
    return f"cuda:{index}" if device == "cuda" else device


def _most_mib(items: Sequence[Item], store: Store, peak: str) -> float:
    """MiB that one of the cells needs, at most: what cells like it took, else a rough bound."""
    took: dict[str, float] = {}
    for cell in store.cell_dirs():
        cost = getattr(cell.result(), "cost", None)
        mib = getattr(cost, peak, None)
        if mib is not None:
            try:
                kind = _kind(cell.spec())
            except RunError:  # a damaged file tells nothing of memory
                continue
            took[kind] = max(mib, took.get(kind, 0.0))
    kinds = {_kind(item.spec): item for item in items}
    return BESIDE_MIB + max(took[kind] if kind in took else _bound_mib(item) for kind, item in kinds.items())


def _kind(spec: DistillSpec | EvaluateSpec) -> str:
    """What cells have in common that need the same memory: all but seeds, and which images they are."""
    return digest(spec.model_dump(mode="json", exclude={"seed", "images", "shard"}))


def _bound_mib(item: Item) -> float:
    """A student's step; a sampler's weights, and as much again for what passes through them."""
    if isinstance(item.spec, EvaluateSpec):
        protocol, resolution = protocol_of(item.spec), item.spec.dataset.resolution
        n_classes, ipc = len(DATASETS.load(item.spec.dataset.name).class_ids), item.spec.ipc
        batch = protocol.images_at_once(None if ipc is None else n_classes * ipc, n_classes, ipc, item.spec.student)
        return STEP_MIB + batch * protocol.image_size_for(resolution) ** 2 * STEP_BYTES_OF_A_PIXEL / MIB
    if item.planned.launch.prior is None:
        return 0.0
    files = name_prior(item.planned.launch.prior, DATASETS.load(item.spec.dataset.name)).files
    folders = [folder for folder in (files.network, files.autoencoder) if folder is not None]
    return 2 * sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file()) / MIB


def _free_host_mib() -> float:
    """Memory that new processes may take: the machine's, and of it what a container leaves."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or "max": no bound of its own
        return free
    return min(free, (most - used) / MIB)
