"""The script that times the headline runs to its end on a CPU; when its time is over, it says what it knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
import gpu_headline

SMALL = "--device cpu --prior tiny --images 2 --tests 1 --size 24x20"
RUN = (
    "--ipc 1 --seeds 0 --repeats 1 --protocol quick[epochs=1,image_size=16] --student convnet3 --resolution 16 "
    "--set steps=3 --set support=mean --jobs 1"
)


def test_the_command_is_run_and_its_seconds_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "headline.json"
    monkeypatch.setattr(sys, "argv", ["gpu_headline.py", str(out), *SMALL.split(), "--run", RUN])
    gpu_headline.main()
    found = json.loads(out.read_text())
    assert found["finished"], found["says"]
    assert found["done"]["ok"] == len(found["cells"]) == 2
    assert found["command"].startswith("bench run --method dmgd --dataset woof-of-noise ")
    assert found["making_seconds"].keys() == {"images", "networks", "prior"}
    assert {"sample", "decode", "latents"} <= found["phase_seconds"]["sets"].keys()
    whole = found["sets_seconds"] + found["students_seconds"] + found["in_no_cell_seconds"]
    assert whole == pytest.approx(found["seconds"], abs=0.05)
    assert 0 < found["before_the_first_cell_seconds"] < found["seconds"]


def test_when_time_is_over_the_run_is_ended_and_what_is_known_is_kept(tmp_path: Path) -> None:
    found, kept = dict[str, Any](), list[str]()
    waits = ["sh", "-c", "echo begun; exec sleep 600"]  # which says so at once, however busy the machine is
    gpu_headline.follow(
        waits, tmp_path / "runs", {}, "cpu", limit=1.5, found=found, keep=lambda: kept.append(str(found["seconds"]))
    )
    assert not found["finished"]
    assert found["ended_after_seconds"] >= 1.5
    assert found["says"] == "begun\n"
    assert kept


def test_a_run_that_does_not_end_when_asked_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is known of it is kept all the same."""
    monkeypatch.setattr(gpu_headline, "ENDING_SECONDS", 0.5)
    found = dict[str, object]()
    deaf = ["sh", "-c", "trap '' TERM; echo deaf; exec sleep 60"]
    gpu_headline.follow(deaf, tmp_path / "runs", {}, "cpu", limit=3, found=found, keep=lambda: None)
    assert not found["finished"]
    assert found["says"] == "deaf\n"


def test_a_run_that_fails_is_told(tmp_path: Path) -> None:
    found = dict[str, object]()
    with pytest.raises(RuntimeError, match="ended with 3:\nno luck"):
        gpu_headline.follow(
            [sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"],
            tmp_path / "runs", {}, "cpu", limit=60, found=found, keep=lambda: None,
        )  # fmt: skip
    assert not found["finished"]


def test_files_are_as_large_as_imagenets(tmp_path: Path) -> None:
    """Decoding costs what the real files cost: those of Woof take 110 KB on average."""
    gpu_headline.write_images(tmp_path, {"n02086240": 2}, tests=1, size=(500, 375))
    assert 70_000 < gpu_headline._mean_bytes(tmp_path) < 150_000
    assert len(list(tmp_path.rglob("*.JPEG"))) == 3
