"""What must be there before a GPU is pretended."""

from __future__ import annotations

import ot.backend
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def pot_without_a_gpu() -> None:
    """POT keeps its backend for PyTorch, and in its first use draws generators and tensors on every GPU by their names,
    which no pretence reaches."""
    ot.backend.get_backend(torch.zeros(1))
