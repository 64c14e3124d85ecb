"""What a full-size run costs on a GPU: a script, no test. One command, one JSON file with every number, n and spread.

python -P tests/speed/gpu_checks.py OUT.json [--device cuda] [--prior random:dit-xl-2-256] [--rounds 3]

1. Sampling: images a second, share of the device's own matrix-product speed, peak memory, per precision and batch size.
2. DMGD against plain DiT, in turns in one process: the ratio of their times.
3. bf16 against fp32 from the same noise: how far the latents end apart.
4. A student of `hard-minimax-sgd@1` on 100 images: seconds for all its epochs, its looks at 500 test images included.

Random weights make noise, so the numbers are of time and memory only. On a CPU: --prior random:tiny --student convnet3
--image-size 32 --epochs 4 tries the road.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddbench.benchmark.core import environment
from ddbench.benchmark.protocols import hard_minimax_sgd
from ddbench.benchmark.protocols.trainer import train_student
from ddbench.datasets.base import ArraySource
from ddbench.datasets.imagenet.classes import WOOF
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.dmgd.method import DMGD

PLAIN: dict[str, Any] = {"semantic_matching": False, "distribution_matching": False}
PER_CLASS = 12
"""Real images of a class: enough for ten support points."""
MATRIX_SIDE = 8192


class Kept:
    """Artefacts in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, np.ndarray]] = {}

    def arrays(
        self, kind: str, key: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        name = f"{kind} {json.dumps(dict(key), sort_keys=True, default=str)}"
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]


