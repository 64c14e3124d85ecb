"""What cells ran on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ddbench.reports.results.rows import printable


def hardware(environments: Iterable[dict[str, Any] | None]) -> list[str]:
    """Models of the devices that cells ran on: the GPUs of a cell on CUDA, else the CPU."""
    found: set[str] = set()
    for environment in environments:
        hardware = (environment or {}).get("hardware")
        if not isinstance(hardware, dict):
            continue
        gpus = hardware.get("gpus")
        if str((environment or {}).get("device", "")).startswith("cuda") and isinstance(gpus, list) and gpus:
            found |= {str(gpu.get("name")) for gpu in gpus if isinstance(gpu, dict)}
        elif hardware.get("cpu"):
            found.add(str(hardware["cpu"]))
    return sorted(map(printable, found))
