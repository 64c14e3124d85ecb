"""What sampling and students should cost on a GPU, by counting: a script, no test.

python -P tests/speed/gpu_model.py

A call takes the operations of its matrix products and convolutions at the speed that the device reaches in large ones,
and the bytes that all other operations read and write at the speed of its memory, one after the other. Both are counted
on tensors without contents. That leaves out what overlaps, products too small to reach that speed, the time to launch
kernels, augmentation, loading: a GPU that does better than the model has fused operations, and one that does much worse
waits for something. `fused` leaves out all bytes but those of the products themselves, which no compiler gets below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ddbench.benchmark.core import seeds
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd
from ddbench.benchmark.protocols.epoch import TEST_BATCH
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.random_prior import random_networks

WOOF_TRAINING_IMAGES, WOOF_TEST_IMAGES = 12_454, 500
"""Of the split that the headline takes, ImageNet's own."""
IPC, STEPS, SETS, STUDENTS, LOOKS = 10, 50, 3, 3, 100
"""Of the headline: `hard-minimax-sgd@1` on Woof, three students a set, sampled in float32 as nothing else is asked."""


@dataclass(frozen=True)
class Device:
    """What a GPU reaches, in operations and bytes a second."""

    name: str
    tf32: float
    bf16: float
    memory: float


DEVICES = (Device("H200", 270e12, 560e12, 4.0e12), Device("RTX 4090", 62e12, 135e12, 0.9e12))
"""Assumed, not measured: `gpu_checks.py` puts in what it finds."""


@dataclass(frozen=True)
class Work:
    """Of one call."""

    flops: float
    product_bytes: float
    """Read and written by matrix products and convolutions."""
    other_bytes: float
    """By everything else."""

    def seconds(self, flops_per_second: float, bytes_per_second: float, *, fused: bool = False) -> float:
        other = 0.0 if fused else self.other_bytes / bytes_per_second
        return max(self.flops / flops_per_second, self.product_bytes / bytes_per_second) + other


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.flops, self.product_bytes, self.other_bytes = 0.0, 0.0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if any(one.alias_info is not None and not one.alias_info.is_write for one in returns):
            return made  # a view: nothing is moved
        moved = sum(t.nbytes for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor))
        count = flop_registry.get(func.overloadpacket)
        if count is None:
            self.other_bytes += moved
        else:
            self.flops += count(*args, **(kwargs or {}), out_val=made)
            self.product_bytes += moved
        return made


class _AttentionInOneKernel(TorchFunctionMode):
    """As a GPU has it; without a device PyTorch would write all scores to memory and read them again."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return func(*args, **(kwargs or {}))


def work(call: Callable[[], object]) -> Work:
    """What a call on tensors without contents would do."""
    with _AttentionInOneKernel(), _Counting() as counted:
        call()
    return Work(counted.flops, counted.product_bytes, counted.other_bytes)


class Model:
    """DiT-XL/2 at 256 px with its autoencoder, and ResNetAP-10 at 224 px, counted once."""

    def __init__(self) -> None:
        files = find_prior("random:dit-xl-2-256")
        assert files.random is not None
        with torch.device("meta"):
            transformer, self.autoencoder = random_networks(files.random)
        self.network = DenoisingNetwork(transformer.to("meta"), files.metadata.freq_shift).eval()
        self.autoencoder = self.autoencoder.to("meta").eval()
        self.protocol = hard_minimax_sgd.PROTOCOL
        self.student = networks.build("resnet_ap10", 10, 224, 3, None, seeds.stream(0, "model")).to("meta")

    def step(self, images: int, precision: str) -> Work:
        """One of the sampler's, with guidance: two rows an image."""
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        network = self.network.to(kind)
        x = torch.zeros(2 * images, *network.latent_shape, device="meta", dtype=kind)
        labels = torch.zeros(2 * images, dtype=torch.long, device="meta")
        with torch.no_grad():
            embedding = network.embed_labels(labels)
            return work(lambda: network(x, embedding))

    @torch.no_grad()
    def decode(self) -> Work:
        z = torch.zeros(1, *self.network.latent_shape, device="meta")
        return work(lambda: self.autoencoder.decode(z).sample)

    @torch.no_grad()
    def encode(self) -> Work:
        x = torch.zeros(1, 3, 256, 256, device="meta")
        return work(lambda: self.autoencoder.encode(x).latent_dist.mean)

    def train(self, images: int) -> Work:
        x, labels = (
            torch.zeros(images, 3, 224, 224, device="meta"),
            torch.zeros(images, dtype=torch.long, device="meta"),
        )

        def forward_and_backward() -> None:
            torch.nn.functional.cross_entropy(self.student.train()(x), labels).backward()

        return work(forward_and_backward)

    @torch.no_grad()
    def test(self, images: int) -> Work:
        x = torch.zeros(images, 3, 224, 224, device="meta")
        return work(lambda: self.student.eval()(x))


