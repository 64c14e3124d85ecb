"""The headline run, as a user starts it, on a GPU: a script, no test. One command, one JSON file.

python -P tests/speed/gpu_headline.py OUT.json [--minutes 8] [--run "--per-gpu 3"]

`bench run --method dmgd --dataset woof` needs ImageNet and the released DiT-XL/2; here both are made up: as many JPEG
files as Woof has, in ImageNet's layout and of its usual size, and networks of full size with random weights, installed
as a prior by `bench prepare prior`. The command then runs in a process of its own, with an empty cache, to its end or
until the minutes are over; what is known is in the file all the while.

What the numbers are: seconds of decoding and encoding 12,454 images, of sampling three sets of 100 with DMGD and of
training nine students, and of everything around them; memory; who else was on the GPU, and how busy it was. What they
are not: accuracies, or seconds of k-means, whose iterations depend on the latents. Woof's file names are checked
against a hash, so the dataset is a copy of it under another name (`DATASET`), whose numbers are Woof's.

On a CPU: --device cpu --prior tiny --images 12 --tests 2 --size 24x20 --run "--ipc 1 --seeds 0 …" tries the road.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from ddbench.benchmark.core import environment
from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.datasets.imagenet.splits import IMAGENET
from ddbench.datasets.imagenet.subsets import Woof

BENCH = [sys.executable, "-P", "-m", "ddbench.benchmark.commands.cli"]
DATASET = "woof-of-noise"
PLUGIN = """
from ddbench.datasets.imagenet.splits import IMAGENET, Expected
from ddbench.datasets.imagenet.subsets import Woof


class WoofOfNoise(Woof):
    '''As many images as Woof has, of noise.'''

    name = {name!r}
    splits = (IMAGENET,)
    expected = {{IMAGENET: Expected({test!r}, {train!r}, {n_train})}}
