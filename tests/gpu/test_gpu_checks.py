"""The script for a real GPU runs to its end on a pretend one, so that no mistake of devices costs time there."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pretend
import pytest

from ddbench.methods.diffusion import prior

SCRIPT = Path(__file__).parents[1] / "speed" / "gpu_checks.py"
HERE = (
    *("golden", "trainer", "precision", "student", "sampling", "guidance", "step", "autoencoder", "prior_files"),
    "model",
)
"""Sections in the script's own process: a pretence reaches no other, nor what torch.compile traces."""
SMALL = "--prior random:tiny --steps 2 --rounds 1 --batch-sizes 10 --coded-images 8"
STUDENT = "--student convnet3 --image-size 16 --epochs 1 --test-images 50"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = spec_from_file_location("gpu_checks", SCRIPT)
    assert found is not None
    assert found.loader is not None
    loaded: Any = module_from_spec(found)
    found.loader.exec_module(loaded)
    monkeypatch.setattr(loaded, "MATRIX_SIDE", 64)
    return loaded


def test_every_section_runs(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [section.name for section in script.SECTIONS if section.name not in HERE] == [
        "run", "out_of_memory", "compiled_student", "compiled_denoiser",
    ]  # fmt: skip
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["gpu_checks.py", str(out), *SMALL.split(), *STUDENT.split(), "--minutes", "100", "--sections", ",".join(HERE)],
    )
    drawn: list[str] = []
    random_networks = prior.random_networks
    monkeypatch.setattr(prior, "random_networks", lambda known: drawn.append(known.name) or random_networks(known))
    with pretend.gpu():
        script.main()
    assert drawn == ["tiny"], "once for all sections: of full size it takes as long as some of them"
    file = json.loads(out.read_text())
    assert file["asked"]["device"] == "cuda:0", "as a cell takes it: PyTorch puts no process on a GPU without a number"
    written = file["sections"]
    broken = {name: of["traceback"] for name, of in written.items() if "traceback" in of}
    assert not broken
    assert tuple(written) == HERE
    assert written["golden"]["passes"]
    assert written["trainer"]["convnet3"]["relative_gap"][0] <= 1e-4
    assert all(row["images_per_second"][0] > 0 for row in written["sampling"]["rows"])


def test_a_student_that_was_not_compiled_meets_no_target(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training goes on without a compiler that fails, and its seconds would pass for those of compiled code."""
    out = tmp_path / "gpu.json"
    asked = [*SMALL.split(), *STUDENT.split(), "--minutes", "100", "--compile", "none such"]
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", str(out), *asked, "--sections", "compiled_student"])
    with pretend.gpu():
        script.main()
    found = json.loads(out.read_text())["sections"]["compiled_student"]
    assert "none such" in found["not_compiled"]
    assert found["passes"] is False
