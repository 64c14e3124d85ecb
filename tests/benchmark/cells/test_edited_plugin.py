"""An author edits a method's file while it runs and after: no set, and no artefact, is of another text than it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddbench.benchmark.cells.cell import EXIT_FAILED, EXIT_OK, run_cell
from ddbench.benchmark.core.registry import METHODS, load_plugin
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.digits import Digits
from ddbench.datasets.image_sets import read_set

PLUGIN = '''
from functools import partial
import numpy as np
from ddbench.methods.base import CostClass, DistilledImage, Method

GREY = {grey}

def made(value):
    return {{"grey": np.array([value])}}

class Grey(Method):
    """Images of one grey, which it keeps as what takes long."""
    name = "grey-artefact"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    uses_seed = False

    def distill(self, task):
        (grey,) = task.cache.arrays("grey", {{"train": task.train_hash}}, {make})["grey"]
        yield [DistilledImage(c, 0, np.full((8, 8, 1), grey, np.uint8)) for c in task.class_indices]
'''


@pytest.fixture(params=["lambda: {'grey': np.array([GREY])}", "partial(made, GREY)", "self.kept"])
def author(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Author:
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))
    return Author(tmp_path, request.param)


class Author:
    def __init__(self, folder: Path, make: str) -> None:
        self.file, self.store, self.make = folder / "grey.py", Store(folder / "runs"), make
        self.store.create()

    def writes(self, grey: int) -> None:
        text = PLUGIN.format(grey=grey, make=self.make)
        self.file.write_text(text + f"    def kept(self):\n        return made(GREY)\n# {self.file}")

    def plans(self) -> CellDir:
        """The cell of the one set."""
        load_plugin(self.file)
        flags = {"methods": "grey-artefact", "datasets": "digits", "ipc": "1", "seeds": "0", "device": "cpu"}
        plan = plan_run(run_spec({}, flags | {"plugins": [self.file]}))[0]
        planned, spec = next(iter(plan.cells()))
        return self.store.add(spec, planned.launch)

    def grey_of(self, cell: CellDir) -> set[int]:
        result = cell.result()
        assert result is not None
        sha256 = result.image_set_sha256
        assert sha256 is not None
        return set(np.unique(read_set(self.store.set_dir(sha256), Digits.class_ids, 1).pixels).tolist())


def test_what_an_edited_file_makes_is_not_what_it_made_before(author: Author) -> None:
    found = []
    for grey in (10, 200, 10):
        author.writes(grey)
        cell = author.plans()
        assert run_cell(cell.path) == EXIT_OK
        found.append(author.grey_of(cell))
    assert found == [{10}, {200}, {10}]
    assert len(list(author.store.artefacts.glob("grey/*/grey.npy"))) == 2, "the third cell found the first one's"


def test_a_cell_does_not_run_another_text_than_was_planned(author: Author) -> None:
    author.writes(10)
    cell = author.plans()
    author.writes(200)
    assert run_cell(cell.path) == EXIT_FAILED
    result = cell.result()
    assert result is not None
    assert "has changed since this run was planned" in (result.reason or "")
    author.writes(10)
    assert not author.plans().finished(), "with the text that it was planned with it is tried again"
    assert run_cell(cell.path) == EXIT_OK
    assert author.grey_of(cell) == {10}
