"""`bench new-method`: a plugin file with a method that runs as it is, and its test."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS

new_method_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

PLUGIN = '''"""{title}: say here what it does, and where it is published."""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from pydantic import Field


class {class_name}(Method):
    """Means of a few real images of a class, drawn at random."""

    name = "{name}"
    version = 1  # raise it whenever the images for given parameters and seed change
    cost_class = CostClass.TRAINING_FREE

    class Params(base.Params):
        images_mixed: Annotated[int, Field(ge=1, description="Real images that make one distilled image.")] = 2

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        wanted = [(c, i) for c in task.class_indices for i in range(task.ipc) if (c, i) not in task.done]
        for start in range(0, len(wanted), task.batch_size):
            # A round: images that are finished together. It is on disk before the next one begins.
            yield [self.make(task, c, i) for c, i in wanted[start : start + task.batch_size]]

    def make(self, task: DistillTask, class_index: int, image_index: int) -> DistilledImage:
        real = task.train.of_class(class_index)
        # Every draw has a stream of its own, so that an image depends on nothing but its name and the seed.
        stream = task.stream("mixture", task.class_ids[class_index], image_index)
        picks = torch.randperm(len(real), generator=stream)[: self.params.images_mixed].numpy()
        mean = task.train.read(real[picks]).mean(0)
        return DistilledImage(class_index, image_index, np.rint(mean).astype(np.uint8))
'''

TEST = '''"""{title}: keeps the contract, and does what it says."""

from pathlib import Path

import numpy as np
import pytest
from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.check import check_method, named
from ddbench.benchmark.check.runs import SmallRuns
from ddbench.benchmark.core.registry import METHODS

PLUGIN = Path(__file__).with_name("{plugin}")
(NAME, _), *_ = named([str(PLUGIN)], {{}})


@pytest.fixture(scope="module")
def planted() -> Planted:
    """A small part of digits, whose test images are canaries."""
    return Planted()


def test_it_keeps_its_contract(planted: Planted) -> None:
    report = check_method(NAME, {{}}, planted)
    assert not report.failed, [finding for finding in report.findings if finding.outcome == "fail"]


def test_a_mixture_of_one_is_a_real_image_of_its_class(planted: Planted, tmp_path: Path) -> None:
    method, train = METHODS.load(NAME), planted.split.train
    images = SmallRuns(method, method.Params(images_mixed=1), planted, tmp_path).run()
    for (class_index, _), image in images.items():
        real = train.read(train.of_class(class_index))
        assert any(np.array_equal(image.pixels, one) for one in real)
'''


@new_method_app.command("new-method")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What tables call it: small-letters-and-hyphens.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The plugin file to write.", show_default="NAME.py, with _ for -"),
    ] = None,
) -> None:
    """Write a new method's plugin file, which runs as it is, and a test for it."""
    plugin, test = write(name, out)
    Console().print(next_steps(name, plugin, test), markup=False, highlight=False, soft_wrap=True)


def write(name: str, out: Path | None) -> tuple[Path, Path]:
    """Write the plugin file and its test beside it; returns both paths.

    Raises:
        UsageError: a name that cannot be one or is taken, or a file that is there already; then nothing is written.
    """
    plugin = out or Path(f"{name.replace('-', '_')}.py")
    test = plugin.with_name(f"test_{plugin.name}")
    if NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r}: expected a name of small letters, digits and single hyphens, like mean-shift")
    if name in METHODS.entries():
        raise UsageError(f"there is a method {METHODS.entry(name)}; choose another name")
    if plugin.suffix != ".py" or not plugin.stem.isidentifier():
        raise UsageError(f"--out {plugin}: expected a Python file whose name can be imported, like {_example(name)}")
    if plugin.stem in sys.stdlib_module_names:
        raise UsageError(f"{plugin.name} would hide Python's own module {plugin.stem}; name another with --out")
    if not plugin.parent.is_dir():
        raise UsageError(f"--out {plugin}: there is no folder {plugin.parent}")
    there = [str(path) for path in (plugin, test) if path.exists()]
    if there:
        raise UsageError(f"{' and '.join(there)}: there already, and not overwritten; name another file with --out")
    words = name.split("-")
    fields = {
        "name": name,
        "title": " ".join(words).capitalize(),
        "class_name": "".join(word.capitalize() for word in words),
        "plugin": plugin.name,
    }
    plugin.write_text(PLUGIN.format(**fields))
    test.write_text(TEST.format(**fields))
    return plugin, test


def _example(name: str) -> str:
    return f"{name.replace('-', '_')}.py"


def next_steps(name: str, plugin: Path, test: Path) -> str:
    """What to do with the files, as commands."""
    return (
        f"Wrote {plugin} and {test}. They run as they are:\n"
        f"  bench check {plugin}\n"
        f"  python -m pytest {test}\n"
        f"  bench run --plugin {plugin} --method {name},random,full --dataset digits --ipc 1,10"
    )
