"""What a number depends on besides its specification: versions, source revision, hardware, determinism flags."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "ddbench", "torch", "torchvision", "diffusers", "timm", "POT", "scikit-learn", "numpy", "scipy",
    "pydantic", "safetensors", "pillow",
)  # fmt: skip

VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip


def capture(device: str = "cpu") -> dict[str, Any]:
    """The environment as JSON data. Imports torch only where it is already imported or a GPU is asked for."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": dict(versions()),
        "source": dict(source_revision()),
        "hardware": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024),
            "gpus": gpus(device),
        },
        "device": device,
        "determinism": determinism(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def deciding(captured: Mapping[str, Any]) -> dict[str, Any]:
    """What of an environment decides which sums are done and how they are rounded: two that agree in it are alike,
    however much memory their machines have and whichever of equal GPUs did the work."""
    parts: dict[str, Any] = {
        key: captured.get(key) for key in ("python", "platform", "versions", "source", "variables")
    }
    flags, hardware = _mapping(captured.get("determinism")), _mapping(captured.get("hardware"))
    parts["determinism"] = {key: value for key, value in flags.items() if key not in ("compiled", "not_compiled")}
    device, _, index = str(captured.get("device", "cpu")).partition(":")
    gpus = hardware.get("gpus")
    first = int(index) if index.isdecimal() else 0
    used = gpus[first : first + 1] if device == "cuda" and isinstance(gpus, list) else []
    return {**parts, "device": device, "cpu": hardware.get("cpu"), "gpu": _mapping(used[0] if used else None)}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What of one environment is otherwise in the other, for people: `torch 2.8.0, not 2.9.1`."""
    a, b = _told(one), _told(other)
    told = [f"{what} {a.get(what)}, not {b.get(what)}" for what in {**a, **b} if a.get(what) != b.get(what)]
    set_here, set_there = (_mapping(of.get("variables")) for of in (one, other))  # whose values are not for everybody
    return told + [f"{name} set otherwise" for name in VARIABLES if set_here.get(name) != set_there.get(name)]


def _told(captured: Mapping[str, Any]) -> dict[str, Any]:
    """What decides -> its value, by names that people know."""
    parts = deciding(captured)
    versions, source, gpu = (_mapping(parts[key]) for key in ("versions", "source", "gpu"))
    commit = f"{str(source.get('commit'))[:10]}{' with changes' if source.get('dirty') else ''}"
    return {
        **{package: versions.get(package) for package in PACKAGES},
        "source": commit if source.get("commit") else None,
        "GPU": gpu.get("name"),
        "driver": gpu.get("driver"),
        "CPU": parts["cpu"],
        **{key: parts[key] for key in ("python", "platform", "device")},
        **parts["determinism"],
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    """What a file says that anybody may have written; empty where it is no object."""
    return value if isinstance(value, Mapping) else {}


@functools.cache
def versions() -> Mapping[str, str | None]:
    """Package -> its version, of those that may change a result; as they were when this process, or the one that it was
    forked from, asked first: then they are those of what is loaded."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def source_revision() -> Mapping[str, Any]:
    """Commit and dirty flag of the checkout this runs from, as `versions`; None for both when it is an installed
    package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpus(device: str = "cpu") -> list[dict[str, Any]]:
    """Name, memory in MiB and driver of the machine's GPUs, as NVML numbers them; none without a driver.

    Args:
        device: of a GPU, those that PyTorch may use, in its order: `cuda:1` is the second of `CUDA_VISIBLE_DEVICES`, of
            which NVML knows nothing.
    """
    import pynvml

    driver, cards = None, []
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            cards.append((pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetMemoryInfo(handle).total))
    if device.startswith("cuda"):
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        used = map(torch.cuda.get_device_properties, range(count))
        cards = [(properties.name, properties.total_memory) for properties in used]
    return [{"name": name, "memory_mib": size // (1024 * 1024), "driver": driver} for name, size in cards]


def ask_nvml(question: str, device: Any) -> Any:
    """What a function of NVML says of one of the GPUs that PyTorch may use; None where it does not tell."""
    import pynvml
    import torch

    # The second is of a driver without the function, and no kind of the first.
    with contextlib.suppress(pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        pynvml.nvmlInit()  # counts its calls and does no more after the first
        uuid = torch.cuda.get_device_properties(device).uuid
        return getattr(pynvml, question)(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    return None


def determinism() -> dict[str, Any] | None:
    """PyTorch's flags that decide which sums are done, as they are now; None before PyTorch is imported."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return {
        "threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


MATTER = ("DDBENCH_", "HF_", "HUGGINGFACE_", "TORCH_HOME", "WANDB_", "MLFLOW_", "XDG_CACHE_HOME", "OMP_NUM_THREADS")
"""How the names of variables begin that cells need elsewhere as the shell has them that asks for the cells."""


def passed_variables() -> list[str]:
    """Names of the variables of this shell that other machines get of it."""
    return sorted(name for name in os.environ if name.startswith(MATTER))
