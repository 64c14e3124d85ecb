"""The process-wide state that a contestant must leave as it found it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ddbench.benchmark.core.seeds import global_generators_kept


@dataclass(frozen=True)
class GlobalState:
    """Global random generators and settings of torch, NumPy and Python at one moment."""

    torch_random: bytes
    numpy_random: tuple[bytes, int]
    python_random: tuple[Any, ...]
    gradients: bool
    default_dtype: str
    threads: int
    deterministic: bool
    tf32: tuple[bool, bool]

    @classmethod
    def now(cls) -> GlobalState:
        legacy: Any = np.random.get_state()  # noqa: NPY002 - the global generator is what is looked at
        return cls(
            torch_random=torch.get_rng_state().numpy().tobytes(),
            numpy_random=(legacy[1].tobytes(), legacy[2]),
            python_random=random.getstate(),
            gradients=torch.is_grad_enabled(),
            default_dtype=str(torch.get_default_dtype()),
            threads=torch.get_num_threads(),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            tf32=(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        )

    @classmethod
    @contextmanager
    def kept(cls) -> Iterator[None]:
        """Put everything back after the block, whatever it did."""
        before = cls.now()
        torch_state = torch.get_rng_state()
        dtype = torch.get_default_dtype()
        try:
            with global_generators_kept():
                yield
        finally:
            torch.set_rng_state(torch_state)
            torch.set_grad_enabled(before.gradients)
            torch.set_default_dtype(dtype)
            torch.set_num_threads(before.threads)
            torch.use_deterministic_algorithms(before.deterministic)
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before.tf32

    def changed(self, later: GlobalState) -> list[str]:
        """The fields that differ, in words."""
        return [f.name.replace("_", " ") for f in fields(self) if getattr(self, f.name) != getattr(later, f.name)]
