"""How long one step of a student or of a prior takes here, timed in another process: whoever asks keeps no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

PIXELS = 2 * 224**2
"""A student sees so many in a step, two images at least and 64 at most."""
TOKENS = 256
"""Tokens that pass through a prior's block at once, at least: with fewer, what is timed would be the calls."""
PATIENCE_SECONDS = 120
"""A machine on which a few steps take longer tells nothing."""


@dataclass(frozen=True)
class StudentStep:
    """Forward and backward through a student, with the forward pass of each teacher where there are any."""

    student: str
    image_size: int
    width: int | None
    teachers: tuple[str, ...] = ()

    def build(self) -> tuple[Callable[[], None], int]:
        """The step, and how many images it is of."""
        import torch

        from ddbench.benchmark.core import seeds
        from ddbench.benchmark.protocols import networks

        n_classes, side = 10, self.image_size  # the last layer is little beside the rest
        student = networks.build(self.student, n_classes, side, 3, self.width, seeds.stream(0, "probe"))
        stream = partial(seeds.stream, 0, "probe")
        label_by = [networks.build(name, n_classes, side, 3, None, stream()).eval() for name in self.teachers]
        count = min(64, max(2, PIXELS // side**2))
        images, classes = torch.zeros(count, 3, side, side), torch.zeros(count, dtype=torch.int64)

        def step() -> None:
            with torch.no_grad():
                for teacher in label_by:
                    teacher(images)
            torch.nn.functional.cross_entropy(student(images), classes).backward()

        return step, count


@dataclass(frozen=True)
class BlockStep:
    """One pass through a block of a prior's transformer."""

    tokens: int
    heads: int
    of_head: int
    """Width of a head."""

    @property
    def width(self) -> int:
        return self.heads * self.of_head

    def build(self) -> tuple[Callable[[], None], int]:
        """The step, and how many images it is of."""
        import torch
        from diffusers.models.attention import BasicTransformerBlock

        images = max(1, TOKENS // self.tokens)
        block = BasicTransformerBlock(
            self.width, self.heads, self.of_head, activation_fn="gelu-approximate",
            num_embeds_ada_norm=1, norm_type="ada_norm_zero", attention_bias=True,
        ).eval()  # fmt: skip
        x, zero = torch.zeros(images, self.tokens, self.width), torch.zeros(images, dtype=torch.int64)

        @torch.no_grad()
        def step() -> None:
            block(x, timestep=zero, class_labels=zero)

        return step, images


TimedStep = StudentStep | BlockStep
KINDS: Mapping[str, type[StudentStep] | type[BlockStep]] = {"student": StudentStep, "block": BlockStep}


def seconds_each(steps: Sequence[TimedStep], threads: int) -> dict[TimedStep, float]:
    """Seconds an image of each step, on a CPU; empty where they cannot be timed, as where memory is short."""
    if not steps:
        return {}
    kinds = {kind: name for name, kind in KINDS.items()}
    asked = {"threads": threads, "steps": [{"kind": kinds[type(step)], **asdict(step)} for step in steps]}
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(asked).encode(),
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
        return dict(zip(steps, json.loads(ran.stdout.splitlines()[-1]), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}


def timed(step: Callable[[], None], units: int) -> float:
    """Seconds a unit, of the fastest step after the first: as many as a second holds, five at most."""
    step()
    took: list[float] = []
    while sum(took) < 1 and len(took) < 5:
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
    return min(took) / units


def main() -> None:
    """Answer `seconds_each` on standard output."""
    import torch

    asked: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    steps = [KINDS[fields.pop("kind")](**fields) for fields in asked["steps"]]
    print(json.dumps([timed(*step.build()) for step in steps]))


if __name__ == "__main__":
    main()
