"""What must be there before a GPU is pretended."""

from __future__ import annotations

from collections.abc import Iterator

import ot.backend
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def pot_without_a_gpu() -> None:
    """POT keeps its backend for PyTorch, and in its first use draws generators and tensors on every GPU by their names,
    which no pretence reaches."""
    ot.backend.get_backend(torch.zeros(1))


@pytest.fixture
def this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cells set handlers and threads of their process, which here is the tests' own."""
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
