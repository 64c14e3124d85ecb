"""The script for a GPU runs to its end on a CPU, on the smallest network, so that it is whole when a GPU is at hand."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("gpu_checks.py")
SMALL = (
    "--device cpu --prior random:tiny --steps 2 --run-steps 20 --rounds 1 --batch-sizes 10 --oom-batch 20 "
    "--coded-images 8 --student convnet3 --image-size 16 --epochs 1 --test-images 50 --compile eager"
)


def checked(out: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-P", str(SCRIPT), str(out), *SMALL.split(), *more]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    sections: dict[str, Any] = json.loads(out.read_text())["sections"]
    return sections


def test_every_section_leaves_its_numbers(tmp_path: Path) -> None:
    found = checked(tmp_path / "gpu.json", "--minutes", "100")
    assert list(found) == [
        "run", "golden", "trainer", "precision", "out_of_memory", "student", "sampling", "guidance", "step",
        "autoencoder", "prior_files", "model", "compiled_student", "compiled_denoiser",
    ]  # fmt: skip
    broken = {name: of["traceback"] for name, of in found.items() if "traceback" in of}
    assert not broken
    assert not [name for name, of in found.items() if of.get("passes") is False]
    assert [found[name]["passes"] for name in ("run", "golden", "trainer")] == [True] * 3

    run = found["run"]
    assert run["killed_after_images"] >= 40
    attempts = sorted(cell["attempts"] for cell in run["killed"]["cells"].values())
    assert attempts == [1, 1, 1, 2], "the cell that was killed, and no other, was begun again"
    assert len(run["beside_another"]["cells"]) == 2
    assert len(found["golden"]["largest_gap"]) == 2
    assert found["trainer"]["resnet18_bn"]["relative_gap"] == [0, 0, 0]
    assert len(found["precision"]["bf16"]) == 2
    assert 0 < found["precision"]["bf16"][-1] < 0.1
    assert found["out_of_memory"]["largest_difference_levels"] == 0
    assert [row["precision"] for row in found["sampling"]["rows"]] == ["bf16", "fp32"]
    for row in found["sampling"]["rows"]:
        # No bound above: two speeds of a busy machine, a moment apart, are in no order.
        of_network = np.median(row["images_per_second"]) * row["flops_per_image"]
        assert np.isclose(row["share_of_matrix_product_speed"] * row["matrix_flops_per_second"], of_network)
        assert of_network > 0
    assert len(found["guidance"]["dmgd_over_dit"]) == 1
    assert len(found["step"]["bf16"]["host_seconds"]) == 9
    assert len(found["autoencoder"]) == 9, "encode and decode, two precisions, two batch sizes; and its seconds"
    assert found["prior_files"]["bytes"] > 100_000
    assert found["student"]["compiled"] == []
    assert found["compiled_student"]["compiled"] == ["test 50", "train 36", "train 64"]
    for precision in ("fp32", "bf16"):
        of_precision = found["compiled_denoiser"][precision]
        assert of_precision["compiled"] == ["denoiser"]
        assert of_precision["batch_10"]["difference"] == 0, "the backend that changes nothing"
    assert found["model"]["expected"]["headline"] > found["model"]["expected"]["headline_fused"] > 0
    for student in (found["student"], found["compiled_student"]):
        parts = [student[part] for part in ("train_seconds", "test_seconds", "other_seconds")]
        assert np.isclose(sum(parts), student["seconds"])
        assert min(parts) > 0


def test_a_section_that_fails_is_told_and_the_next_begins(tmp_path: Path) -> None:
    found = checked(tmp_path / "gpu.json", "--golden", str(tmp_path), "--sections", "golden,step")
    assert "no golden cases" in found["golden"]["traceback"]
    assert found["golden"]["passes"] is False
    assert found["step"]["fp32"]["host_seconds"]


@pytest.mark.parametrize(("minutes", "begun"), [("0.2", {"step"}), ("0", set())])
def test_what_no_longer_fits_is_not_begun(minutes: str, begun: set[str], tmp_path: Path) -> None:
    found = checked(tmp_path / "gpu.json", "--minutes", minutes, "--sections", "student,step")
    assert {name for name, of in found.items() if "skipped" not in of} == begun


def test_a_section_that_hangs_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one begins; a process that was left would be on the GPU beside what that one measures."""
    script = runpy.run_path(str(SCRIPT))
    pid, main = tmp_path / "pid", script["main"].__globals__
    hangs = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"

    def run(checks: Any, found: dict[str, Any], keep: Any) -> None:
        script["bench"]([sys.executable, "-c", hangs], tmp_path / "runs")

    monkeypatch.setattr(script["Checks"], "run", run)
    monkeypatch.setattr(script["Checks"], "step", lambda checks, found, keep: found.update(begun=True))
    monkeypatch.setitem(main, "SECTIONS", (script["Section"]("run", 0), script["Section"]("step", 0)))
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", str(out), *SMALL.split(), "--minutes", "0.5"])
    script["main"]()
    found = json.loads(out.read_text())["sections"]
    assert "TimeoutError" in found["run"]["traceback"]
    assert found["step"]["begun"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