"""
TARGET_SECONDS = 300
ENDING_SECONDS = 60
"""For a run that was asked to end."""
LOOK_SECONDS = 0.5
"""Between two looks at the cells and at how busy the GPU is."""

Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything; then the run is ended")
    parser.add_argument("--prior", default="dit-xl-2-256", help="one that random:NAME builds")
    parser.add_argument("--images", type=int, default=None, help="of a class; Woof's numbers when not given")
    parser.add_argument("--tests", type=int, default=50, help="test images of a class")
    parser.add_argument("--size", default="500x375", help="width and height of a file")
    parser.add_argument("--run", default="", help="further options of the run")
    asked = parser.parse_args()
    began = time.monotonic()
    found: Found = {"environment": environment.capture(asked.device), "asked": {**vars(asked), "out": ""}}
    found["finished"] = False

    def keep() -> None:
        asked.out.write_text(json.dumps(found, indent=1, default=str) + "\n")

    keep()
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        variables = _variables(root)
        found["making_seconds"] = making = {}

        def timed(name: str, work: Callable[[], object]) -> None:
            since = time.monotonic()
            work()
            making[name] = time.monotonic() - since
            keep()

        counts = _counts(asked.images)
        width, height = map(int, asked.size.split("x"))
        timed("images", lambda: write_images(root / "data", counts, asked.tests, (width, height)))
        found["bytes_of_a_file"] = _mean_bytes(root / "data")
        (root / "plugin.py").write_text(plugin(counts, asked.tests))
        timed("networks", lambda: write_prior(asked.prior, root / "networks"))
        install = [*BENCH, "prepare", "prior", asked.prior, "--from", root / "networks", "--check-on", "none"]
        timed("prior", lambda: _done(install, variables))

        command = [
            "run", "--method", "dmgd", "--dataset", DATASET, "--data", str(root / "data"),
            "--plugin", str(root / "plugin.py"), "--prior", asked.prior, "--device", asked.device,
            "--out", str(root / "runs"), *shlex.split(asked.run),
        ]  # fmt: skip
        found["command"] = shlex.join(["bench", *command]).replace(scratch, "…")
        left = 60 * asked.minutes - (time.monotonic() - began)
        follow([*BENCH, *command], root / "runs", variables, asked.device, left, found, keep)
    found["passes"] = None
    if asked.device.startswith("cuda") and not asked.run:
        found["passes"] = bool(found["finished"]) and found["seconds"] <= TARGET_SECONDS
    keep()
    print(json.dumps({key: found[key] for key in ("finished", "seconds", "passes", "phase_seconds")}, default=str))


def _variables(root: Path) -> dict[str, str]:
    """Of this process, with a cache of its own and no way to the hub."""
    left = {key: value for key, value in os.environ.items() if key not in ("DDBENCH_DATA", "DDBENCH_PRIOR")}
    return left | {"DDBENCH_CACHE": str(root / "cache"), "HF_HUB_OFFLINE": "1"}


# What is made up ------------------------------------------------------------------------------------------------------


def _counts(images: int | None) -> dict[str, int]:
    """Training images of each class."""
    known = Woof.expected[IMAGENET].train
    assert known is not None
    return dict(known) if images is None else dict.fromkeys(known, images)


def plugin(counts: Mapping[str, int], tests: int) -> str:
    """A dataset that differs from Woof in its file names, and in its numbers where others are asked for."""
    test = dict.fromkeys(counts, tests)
    return PLUGIN.format(name=DATASET, test=test, train=dict(counts), n_train=sum(counts.values()))


def write_images(root: Path, counts: Mapping[str, int], tests: int, size: tuple[int, int]) -> None:
    """ImageNet's folders, each file an image of its own: soft shapes under a photograph's noise, some 100 KB of JPEG at
    the usual 500 × 375."""
    width, height = size
    files = []
    for number, (wnid, count) in enumerate(counts.items()):
        for part in ("train", "val"):
            (root / part / wnid).mkdir(parents=True)
        files += [root / "train" / wnid / f"{wnid}_{i + 1}.JPEG" for i in range(count)]
        first = 1 + number * tests
        files += [root / "val" / wnid / f"ILSVRC2012_val_{first + i:08d}.JPEG" for i in range(tests)]
    grain = np.random.default_rng(0).normal(0, 14, (2 * height, 2 * width, 3)).astype(np.float32)

    def write(numbered: tuple[int, Path]) -> None:
        rng = np.random.default_rng([1, numbered[0]])
        shapes = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        top, left = int(rng.integers(height)), int(rng.integers(width))
        pixels = np.asarray(shapes) + grain[top : top + height, left : left + width]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(numbered[1], "JPEG", quality=92)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(write, enumerate(files)))


def _mean_bytes(root: Path) -> int:
    sizes = [path.stat().st_size for path in root.rglob("*.JPEG")]
    return sum(sizes) // len(sizes)


def write_prior(name: str, folder: Path) -> None:
    """The networks of a known prior with random weights, as a folder that `bench prepare prior NAME --from` takes. The
    denoiser ends in a norm and a linear layer: whatever a latent is, ε is about one, and fifty steps end in numbers."""
    import torch

    from ddbench.methods.diffusion.network import DenoisingNetwork
    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.priors.files import find_prior

    drawn = Prior.load(find_prior(f"random:{name}"))
    assert isinstance(drawn.network, DenoisingNetwork)
    drawn.network.save(folder, drawn.metadata, torch.float32)
    drawn.autoencoder.save_pretrained(folder / "vae", safe_serialization=True)


# The run --------------------------------------------------------------------------------------------------------------


def _done(command: list[Any], variables: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(variables), text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{command[4:6]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")


def follow(
    command: list[Any],
    out: Path,
    variables: Mapping[str, str],
    device: str,
    limit: float,
    found: Found,
    keep: Callable[[], None],
) -> None:
    """Run it to its end, or end it after `limit` seconds; `found` says what is known, all the while.

    Raises:
        RuntimeError: it ended with an error.
    """
    log = out.with_suffix(".log")
    busy, clock = list[int](), (time.monotonic(), time.time())
    with log.open("w") as file:
        run = subprocess.Popen(command, env=dict(variables), stdout=file, stderr=subprocess.STDOUT)
        try:
            while True:
                ended, seconds = run.poll() is not None, time.monotonic() - clock[0]
                told = of_cells(out, clock[1])
                if told != found.get("cells") or ended:
                    found |= {"seconds": seconds, "cells": told, **summed(told, seconds)}
                    keep()
                if ended:
                    break
                if seconds > limit:
                    found["ended_after_seconds"] = seconds
                    break
                if device.startswith("cuda") and (share := environment.ask_nvml(*_busy(device))) is not None:
                    busy.append(int(share.gpu))
                    found["gpu_busy_percent"] = {"mean": float(np.mean(busy)), "each_look": busy}
                time.sleep(LOOK_SECONDS)
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)  # a run ends its cells
                try:
                    run.wait(ENDING_SECONDS)
                except subprocess.TimeoutExpired:
                    run.kill()
                    run.wait()
    found["finished"] = run.returncode == 0 and "ended_after_seconds" not in found
    found["says"] = log.read_text()[-4000:]
    keep()
    if run.returncode and "ended_after_seconds" not in found:
        raise RuntimeError(f"the run ended with {run.returncode}:\n{found['says']}")


def _busy(device: str) -> tuple[str, str]:
    return "nvmlDeviceGetUtilizationRates", device


def of_cells(out: Path, since: float) -> Found:
    """What each cell says of itself, those that are not done what they have spent so far."""
    cells = Store(out).cell_dirs() if (out / "cells").is_dir() else []
    return {cell.id: said for cell in cells if (said := _of_cell(cell, since)) is not None}


def _of_cell(cell: CellDir, since: float) -> Found | None:
    begun = cell.path / "environment.json"
    if not begun.exists():
        return None
    said: Found = {"began_after_seconds": round(begun.stat().st_mtime - since, 2)}
    result = cell.result()
    if result is None:
        try:
            said |= {"status": "at work", "phases": json.loads((cell.path / "spent.json").read_text())["seconds"]}
        except (OSError, ValueError, KeyError):
            said |= {"status": "at work", "phases": {}}
        return said
    said |= {"status": result.status, "reason": result.reason}
    if isinstance(result, DistillResult | EvaluateResult) and result.cost is not None:
        names = ("seconds", "energy_joules", "exclusive_gpu", "cells_at_once", "gpu_peak_allocated_mib",
                 "gpu_peak_reserved_mib", "host_peak_mib", "batch_size", "oom_batch_sizes")  # fmt: skip
        said["phases"] = {phase.name: phase.seconds for phase in result.cost.phases}
        said |= result.cost.model_dump(include=set(names))
    return said


def summed(cells: Mapping[str, Found], seconds: float) -> Found:
    """Seconds by phase of all sets and of all students, and what of the run's seconds none of them took."""
    phases: dict[str, dict[str, float]] = {"sets": {}, "students": {}}
    for name, cell in cells.items():
        of_kind = phases["sets" if name.startswith("distill") else "students"]
        for phase, spent in cell.get("phases", {}).items():
            of_kind[phase] = round(of_kind.get(phase, 0.0) + spent, 2)
    spent = {kind: round(sum(of_kind.values()), 2) for kind, of_kind in phases.items()}
    peaks = [cell["gpu_peak_allocated_mib"] for cell in cells.values() if cell.get("gpu_peak_allocated_mib")]
    return {
        "sets_seconds": spent["sets"],
        "students_seconds": spent["students"],
        "before_the_first_cell_seconds": min((cell["began_after_seconds"] for cell in cells.values()), default=None),
        "in_no_cell_seconds": round(seconds - sum(spent.values()), 2),  # negative where cells ran side by side
        "phase_seconds": phases,
        "gpu_peak_allocated_mib": max(peaks, default=None),
        "done": {status: sum(c["status"] == status for c in cells.values()) for status in ("ok", "at work", "failed")},
        "exclusive_gpu": sorted({str(cell["exclusive_gpu"]) for cell in cells.values() if "exclusive_gpu" in cell}),
    }


if __name__ == "__main__":
    main()
