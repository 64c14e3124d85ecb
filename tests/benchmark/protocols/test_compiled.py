"""Students through `torch.compile`: when, with whose consent, and that what was decided stays.

Compilers are played by functions that take a traced network and give one: quick, and told apart by what they compute.
"""

from __future__ import annotations

import dataclasses
import re
import resource
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from played_compilers import broken, scaling
from torch import Tensor, nn

from ddbench.benchmark.core.spec import Compile
from ddbench.benchmark.protocols import compiled, networks, trainer
from ddbench.benchmark.protocols.compiled import Call, Forward
from ddbench.benchmark.protocols.definitions import quick
from ddbench.benchmark.protocols.trainer import EpochReport, StudentResult, train_student

PROTOCOL = quick.PROTOCOL.with_overrides({"epochs": 4, "looks": 2, "width": 4, "batch_size": 16})
SHAPE = (1, 8, 8)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    return lambda backend: monkeypatch.setattr(compiled, "COMPILER", {"backend": backend})


def network(layer: nn.Module | None = None) -> nn.Module:
    made = networks.build("convnet3", 10, 8, 1, 4, torch.Generator().manual_seed(0))
    return made if layer is None else nn.Sequential(layer, made)


def train(compile: Compile, n: int = 40, **given: Any) -> StudentResult:
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(n) % 10
    protocol = given.pop("protocol", PROTOCOL)
    return train_student(
        protocol, "convnet3", images, labels, images[:20], labels[:20], num_classes=10, ipc=4, seed=1, compile=compile,
        **given,
    )  # fmt: skip


def computed(result: StudentResult) -> list[Any]:
    fields = dataclasses.asdict(result) | {"predictions": result.predictions.tolist(), "determinism": None}
    del fields["look"]  # a function
    return [value for name, value in sorted(fields.items()) if not name.endswith("seconds")]


def of(result: StudentResult) -> list[str]:
    assert result.determinism is not None
    found: list[str] = result.determinism["compiled"]
    return found


def test_calls_are_those_that_a_training_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    made, planned = Counter[Call](), dict[Call, int]()

    class Counting(Forward):
        def __call__(self, images: Tensor) -> Tensor:
            made[Call(self.network.training, len(images))] += 1
            return super().__call__(images)

    def decide(network: nn.Module, choice: str, calls: dict[Call, int], image_shape: tuple[int, int, int]) -> Forward:
        assert image_shape == SHAPE
        planned.update(calls)
        return Counting(network)

    monkeypatch.setattr(trainer, "decide", decide)
    train("auto")
    assert planned == made == {Call(True, 16): 8, Call(True, 8): 4, Call(False, 20): 2}


# When it pays


