"""docs/from-python.ipynb runs from its first cell to its last, and is kept without output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "from-python.ipynb"


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_output(notebook: Any) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert "outputs" not in cell or cell.outputs == []
        assert cell.get("execution_count") is None
        assert not cell.metadata


def test_it_runs_and_shows_what_it_says(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    ran = client.execute()
    outputs = [output for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in outputs)
    assert "8 distilled sets and 8 students: 16 done" in text
    assert "unknown method 'randon'; did you mean 'random'" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    progress = [output for output in outputs if "16/16 cells" in output.get("data", {}).get("text/plain", "")]
    assert len(progress) == 1, "one output that is replaced, not a line for each cell"
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
