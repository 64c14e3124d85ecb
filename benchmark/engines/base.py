"""The contract of an engine: where cells run. It only starts them; the files in a cell's directory say the rest.

The runner decides what runs when. An engine offers slots, starts a cell in one, says whether it has ended, and ends
it when told to. Nothing comes back but an exit status, so other machines fit as well as a local process. No call of the
runner's loop may block: what takes time is asked for, and answered at a later look.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.store import Launch


@dataclass(frozen=True)
class Slot:
    """A place where one cell runs at a time, or on a GPU as many students as a run asks for."""

    index: int
    device: str
    """Device that the cell is told: `cpu`, `cuda:0`, …"""
    node: str | None = None
    """The machine that it is on; None for this one."""
    cores: int | None = None
    """The most threads of a cell there; None: as planned."""


@dataclass(frozen=True)
class Needs:
    """What the cells of a run ask of the machines."""

    out: Path
    """Results folder, which every machine must see under this name."""
    threads: int = 1
    """Threads of a cell on a CPU."""


class Handle(ABC):
    """A started cell."""

    @abstractmethod
    def exit_status(self) -> int | None:
        """None while it lives (or nothing is known of it); negative: ended by that signal."""

    @property
    def lost(self) -> str | None:
        """What took its process with it, if something did: its status says nothing then."""
        return None

    @abstractmethod
    def terminate(self) -> None:
        """Ask it to stop: SIGTERM. It leaves no result and can be resumed."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""


class Engine(ABC):
    """Starts cells, each in a process of its own."""

    notes: tuple[str, ...] = ()
    """What people should know of how cells run here, one sentence each; `open` knows."""
    here = True
    """Cells run on this machine: its cores and memory say how many, and its measured rates how long."""
    detaches = False
    """Cells go on where this process leaves them (`detach`)."""

    def join(self, address: str | None) -> None:
        """Reach the machines where cells are to run; again, it does nothing.

        Raises:
            UsageError: they cannot be reached, or are not chosen by an address.
        """
        if address is not None:
            raise UsageError("--address says where a Ray cluster is: --engine ray, or leave it out")

    def device(self, asked: str) -> str | None:
        """`cpu`, `cuda`, `cuda:0`: what `--device` means on the machines where cells are to run; None: as on this one.

        Raises:
            UsageError: they have no such device.
        """
        return None

    @abstractmethod
    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        """Get ready and return the slots, at most `jobs` of them.

        Raises:
            UsageError: this engine cannot give that many, or not on that device.
        """

    def slots(self, opened: list[Slot]) -> list[Slot]:
        """The slots as they are now, where those that `open` gave come and go."""
        return opened

    @abstractmethod
    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        """Start the cell whose directory is `cell`, where its `spec.json` lies, as `launch` says. The directory's
        `launch.json` may be that of another run, on another machine."""

    def detach(self) -> None:
        """Leave the cells that run to themselves; those that end find nobody, and the same command finds them."""

    def stop_left(self) -> None:
        """Ask the cells to stop that an earlier run left to themselves here."""

    @abstractmethod
    def close(self) -> None:
        """Give back what `open` took; every cell has ended by then, or was left to itself."""
