"""From the archive to a student's accuracy at 64 px, on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCH = Path(sys.executable).with_name("bench")
PLUGIN = '''
from ddbench.datasets.imagenet.splits import Expected
from ddbench.datasets.tiny_imagenet.dataset import SPLIT, TinyImageNet

class SmallTiny(TinyImageNet):
    """Three classes, few images."""
    name = "small-tiny"
    class_ids = {classes!r}
    class_names = class_ids
    expected = {{SPLIT: Expected(test=dict.fromkeys(class_ids, 2), train=dict.fromkeys(class_ids, 4))}}
'''


Bench = Callable[..., str]


@pytest.fixture
def bench(tiny: Any, own_cache: Path) -> Bench:
    plugin = tiny.folder / "small_tiny.py"
    plugin.write_text(PLUGIN.format(classes=tiny.classes))

    def call(*words: str | Path) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        command = [BENCH, *words, "--plugin", plugin]
        done = subprocess.run(command, env=environment, cwd=tiny.folder, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def results_of(tiny: Any) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in (tiny.folder / "runs/cells").glob("*/result.json")]


def test_prepared_from_the_archive_it_runs_at_64_px(
    tiny: Any, bench: Bench, pixels_of: Callable[[str], np.ndarray]
) -> None:
    assert "12 training and 6 test images" in bench("prepare", "small-tiny", "--from", tiny.archive())
    assert "All there." in bench("verify", "small-tiny")
    bench("run", "-m", "random", "-d", "small-tiny", "--ipc", "1", "--seeds", "0", "--repeats", "1",
          "--protocol", "quick[epochs=1,width=8]", "--device", "cpu", "--out", "runs")  # fmt: skip
    results = results_of(tiny)
    assert len(results) == 2
    for result in results:
        said = result["dataset"]
        assert (said["name"], said["split"], said["resolution"]) == ("small-tiny", "default", 64)
        assert (said["n_train"], said["n_test"]) == (12, 6)
    for wnid in tiny.classes:
        (chosen,) = (tiny.folder / "runs/sets").rglob(f"{wnid}/*.png")
        real = [pixels_of(f"{wnid}/{wnid}_{number}.JPEG") for number in (0, 2, 10, 499)]
        assert any(np.array_equal(np.asarray(Image.open(chosen)), image) for image in real)


def test_students_of_its_papers_train_with_a_teachers_labels(tiny: Any, bench: Bench) -> None:
    bench("prepare", "small-tiny", "--from", tiny.archive())
    bench("train-teacher", "-d", "small-tiny", "--network", "resnet18_modified", "--image-size", "64",
          "--epochs", "1", "--device", "cpu")  # fmt: skip
    bench("run", "-m", "random", "-d", "small-tiny", "--ipc", "2", "--seeds", "0", "--repeats", "1",
          "--protocol", "soft-delt-64[epochs=2]", "--device", "cpu", "--out", "runs")  # fmt: skip
    (student,) = (result for result in results_of(tiny) if result.get("teacher"))
    assert student["student"] == student["teacher"]["network"] == "resnet18_modified"
    assert student["teacher"]["recipe"]["image_size"] == 64
