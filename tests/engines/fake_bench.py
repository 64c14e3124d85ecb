"""`bench` whose cells last FAKE_SECONDS and compute nothing; they note where and when they ran. No torch.

Lines of FAKE_RULES say more: `kill ID` is the cell that kills itself, `once ID N` lasts longer at its first attempt,
`long ID N` at each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import fake_results
import pilot

from ddbench.benchmark.core import environment
from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.store import CellDir
from ddbench.benchmark.engines import local, on_ray
from ddbench.benchmark.engines.base import Needs, Slot


class FakeEngine(pilot.Forks):
    def __init__(self) -> None:
        super().__init__(float(os.environ.get("FAKE_SECONDS", "0.2")), None)

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(index, f"cuda:{index}" if device == "cuda" else "cpu") for index in range(jobs)]

    def _run(self, cell: CellDir, *_: Any, **__: Any) -> DistillResult | EvaluateResult:
        rules = [line.split() for line in os.environ.get("FAKE_RULES", "").splitlines()]
        said = {verb: rest for verb, name, *rest in rules if name == cell.id}
        began = time.time()
        if "kill" in said:
            os.kill(os.getpid(), signal.SIGKILL)
        first = len(cell.attempts.all()) == 1
        longer = said.get("long") or (said.get("once") if first else None)
        time.sleep(float(longer[0]) if longer else self.seconds)
        note = {"host": os.uname().nodename, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "device": cell.launch().device, "cores": os.environ.get("LOKY_MAX_CPU_COUNT"),
                "began": began, "ended": time.time()}  # fmt: skip
        with (cell.path / "ran.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")
        return fake_results.of(cell)


if __name__ == "__main__":
    local.LocalEngine = FakeEngine  # type: ignore[assignment, misc]
    on_ray.RayEngine.within = "fake_bench:FakeEngine"
    environment.MATTER = (*environment.MATTER, "FAKE_")
    from ddbench.benchmark.commands.cli import main

    main()
