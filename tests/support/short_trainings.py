"""Every registered protocol at its smallest: short trainings of small students on images of 16 px."""

from __future__ import annotations

from typing import Any

import torch

from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.epoch import to_device
from ddbench.benchmark.protocols.lengths import Updates
from ddbench.benchmark.protocols.soft.committees import Committee
from ddbench.benchmark.protocols.soft.outputs import CommitteeOutput


def shortened(name: str, *, epochs: int, looks: int = 1, batch_size: int = 8, updates: int | None = None) -> Protocol:
    """A protocol by its name, cut.

    Args:
        updates: of one whose length is counted in them; None: three an epoch.
    """
    protocol: Protocol = PROTOCOLS.load(name)
    given: dict[str, Any] = {"looks": looks, "batch_size": batch_size, "image_size": 16}
    if isinstance(protocol.epochs, Updates):
        given["updates"] = 3 * epochs if updates is None else updates
    else:
        given["epochs"] = epochs
    if protocol.width is not None:
        given["width"] = 4
    if protocol.rates is not None:
        given["learning_rate"] = 0.001  # it has rates for its program's cells alone
    return protocol.with_overrides(given)


def teacher_of(protocol: Protocol, device: torch.device) -> torch.nn.Module | None:
    """Networks that are not trained; two of them for a committee."""
    if protocol.teacher is None:
        return None
    seeds = (0, 1) if isinstance(protocol.teacher, Committee) else (0,)
    members = [networks.build("convnet3", 10, 16, 3, 16, generator=torch.Generator().manual_seed(s)) for s in seeds]
    members = [to_device(one, device).eval().requires_grad_(False) for one in members]
    if not isinstance(protocol.teacher, Committee):
        return members[0]
    return CommitteeOutput(members, (0.25, 0.75), scaled=bool(protocol.teacher.scaled)).eval()
