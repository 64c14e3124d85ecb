"""What must hold, and what a full-size run costs, on a GPU: a script, no test. One command, one JSON file.

python -P tests/speed/gpu_checks.py OUT.json [--minutes 8] [--golden FOLDER …] [--sections run,golden,…]

The sections stand in `SECTIONS`, what matters most first. Each writes its numbers and seconds, or its traceback, to the
file as soon as it ends, and long ones row by row; the next begins all the same, unless it no longer fits into
`--minutes`. One that hangs is ended, with what it started. `passes` says whether a section met its target (None: there
is none on this device).

Random weights make noise, so the numbers of a prior are of time and memory only. On a CPU, --device cpu --prior
random:tiny --student convnet3 --image-size 16 --epochs 1 --test-images 50 --steps 2 tries the road.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path += [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parent)]
from golden_cases import every_step, load_case
from gpu_model import Device, Model, expected

from ddbench.benchmark.cells.priors import CompiledDenoiser
from ddbench.benchmark.core import environment, seeds
from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.compiled import COMPILER
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd
from ddbench.benchmark.protocols.pixels import hold
from ddbench.benchmark.protocols.trainer import EpochReport, StudentResult, train_student
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import read_set
from ddbench.datasets.imagenet.classes import WOOF
from ddbench.methods.base import DistillTask
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.sampler import guided_prediction, label_pairs, sample
from ddbench.methods.dmgd.method import DMGD

PLAIN: dict[str, Any] = {"semantic_matching": False, "distribution_matching": False}
PER_CLASS = 12
"""Real images of a class: enough for ten support points."""
MATRIX_SIDE = 8192
TIMES_AS_LONG, SHARE_OF_MINUTES = 4, 0.25
"""How long a section may take: so many times what it should, or that share of all minutes, whichever is more."""
ENDING_SECONDS = 20
"""For a process that was asked to end."""
GOLDEN_SMALL = Path(__file__).parents[1] / "golden_small"
BENCH = [sys.executable, "-P", "-m", "ddbench.benchmark.commands.cli"]
CELL = """
import sys, torch
from pathlib import Path
from ddbench.benchmark.cells.cell import run_cell
path, device, share = sys.argv[1:]
if share:
    torch.cuda.set_per_process_memory_fraction(float(share), device)
sys.exit(run_cell(Path(path)))
"""
"""One cell, in a process that may take that share of the GPU's memory."""
NEIGHBOUR = """
import signal, sys, torch
x = torch.ones(1, device=sys.argv[1])
print("there", flush=True)
signal.pause()
"""
"""A process with a context on the GPU until it is ended."""

