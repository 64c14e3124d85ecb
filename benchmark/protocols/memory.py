"""GPU memory of a training, before it begins: what a step takes, and which images may then lie on the device."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

USABLE = 0.9
"""Share of the free memory that is planned with: what the allocator cannot join is the rest."""
KERNELS = 1.3
"""What a GPU's kernels take for a step, by what is counted without one: convolutions work beside their tensors."""
STATES = 2
"""Numbers that an optimiser keeps for each weight, at most."""


def step_bytes(
    student: nn.Module,
    shape: tuple[int, int, int, int],
    teacher: nn.Module | nn.ModuleList | None = None,
    *,
    running_mean: bool = False,
) -> int:
    """The most bytes that a training step has allocated at any moment: weights and their running mean, activations,
    gradients, the optimiser's states, and the teacher's activations, of several the largest's. Counted on the meta
    device, where nothing is computed.

    Args:
        student, teacher: copies on the meta device.
        shape: of a batch of images, (B, C, S, S).
        running_mean: whether a mean of the student's weights is kept beside them (`Protocol.weight_average`).
    """
    student.zero_grad()
    images = torch.empty(shape, device="meta")
    weights = sum(p.numel() * p.element_size() for p in student.parameters())
    with _Allocations() as allocated:
        if teacher is not None:
            with torch.no_grad():
                for one in teacher if isinstance(teacher, nn.ModuleList) else [teacher]:
                    one(images)
        student.train()(images).sum().backward()
    batch = images.numel() * (1 + 4 + 4)  # raw, augmented, mixed
    return int(KERNELS * allocated.peak) + (1 + running_mean + STATES) * weights + batch


def resident(free_bytes: int, step_bytes: int, train_bytes: int, test_bytes: int) -> tuple[bool, bool]:
    """Whether the training images may lie on the device as a whole, and the test images beside them. The step comes
    first, then the training images, which are read in every epoch; what does not fit is streamed."""
    room = int(USABLE * free_bytes) - step_bytes
    train = train_bytes <= room
    return train, test_bytes <= room - train * train_bytes


class _Allocations(TorchDispatchMode):
    """Bytes of the tensors that are made inside the block and still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(  # type: ignore[override, unused-ignore]
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._known and id(storage) not in before:
                    self._known[storage] = True
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _free(self, size: int) -> None:
        self.now -= size
