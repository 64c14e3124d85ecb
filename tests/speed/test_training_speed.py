"""What a student costs, and that none of it is Python work per image."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd, quick
from ddbench.benchmark.protocols.trainer import train_student


def student(protocol: Protocol, n_images: int, *, ipc: int | None, epochs: int, image_size: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n_images, image_size, image_size, channels), dtype=np.uint8)
    labels = np.arange(n_images) % 10
    train_student(
        protocol.with_overrides({"epochs": epochs, "looks": 1}),
        "convnet3",
        images,
        labels,
        images[:10],
        labels[:10],
        num_classes=10,
        ipc=ipc,
        seed=0,
    )


PROTOCOLS = {
    "quick": (quick.PROTOCOL, {"image_size": 8, "channels": 1}),
    "hard-minimax-sgd": (
        hard_minimax_sgd.PROTOCOL.model_copy(update={"image_size": 32, "students": ("convnet3",)}),
        {"image_size": 32, "channels": 3},
    ),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_python_work_per_image(name: str) -> None:
    """An epoch of one batch makes as many Python calls for 64 images as for 16."""
    protocol, shape = PROTOCOLS[name]

    def calls(n_images: int) -> int:
        count = 0

        def on_event(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(on_event)
        try:
            student(protocol, n_images, ipc=1, epochs=2, **shape)
        finally:
            sys.setprofile(None)
        return count

    calls(16)  # imports and caches of the first time
    few, many = calls(16), calls(64)
    assert few > 100
    # Reading a file of the process or a garbage collection may add a handful; 48 images more must not.
    assert abs(many - few) < 20


@pytest.mark.benchmark(group="a quick@1 student on digits-sized images, 30 epochs of 300")
@pytest.mark.parametrize("ipc", [1, 10])
def test_quick_student(benchmark: Any, ipc: int) -> None:
    threads = torch.get_num_threads()
    benchmark.extra_info["threads"] = threads
    benchmark.pedantic(
        lambda: student(quick.PROTOCOL, 10 * ipc, ipc=ipc, epochs=30, image_size=8, channels=1),
        rounds=7,
        warmup_rounds=1,
    )
