"""Numbers between the host and a GPU, so that the host does not wait for the work that it has given the GPU before.

A copy from or to ordinary memory waits for all of it. One from pinned memory takes its place in the queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def send(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`numbers` on the device; those of the host on their way there without the host waiting."""
    if device.type == "cuda" and numbers.device.type == "cpu":
        numbers = numbers.pin_memory()  # a copy of its own, and PyTorch keeps it until it has been read
    # The other way the host has to wait, or it reads what has not arrived: `Arriving` does so late.
    return numbers.to(device, non_blocking=device.type == "cuda")


class Arriving:
    """Numbers on their way to the host. Whoever reads them waits until they are there, not for work begun later.

    Args:
        numbers: on any device, not to be changed afterwards.
    """

    def __init__(self, numbers: torch.Tensor) -> None:
        import torch

        self._arrived: Any = None
        self._numbers = numbers
        if numbers.device.type == "cuda":
            self._numbers = numbers.to("cpu", non_blocking=True)  # PyTorch makes the target of such a copy pinned
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def tolist(self) -> list[Any]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._numbers.tolist()