class Clocked(nn.Module):
    """A network on a clock of its own: as it is, a call takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.now = nn.Linear(3, 10), 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.now += 1
        return self.layer(x.mean((2, 3)))

    def compiler(self, cost: float, share: float) -> Callable[..., Any]:
        def compile(traced: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
            self.now += cost - share

            def run(*given: Any) -> Any:
                self.now += share
                return traced(*given)

            return run

        return compile


TRAINING, REST = Call(True, 16), Call(True, 8)


@pytest.mark.parametrize(
    ("often", "cost", "share", "expected"),
    [
        ({TRAINING: 99}, 10, 0.5, None),  # too few to look at
        ({TRAINING: 60, REST: 60}, 10, 0.5, []),  # each would save 18 s, it is thought, and compiling takes 20
        ({TRAINING: 100}, 10, 0.5, [TRAINING]),
        ({TRAINING: 100, REST: 30}, 10, 0.5, [TRAINING, REST]),  # now it is known to take 10 s, and to save 15
        ({TRAINING: 100, REST: 19}, 10, 0.5, [TRAINING]),
        ({TRAINING: 100, REST: 60}, 31, 0.5, [TRAINING]),
        ({TRAINING: 100}, 10, 0.96, []),
    ],
)
def test_what_saves_less_than_it_costs_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
    compiler: Any,
    often: dict[Call, int],
    cost: float,
    share: float,
    expected: list[Call] | None,
) -> None:
    clocked = Clocked()
    compiler(clocked.compiler(cost, share))
    monkeypatch.setattr(compiled, "_clock", lambda device: clocked.now)
    monkeypatch.setattr(compiled, "each_image_alone", lambda network: True)
    found = compiled.decide(clocked, "auto", often, (3, 8, 8))
    assert (found and sorted(found.calls)) == (expected and sorted(expected))


def test_a_cpus_clock_is_of_this_process_and_of_the_compilers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """g++ is a process beside this one: without it compiling would seem to cost a few seconds only."""
    used = {
        resource.RUSAGE_SELF: SimpleNamespace(ru_utime=1.0, ru_stime=2.0),
        resource.RUSAGE_CHILDREN: SimpleNamespace(ru_utime=10.0, ru_stime=20.0),
    }
    monkeypatch.setattr(resource, "getrusage", used.__getitem__)
    assert compiled._clock(torch.device("cpu")) == 33


def test_only_what_was_tested_is_compiled_without_being_asked(compiler: Any) -> None:
    compiler(broken)
    often = {Call(True, 16): 10**6}
    assert compiled.decide(network(), "never", often, SHAPE) is None
    assert compiled.decide(network(nn.BatchNorm2d(1)), "auto", often, SHAPE) is None
    assert compiled.decide(network().to("meta"), "auto", often, SHAPE) is None
    asked = compiled.decide(network(nn.BatchNorm2d(1)), "always", often, SHAPE)
    assert asked is not None
    assert "no C++ compiler here" in str(asked.problem)


# What is not trusted


@pytest.mark.parametrize(
    ("backend", "said"),
    # Which call is tried first is a matter of seconds.
    [(broken, "no C\\+\\+ compiler here"), (scaling(1.02), r"(train|test) \d+ differs by 0\.\d+")],
)
def test_a_compiler_that_fails_or_errs_leaves_a_training_as_it_was(compiler: Any, backend: Any, said: str) -> None:
    expected = train("never")
    assert of(expected) == []
    compiler(backend)
    state = torch.get_rng_state()
    found = train("always")
    assert torch.equal(torch.get_rng_state(), state)
    assert computed(found) == computed(expected)
    assert of(found) == []
    assert found.determinism is not None
    assert re.search(said, found.determinism["not_compiled"])


def test_code_that_gives_no_numbers_is_not_trusted(compiler: Any) -> None:
    compiler(scaling(float("nan")))
    found = compiled.decide(network(), "always", {Call(False, 4): 1}, SHAPE)
    assert found is not None
    assert (found.calls, found.problem) == ((), "the compiled network's test 4 differs by nan")


def test_looking_leaves_no_trace_in_batchnorm(compiler: Any) -> None:
    compiler(scaling(1.0))
    net = network(nn.BatchNorm2d(1))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = compiled.decide(net, "always", {Call(True, 16): 1, Call(False, 4): 1}, SHAPE)
    assert found is not None
    assert found.calls == (Call(False, 4), Call(True, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


# What was decided stays


class Killed(Exception):
    pass


@pytest.mark.parametrize(("begun", "asked"), [("always", "never"), ("never", "always")])
def test_a_killed_training_goes_on_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Any, begun: str, asked: str
) -> None:
    compiler(scaling(1.001))  # so little is trusted, and a training shows it
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    undisturbed = train(begun)
    assert computed(undisturbed) != computed(train(asked))

    def kill(report: EpochReport) -> None:
        if report.epoch == 2:
            raise Killed

    file = tmp_path / "student.pt"
    with pytest.raises(Killed):
        train(begun, checkpoint=file, on_epoch=kill)
    resumed = train(asked, checkpoint=file)
    assert computed(resumed) == computed(undisturbed)
    assert of(resumed) == of(undisturbed) == (["test 20", "train 8", "train 16"] if begun == "always" else [])


def test_what_was_measured_is_kept_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Any
) -> None:
    """Killed within the first minute, a training would otherwise measure again, and find otherwise."""
    compiler(scaling(1.001))
    file = tmp_path / "student.pt"
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "train_epoch", lambda *args, **given: _raise())
        with pytest.raises(Killed):
            train("always", checkpoint=file)
    assert of(train("never", checkpoint=file)) == ["test 20", "train 8", "train 16"]


def _raise() -> None:
    raise Killed


def test_a_compiler_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Any) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    compiler(scaling(1.001))
    file = tmp_path / "student.pt"
    train("always", checkpoint=file)
    compiler(broken)
    resumed = train("always", checkpoint=file)
    assert of(resumed) == []
    assert resumed.determinism is not None
    assert resumed.determinism["not_compiled"].startswith("compiled up to epoch 4, then not: ")


# PyTorch's compiler itself


def children() -> set[str]:
    """Process ids: other tests of this process have left some, such as fork servers."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs a C++ compiler here")
def test_the_compiler_gives_the_same_bits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor_someone")  # as importing PyTorch leaves it
    call = Call(True, 8)
    layers = nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    net = nn.Sequential(*layers)  # what a student consists of; compiling more takes its time
    given, before = [], children()
    for _ in range(2):
        found = compiled.as_decided(net, [call], SHAPE)
        assert found.calls == (call,), found.problem
        given.append(compiled._Run(net, found, call, SHAPE))
    assert all(map(torch.equal, given[0].given, given[1].given))
    assert 0 < given[0].difference(compiled._Run(net, net, call, SHAPE)) < 1e-5
    assert list((tmp_path / "compiled").iterdir())
    assert children() <= before, "no process of the compiler is left behind"
