"""Checks of what a run leaves behind in the process: random generators, settings, memory."""

from __future__ import annotations

import gc
import tracemalloc

import torch

from ddbench.benchmark.check.runs import CLASSES
from ddbench.benchmark.check.subject import Broken, Subject

LEAK_BYTES = 64 * 1024
"""Growth per run, run after run, that counts as memory kept. A bundled prior has 26 times as much, and nothing that
Python itself caches grows with every run."""
LEAK_RUNS = 3
"""Runs that must all have grown, after two that warm caches; the first that has not acquits."""


def global_state(subject: Subject) -> str:
    _ = subject.reference
    if subject.changed_state:
        raise Broken(f"its run changed: {', '.join(subject.changed_state)}; draw from task.stream, restore settings")
    return "generators and settings as before"


def memory(subject: Subject) -> str:
    _ = subject.reference
    growth, before = list[int](), 0
    gc.collect()
    gc.freeze()  # what is alive now is not looked through again and again
    tracemalloc.start()
    try:
        for number in range(LEAK_RUNS + 2):
            subject.runs.run(classes=CLASSES[:1], ipc=1, artefacts="reference")
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0] + _tensor_bytes()
            if number >= 2:
                growth.append(kept - before)
                if growth[-1] <= LEAK_BYTES:
                    return f"{max(0, growth[-1]) / 1024:.0f} KiB kept per run"
            before = kept
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    raise Broken(f"every run keeps {min(growth) / 1024:.0f} KiB or more (arrays, objects and tensors still alive)")


def _tensor_bytes() -> int:
    """Bytes of all live CPU tensors, which tracemalloc does not see; storage that several share counts once."""
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu" and thing.layout is torch.strided:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
