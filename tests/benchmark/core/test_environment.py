"""The hardware that a result names."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
import torch

from ddbench.benchmark.core import environment
from ddbench.benchmark.running.rates import device_model

CARDS = ["NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-40GB"]
"""As NVML numbers them; with `CUDA_VISIBLE_DEVICES=1` PyTorch has the second alone."""


@pytest.fixture(autouse=True)
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", CARDS.__getitem__)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(total=24 << 30))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    seen = SimpleNamespace(name=CARDS[1], total_memory=40 << 30, uuid="a1b2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", [seen].__getitem__)


def test_the_gpu_of_a_cell_is_the_one_that_it_may_use() -> None:
    assert environment.capture("cuda:0")["hardware"]["gpus"] == [
        {"name": CARDS[1], "memory_mib": 40 * 1024, "driver": "580.1"}
    ]
    assert device_model("cuda:0") == CARDS[1]


def test_a_cpus_machine_has_all_its_cards() -> None:
    assert [card["name"] for card in environment.capture()["hardware"]["gpus"]] == CARDS


@pytest.mark.parametrize("question", ["nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetTotalEnergyConsumption"])
def test_a_driver_that_lacks_a_function_of_nvml_does_not_tell(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The binding has words of its own for some functions; every cell on a GPU asks for these two."""

    def missing(name: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)

    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer", missing)
    assert environment.ask_nvml(question, 0) is None


def test_nvml_is_asked_of_the_card_that_pytorch_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two number cards otherwise, and one that is passed over is numbered by NVML all the same."""
    pytorchs = {"cuda:0": SimpleNamespace(uuid="b0"), "cuda:1": SimpleNamespace(uuid="a1")}
    cards = {"GPU-a1": "the first of NVML", "GPU-b0": "the second"}

    def handle(uuid: str) -> str:
        if uuid not in cards:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return cards[uuid]

    monkeypatch.setattr(torch.cuda, "get_device_properties", pytorchs.__getitem__)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: f"memory of {handle}")
    found = [environment.ask_nvml("nvmlDeviceGetMemoryInfo", device) for device in pytorchs]
    assert found == ["memory of the second", "memory of the first of NVML"]
    cards.clear()
    assert environment.ask_nvml("nvmlDeviceGetMemoryInfo", "cuda:0") is None