def expected(model: Model, device: Device) -> dict[str, float]:
    """Seconds, or images a second; names that end in `_fused` are the bound that no compiler gets below."""
    found = dict[str, float]()

    def put(name: str, done: Work, times: float, speed: float = device.tf32) -> None:
        for suffix, fused in (("", False), ("_fused", True)):
            found[name + suffix] = times * done.seconds(speed, device.memory, fused=fused)

    for precision, speed in (("fp32", device.tf32), ("bf16", device.bf16)):
        for images in (10, 50):
            put(f"step_{precision}_{images}", model.step(images, precision), 1, speed)
    put("decode", model.decode(), 1)
    put("encode", model.encode(), 1)
    epochs = model.protocol.epochs_for(IPC, 10)
    put("train_64", model.train(64), epochs)
    put("train_36", model.train(36), epochs)
    put("tests", model.test(TEST_BATCH), LOOKS * WOOF_TEST_IMAGES / TEST_BATCH)
    for suffix in ("", "_fused"):
        for precision in ("fp32", "bf16"):
            an_image = STEPS * found[f"step_{precision}_50{suffix}"] / 50 + found["decode" + suffix]
            found[f"images_per_second_{precision}{suffix}"] = 1 / an_image
        found["train" + suffix] = found["train_64" + suffix] + found["train_36" + suffix]
        found["student" + suffix] = found["train" + suffix] + found["tests" + suffix]
        sets = SETS * 10 * IPC / found["images_per_second_fp32" + suffix]
        found["headline" + suffix] = (
            WOOF_TRAINING_IMAGES * found["encode" + suffix] + sets + SETS * STUDENTS * found["student" + suffix]
        )
    return found


ROWS = (
    ("DiT-XL/2, a guided step of 10 images, TF32, ms", "step_fp32_10", 1e3),
    ("… bf16, ms", "step_bf16_10", 1e3),
    ("… of 50 images, TF32, ms", "step_fp32_50", 1e3),
    ("… bf16, ms", "step_bf16_50", 1e3),
    ("images a second, 50 steps and decoding, TF32", "images_per_second_fp32", 1),
    ("… bf16", "images_per_second_bf16", 1),
    ("decoding an image, ms", "decode", 1e3),
    ("encoding one, ms", "encode", 1e3),
    ("a student's training, s", "train", 1),
    ("its 100 looks at Woof's test images, s", "tests", 1),
    ("the student, s", "student", 1),
    ("Woof's headline, 3 sets and 9 students, one after another, s", "headline", 1),
)
"""What it is, its name in `expected`, and what it is multiplied with."""


def main() -> None:
    model = Model()
    tables = [expected(model, device) for device in DEVICES]
    print("| | " + " | ".join(f"{device.name} | fused" for device in DEVICES) + " |")
    print("|---|" + "---|---|" * len(DEVICES))
    for what, name, factor in ROWS:
        cells = (f"{float(f'{factor * table[name + suffix]:.3g}'):,g}" for table in tables for suffix in ("", "_fused"))
        print(f"| {what} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
