"""What cells ran on."""

from __future__ import annotations

from collections.abc import Iterable

from ddbench.benchmark.core.result import Result
from ddbench.reports.results.rows import printable


def hardware(results: Iterable[Result | None]) -> list[str]:
    """Models of the devices that had a hand in results: the GPUs of a cell on CUDA, else the CPU."""
    found: set[str] = set()
    for environment in (one for result in results if result is not None for one in result.environments):
        hardware = environment.get("hardware")
        if not isinstance(hardware, dict):
            continue
        gpus = hardware.get("gpus")
        if str(environment.get("device", "")).startswith("cuda") and isinstance(gpus, list) and gpus:
            found |= {str(gpu.get("name")) for gpu in gpus if isinstance(gpu, dict)}
        elif hardware.get("cpu"):
            found.add(str(hardware["cpu"]))
    return sorted(map(printable, found))
