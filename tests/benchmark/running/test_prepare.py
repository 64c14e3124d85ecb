"""`bench prepare` and `bench verify`, and runs that prepare by themselves, with a small ImageNet-like dataset."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCH = Path(sys.executable).with_name("bench")
PLUGIN = '''
from ddbench.datasets.base import Headline
from ddbench.datasets.imagenet.subsets import ImageNetSubset
from ddbench.datasets.imagenet.splits import Expected

class Tiny(ImageNetSubset):
    """Two classes of ImageNet, few images."""
    name = "tiny"
    class_ids = ("n02096294", "n02093754")
    class_names = ("Australian terrier", "Border terrier")
    resolution = 16
    prior = None
    headline = Headline(protocol="quick", student="convnet3", ipc=(1,), sets=1, students=1)
    expected = {"imagenet": Expected(test=dict.fromkeys(class_ids, 2), train=dict.fromkeys(class_ids, 3))}
'''


class Bench:
    """The command line with a cache of its own, on `tiny`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "imagenet"
        (folder / "tiny.py").write_text(PLUGIN)
        for label, wnid in enumerate(("n02096294", "n02093754")):
            files = [f"train/{wnid}/{wnid}_{n}.JPEG" for n in range(3)]
            files += [f"val/{wnid}/ILSVRC2012_val_{2 * label + n:08d}.JPEG" for n in (1, 2)]
            for number, file in enumerate(files):
                noise = np.random.default_rng([label, number]).integers(0, 256, (40, 30, 3), dtype=np.uint8)
                (self.data / file).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise).save(self.data / file)

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "DDBENCH_DATA"}
        environment |= {"DDBENCH_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        command = [BENCH, *words, "--plugin", self.folder / "tiny.py"]
        done = subprocess.run(command, env=environment, cwd=self.folder, text=True, capture_output=True)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_prepare_remembers_and_decodes_once(bench: Bench) -> None:
    said = bench("prepare", "tiny", "--from", bench.data)
    assert "6 training and 4 test images" in said
    assert "Not decoded" in said
    said = bench("prepare", "tiny", "--resolution", "16")
    assert "decoding tiny at 16 px: 10 of 10" in said
    assert "10 images decoded at 16 px now" in said
    assert "0 images decoded at 16 px now" in bench("prepare", "tiny", "--resolution", "16")
    arrays = list((bench.folder / "cache").rglob("*.npy"))
    assert np.load(next(path for path in arrays if path.stem == "n02093754-train")).shape == (3, 16, 16, 3)


def test_verify_shows_every_class_and_fails_on_a_difference(bench: Bench) -> None:
    shown = bench("verify", "tiny", "--from", bench.data)
    assert re.search(r"n02093754 +Border terrier +3 +3 +2 +2", shown)
    assert "All there." in shown
    (bench.data / "train/n02093754/n02093754_1.JPEG").unlink()
    shown = bench("verify", "tiny", "--data", bench.data, code=1)
    assert re.search(r"n02093754 +Border terrier +2 +3 +2 +2", shown)
    assert "n02093754: 2 of 3" in shown
    assert "This is not the whole split." in shown


def test_verify_without_data_is_a_usage_error(bench: Bench) -> None:
    assert "bench prepare tiny --from DIR" in bench("verify", "tiny", code=2)
    assert "no split 'nope'" in bench("verify", "tiny", "--from", bench.data, "--split", "nope", code=2)


def test_datasets_without_files_of_the_users(bench: Bench) -> None:
    assert "needs no preparing" in bench("prepare", "digits")
    shown = bench("verify", "digits")
    assert "1,078 training images" in shown
    assert "All there." in shown


IN_MEMORY = '''
from ddbench.benchmark.core.errors import RunError
from ddbench.datasets.digits import Digits

class Mine(Digits):
    """Digits that lie in a file of the user's."""
    name = "mine"

    def load(self, split, data_dir, resolution):
        if data_dir is None or (data_dir / "images").read_text() != "good":
            raise RunError(f"{data_dir} is damaged")
        return super().load(split, None, resolution)
'''


def test_damaged_files_of_a_dataset_in_memory_are_told_before_a_cell_fails_for_them(bench: Bench) -> None:
    """As CIFAR's are; else the same command would go on to show the failure after they are mended."""
    (bench.folder / "tiny.py").write_text(IN_MEMORY)
    data = bench.folder / "data"
    data.mkdir()
    (data / "images").write_text("bad")
    words = ("run", "-m", "random", "-d", "mine", "--data", data, "--ipc", "1", "--seeds", "0", "--repeats", "1")
    words = (*words, "--protocol", "quick[epochs=1]", "--out", "runs", "--device", "cpu")
    assert f"{data} is damaged" in bench("prepare", "mine", "--from", data, code=1)
    assert f"{data} is damaged" in bench(*words, code=1)
    assert not list((bench.folder / "runs").glob("cells/*"))
    (data / "images").write_text("good")
    assert f"runs find its files by --data {data}" in bench("prepare", "mine", "--from", data)
    assert "2 done" in bench(*words)


def test_what_failed_before_is_said_to_have(bench: Bench) -> None:
    (bench.folder / "tiny.py").write_text(
        IN_MEMORY
        + """
from ddbench.methods.base import CostClass, Method

class Fails(Method):
    \"\"\"Nothing but an error.\"\"\"
    name, version, cost_class = "fails", 1, CostClass.SELECTION

    def distill(self, task):
        raise RunError("no images today")
        yield
"""
    )
    words = ("run", "-m", "fails", "-d", "digits", "--ipc", "1", "--seeds", "0", "--repeats", "1", "--out", "runs")
    again = "not run again without --retry-failed: 1 cell that failed in an earlier run"
    assert again not in bench(*words, "--device", "cpu", code=1)
    assert again in bench(*words, "--device", "cpu", code=1)
    assert again not in bench(*words, "--device", "cpu", "--retry-failed", code=1)


def test_corrupt_images_stop_it_unless_told_to_skip(bench: Bench) -> None:
    image = bench.data / "train/n02093754/n02093754_1.JPEG"
    image.write_bytes(image.read_bytes()[:300])
    said = bench("prepare", "tiny", "--from", bench.data, "--resolution", "16", code=1)
    assert "n02093754_1.JPEG" in said
    assert "--skip-corrupt" in said
    said = bench("prepare", "tiny", "--from", bench.data, "--resolution", "16", "--skip-corrupt")
    assert "5 training and 4 test images" in said
    assert "left out: train/n02093754/n02093754_1.JPEG" in said
    assert "corrupt training images are left out" in bench("verify", "tiny")


def test_a_run_prepares_by_itself_and_charges_no_cell(bench: Bench) -> None:
    run = ("run", "-m", "random", "-d", "tiny", "--protocol", "quick[epochs=1]", "--device", "cpu", "--out", "runs")
    said = bench(*run, "--data", bench.data)
    assert "decoding tiny at 16 px: 10 of 10" in said
    assert said.index("decoding tiny") < said.index("distill random")
    (result,) = [
        found
        for path in (bench.folder / "runs/cells").glob("distill*/result.json")
        if (found := json.loads(path.read_bytes()))
    ]
    assert (result["dataset"]["n_train"], result["dataset"]["n_test"]) == (6, 4)
    assert result["n_images"] == 2
    kept = np.asarray(Image.open(next((bench.folder / "runs/sets").rglob("n02093754/*.png"))))
    real = np.load(next((bench.folder / "cache").rglob("n02093754-train.npy")))
    assert any(np.array_equal(kept, image) for image in real)
    again = bench(*run, "--data", bench.data)
    assert "decoding" not in again


def test_a_run_without_data_says_what_is_expected_before_it_starts(bench: Bench) -> None:
    said = bench("run", "-m", "random,full", "-d", "tiny", "--out", "runs", code=2)
    assert said.count("Expected a folder of ImageNet") == 1
    said = bench("run", "-m", "full", "-d", "tiny", "--out", "runs", code=2)
    assert said.count("Expected a folder of ImageNet") == 1
    assert not list((bench.folder / "runs/cells").glob("*/result.json"))
