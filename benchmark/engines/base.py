"""The contract of an engine: where cells run. It only starts them; the files in a cell's directory say the rest.

The runner decides what runs when. An engine offers slots, starts a cell in one, says whether it has ended, and ends
it when told to. Nothing comes back but an exit status, so a cluster's queue fits as well as a local process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ddbench.benchmark.core.store import Launch


@dataclass(frozen=True)
class Slot:
    """A place where one cell runs at a time, or on a GPU as many students as a run asks for."""

    index: int
    device: str
    """Device that the cell is told: `cpu`, `cuda:0`, …"""


class Handle(ABC):
    """A started cell."""

    @abstractmethod
    def exit_status(self) -> int | None:
        """None while it lives (or waits in a queue); negative: ended by that signal."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask it to stop: SIGTERM, `scancel`, … It leaves no result and can be resumed."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""


class Engine(ABC):
    """Starts cells, each in a process of its own."""

    notes: tuple[str, ...] = ()
    """What people should know of how cells run here, one sentence each; `open` knows."""

    @abstractmethod
    def open(self, *, jobs: int, device: str) -> list[Slot]:
        """Get ready and return the slots: `jobs` of them.

        Raises:
            UsageError: this engine cannot give that many, or not on that device.
        """

    @abstractmethod
    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        """Start the cell whose directory is `cell`, where its `spec.json` lies, as `launch` says. The directory's
        `launch.json` may be that of another run, on another machine."""

    @abstractmethod
    def close(self) -> None:
        """Give back what `open` took; every cell has ended by then."""