class Checks:
    """One device, one prior."""

    def __init__(self, asked: argparse.Namespace, scratch: Path) -> None:
        self.asked, self.scratch = asked, scratch
        self.device = torch.device(asked.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as a distill cell
        self.files = find_prior(asked.prior)
        image_size = self.files.metadata.resolution
        pixels = np.random.default_rng(0).integers(0, 256, (len(WOOF) * PER_CLASS, image_size, image_size, 3), np.uint8)
        names = [f"{wnid}/{wnid}_{i}.JPEG" for wnid in WOOF for i in range(PER_CLASS)]
        self.train = ArraySource(pixels, np.repeat(np.arange(len(WOOF)), PER_CLASS), names)
        self.cache = Kept()

    def prior(self, precision: str) -> Prior:
        return Prior.load(self.files, device=self.device, precision=precision)

    def task(self, prior: Prior, *, ipc: int, batch_size: int) -> DistillTask:
        return DistillTask(
            class_ids=WOOF,
            class_indices=tuple(range(len(WOOF))),
            ipc=ipc,
            seed=0,
            train=self.train,
            train_hash="noise",
            device=self.device,
            precision=prior.precision,
            batch_size=batch_size,
            scratch=self.scratch,
            done={},
            load_prior=lambda: prior,
            cache=self.cache,
            phase=lambda name: nullcontext(),
            progress=lambda note: None,
            train_at=lambda image_size, resize: self.train,
        )

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def distill(
        self, prior: Prior, params: Mapping[str, Any], *, ipc: int, batch_size: int
    ) -> Callable[[], np.ndarray]:
        """A function that distills a set and returns its latents, (images, C, h, w)."""
        task = self.task(prior, ipc=ipc, batch_size=batch_size)
        method = DMGD(DMGD.Params(steps=self.asked.steps, **params))
        method.prepare(task)
        return lambda: np.stack([i.latent for made in method.distill(task) for i in made if i.latent is not None])

    def sampling(self) -> list[dict[str, Any]]:
        rows = []
        for precision in ("fp32", "bf16"):
            prior = self.prior(precision)
            flops_per_image = self.flops(prior) * self.asked.steps
            peak = self.matrix_flops_per_second(precision)
            for batch_size in self.asked.batch_sizes:
                # A batch larger than the classes holds several images of each: they are not greedy here.
                ipc = max(1, batch_size // len(WOOF))
                run = self.distill(prior, PLAIN | {"greedy": False}, ipc=ipc, batch_size=batch_size)
                run()
                if self.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(self.device)
                rates = [len(run()) / self.seconds(run) for _ in range(self.asked.rounds)]
                rows.append(
                    {
                        "precision": precision,
                        "batch_size": batch_size,
                        "images": ipc * len(WOOF),
                        "images_per_second": rates,
                        "share_of_matrix_product_speed": float(np.median(rates)) * flops_per_image / peak,
                        "gpu_peak_allocated_mib": self.peak_mib(),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
            del prior
        return rows

    def flops(self, prior: Prior) -> int:
        """Of one step of one image with classifier-free guidance: two evaluations of the network."""
        x = torch.zeros(2, *prior.latent_shape, device=self.device)
        labels = prior.embed_labels(torch.tensor([0, prior.null_label]))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            prior.predict(x, 999, labels)
        return counter.get_total_flops()

    def matrix_flops_per_second(self, precision: str) -> float:
        """What large matrix products reach on this device, the best of five: the peak that programs can have."""
        image_size = MATRIX_SIDE if self.device.type == "cuda" else 1024
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(image_size, image_size, device=self.device, dtype=kind) for _ in range(2))
        _ = a @ b
        return 2 * image_size**3 / min(self.seconds(lambda: a @ b) for _ in range(5))

    def peak_mib(self) -> float | None:
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else None

    def guidance(self) -> dict[str, Any]:
        """Plain DiT, semantic, transport and both, in turns."""
        prior = self.prior("bf16")
        kinds = {
            "dit": PLAIN,
            "dmgd-sm": {"distribution_matching": False},
            "dmgd-dm": {"semantic_matching": False},
            "dmgd": {},
        }
        runs = {name: self.distill(prior, params, ipc=2, batch_size=len(WOOF)) for name, params in kinds.items()}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(1 + self.asked.rounds):
            for name, run in runs.items():
                seconds[name].append(self.seconds(run))
        kept = {name: values[1:] for name, values in seconds.items()}  # the first round warms up
        ratios = [b / a for a, b in zip(kept["dit"], kept["dmgd"], strict=True)]
        return {"images": 2 * len(WOOF), "seconds": kept, "dmgd_over_dit": ratios}

    def precision(self) -> dict[str, float]:
        latents = {
            precision: self.distill(self.prior(precision), PLAIN, ipc=1, batch_size=len(WOOF))()
            for precision in ("fp32", "bf16")
        }
        apart = latents["bf16"] - latents["fp32"]
        return {
            "max_abs": float(np.abs(apart).max()),
            "rms": float(np.sqrt((apart**2).mean())),
            "rms_of_latents": float(np.sqrt((latents["fp32"] ** 2).mean())),
        }

    def student(self) -> dict[str, Any]:
        protocol, image_size = hard_minimax_sgd.PROTOCOL, self.asked.image_size
        overrides = {"image_size": image_size} | ({"epochs": self.asked.epochs} if self.asked.epochs else {})
        protocol = protocol.with_overrides(overrides)
        rng = np.random.default_rng(0)
        train, test = (rng.integers(0, 256, (n, image_size, image_size, 3), np.uint8) for n in (100, 500))

        def run() -> None:
            train_student(
                protocol, self.asked.student, train, np.arange(100) % 10, test, np.arange(500) % 10,
                num_classes=10, ipc=10, seed=0, device=self.device,
            )  # fmt: skip

        return {
            "protocol": protocol.label,
            "student": self.asked.student,
            "seconds": [self.seconds(run) for _ in range(self.asked.student_rounds)],
            "gpu_peak_allocated_mib": self.peak_mib(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--prior", default="random:dit-xl-2-256")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=lambda text: [int(n) for n in text.split(",")], default=[10, 20, 50])
    parser.add_argument("--student", default="resnet_ap10")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=None, help="of the student; the protocol's when not given")
    parser.add_argument("--student-rounds", type=int, default=2)
    asked = parser.parse_args()
    found: dict[str, Any] = {"environment": environment.capture(asked.device), "asked": vars(asked) | {"out": ""}}
    with TemporaryDirectory() as scratch:
        checks = Checks(asked, Path(scratch))
        for name in ("student", "precision", "guidance", "sampling"):
            found[name] = getattr(checks, name)()
            print(name, json.dumps(found[name]), flush=True)
            asked.out.write_text(json.dumps(found, indent=1, default=str) + "\n")  # what is measured is kept


if __name__ == "__main__":
    main()
