"""What a student costs beside the released programs' way of training it, in processor seconds, in one run.

    DDBENCH_SPEED_EPOCHS=200 pytest tests/speed/test_published_evaluator.py --benchmark-only --benchmark-min-rounds=1

Ours compiles where that pays, as cells do; the compiler begins with nothing in its cache, and its processes count.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import published_evaluator
import pytest
import torch

from ddbench.benchmark.core.spec import Compile
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.definitions import hard_adamw
from ddbench.benchmark.protocols.trainer import train_student

EPOCHS = int(os.environ.get("DDBENCH_SPEED_EPOCHS", "1"))
SIDE, IPC = 32, 50 if EPOCHS > 1 else 1
ENOUGH = 20
"""Epochs after which a student has learned."""


def processor_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def images(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes of one colour each, in noise."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 10
    colours = np.random.default_rng(0).uniform(60, 195, (10, 1, 1, 3))
    return np.clip(colours[labels] + rng.normal(0, 60, (n, SIDE, SIDE, 3)), 0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("student", ["convnet3", "resnet_ap10"])
@pytest.mark.parametrize("way", ["published", "ours, never compiled", "ours"])
@pytest.mark.benchmark(timer=processor_seconds)
def test_student(benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, student: str, way: str) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    train, test = images(10 * IPC, 1), images(100, 2)
    compile: Compile = "auto" if way == "ours" else "never"

    def published() -> float:
        network = networks.build(student, 10, SIDE, generator=torch.Generator().manual_seed(0))
        return published_evaluator.train(network, train, test, epochs=EPOCHS)

    def ours() -> float:
        protocol = hard_adamw.DMGD.with_overrides({"image_size": SIDE, "epochs": EPOCHS})
        result = train_student(protocol, student, *train, *test, num_classes=10, ipc=IPC, seed=0, compile=compile)
        assert result.determinism is not None
        benchmark.extra_info["compiled"] = result.determinism["compiled"]
        return result.acc_last

    benchmark.group = f"{EPOCHS} epochs of {student} at {SIDE} px, {10 * IPC} images, in processor seconds"
    accuracy = benchmark.pedantic(published if way == "published" else ours, rounds=1)
    benchmark.extra_info.update(threads=torch.get_num_threads(), accuracy=accuracy)
    assert EPOCHS < ENOUGH or accuracy > 50
