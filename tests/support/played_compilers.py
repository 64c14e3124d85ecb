"""Compilers for `torch.compile` that are quick, and told apart by what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def scaling(factor: float) -> Callable[..., Any]:
    """A compiler whose code gives `factor` times what the network gives."""

    def compiler(traced: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
        return lambda *given: tuple(factor * out for out in traced(*given))

    return compiler


def broken(traced: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
    raise OSError("no C++ compiler here")