Found = dict[str, Any]


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
    """One device, one prior. Each section takes the dictionary that it fills and a function that writes it as it is."""

    def __init__(self, asked: argparse.Namespace, scratch: Path) -> None:
        self.asked, self.scratch = asked, scratch
        self.device = torch.device(asked.device)
        self.cuda = self.device.type == "cuda"
        self.files = find_prior(asked.prior)
        image_size = self.files.metadata.resolution
        pixels = np.random.default_rng(0).integers(0, 256, (len(WOOF) * PER_CLASS, image_size, image_size, 3), np.uint8)
        names = [f"{wnid}/{wnid}_{i}.JPEG" for wnid in WOOF for i in range(PER_CLASS)]
        self.train = ArraySource(pixels, np.repeat(np.arange(len(WOOF)), PER_CLASS), names)
        self.cache = Kept()
        self.drawn: Prior | None = None

    # Tools ------------------------------------------------------------------------------------------------------------

    def on_the_cpu(self) -> Prior:
        """The prior that all others are copies of: to draw random weights of full size takes a core ten seconds or
        more, which would be as long, over all sections, as all that they measure."""
        self.drawn = self.drawn or Prior.load(self.files)
        return self.drawn

    def prior(self, precision: str) -> Prior:
        drawn = self.on_the_cpu()
        network, autoencoder = copy.deepcopy((drawn.network, drawn.autoencoder))
        return Prior(
            network, drawn.metadata, autoencoder=autoencoder, device=self.device, precision=precision,
            sha256=drawn.sha256,
        )  # fmt: skip

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def peak_mib(self) -> float | None:
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if self.cuda else None

    def forget_peak(self) -> None:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def distill(
        self, prior: Prior, params: Mapping[str, Any], *, ipc: int, batch_size: int
    ) -> Callable[[], np.ndarray]:
        """A function that distills a set and returns its latents, (images, C, h, w)."""
        task = DistillTask(
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
        method = DMGD(DMGD.Params(steps=self.asked.steps, **params))
        method.prepare(task)
        return lambda: np.stack([i.latent for made in method.distill(task) for i in made if i.latent is not None])

    def matrix_flops_per_second(self, precision: str) -> float:
        """What large matrix products reach on this device, the best of five: the peak that programs can have."""
        side = MATRIX_SIDE if self.cuda else 256
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(side, side, device=self.device, dtype=kind) for _ in range(2))
        with tf32(True):
            _ = a @ b
            return 2 * side**3 / min(self.seconds(lambda: a @ b) for _ in range(5))

    # Sections ---------------------------------------------------------------------------------------------------------

    def run(self, found: Found, keep: Callable[[], None]) -> None:
        """`bench run` twice, once with a cell killed half-way; then beside a process that is on the GPU too."""
        protocol = f"quick[epochs={self.asked.epochs}]" if self.asked.epochs else "quick"
        command = [*BENCH, "run", "-d", "digits", "--ipc", "8", "--seeds", "0", "--repeats", "1",
                   "--protocol", protocol, "--device", self.asked.device]  # fmt: skip
        both = ["-m", f"dmgd[steps={self.asked.run_steps}],random"]
        undisturbed, killed, shared = (self.scratch / name for name in ("undisturbed", "killed", "shared"))

        found["undisturbed"] = bench([*command, *both, "--out", undisturbed], undisturbed)
        keep()
        found["killed_after_images"] = kill_half_way([*command, *both, "--out", killed], killed)
        found["killed"] = bench([*command, *both, "--out", killed], killed)
        keep()
        with started([sys.executable, "-c", NEIGHBOUR, self.asked.device]) as beside:
            assert beside.stdout is not None
            said = list[str]()
            while (line := beside.stdout.readline()) != "there\n":
                if not line:
                    raise RuntimeError(f"the process beside the run ended: {''.join(said)}")
                said.append(line)
            found["beside_another"] = bench([*command, "-m", "random", "--out", shared], shared)
        alone = [*found["undisturbed"]["cells"].values(), *found["killed"]["cells"].values()]
        hashes = [{i: cell["sha256"] for i, cell in found[part]["cells"].items()} for part in ("undisturbed", "killed")]
        found["equal_sets"] = hashes[0] == hashes[1]
        resumed = [cell for cell in found["killed"]["cells"].values() if cell.get("attempts") == 2]
        found["passes"] = found["equal_sets"] and len(resumed) == 1 and all(cell["status"] == "ok" for cell in alone)
        if self.cuda:
            beside_another = found["beside_another"]["cells"].values()
            found["passes"] &= all(cell["energy_joules"] is not None for cell in alone)
            # Some containers show no process at all, not even a cell's own: who is alone is unknown there.
            found["processes_are_shown"] = any(cell["exclusive_gpu"] is not None for cell in [*alone, *beside_another])
            if found["processes_are_shown"]:
                found["passes"] &= all(cell["exclusive_gpu"] is True for cell in alone)
                found["passes"] &= all(cell["exclusive_gpu"] is False for cell in beside_another)

    def golden(self, found: Found, keep: Callable[[], None]) -> None:
        """Latents of the authors' released program, step by step, without TF32."""
        cases = [path.parent for root in self.asked.golden for path in sorted(root.glob("dmgd/*/case.json"))]
        if not cases:
            raise FileNotFoundError(
                f"no golden cases in {', '.join(map(str, self.asked.golden))}; give --golden FOLDER"
            )
        found["largest_gap"] = {}
        with tf32(False):
            for folder in cases:
                case, inputs, expected, prior = load_case(folder, self.device)
                prior.tf32 = False
                made = every_step(case, inputs, prior)
                gaps = (made.trajectory - expected["trajectory"]).abs().max(), (made.costs - expected["ot_cost"]).abs()
                found["largest_gap"][str(folder)] = max([float(gaps[0]), *gaps[1].tolist()])
        found["passes"] = max(found["largest_gap"].values()) <= 1e-4

    def trainer(self, found: Found, keep: Callable[[], None]) -> None:
        """Losses of a training on the CPU and here, without TF32."""
        short = {"image_size": 32, "epochs": 3, "looks": 1, "batch_size": 50}
        protocol = hard_minimax_sgd.PROTOCOL.with_overrides(short).model_copy(update={"tf32_convolutions": False})
        for student in ("convnet3", "resnet18_bn"):
            losses = {}
            for device in (torch.device("cpu"), self.device):
                reports: list[EpochReport] = []
                noise_student(protocol, student, 32, 20, device=device, on_epoch=reports.append)
                losses[device.type] = [report.train_loss for report in reports]
            cpu, here = losses["cpu"], losses[self.device.type]
            gap = [abs(one / other - 1) for one, other in zip(here, cpu, strict=True)]
            found[student] = {"losses": losses, "relative_gap": gap}
            keep()
        found["passes"] = all(found[student]["relative_gap"][0] <= 1e-4 for student in ("convnet3", "resnet18_bn"))

    def precision(self, found: Found, keep: Callable[[], None]) -> None:
        """TF32 and bf16 against float32 from one noise: root mean square of the difference over that of the latents."""
        images = [ImageKey(wnid, 0) for wnid in WOOF]
        exact: list[np.ndarray] = []
        for kind, precision, allowed in (("fp32", "fp32", False), ("tf32", "fp32", True), ("bf16", "bf16", True)):
            latents: list[np.ndarray] = []
            prior = self.prior(precision)
            prior.tf32 = allowed
            with tf32(allowed):
                sample(
                    prior, images, [], StreamNoise(partial(seeds.stream, 0), images),
                    steps=self.asked.steps, cfg_scale=4.0,
                    on_step=lambda step, z, to=latents: to.append(z.cpu().numpy()),
                )  # fmt: skip
            if not exact:
                exact = latents
                found["rms_of_latents"] = [rms(one) for one in exact]
                continue
            found[kind] = [rms(one - other) / rms(other) for one, other in zip(latents, exact, strict=True)]
            keep()

    def out_of_memory(self, found: Found, keep: Callable[[], None]) -> None:
        """A cell in a process that may take 0.7 of the memory that its tensors took when they could: that cannot hold
        them, however they lie in it."""
        given = {"methods": f"dmgd[greedy=false,steps={self.asked.steps}]", "datasets": "digits",
                 "ipc": self.asked.oom_batch // 10, "seeds": 0, "device": self.asked.device}  # fmt: skip
        plan, _, _ = plan_run(run_spec({}, given))
        (planned,) = plan.sets
        assert planned.spec is not None
        launch = planned.launch.model_copy(
            update={"device": self.asked.device, "batch_size": self.asked.oom_batch, "threads": 1}
        )
        share, pixels = "", list[np.ndarray]()
        for name in ("enough", "too_little"):
            store = Store(self.scratch / name)
            store.create()
            cell = store.add(planned.spec, launch)
            to_its_end("the cell", [sys.executable, "-P", "-c", CELL, cell.path, self.asked.device, share])
            made = found[name] = {"share_of_memory": share, **facts(cell)}
            keep()
            pixels.append(np.stack(list(read_set(store.set_dir(made["sha256"]), Digits.class_ids, 1).pixels)))
            if self.cuda:
                total = torch.cuda.get_device_properties(self.device).total_memory / 2**20
                share = str(0.7 * made["gpu_peak_allocated_mib"] / total)
        one, other = pixels
        found["largest_difference_levels"] = int(np.abs(one.astype(int) - other).max())
        halved = bool(found["too_little"]["oom_batch_sizes"])
        found["passes"] = found["largest_difference_levels"] <= 1 and (halved if self.cuda else None)

    def student(self, found: Found, keep: Callable[[], None], *, compiled: bool = False) -> None:
        """A student as its cell runs it, on 100 images, with as many test images as Woof has."""
        overrides = {"image_size": self.asked.image_size}
        protocol = hard_minimax_sgd.PROTOCOL.with_overrides(
            overrides | ({"epochs": self.asked.epochs} if self.asked.epochs else {})
        )
        epochs: list[float] = []
        file = self.scratch / ("compiled.pt" if compiled else "checkpoint.pt")
        self.forget_peak()

        began = time.perf_counter()
        with self.compiling():
            result = noise_student(
                protocol, self.asked.student, self.asked.image_size, self.asked.test_images, device=self.device,
                checkpoint=file, on_epoch=lambda report: epochs.append(time.perf_counter() - began),
                compile="always" if compiled else "never",
            )  # fmt: skip
        seconds = time.perf_counter() - began
        told = {key: value for key, value in (result.determinism or {}).items() if "compiled" in key}
        found |= {
            "protocol": protocol.label,
            "student": self.asked.student,
            "test_images": self.asked.test_images,
            "seconds": seconds,
            "train_seconds": result.train_seconds,
            "test_seconds": result.test_seconds,
            "other_seconds": seconds - result.train_seconds - result.test_seconds,
            "first_epoch_done_after_seconds": epochs[0],
            "checkpoint_bytes": file.stat().st_size if file.exists() else None,
            "gpu_peak_allocated_mib": self.peak_mib(),
            **told,
            # Where the compiler failed, the seconds are those of the network as it is.
            "passes": seconds <= 30 and bool(told.get("compiled")) == compiled if self.cuda else None,
        }

    def compiled_student(self, found: Found, keep: Callable[[], None]) -> None:
        """The same through torch.compile, the compiling included: what `--compile always` gives."""
        if not self.asked.compile:
            found["skipped"] = "no --compile backend"
            return
        self.student(found, keep, compiled=True)

    def sampling(self, found: Found, keep: Callable[[], None]) -> None:
        """Plain DiT: images a second, share of the device's own matrix-product speed, peak memory."""
        found["rows"] = []
        for precision in ("bf16", "fp32"):
            prior = self.prior(precision)
            flops_per_image, peak = self.flops(prior), self.matrix_flops_per_second(precision)
            for batch_size in self.asked.batch_sizes:
                # A batch larger than the classes holds several images of each: they are not greedy here.
                ipc = max(1, batch_size // len(WOOF))
                run = self.distill(prior, PLAIN | {"greedy": False}, ipc=ipc, batch_size=batch_size)
                run()
                self.forget_peak()
                rates = [ipc * len(WOOF) / self.seconds(run) for _ in range(self.asked.rounds)]
                found["rows"].append(
                    {
                        "precision": precision,
                        "batch_size": batch_size,
                        "images": ipc * len(WOOF),
                        "images_per_second": rates,
                        "flops_per_image": flops_per_image,
                        "matrix_flops_per_second": peak,
                        "share_of_matrix_product_speed": float(np.median(rates)) * flops_per_image / peak,
                        "gpu_peak_allocated_mib": self.peak_mib(),
                    }
                )
                keep()
            del prior
        best = max(float(np.median(row["images_per_second"])) for row in found["rows"] if row["precision"] == "bf16")
        found["passes"] = best >= 16 if self.cuda else None

    def compiled_denoiser(self, found: Found, keep: Callable[[], None]) -> None:
        """The network as it is and through torch.compile in turns, for two sizes of batch, compiled once for both."""
        if not self.asked.compile:
            found["skipped"] = "no --compile backend"
            return
        for precision in ("fp32", "bf16"):
            prior, compiler = self.prior(precision), CompiledDenoiser()
            runs = {
                size: self.distill(prior, PLAIN | {"greedy": False}, ipc=max(1, size // len(WOOF)), batch_size=size)
                for size in self.asked.batch_sizes[:2]
            }
            of_precision = found[precision] = {}
            for size, run in runs.items():
                of_size = of_precision[f"batch_{size}"] = {"seconds": [], "compiled_seconds": []}
                prior.compiler = None
                own = run()
                prior.compiler = compiler
                with self.compiling():
                    of_size["first_seconds"] = self.seconds(run)
                    of_size["difference"] = rms(run() - own) / rms(own)
                    for _ in range(self.asked.rounds):
                        for name, one in (("seconds", None), ("compiled_seconds", compiler)):
                            prior.compiler = one
                            of_size[name].append(self.seconds(run))
                keep()
            of_precision |= compiler.arithmetic
            del prior, runs, run
        # Where the compiler failed, both seconds are those of the network as it is.
        found["passes"] = all(found[precision]["compiled"] for precision in ("fp32", "bf16"))

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """With the backend that was asked for."""
        other = self.asked.compile != COMPILER["backend"]
        with mock.patch.dict(COMPILER, {"backend": self.asked.compile} if other else {}, clear=other):
            yield

    def model(self, found: Found, keep: Callable[[], None]) -> None:
        """What `gpu_model.py` counts, at the speed that matrix products and copies reach here."""
        side = MATRIX_SIDE if self.cuda else 256
        numbers = torch.randn(side, side, device=self.device)
        bandwidth = 2 * numbers.nbytes / min(self.seconds(numbers.clone) for _ in range(5))
        here = Device("here", *(self.matrix_flops_per_second(p) for p in ("fp32", "bf16")), bandwidth)
        found |= {"tf32_flops_per_second": here.tf32, "bf16_flops_per_second": here.bf16}
        found |= {"bytes_per_second": bandwidth, "expected": expected(Model(), here)}

    def flops(self, prior: Prior) -> int:
        """Of one image: every step with classifier-free guidance, two evaluations of the network, and its decoding."""
        x = torch.zeros(2, *prior.latent_shape, device=self.device)
        labels = prior.embed_labels(torch.tensor([0, prior.null_label]))
        with FlopCounterMode(display=False) as step, torch.no_grad():
            prior.predict(x, 999, labels)
        with FlopCounterMode(display=False) as decode, torch.no_grad():
            prior.to_images(x[:1])
        return step.get_total_flops() * self.asked.steps + decode.get_total_flops()

    def guidance(self, found: Found, keep: Callable[[], None]) -> None:
        """Plain DiT, semantic, transport and both, in turns."""
        prior = self.prior("bf16")
        kinds = {
            "dit": PLAIN,
            "dmgd-sm": {"distribution_matching": False},
            "dmgd-dm": {"semantic_matching": False},
            "dmgd": {},
        }
        runs = {name: self.distill(prior, params, ipc=2, batch_size=len(WOOF)) for name, params in kinds.items()}
        for run in runs.values():
            run()
        found |= {"images": 2 * len(WOOF), "seconds": {name: [] for name in runs}, "dmgd_over_dit": []}
        for _ in range(self.asked.rounds):
            for name, run in runs.items():
                found["seconds"][name].append(self.seconds(run))
            found["dmgd_over_dit"].append(found["seconds"]["dmgd"][-1] / found["seconds"]["dit"][-1])
            keep()
        found["passes"] = float(np.median(found["dmgd_over_dit"])) <= 1.03 if self.cuda else None

    def step(self, found: Found, keep: Callable[[], None]) -> None:
        """A guided step of ten images: seconds of the host to ask for it, and of the device to do it.

        Products of matrices before it keep the device busy meanwhile, so that it never waits for the host.
        """
        busy = torch.randn(MATRIX_SIDE if self.cuda else 64, MATRIX_SIDE if self.cuda else 64, device=self.device)
        for precision in ("fp32", "bf16"):
            prior = self.prior(precision)
            images = [ImageKey(wnid, 0) for wnid in WOOF]
            pair, z = label_pairs(prior, images), torch.zeros(len(images), *prior.latent_shape, device=self.device)
            host, device = list[float](), list[float]()
            for _ in range(10):
                self.wait()
                if self.cuda:
                    _ = [busy @ busy for _ in range(4)]
                    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                    events[0].record()
                began = time.perf_counter()
                with torch.no_grad():
                    guided_prediction(prior, z, 999, pair, 4.0, prior.guided_channels)
                host.append(time.perf_counter() - began)
                if self.cuda:
                    events[1].record()
                    self.wait()
                    device.append(events[0].elapsed_time(events[1]) / 1000)
            found[precision] = {"host_seconds": host[1:], "device_seconds": device[1:] or None}
            keep()
        if self.cuda:
            found["passes"] = all(
                np.median(found[p]["host_seconds"]) < np.median(found[p]["device_seconds"]) for p in ("fp32", "bf16")
            )

    def autoencoder(self, found: Found, keep: Callable[[], None]) -> None:
        """Images a second of encoding and decoding alone, one by one and in eights."""
        prior = self.prior("fp32")
        n = self.asked.coded_images
        pixels = np.resize(self.train.read(range(8)), (n, *prior.image_shape))
        latents = torch.randn(n, *prior.latent_shape, device=self.device)

        def encode(size: int) -> None:
            for start in range(0, n, size):
                prior.encode(pixels[start : start + size])

        @torch.no_grad()
        def decode(size: int) -> None:
            for start in range(0, n, size):
                prior.to_images(latents[start : start + size])

        for precision in ("fp32", "bf16"):
            prior.precision = precision
            for work in (encode, decode):
                for size in (1, 8):
                    work(size)
                    found[f"{work.__name__}_{precision}_{size}"] = n / self.seconds(lambda w=work, s=size: w(s))
                    keep()

    def prior_files(self, found: Found, keep: Callable[[], None]) -> None:
        """A prior's files: written, found (its SHA-256 is over all bytes), loaded, moved to the device."""
        drawn, folder = self.on_the_cpu(), self.scratch / "prior"
        network = drawn.network
        assert isinstance(network, DenoisingNetwork), "this section needs a prior random:NAME"

        def write() -> None:
            network.save(folder, drawn.metadata, torch.float32)
            drawn.autoencoder.save_pretrained(folder / "vae", safe_serialization=True)

        found["write_seconds"] = self.seconds(write)
        found["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        keep()
        began = time.perf_counter()
        files = find_prior(folder)
        found["hash_seconds"] = time.perf_counter() - began
        keep()
        began = time.perf_counter()
        prior = Prior.load(files)
        found["load_seconds"] = time.perf_counter() - began
        found["move_seconds"] = self.seconds(lambda: prior.network.to(self.device))


class Section(NamedTuple):
    name: str
    seconds: float
    """What it should take on an H200: it is not begun where less is left."""


SECTIONS = (
    Section("run", 45),
    Section("golden", 15),
    Section("trainer", 10),
    Section("precision", 35),
    Section("out_of_memory", 15),
    Section("student", 90),
    Section("sampling", 90),
    Section("guidance", 35),
    Section("step", 5),
    Section("autoencoder", 10),
    Section("prior_files", 25),
    Section("model", 10),
    Section("compiled_student", 100),
    Section("compiled_denoiser", 130),
)


@contextmanager
def tf32(allowed: bool, *, convolutions: bool | None = None) -> Iterator[None]:
    """Whether products of matrices may be TF32, and convolutions, as the former where nothing is said; as before on
    leaving."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = allowed, allowed if convolutions is None else convolutions
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def rms(of: np.ndarray) -> float:
    return float(np.sqrt(np.square(of, dtype=np.float64).mean()))


def noise_student(
    protocol: Protocol, student: str, image_size: int, test_images: int, *, device: torch.device, **given: Any
) -> StudentResult:
    """A student of ten classes on noise, 100 images; the test images are held where a cell would hold them."""
    rng = np.random.default_rng(0)
    channels = protocol.channels or 3
    train, test = (rng.integers(0, 256, (n, image_size, image_size, channels), np.uint8) for n in (100, test_images))
    labels = np.arange(max(100, test_images)) % 10
    source = ArraySource(test, labels[:test_images], [str(i) for i in range(test_images)])
    return train_student(
        protocol, student, train, labels[:100], hold(source, device), labels[:test_images],
        num_classes=10, ipc=10, seed=0, device=device, **given,
    )  # fmt: skip


def facts(cell: CellDir) -> Found:
    """What a cell's result says of itself."""
    result = cell.result()
    assert result is not None, f"{cell.path} has no result"
    found: Found = {"status": result.status}
    if isinstance(result, DistillResult | EvaluateResult):
        found["sha256"] = result.image_set_sha256
        if result.cost is not None:
            names = ("seconds", "energy_joules", "exclusive_gpu", "gpu_peak_allocated_mib", "gpu_peak_reserved_mib")
            found |= result.cost.model_dump(include={*names, "batch_size", "oom_batch_sizes", "attempts"})
    return found


def bench(command: list[Any], out: Path) -> Found:
    """Run it to its end, and say what its cells say."""
    began = time.perf_counter()
    to_its_end("bench run", command)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "cells": {cell.id: facts(cell) for cell in Store(out).cell_dirs()}}


def to_its_end(what: str, command: list[Any]) -> None:
    """Raises RuntimeError if it ends with an error."""
    with started(command) as process:
        said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{what} ended with {process.returncode}:\n{said}")


@contextmanager
def started(command: list[Any]) -> Iterator[subprocess.Popen[str]]:
    """A process that has ended when the block is left: else it would share the GPU with what is measured next."""
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.terminate()  # a run ends its cells
            try:
                process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"ended after {seconds:.0f} s, which is several times what it should take")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def images_committed(cell: CellDir) -> int:
    """The images in its rounds; none while the cell moves them, as it does on starting over and at its end."""
    try:
        return len(list(cell.path.glob("rounds/0*/*.png")))
    except FileNotFoundError:
        return 0


def kill_half_way(command: list[Any], out: Path, images: int = 40) -> int:
    """Start it and end (-9) DMGD's cell when it has committed so many images; returns how many it had."""
    with started(command) as run:
        while run.poll() is None:
            for cell in Store(out).cell_dirs() if out.exists() else []:
                committed = images_committed(cell)
                if committed >= images and cell.spec().method.name == "dmgd" and cell.result() is None:
                    pid = cell.progress()["pid"]
                    os.kill(pid, signal.SIGKILL)
                    run.communicate()
                    return committed
            time.sleep(0.005)
        output = run.stdout.read() if run.stdout else ""
    raise RuntimeError(f"no cell could be killed half-way: the run ended with {run.returncode}:\n{output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    # A cell is told its GPU's number by the run, and section out_of_memory starts cells without one.
    parser.add_argument("--device", type=lambda name: "cuda:0" if name == "cuda" else name, default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="a section that no longer fits is not begun")
    names = [section.name for section in SECTIONS]
    parser.add_argument("--sections", type=lambda text: text.split(","), default=names, help=",".join(names))
    parser.add_argument("--golden", type=Path, nargs="+", default=[GOLDEN_SMALL], help="folders with dmgd/CASE")
    parser.add_argument("--prior", default="random:dit-xl-2-256")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--run-steps", type=int, default=50, help="of the sampler in section run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=lambda text: [int(n) for n in text.split(",")], default=[10, 20, 50])
    parser.add_argument("--oom-batch", type=int, default=640, help="images in flight before memory runs out")
    parser.add_argument("--coded-images", type=int, default=64, help="to encode and to decode")
    parser.add_argument("--student", default="resnet_ap10")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--test-images", type=int, default=500, help="Woof's")
    parser.add_argument("--epochs", type=int, default=None, help="of students; the protocol's when not given")
    parser.add_argument("--compile", default="inductor", help="backend of torch.compile; empty: not compiled")
    asked = parser.parse_args()
    if unknown := set(asked.sections) - set(names):
        parser.error(f"there are no sections {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    found: Found = {
        "environment": environment.capture(asked.device),
        "asked": vars(asked) | {"out": ""},
        "sections": {},
    }
    began = time.perf_counter()

    def keep() -> None:
        asked.out.write_text(json.dumps(found, indent=1, default=str) + "\n")

    with TemporaryDirectory() as scratch:
        checks = Checks(asked, Path(scratch))
        for section in (s for s in SECTIONS if s.name in asked.sections):
            of_section: Found = {}
            found["sections"][section.name] = of_section
            since = time.perf_counter()
            left = 60 * asked.minutes - (since - began)
            if section.seconds > left:
                of_section["skipped"] = f"{left:.0f} s are left, it takes about {section.seconds:.0f} s"
            else:
                try:
                    # A slower device may take its time, but what hangs must not take that of all the others.
                    limit = max(TIMES_AS_LONG * section.seconds, SHARE_OF_MINUTES * 60 * asked.minutes)
                    with at_most(limit), tf32(False, convolutions=True):  # as a distill cell
                        getattr(checks, section.name)(of_section, keep)
                except Exception:
                    of_section |= {"traceback": traceback.format_exc(), "passes": False}
                of_section["section_seconds"] = time.perf_counter() - since
            keep()
            print(section.name, json.dumps(of_section, default=str), flush=True)


if __name__ == "__main__":
    main()
