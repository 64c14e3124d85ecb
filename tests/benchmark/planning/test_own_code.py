"""What authors edit beside a plugin, or in a package, is noted by cells and told when they are reused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.commands import cli
from ddbench.benchmark.core.registry import METHODS, load_plugin
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.own_code import changed_since, own_code
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec

PLUGIN = '''
import numpy as np
from ddbench.methods.base import CostClass, DistilledImage, Method

class Helped(Method):
    """Images of the grey that a file beside this one says."""
    name = "helped"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    uses_seed = False

    def distill(self, task):
        from greys_of_helped.light import GREY
        yield [DistilledImage(c, 0, np.full((8, 8, 1), GREY, np.uint8)) for c in task.class_indices]
'''


class Author:
    def __init__(self, folder: Path) -> None:
        self.package, self.plugin, self.store = folder / "greys_of_helped", folder / "helped.py", Store(folder / "runs")
        self.package.mkdir()
        (self.package / "__init__.py").write_text("")
        self.plugin.write_text(f"{PLUGIN}\n# {folder}\n")
        self.store.create()

    def writes(self, grey: int) -> str:
        text = f"GREY = {grey}\n"
        (self.package / "light.py").write_text(text)
        return hashlib.sha256(text.encode()).hexdigest()

    def runs(self) -> DistillResult:
        """The one set, made in this process."""
        load_plugin(self.plugin)
        flags = {"methods": "helped", "datasets": "digits", "ipc": "1", "seeds": "0", "device": "cpu"}
        plan = plan_run(run_spec({}, flags | {"plugins": [self.plugin]}))[0]
        planned, spec = next(iter(plan.cells()))
        cell = self.store.add(spec, planned.launch)
        assert run_cell(cell.path) == EXIT_OK
        result = cell.result()
        assert isinstance(result, DistillResult)
        return result

    def forgets(self) -> None:
        """As a new process, which has imported nothing of the package."""
        for name in [name for name in sys.modules if name.partition(".")[0] == self.package.name]:
            del sys.modules[name]


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Author:
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Author(tmp_path)
    made.forgets()
    return made


def test_what_a_cell_loads_beside_its_plugin_is_noted_and_compared(author: Author) -> None:
    before = author.writes(10)
    result = author.runs()
    empty = hashlib.sha256(b"").hexdigest()
    assert result.own_code == {"greys_of_helped": empty, "greys_of_helped.light": before}
    author.forgets()
    assert changed_since([result]) == {}
    author.writes(200)
    assert changed_since([result, result]) == {"greys_of_helped.light": 2}
    assert "greys_of_helped" not in sys.modules, "results may be another's: nothing that they name is imported"
    (author.package / "light.py").unlink()
    assert changed_since([result]) == {}, "what is not here says nothing"


def test_a_run_that_reuses_the_cell_says_so(author: Author) -> None:
    author.writes(10)
    author.runs()
    asked = ["run", "-m", "helped", "-d", "digits", "--ipc", "1", "--seeds", "0", "--device", "cpu", "--dry-run"]
    asked += ["--plugin", str(author.plugin), "--out", str(author.store.out)]
    same = CliRunner().invoke(cli.app, asked)
    assert same.exit_code == 0, same.output
    assert "other code" not in same.output
    author.writes(200)
    changed = CliRunner().invoke(cli.app, asked)
    said = " ".join(changed.output.split())
    assert "1 cell that is reused was run with other code than is here now (greys_of_helped.light)" in said


def test_the_package_of_an_installed_method_counts_though_it_was_there_before() -> None:
    import torch

    loaded = frozenset(sys.modules)
    assert own_code(METHODS.load("random"), loaded) == {}, "ddbench's own, whose commit the environment says"
    of_torch = own_code(torch.nn.Module, loaded)
    assert "torch.nn.modules.module" in of_torch
    assert {name.partition(".")[0] for name in of_torch} == {"torch"}
    assert own_code(None, loaded) == {}
