"""The script for a GPU runs to its end on a CPU, on the smallest network, so that it is whole when a GPU is at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("gpu_checks.py")
SMALL = ["--device", "cpu", "--prior", "random:tiny", "--steps", "2", "--rounds", "1", "--batch-sizes", "10"]
STUDENT = ["--student", "convnet3", "--image-size", "16", "--epochs", "1", "--student-rounds", "1"]


def test_every_check_leaves_its_numbers(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-P", str(SCRIPT), str(out), *SMALL, *STUDENT]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {"student", "precision", "guidance", "sampling", "environment"} <= set(found)
    assert [row["precision"] for row in found["sampling"]] == ["fp32", "bf16"]
    assert all(row["images_per_second"][0] > 0 for row in found["sampling"])
    assert len(found["guidance"]["dmgd_over_dit"]) == 1
    assert found["precision"]["rms"] > 0
