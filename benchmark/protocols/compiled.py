"""A student's network through `torch.compile`, where that pays: decided before a training, from measured seconds,
and only if it gives what the network as it is gives.

Compiled code rounds in other places, so a training keeps to what was decided when it began, and its result says it.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.spec import Compile
from ddbench.benchmark.protocols.epoch import each_image_alone
from ddbench.datasets.cache import cache_dir

TOLERANCE = 5e-3
"""Relative difference from the network's own gradients and logits up to which compiled ones are trusted: TF32 makes
less, wrong code more."""
TOO_FEW = 100
"""Steps of a training below which nothing is timed."""
EXPECTED_SHARE, EXPECTED_SECONDS = 0.7, 20.0
"""Time of a compiled call as a share of what it takes otherwise, and of compiling one, until one was measured."""
WORTH_IT = 0.95
"""Share from which on a compiled call is not used."""
TIMED = 3
COMPILER: dict[str, Any] = {"backend": "inductor", "options": {"compile_threads": 1}}
"""Arguments of `torch.compile`; without worker processes, which would outlive a cell that is killed."""


KEPT_IN, PYTORCHS_OWN = "TORCHINDUCTOR_CACHE_DIR", "torchinductor_"
"""Where PyTorch keeps what it has compiled, and how the temporary folder begins that it names where nobody has."""


class Call(NamedTuple):
    """What a training does again and again: a forward and a backward pass, or in a test a forward pass alone."""

    training: bool
    images: int

    def __str__(self) -> str:
        return f"{'train' if self.training else 'test'} {self.images}"


def calls_of(steps: Sequence[int], epochs: int, passes: Sequence[int], looks: int) -> Counter[Call]:
    """How often a training makes each call.

    Args:
        steps, passes: images of each step of an epoch, and of each forward pass of a look.
    """
    trained = Counter({Call(True, size): epochs * often for size, often in Counter(steps).items()})
    return trained + Counter({Call(False, size): looks * often for size, often in Counter(passes).items()})


@dataclass(frozen=True)
class Forward:
    """The network, compiled for some calls; all others go through it as it is."""

    network: nn.Module
    calls: tuple[Call, ...] = ()
    """Those that are compiled."""
    problem: str | None = None
    """Why none is, where some should have been."""
    compiled: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What a result says of it."""
        problem = {} if self.problem is None else {"not_compiled": self.problem}
        return {"compiled": list(map(str, self.calls))} | problem

    def __call__(self, images: Tensor) -> Tensor:
        if self.compiled is not None and Call(self.network.training, len(images)) in self.calls:
            return self.compiled(images.contiguous())  # other strides would be compiled anew
        logits: Tensor = self.network(images)
        return logits


def decide(
    network: nn.Module, choice: Compile, calls: Mapping[Call, int], image_shape: tuple[int, int, int]
) -> Forward | None:
    """What a training is done with: the network, or the network compiled. None where nothing had to be measured to say
    that it is the network as it is.

    Args:
        choice: `auto` compiles calls that save more seconds than they cost, on a CPU and in networks that take each
            image alone, of which students were shown to be as good (docs/performance.md).
        calls: what the training does, and how often.
        image_shape: (C, S, S).
    """
    steps = sum(often for call, often in calls.items() if call.training)
    proved = _device(network).type == "cpu" and each_image_alone(network)
    if choice == "never" or (choice == "auto" and (not proved or steps < TOO_FEW)):
        return None
    return _compile(network, calls, image_shape, always=choice == "always")


def as_decided(network: nn.Module, calls: Sequence[Call], image_shape: tuple[int, int, int]) -> Forward:
    """What a training goes on with that was begun with these calls compiled."""
    return _compile(network, dict.fromkeys(calls, 1), image_shape, always=True) if calls else Forward(network)


def _compile(
    network: nn.Module, often: Mapping[Call, int], image_shape: tuple[int, int, int], *, always: bool
) -> Forward:
    try:
        with _as_it_was(network):
            return _tried(network, often, image_shape, always=always)
    except Exception as error:  # compilers raise anything, and without one the network does as well
        return Forward(network, problem=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _tried(
    network: nn.Module, often: Mapping[Call, int], image_shape: tuple[int, int, int], *, always: bool
) -> Forward:
    device = _device(network)
    share, cost, chosen, compiled = EXPECTED_SHARE, EXPECTED_SECONDS, list[Call](), None
    own = {call: _Run(network, network, call, image_shape) for call in often}
    for call in sorted(often, key=lambda call: -often[call] * own[call].seconds):
        seconds = own[call].seconds
        if not always and often[call] * seconds * (1 - share) < cost:
            continue
        compiled = compile_network(network, dynamic=False) if compiled is None else compiled
        began = _clock(device)
        run = _Run(network, compiled, call, image_shape)
        cost, share = _clock(device) - began, run.seconds / seconds
        differs = run.difference(own[call])
        if not differs <= TOLERANCE:
            return Forward(network, problem=f"the compiled network's {call} differs by {differs:.2g}")
        print(f"compiled in {cost:.1f} s: {call} takes {share:.2f} of {seconds * 1e3:.1f} ms", flush=True)
        if always or share < WORTH_IT:
            chosen.append(call)
    return Forward(network, tuple(sorted(chosen)), compiled=compiled)


def compile_network(network: nn.Module, **given: Any) -> Callable[..., Tensor]:
    """The network, to be compiled when it is first called; its code is kept in the cache folder.

    Args:
        given: further arguments of `torch.compile`.
    """
    if Path(os.environ.get(KEPT_IN, PYTORCHS_OWN)).name.startswith(PYTORCHS_OWN):
        os.environ[KEPT_IN] = str(cache_dir() / "compiled")
    torch.compiler.reset()  # PyTorch compiles a network of one class so many times, and then silently no more
    compiled: Callable[..., Tensor] = torch.compile(network, **COMPILER, **given)
    return compiled


class _Run:
    """One call on fixed images: what it gives, and the seconds that it takes once it has been done before."""

    def __init__(
        self, network: nn.Module, forward: Callable[[Tensor], Tensor], call: Call, image_shape: tuple[int, int, int]
    ) -> None:
        device = _device(network)
        images = torch.randn(call.images, *image_shape, generator=seeds.stream(0, "compile")).to(device)
        network.train(call.training)

        def once() -> list[Tensor]:
            if not call.training:
                with torch.inference_mode():
                    return [forward(images)]
            network.zero_grad()
            forward(images).logsumexp(1).mean().backward()
            return [p.grad for p in network.parameters() if p.grad is not None]

        def timed() -> float:
            began = _clock(device)
            once()
            return _clock(device) - began

        self.given = once()
        self.seconds = statistics.median(timed() for _ in range(TIMED))

    def difference(self, other: _Run) -> float:
        """Relative, over all numbers together."""
        pairs = list(zip(self.given, other.given, strict=True))
        apart, size = (
            sum(float(of.double().square().sum()) for of in numbers)
            for numbers in ([mine - theirs for mine, theirs in pairs], [theirs for _, theirs in pairs])
        )
        return float((apart / size) ** 0.5)


@contextmanager
def _as_it_was(network: nn.Module) -> Iterator[None]:
    """Leave no trace: BatchNorm's statistics, gradients and PyTorch's generators are what they were."""
    device, buffers = _device(network), [buffer.clone() for buffer in network.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for buffer, before in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(before)
            network.zero_grad()


def _clock(device: torch.device) -> float:
    """Seconds: of processors on a CPU, those of the compiler's own processes too, so that neighbours do not count."""
    if device.type == "cpu":
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(each.ru_utime + each.ru_stime for each in used)
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
