"""The script for a real GPU runs to its end on a pretend one, so that no mistake of devices costs time there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pretend
import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "speed" / "gpu_checks.py"
SMALL = "--device cuda:0 --prior random:tiny --steps 2 --rounds 1 --batch-sizes 10"
STUDENT = "--student convnet3 --image-size 16 --epochs 1 --student-rounds 1"


@pytest.fixture(autouse=True)
def flags() -> Iterator[None]:
    """The script lets products of matrices be TF32, for its process."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


def test_every_section_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = spec_from_file_location("gpu_checks", SCRIPT)
    assert found is not None
    assert found.loader is not None
    script: Any = module_from_spec(found)
    found.loader.exec_module(script)
    monkeypatch.setattr(script, "MATRIX_SIDE", 64)
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", str(out), *SMALL.split(), *STUDENT.split()])
    with pretend.gpu():
        script.main()
    written = json.loads(out.read_text())
    assert {"student", "precision", "guidance", "sampling"} <= written.keys()
    assert all(row["images_per_second"][0] > 0 for row in written["sampling"])
